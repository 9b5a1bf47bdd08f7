package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

// asked submits a call as it is, its command with the defaults filled in.
func asked(t *testing.T, n *cluster.Cluster, call protocol.Call) *protocol.Call {
	t.Helper()
	answered := make(chan struct{})
	call.Done = func(*protocol.Call) { close(answered) }
	if err := call.Command.Check(); err != nil {
		t.Fatal(err)
	}
	n.Submit([]*protocol.Call{&call})
	<-answered
	return &call
}

func onReservation(op protocol.Op, key, id string, within protocol.Scope) protocol.Call {
	cmd := protocol.Command{Op: op, Reservation: id, Within: within}
	if op != protocol.OpReservation {
		cmd.Key = key
	}
	if op == protocol.OpExtend {
		cmd.TTLMS = protocol.Ptr[int64](60_000)
	}
	return protocol.Call{Command: cmd, Session: 7, Subject: "till", Address: "192.0.2.9"}
}

// expectHidden wants of each node, for each command on a reservation that is outside the
// scope, the very answer that there is none.
func expectHidden(t *testing.T, nodes []*cluster.Cluster, id string, within protocol.Scope) {
	t.Helper()
	ops := []protocol.Op{protocol.OpReservation, protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend}
	unknown := id[:len(id)-1] + "Z"
	for i, n := range nodes {
		for _, op := range ops {
			for _, ordered := range []bool{false, true} {
				key := fmt.Sprint("hidden ", id, i, op, ordered)
				call := onReservation(op, key, id, within)
				call.Ordered = ordered
				other := onReservation(op, key, unknown, within)
				got, want := asked(t, n, call), asked(t, n, other)
				if got.Err == nil || want.Err == nil || want.Err.Code != protocol.CodeNotFound {
					t.Fatalf("%s on node %d: got %v, where there is none %v", op, i, got.Err, want.Err)
				}
				if g, w := string(protocol.AppendError(nil, got.Err)), string(protocol.AppendError(nil, want.Err)); g != strings.ReplaceAll(w, unknown, id) {
					t.Errorf("%s on node %d tells them apart:\n%s\n%s", op, i, g, w)
				}
			}
		}
	}
}

// The scope of a command is kept to wherever it is decided: on this node or another, in
// one shard or several, at first and again. Where it was sent from stands in the history.
func TestScopeInARegion(t *testing.T) {
	nodes := openRegion(t, 3, 2)
	near, far := skuIn(t, nodes[0], 0), skuIn(t, nodes[0], 1)
	for _, sku := range []string{near, far} {
		must(t, nodes[0], count("count "+sku, sku, 10))
	}
	for i, lines := range [][]protocol.Line{{{SKU: near, Quantity: 1}}, {{SKU: near, Quantity: 1}, {SKU: far, Quantity: 2}}} {
		reserve := protocol.Call{Command: protocol.Command{Op: protocol.OpReserve, Key: fmt.Sprint("r", i), User: "u", Lines: lines}, Subject: "shop", Address: "2001:db8::1"}
		made := asked(t, nodes[i], reserve)
		if made.Err != nil {
			t.Fatal(made.Err)
		}
		id := made.Result.Reservation.ID
		awaitShown(t, nodes, id)
		mine := protocol.Scope{{SKUs: []string{near, far}, Users: []string{"u"}}}
		for _, within := range []protocol.Scope{{}, {{SKUs: []string{far}}}} {
			expectHidden(t, nodes, id, within)
		}
		key := fmt.Sprint("confirm ", i)
		for n, node := range nodes {
			if got := asked(t, node, onReservation(protocol.OpConfirm, key, id, mine)); got.Err != nil || n > 0 && !got.Replayed {
				t.Fatalf("confirm on node %d: %v, replayed %v", n, got.Err, got.Replayed)
			}
			got := asked(t, node, onReservation(protocol.OpConfirm, key, id, protocol.Scope{{Users: []string{"v"}}}))
			if got.Err == nil || got.Err.Code != protocol.CodeNotFound || got.Replayed || got.Result.Reservation != nil {
				t.Errorf("a replay on node %d outside the scope: %v, %+v", n, got.Err, got.Result)
			}
		}
	}
	expectAddresses(t, nodes[0], far, "confirm 192.0.2.9 till", "reserve 2001:db8::1 shop", "count  ")
	expectAddresses(t, nodes[0], near, "confirm 192.0.2.9 till", "reserve 2001:db8::1 shop", "confirm 192.0.2.9 till", "reserve 2001:db8::1 shop", "count  ")
}

// awaitShown waits until all nodes show a reservation.
func awaitShown(t *testing.T, nodes []*cluster.Cluster, id string) {
	t.Helper()
	for _, n := range nodes {
		eventuallyIs(t, "the reservation is shown", func() bool {
			return asked(t, n, onReservation(protocol.OpReservation, "", id, nil)).Err == nil
		})
	}
}

// eventuallyIs waits until a condition holds.
func eventuallyIs(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// skuIn finds a name that lies in a shard.
func skuIn(t *testing.T, n *cluster.Cluster, shard int) string {
	t.Helper()
	for i := range 100 {
		sku := fmt.Sprint("sku ", i)
		must(t, n, protocol.Command{Op: protocol.OpConfigure, Key: sku, SKU: sku, LowStock: protocol.Ptr[int64](1)})
		m := must(t, n, protocol.Command{Op: protocol.OpHistory, SKU: sku}).Result.Movements
		if strings.HasPrefix(m[0].Sequence, fmt.Sprintf("eu.%d.", shard)) {
			return sku
		}
	}
	t.Fatal("no such name")
	return ""
}

func expectAddresses(t *testing.T, n *cluster.Cluster, sku string, want ...string) {
	t.Helper()
	var got []string
	for _, m := range must(t, n, protocol.Command{Op: protocol.OpHistory, SKU: sku, Limit: len(want)}).Result.Movements {
		got = append(got, fmt.Sprint(m.Type, " ", m.Address, " ", m.Subject))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the history of %s: got %q, want %q", sku, got, want)
	}
}

// Grants that no batch could carry are refused rather than cut.
func TestScopeThatIsTooLarge(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("c", "A", 1))
	r := must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "r", Lines: []protocol.Line{{SKU: "A", Quantity: 1}}})
	within := protocol.Scope{{SKUs: []string{"A", strings.Repeat("x", 1<<20)}}}
	got := asked(t, n, onReservation(protocol.OpConfirm, "k", r.Result.Reservation.ID, within))
	if got.Err == nil || got.Err.Code != protocol.CodeForbidden {
		t.Errorf("got %v", got.Err)
	}
	expectAvailable(t, n, "A", 0)
}

func expectAvailable(t *testing.T, n *cluster.Cluster, sku string, want int64) {
	t.Helper()
	if it := must(t, n, get(sku)).Result.Items[0]; it.Available != want {
		t.Errorf("got %+v", it)
	}
}
