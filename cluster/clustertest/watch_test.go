package clustertest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// pushWait bounds what should come at once.
const pushWait = 20 * time.Second

// watcher follows all items, or a user's reservations.
type watcher struct {
	t     *testing.T
	sub   *client.Subscription
	items map[string]protocol.Item
}

func watch(t *testing.T, c *client.Client) *watcher {
	t.Helper()
	return subscribe(t, c, protocol.Selector{All: true}, client.SubscribeOptions{})
}

func subscribe(t *testing.T, c *client.Client, sel protocol.Selector, opts client.SubscribeOptions) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pushWait)
	defer cancel()
	sub, err := c.Subscribe(ctx, sel, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t: t, sub: sub, items: make(map[string]protocol.Item)}
}

// await takes what is pushed until the condition holds.
func (w *watcher) await(what string, done func(u client.Update) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), pushWait)
	defer cancel()
	for {
		u, err := w.sub.Next(ctx)
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		for _, it := range u.Items {
			w.items[it.SKU] = it
		}
		if done(u) {
			return
		}
	}
}

// awaitStock waits until the subscription shows what the node has.
func (w *watcher) awaitStock(n *clustertest.Node) {
	w.t.Helper()
	items, err := n.Stock(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.await("the final state", func(client.Update) bool {
		for _, it := range items {
			if w.items[it.SKU] != it {
				return false
			}
		}
		return true
	})
}

// awaitVersion waits until the item is pushed in this version.
func (w *watcher) awaitVersion(want protocol.Item) {
	w.t.Helper()
	if w.items[want.SKU].Version == want.Version {
		return
	}
	w.await(want.SKU+" "+want.Version, func(client.Update) bool { return w.items[want.SKU].Version == want.Version })
}

// reservation waits for a push of a reservation and returns it.
func (w *watcher) reservation() (r protocol.Reservation) {
	w.t.Helper()
	w.await("a reservation", func(u client.Update) bool {
		if len(u.Reservations) > 0 {
			r = u.Reservations[0]
		}
		return len(u.Reservations) > 0
	})
	return r
}

// awaitState waits until the reservation is pushed in this state.
func (w *watcher) awaitState(id string, want protocol.State) {
	w.t.Helper()
	w.await(id+" "+string(want), func(u client.Update) bool {
		for _, r := range u.Reservations {
			if r.ID == id && r.State == want {
				return true
			}
		}
		return false
	})
}
