package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// watcher follows every item over a connection of its own and keeps the last
// state of each.
type watcher struct {
	name    string
	sub     *client.Subscription
	latency *latency

	mu    sync.Mutex
	items map[protocol.ItemKey]protocol.Item
	wrong []string // items that went back
}

func newWatcher(ctx context.Context, name string, c *client.Client) (*watcher, error) {
	sub, err := c.Subscribe(ctx, protocol.Selector{All: true}, client.SubscribeOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &watcher{name: name, sub: sub, latency: newLatency(), items: map[protocol.ItemKey]protocol.Item{}}, nil
}

// run follows until the subscription is closed or ctx ends.
func (w *watcher) run(ctx context.Context) error {
	for {
		u, err := w.sub.Next(ctx)
		if errors.Is(err, client.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		w.take(u.Items, time.Now())
	}
}

func (w *watcher) take(items []protocol.Item, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range items {
		version, err := protocol.ParseVector(it.Version)
		if err != nil {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s has %v", w.name, it.SKU, err))
			continue
		}
		old, known := w.items[it.Key()]
		if was, _ := protocol.ParseVector(old.Version); known && !version.AtLeast(was) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s went from %s back to %s", w.name, it.SKU, old.Version, it.Version))
		}
		w.items[it.Key()] = it
		if it.Location == protocol.DefaultLocation {
			w.latency.saw(it.SKU, version, now)
		}
	}
}

func (w *watcher) compare(node map[protocol.ItemKey]protocol.Item) []string {
	w.mu.Lock()
	seen := maps.Clone(w.items)
	diffs := append([]string(nil), w.wrong...)
	w.mu.Unlock()
	return append(diffs, compareWatcher(w.name, node, seen)...)
}
