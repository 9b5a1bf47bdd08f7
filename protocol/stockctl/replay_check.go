package main

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

// check compares the node with the book from the outside. What may still be on
// its way gets the settle time to arrive.
func (r *replay) check(ctx context.Context, p *progress) ([]string, error) {
	until := time.Now().Add(r.options.settle)
	diffs := slices.Clone(r.book.failures)
	var mu sync.Mutex
	err := r.spread(ctx, 0, len(r.plan.skus), func(ctx context.Context, c *client.Client, i int) error {
		defer p.add(1)
		found, err := r.settled(ctx, until, func() ([]string, error) { return r.checkSKU(ctx, c, r.plan.skus[i], i) })
		mu.Lock()
		defer mu.Unlock()
		diffs = append(diffs, found...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(diffs)
	for _, w := range r.watchers {
		found, err := r.settled(ctx, until, func() ([]string, error) {
			node, err := r.allItems(ctx)
			return w.compare(node), err
		})
		if err != nil {
			return nil, err
		}
		diffs = append(diffs, found...)
	}
	return diffs, nil
}

// settled looks until nothing differs or time is up, and returns the last look.
func (r *replay) settled(ctx context.Context, until time.Time, look func() ([]string, error)) ([]string, error) {
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

func (r *replay) checkSKU(ctx context.Context, c *client.Client, sku string, i int) ([]string, error) {
	items, err := c.Get(ctx, []string{sku}, client.Locations(protocol.DefaultLocation))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", sku, err)
	}
	if len(items) != 1 {
		return []string{fmt.Sprintf("%s: get returned %d items", sku, len(items))}, nil
	}
	movements, err := historyUntil(ctx, c, sku, r.key("open", i))
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", sku, err)
	}
	return r.book.check(sku, items[0], movements), nil
}

// historyUntil reads an item's movements back to the one with the key, or to
// the oldest.
func historyUntil(ctx context.Context, c *client.Client, sku, key string) ([]protocol.Movement, error) {
	var all []protocol.Movement
	for before := ""; ; {
		page, next, err := c.History(ctx, sku, "", client.Limit(historyPage), client.Before(before))
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

func (r *replay) allItems(ctx context.Context) (map[protocol.ItemKey]protocol.Item, error) {
	items := map[protocol.ItemKey]protocol.Item{}
	for it, err := range r.clients[0].Items(ctx, protocol.Selector{All: true}, 0) {
		if err != nil {
			return nil, fmt.Errorf("read all items: %w", err)
		}
		items[it.Key()] = it
	}
	return items, nil
}
