package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// writeFlags are the flags of every command that changes something.
type writeFlags struct{ key, home, reason, reference, ifVersion string }

func (f *writeFlags) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.key, "key", "", "idempotency key; the same key is done once (default: a new one)")
	cmd.Flags().StringVar(&f.home, "home", "", "region a repeated command was first sent to")
	cmd.Flags().StringVar(&f.reason, "reason", "", "kept in the history")
	cmd.Flags().StringVar(&f.reference, "reference", "", "kept in the history, such as an order number")
	return cmd
}

func (f *writeFlags) addIfVersion(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.ifVersion, "if-version", "", `only if the item has this version; "" = only if it does not exist`)
	return f.add(cmd)
}

func (f *writeFlags) options(cmd *cobra.Command) []client.Option {
	options := []client.Option{client.Key(f.key), client.Home(f.home), client.Reason(f.reason), client.Reference(f.reference)}
	if v := cmd.Flags().Lookup("if-version"); v != nil && v.Changed {
		options = append(options, client.IfVersion(f.ifVersion))
	}
	return options
}

func locationFlag(cmd *cobra.Command, location *string) *cobra.Command {
	cmd.Flags().StringVarP(location, "location", "l", protocol.DefaultLocation, "location")
	return cmd
}

func (a *app) getCommand() *cobra.Command {
	var locations []string
	var atLeast string
	cmd := &cobra.Command{
		Use: "get SKU...", Short: "Show items", Args: cobra.MinimumNArgs(1),
		Example: "  stockctl get tee-red-m 'BANK CHARGES'\n  stockctl get tee-red-m -l store-12",
		RunE: func(cmd *cobra.Command, skus []string) error {
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				items, err := c.Get(ctx, skus, client.Locations(locations...), client.AtLeast(atLeast))
				if err != nil {
					return err
				}
				return a.printItems(items...)
			})
		},
	}
	cmd.Flags().StringSliceVarP(&locations, "location", "l", nil, "locations (default: all)")
	cmd.Flags().StringVar(&atLeast, "at-least", "", "wait up to a second for this version")
	return cmd
}

// onItem is a command that changes one item and prints it.
func (a *app) onItem(do func(context.Context, *client.Client) (protocol.Item, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		return a.short(ctx, func(ctx context.Context, c *client.Client) error {
			it, err := do(ctx, c)
			if err != nil {
				return err
			}
			return a.printItems(it)
		})
	}
}

func (a *app) adjustCommand() *cobra.Command {
	var w writeFlags
	var location string
	cmd := &cobra.Command{
		Use: "adjust SKU DELTA", Short: "Add units to what is on hand, or take them away", Args: cobra.ExactArgs(2),
		Example: "  stockctl adjust tee-red-m 12 --reference delivery-7\n  stockctl adjust tee-red-m -1 --reason damaged",
		RunE: func(cmd *cobra.Command, args []string) error {
			delta, err := parseNumber("DELTA", args[1])
			if err != nil {
				return err
			}
			return a.onItem(func(ctx context.Context, c *client.Client) (protocol.Item, error) {
				return c.Adjust(ctx, args[0], location, delta, w.options(cmd)...)
			})(cmd.Context())
		},
	}
	return locationFlag(w.addIfVersion(cmd), &location)
}

func (a *app) countCommand() *cobra.Command {
	var w writeFlags
	var location string
	cmd := &cobra.Command{
		Use: "count SKU ON_HAND", Short: "Set what is on hand, after a stock take", Args: cobra.ExactArgs(2),
		Example: "  stockctl count tee-red-m 40\n  stockctl count tee-red-m 40 --if-version ''",
		RunE: func(cmd *cobra.Command, args []string) error {
			onHand, err := parseNumber("ON_HAND", args[1])
			if err != nil {
				return err
			}
			return a.onItem(func(ctx context.Context, c *client.Client) (protocol.Item, error) {
				return c.Count(ctx, args[0], location, onHand, w.options(cmd)...)
			})(cmd.Context())
		},
	}
	return locationFlag(w.addIfVersion(cmd), &location)
}

func (a *app) sellCommand() *cobra.Command {
	var w writeFlags
	var location string
	cmd := &cobra.Command{
		Use: "sell SKU=QUANTITY...", Short: "Sell all lines or none", Args: cobra.MinimumNArgs(1),
		Example: "  stockctl sell tee-red-m=2 mug=1 --reference order-17",
		RunE: func(cmd *cobra.Command, args []string) error {
			lines, err := parseLines(args, location)
			if err != nil {
				return err
			}
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				items, err := c.Sell(ctx, lines, w.options(cmd)...)
				if err != nil {
					return err
				}
				return a.printItems(items...)
			})
		},
	}
	return locationFlag(w.add(cmd), &location)
}

