package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func (a *app) onReservation(ctx context.Context, do func(context.Context, *client.Client) (protocol.Reservation, error)) error {
	return a.short(ctx, func(ctx context.Context, c *client.Client) error {
		r, err := do(ctx, c)
		if err != nil {
			return err
		}
		return a.printReservation(r)
	})
}

func (a *app) reserveCommand() *cobra.Command {
	var w writeFlags
	var location, user string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "reserve SKU=QUANTITY...", Short: "Hold the units of all lines or of none", Args: cobra.MinimumNArgs(1),
		Example: "  stockctl reserve tee-red-m=2 mug=1 --ttl 15m --user ada",
		RunE: func(cmd *cobra.Command, args []string) error {
			lines, err := parseLines(args, location)
			if err != nil {
				return err
			}
			options := append(w.options(cmd), client.TTL(ttl), client.User(user))
			return a.onReservation(cmd.Context(), func(ctx context.Context, c *client.Client) (protocol.Reservation, error) {
				return c.Reserve(ctx, lines, options...)
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", protocol.ReserveMSDefault*time.Millisecond, "how long to hold them, 1s to 4h")
	cmd.Flags().StringVar(&user, "user", "", "whom they are for")
	return locationFlag(w.add(cmd), &location)
}

func (a *app) confirmCommand() *cobra.Command {
	var w writeFlags
	return w.add(&cobra.Command{
		Use: "confirm RESERVATION", Short: "Sell what a reservation holds", Args: cobra.ExactArgs(1),
		Example: "  stockctl confirm eu.01JD8Q",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onReservation(cmd.Context(), func(ctx context.Context, c *client.Client) (protocol.Reservation, error) {
				return c.Confirm(ctx, args[0], w.options(cmd)...)
			})
		},
	})
}

func (a *app) releaseCommand() *cobra.Command {
	var w writeFlags
	return w.add(&cobra.Command{
		Use: "release RESERVATION", Short: "Give a reservation's units back", Args: cobra.ExactArgs(1),
		Example: "  stockctl release eu.01JD8Q",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onReservation(cmd.Context(), func(ctx context.Context, c *client.Client) (protocol.Reservation, error) {
				return c.Release(ctx, args[0], w.options(cmd)...)
			})
		},
	})
}

func (a *app) extendCommand() *cobra.Command {
	var w writeFlags
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "extend RESERVATION", Short: "Hold a reservation for longer", Args: cobra.ExactArgs(1),
		Example: "  stockctl extend eu.01JD8Q --ttl 30m",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onReservation(cmd.Context(), func(ctx context.Context, c *client.Client) (protocol.Reservation, error) {
				return c.Extend(ctx, args[0], ttl, w.options(cmd)...)
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", protocol.ReserveMSDefault*time.Millisecond, "how long from now; never shortens")
	return w.add(cmd)
}
