package replay

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

// watcher follows every item of the plan over a connection of its own and keeps the last
// state of each.
type watcher struct {
	name      string
	client    *client.Client
	sub       *client.Subscription
	freshness *freshness

	mu    sync.Mutex
	items picture
	wrong []string // items that went back
}

// newWatcher begins to follow. The client is the watcher's to close, also after an error.
func newWatcher(ctx context.Context, name string, c *client.Client, sel protocol.Selector) (*watcher, error) {
	w := &watcher{name: name, client: c, freshness: newFreshness(), items: picture{}}
	var err error
	if w.sub, err = c.Subscribe(ctx, sel, client.SubscribeOptions{}); err != nil {
		return w, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
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
			w.freshness.saw(it.SKU, version, now)
		}
	}
}

// compare returns what the watcher has seen wrongly, or sees otherwise than the node.
func (w *watcher) compare(node picture) []string {
	w.mu.Lock()
	seen := maps.Clone(w.items)
	diffs := append([]string(nil), w.wrong...)
	w.mu.Unlock()
	return append(diffs, seen.differences(w.name, node)...)
}