func (a *app) moveCommand() *cobra.Command {
	var w writeFlags
	cmd := &cobra.Command{
		Use: "move SKU FROM TO QUANTITY", Short: "Move units between two locations", Args: cobra.ExactArgs(4),
		Example: "  stockctl move tee-red-m main store-12 5",
		RunE: func(cmd *cobra.Command, args []string) error {
			quantity, err := parseNumber("QUANTITY", args[3])
			if err != nil {
				return err
			}
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				items, err := c.Move(ctx, args[0], args[1], args[2], quantity, w.options(cmd)...)
				if err != nil {
					return err
				}
				return a.printItems(items...)
			})
		},
	}
	return w.add(cmd)
}

func (a *app) configureCommand() *cobra.Command {
	var w writeFlags
	var location string
	var safety, backorder, low int64
	cmd := &cobra.Command{
		Use: "configure SKU", Short: "Change an item's safety stock, backorder limit or low-stock mark", Args: cobra.ExactArgs(1),
		Example: "  stockctl configure tee-red-m --safety-stock 2 --low-stock 10",
		RunE: func(cmd *cobra.Command, args []string) error {
			var s client.Settings
			for name, field := range map[string]struct {
				from *int64
				to   **int64
			}{"safety-stock": {&safety, &s.SafetyStock}, "backorder-limit": {&backorder, &s.BackorderLimit}, "low-stock": {&low, &s.LowStock}} {
				if cmd.Flags().Changed(name) {
					*field.to = field.from
				}
			}
			return a.onItem(func(ctx context.Context, c *client.Client) (protocol.Item, error) {
				return c.Configure(ctx, args[0], location, s, w.options(cmd)...)
			})(cmd.Context())
		},
	}
	cmd.Flags().Int64Var(&safety, "safety-stock", 0, "units never sold")
	cmd.Flags().Int64Var(&backorder, "backorder-limit", 0, "units that may be sold before they arrive")
	cmd.Flags().Int64Var(&low, "low-stock", 0, "mark the item low at this many available")
	return locationFlag(w.add(cmd), &location)
}

func (a *app) historyCommand() *cobra.Command {
	var location, region, before string
	var limit int
	cmd := &cobra.Command{
		Use: "history SKU", Short: "Show an item's movements, newest first", Args: cobra.ExactArgs(1),
		Example: "  stockctl history tee-red-m --limit 50",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				movements, next, err := c.History(ctx, args[0], location, client.Limit(limit), client.Region(region), client.Before(before))
				if err != nil {
					return err
				}
				if next != "" && !a.json {
					defer fmt.Fprintf(a.errOut, "older ones: --before %s\n", next)
				}
				return a.printMovements(movements)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "movements to show, up to 500")
	cmd.Flags().StringVar(&region, "region", "", "another region's movements")
	cmd.Flags().StringVar(&before, "before", "", "continue an earlier page")
	return locationFlag(cmd, &location)
}

func (a *app) outcomeCommand() *cobra.Command {
	var home string
	cmd := &cobra.Command{
		Use: "outcome KEY", Short: "Ask what became of a write", Args: cobra.ExactArgs(1),
		Example: "  stockctl outcome order-17-reserve",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				r, err := c.Do(ctx, protocol.Command{Op: protocol.OpOutcome, Key: args[0], Home: home})
				if err != nil {
					return err
				}
				return a.printOutcome(r)
			})
		},
	}
	cmd.Flags().StringVar(&home, "home", "", "region the write was sent to")
	return cmd
}

func (a *app) printOutcome(r client.Reply) error {
	if !r.Known || r.Earlier == nil {
		if a.json {
			return printJSON(a.out, map[string]bool{"known": false})
		}
		fmt.Fprintln(a.out, "not known: never applied, refused, or forgotten")
		return nil
	}
	ok := r.Earlier.OK
	if ok.Reservation != nil {
		return a.printReservation(*ok.Reservation)
	}
	if ok.Item != nil {
		ok.Items = append(ok.Items, *ok.Item)
	}
	return a.printItems(ok.Items...)
}

func parseNumber(name, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s must be a whole number, not %q", name, s)
	}
	return n, nil
}

// parseLines reads SKU=QUANTITY; the last = counts, for SKUs may hold others.
func parseLines(args []string, location string) ([]protocol.Line, error) {
	lines := make([]protocol.Line, 0, len(args))
	for _, s := range args {
		i := strings.LastIndexByte(s, '=')
		if i < 1 {
			return nil, fmt.Errorf("%q: want SKU=QUANTITY", s)
		}
		n, err := parseNumber("the quantity of "+s[:i], s[i+1:])
		if err != nil {
			return nil, err
		}
		lines = append(lines, protocol.Line{SKU: s[:i], Location: location, Quantity: n})
	}
	return lines, nil
}
