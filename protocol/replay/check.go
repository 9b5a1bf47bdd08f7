package replay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// settleEvery is the pause between two looks at what is still changing:
// expiries, the history, the watchers' pictures.
const settleEvery = 200 * time.Millisecond

// historyPage is how many movements are read at once: about as many as one run
// makes of one item.
const historyPage = 100

// dialPatience is how long a node's own connection may take at least, whatever is left of
// the time to settle: a node that is there must have its turn.
const dialPatience = 10 * time.Second

// check compares all nodes and watchers with the book from the outside. What may still be
// on its way gets the settle time to arrive, in each of three stages anew: where something
// is wrong for good, a stage uses up all of its own. What was found is returned with an
// error too.
func (r *replay) check(ctx context.Context) ([]string, error) {
	diffs, err := r.checkSKUs(ctx)
	if err != nil {
		return diffs, err
	}
	for _, look := range []func(context.Context, time.Time) ([]string, error){r.checkNodes, r.checkWatchers} {
		found, err := look(ctx, time.Now().Add(r.Settle))
		diffs = append(diffs, found...)
		if err != nil {
			return diffs, err
		}
	}
	return diffs, nil
}

// checkSKUs holds what the players' nodes say of each SKU against the book.
func (r *replay) checkSKUs(ctx context.Context) ([]string, error) {
	until := time.Now().Add(r.Settle)
	diffs := slices.Clone(r.book.failures)
	var mu sync.Mutex
	by := r.byRegion()
	err := r.spread(ctx, r.players, len(r.plan.skus), nil, func(ctx context.Context, p *player, i int) error {
		defer r.Progress.Add(1)
		found, err := settled(ctx, until, func() ([]string, error) { return r.checkSKU(ctx, p, by, i) })
		mu.Lock()
		defer mu.Unlock()
		diffs = append(diffs, found...)
		return err
	})
	slices.Sort(diffs)
	return diffs, err
}

// checkNodes holds each node against the book and against the first one. Where there is
// one place only, every SKU has just been read there.
func (r *replay) checkNodes(ctx context.Context, until time.Time) (diffs []string, err error) {
	if len(r.Endpoints) == 1 {
		return nil, nil
	}
	for _, place := range r.Endpoints {
		found, err := r.checkPlace(ctx, place[0], until)
		diffs = append(diffs, found...)
		if err != nil {
			return diffs, err
		}
	}
	return diffs, nil
}

// checkPlace waits for the node itself: one that stands in for it has its own turn.
func (r *replay) checkPlace(ctx context.Context, endpoint string, until time.Time) ([]string, error) {
	patient, cancel := context.WithTimeout(ctx, max(time.Until(until), dialPatience))
	defer cancel()
	c, err := client.Dial(patient, client.Config{Endpoints: []string{endpoint}, Token: r.Token, TLS: r.TLS, Wait: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return settled(ctx, until, func() ([]string, error) { return r.checkNode(ctx, c) })
}

func (r *replay) checkNode(ctx context.Context, c *client.Client) ([]string, error) {
	shown, err := r.picture(ctx, c)
	if err != nil {
		return nil, err
	}
	name := c.Hello().Node
	var diffs []string
	for _, d := range r.book.checkPicture(shown) {
		diffs = append(diffs, name+": "+d)
	}
	first, err := r.picture(ctx, r.players[0].Client)
	if err != nil {
		return nil, err
	}
	return append(diffs, shown.differences(name, first)...), nil
}

func (r *replay) checkWatchers(ctx context.Context, until time.Time) (diffs []string, err error) {
	for _, w := range r.watchers {
		found, err := settled(ctx, until, func() ([]string, error) {
			node, err := r.picture(ctx, r.players[0].Client)
			if err != nil {
				return nil, err
			}
			return w.compare(node), nil
		})
		diffs = append(diffs, found...)
		if err != nil {
			return diffs, err
		}
	}
	return diffs, nil
}

// settled looks until nothing differs or time is up, and returns the last look.
func settled(ctx context.Context, until time.Time, look func() ([]string, error)) ([]string, error) {
	for {
		diffs, err := look()
		if err != nil || len(diffs) == 0 || time.Now().After(until) {
			return diffs, err
		}
		if err := pause(ctx, settleEvery); err != nil {
			return nil, err
		}
	}
}

// byRegion lists the players by the region that they are connected to now. Regions that
// all have left are there too, with none: what was done there stands in their history.
func (r *replay) byRegion() map[string][]*player {
	by := map[string][]*player{}
	for _, p := range r.players {
		if now := p.Hello().Region; now != "" {
			by[now] = append(by[now], p)
		}
	}
	for _, p := range r.players {
		if _, known := by[p.region]; !known {
			by[p.region] = nil
		}
	}
	return by
}

func (r *replay) checkSKU(ctx context.Context, p *player, by map[string][]*player, i int) ([]string, error) {
	sku := r.plan.skus[i]
	items, err := p.Get(ctx, []string{sku}, client.Locations(protocol.DefaultLocation))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", sku, err)
	}
	if len(items) != 1 {
		return []string{fmt.Sprintf("%s: get returned %d items", sku, len(items))}, nil
	}
	version, err := protocol.ParseVector(items[0].Version)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", sku, err)}, nil
	}
	var movements []protocol.Movement
	for _, row := range version {
		there, played := by[row.Region]
		if !played {
			continue
		}
		reader := p
		if len(there) > 0 {
			reader = there[i%len(there)]
		}
		found, err := historyUntil(ctx, reader, sku, row.Region, r.key("open", i))
		if err != nil {
			return nil, fmt.Errorf("history of %s in %s: %w", sku, row.Region, err)
		}
		movements = append(movements, found...)
	}
	return r.book.check(sku, items[0], movements), nil
}

// historyUntil reads an item's movements in a region back to the one with the key, or
// to the oldest.
func historyUntil(ctx context.Context, p *player, sku, region, key string) ([]protocol.Movement, error) {
	var all []protocol.Movement
	for before := ""; ; {
		page, next, err := p.History(ctx, sku, "", client.Region(region), client.Limit(historyPage), client.Before(before))
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		opening := slices.ContainsFunc(page, func(m protocol.Movement) bool { return m.Key == key })
		if opening || next == "" {
			return all, nil
		}
		before = next
	}
}

// picture is all items of the plan as a client's node shows them.
func (r *replay) picture(ctx context.Context, c *client.Client) (picture, error) {
	items := picture{}
	for it, err := range c.Items(ctx, r.plan.selector(), 0) {
		if err != nil {
			return nil, fmt.Errorf("read all items: %w", err)
		}
		items[it.Key()] = it
	}
	return items, nil
}
