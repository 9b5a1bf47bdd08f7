package clustertest_test

import (
	"fmt"
	"testing"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// TestAnyNodeTakesCommands: it makes no difference which node a client talks to.
func TestAnyNodeTakesCommands(t *testing.T) {
	r := clustertest.Start(t)
	ctx := t.Context()
	clients, watchers := eachNode(t, r)
	for i, c := range clients {
		item, err := c.Adjust(ctx, "A", "", 10, client.Key(fmt.Sprint("in-", i)))
		if err != nil || item.OnHand != int64(10*(i+1)) {
			t.Fatalf("at %s: %v %v", r.Nodes()[i], item, err)
		}
		// What one node acknowledged, every node can be asked for.
		for j, other := range clients {
			items, err := other.Get(ctx, []string{"A"}, client.AtLeast(item.Version))
			if err != nil || items[0] != item {
				t.Errorf("written at %s, read at %s: %v %v, want %v", r.Nodes()[i], r.Nodes()[j], items, err, item)
			}
			watchers[j].awaitVersion(item)
		}
		// And a node shows its own client's writes without being asked to wait.
		if items, err := c.Get(ctx, []string{"A"}); err != nil || items[0] != item {
			t.Errorf("read at %s after the answer: %v %v, want %v", r.Nodes()[i], items, err, item)
		}
	}
	sameKeyEverywhere(t, clients)
	r.AwaitConverged()
}

// eachNode returns a client and a subscription of all items at each node.
func eachNode(t *testing.T, r *clustertest.Region) (clients []*client.Client, watchers []*watcher) {
	t.Helper()
	for _, n := range r.Nodes() {
		c := r.Dial(n)
		clients = append(clients, c)
		watchers = append(watchers, watch(t, c))
	}
	return clients, watchers
}

// sameKeyEverywhere: the same key gets the same answer on any node, and takes effect
// once.
func sameKeyEverywhere(t *testing.T, clients []*client.Client) {
	t.Helper()
	ctx := t.Context()
	var first client.Reply
	for i, c := range clients {
		cmd := protocol.Command{Op: protocol.OpSell, Key: "sale", Lines: []protocol.Line{{SKU: "A", Quantity: 3}}}
		reply, err := c.Do(ctx, cmd)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = reply
		}
		if reply.Replayed != (i > 0) || reply.Items[0] != first.Items[0] {
			t.Errorf("try %d: %+v, the first was %+v", i, reply, first)
		}
		if earlier, err := c.Outcome(ctx, "sale", ""); err != nil || earlier == nil || earlier.Items[0] != first.Items[0] {
			t.Errorf("outcome at try %d: %+v %v", i, earlier, err)
		}
	}
	if _, err := clients[1].Sell(ctx, []protocol.Line{{SKU: "A", Quantity: 4}}, client.Key("sale")); err == nil {
		t.Error("another body for the same key was taken")
	}
}

// TestReservationPushes: who changes a reservation gets no push about it, whichever
// node it asked; subscribers of its user do, on every node.
func TestReservationPushes(t *testing.T) {
	r := clustertest.Start(t)
	ctx := t.Context()
	owner, followers := r.Owner(0), r.Followers(0)
	maker := r.Dial(followers[0])
	own := subscribe(t, maker, protocol.Selector{SKUs: []string{"A"}}, client.SubscribeOptions{Users: []string{"nobody"}})
	var others []*watcher
	for _, n := range []*clustertest.Node{owner, followers[0], followers[1]} {
		others = append(others, subscribe(t, r.Dial(n), protocol.Selector{}, client.SubscribeOptions{Users: []string{"ann"}}))
	}
	if _, err := maker.Adjust(ctx, "A", "", 10); err != nil {
		t.Fatal(err)
	}
	lines := []protocol.Line{{SKU: "A", Quantity: 1}}
	first, err := maker.Reserve(ctx, lines, client.User("ann"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := maker.Reserve(ctx, lines, client.User("ann"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maker.Confirm(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	for i, w := range others {
		w.awaitState(first.ID, protocol.Confirmed)
		t.Logf("subscriber %d was told", i)
	}
	// The other one is ended by somebody else: that its maker is told, and it is the
	// first that it is told.
	if _, err := r.Dial(followers[1]).Release(ctx, second.ID); err != nil {
		t.Fatal(err)
	}
	if got := own.reservation(); got.ID != second.ID || got.State != protocol.Released {
		t.Errorf("the maker was told of %s %s first, not of the release of %s by another", got.ID, got.State, second.ID)
	}
	for _, w := range others {
		w.awaitState(second.ID, protocol.Released)
	}
}

// TestInGoroutines: the same region within this process.
func TestInGoroutines(t *testing.T) {
	r := clustertest.Start(t, clustertest.InGoroutines())
	shop := r.Shop(clustertest.Clients(4), shopSeed())
	shop.AwaitSuccesses(50)
	owner := r.Owner(0)
	owner.Stop()
	shop.AwaitSuccesses(50)
	owner.Start()
	r.AwaitReady()
	report := shop.Stop()
	t.Log(report)
	report.NothingFailed()
	report.Account()
	report.Linearizable()
}
