package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// redrawEvery is the least time between two pictures of the live table.
const redrawEvery = 100 * time.Millisecond

func (a *app) watchCommand() *cobra.Command {
	var sel protocol.Selector
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "watch [SKU...]", Short: "Follow items: a live table on a terminal, a line per change otherwise",
		Example: "  stockctl watch tee-red-m mug\n  stockctl watch --prefix tee- -l store-12\n  stockctl watch --all --json",
		RunE: func(cmd *cobra.Command, skus []string) error {
			sel.SKUs = skus
			if len(skus)+len(sel.Prefixes)+len(sel.Locations) == 0 {
				sel.All = true
			}
			return a.long(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.watch(ctx, c, sel, interval)
			})
		},
	}
	cmd.Flags().StringSliceVar(&sel.Prefixes, "prefix", nil, "SKUs that start so")
	cmd.Flags().StringSliceVarP(&sel.Locations, "location", "l", nil, "only these locations")
	cmd.Flags().BoolVar(&sel.All, "all", false, "every SKU (the default where nothing is named)")
	cmd.Flags().DurationVar(&interval, "interval", 0, "least time between two changes of one item")
	return cmd
}

func (a *app) watch(ctx context.Context, c *client.Client, sel protocol.Selector, interval time.Duration) error {
	s, err := c.Subscribe(ctx, sel, client.SubscribeOptions{Interval: interval})
	if err != nil {
		return err
	}
	show := a.watchLines
	if isTerminal(a.out) && !a.json {
		show = a.liveTable(ctx)
	}
	for {
		u, err := s.Next(ctx)
		if err != nil {
			return watchEnd(err)
		}
		if err := show(u); err != nil {
			return err
		}
	}
}

// watchEnd: stopping a watch is how it is meant to end.
func watchEnd(err error) error {
	if err == context.Canceled {
		return nil
	}
	return err
}

func (a *app) watchLines(u client.Update) error {
	if a.json {
		return printJSON(a.out, u.Items...)
	}
	for _, it := range u.Items {
		if _, err := fmt.Fprintf(a.out, "%s %s available=%d on_hand=%d reserved=%d version=%s\n",
			it.SKU, it.Location, it.Available, it.OnHand, it.Reserved, it.Version); err != nil {
			return err
		}
	}
	return nil
}

// liveTable redraws the whole table, as many items as the terminal has lines.
func (a *app) liveTable(ctx context.Context) func(client.Update) error {
	items := map[protocol.ItemKey]protocol.Item{}
	var drawn time.Time
	return func(u client.Update) error {
		for _, it := range u.Items {
			items[protocol.ItemKey{SKU: it.SKU, Location: it.Location}] = it
		}
		// Changes gather in the subscription meanwhile.
		if err := pause(ctx, redrawEvery-time.Since(drawn)); err != nil {
			return watchEnd(err)
		}
		drawn = time.Now()
		return a.draw(items, u.Current)
	}
}

func (a *app) draw(items map[protocol.ItemKey]protocol.Item, current bool) error {
	rows := make([]protocol.Item, 0, len(items))
	for _, it := range items {
		rows = append(rows, it)
	}
	slices.SortFunc(rows, compareItems)
	total := len(rows)
	if _, height, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		rows = rows[:min(total, max(0, height-4))]
	}
	state := "current"
	if !current {
		state = "not connected, may be old"
	}
	fmt.Fprintf(a.out, "\x1b[H\x1b[2J%d items, %s\n\n", total, state)
	return itemTable(a.out, rows)
}

func compareItems(a, b protocol.Item) int { return a.Key().Compare(b.Key()) }
