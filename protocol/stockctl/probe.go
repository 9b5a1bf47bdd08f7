package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

const (
	probeSKU = "stockmesh-probe"
	// probeUndo is for putting back what a failed probe has left.
	probeUndo = 5 * time.Second
	// probeHold ends a hold that could not be released.
	probeHold = time.Minute
)

func (a *app) probeCommand() *cobra.Command {
	p := probe{}
	cmd := &cobra.Command{
		Use: "probe", Short: "Try real commands on an item of its own, and take them back", Args: cobra.NoArgs,
		Long: `Try the commands that a shop lives from on an item that nobody sells: units come in, the
same command again changes nothing, some are held and released, one is sold, the item is
read, and what is left is taken out. Exit status 0 says that all of it worked.

Several probes may use the item at a time, and none leaves units in it. A token needs the
rights adjust, reserve, sell and watch for it.`,
		Example: "  stockctl probe\n  stockctl probe --sku 'probe of store 12' --timeout 5s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.short(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				p.client, p.out = c, a.out
				if a.json {
					p.out = io.Discard
				}
				if err := p.run(ctx); err != nil {
					return err
				}
				if a.json {
					return printJSON(a.out, map[string]any{"sku": p.sku, "took_ms": p.took.Milliseconds()})
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&p.sku, "sku", probeSKU, "item to use; it is made if it doesn't exist, and stays with nothing in it")
	cmd.Flags().StringVarP(&p.location, "location", "l", protocol.DefaultLocation, "location")
	return cmd
}

// probe is one run: what it has put in must be out again at its end.
type probe struct {
	client        *client.Client
	out           io.Writer
	sku, location string
	key           string // begins the keys of all its writes

	in      int64 // units that are in because of this run
	held    string
	version string
	took    time.Duration
}

func (p *probe) run(ctx context.Context) (err error) {
	begun := time.Now()
	p.key = "probe-" + rand.Text()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.undo(ctx))
		}
	}()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"two units come in", p.comeIn},
		{"the same command again changes nothing", p.again},
		{"one is held", p.hold},
		{"and released", p.release},
		{"one is sold", p.sell},
		{"the item is read", p.read},
		{"what is left is taken out", p.takeOut},
	} {
		at := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(p.out, "ok  %-40s %6.1f ms\n", step.name, float64(time.Since(at).Microseconds())/1000)
	}
	p.took = time.Since(begun)
	return nil
}

func (p *probe) adjust(delta int64, step string) protocol.Command {
	return protocol.Command{Op: protocol.OpAdjust, SKU: p.sku, Location: p.location, Delta: delta, Key: p.key + step, Reason: "probe"}
}

func (p *probe) lines() []protocol.Line {
	return []protocol.Line{{SKU: p.sku, Location: p.location, Quantity: 1}}
}

func (p *probe) comeIn(ctx context.Context) error {
	r, err := p.client.Do(ctx, p.adjust(2, "-in"))
	if err != nil {
		return err
	}
	p.in = 2
	if r.Item == nil || r.Item.OnHand < 2 {
		return fmt.Errorf("the answer shows %s", unitsOf(r.Item))
	}
	p.version = r.Item.Version
	return nil
}

// again looks at the answer, not at the item: another probe may have changed that.
func (p *probe) again(ctx context.Context) error {
	r, err := p.client.Do(ctx, p.adjust(2, "-in"))
	switch {
	case err != nil:
		return err
	case !r.Replayed:
		p.in += 2
		return errors.New("it was done twice")
	case r.Item == nil || r.Item.Version != p.version:
		return fmt.Errorf("the answer shows %s, and version %s the first time", unitsOf(r.Item), p.version)
	}
	return nil
}

func (p *probe) hold(ctx context.Context) error {
	r, err := p.client.Reserve(ctx, p.lines(), client.Key(p.key+"-hold"), client.TTL(probeHold))
	if err != nil {
		return err
	}
	p.held = r.ID
	return inState(r, protocol.Held)
}

func (p *probe) release(ctx context.Context) error {
	r, err := p.client.Release(ctx, p.held, client.Key(p.key+"-release"))
	if err != nil {
		return err
	}
	p.held = ""
	return inState(r, protocol.Released)
}

func (p *probe) sell(ctx context.Context) error {
	items, err := p.client.Sell(ctx, p.lines(), client.Key(p.key+"-sell"), client.Reason("probe"))
	if err != nil {
		return err
	}
	p.in--
	if len(items) != 1 {
		return fmt.Errorf("the answer shows %d items", len(items))
	}
	p.version = items[0].Version
	return nil
}

func (p *probe) read(ctx context.Context) error {
	items, err := p.client.Get(ctx, []string{p.sku}, client.Locations(p.location), client.AtLeast(p.version))
	if err != nil {
		return err
	}
	if len(items) != 1 || items[0].OnHand < p.in {
		return fmt.Errorf("there are %d items, where one with %d on hand should be", len(items), p.in)
	}
	return nil
}

func (p *probe) takeOut(ctx context.Context) error {
	if _, err := p.client.Do(ctx, p.adjust(-p.in, "-out")); err != nil {
		return err
	}
	p.in = 0
	return nil
}

// undo puts back what a run that failed has left, as far as that is known.
func (p *probe) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeUndo)
	defer cancel()
	var errs []error
	if p.held != "" {
		_, err := p.client.Release(ctx, p.held, client.Key(p.key+"-release"))
		var refused *protocol.Error
		if err != nil && !(errors.As(err, &refused) && refused.Code == protocol.CodeReservationEnded) {
			errs = append(errs, fmt.Errorf("reservation %s of %q was not released: %w", p.held, p.sku, err))
		}
	}
	if p.in > 0 {
		if _, err := p.client.Do(ctx, p.adjust(-p.in, "-undo")); err != nil {
			errs = append(errs, fmt.Errorf("%d units of %q were not taken out again: %w", p.in, p.sku, err))
		}
	}
	return errors.Join(errs...)
}

func inState(r protocol.Reservation, want protocol.State) error {
	if r.State != want {
		return fmt.Errorf("reservation %s is %s, not %s", r.ID, r.State, want)
	}
	return nil
}

func unitsOf(it *protocol.Item) string {
	if it == nil {
		return "no item"
	}
	return fmt.Sprintf("%d on hand, version %s", it.OnHand, cmp.Or(it.Version, "none"))
}
