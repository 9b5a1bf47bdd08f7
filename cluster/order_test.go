package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

const orderSKUs = 12

func orderSKU(i int) string { return fmt.Sprintf("SKU %d", i) }

// openShards opens a node with several shards and stock of many SKUs.
func openShards(t *testing.T, c cluster.Config, stock int64) *cluster.Cluster {
	t.Helper()
	c.Shards = 3
	n := open(t, c)
	for i := range orderSKUs {
		must(t, n, count(fmt.Sprint("stock", i), orderSKU(i), stock))
	}
	return n
}

// linesOf is an order of every SKU, and so of every shard.
func linesOf(quantity int64) (lines []protocol.Line) {
	for i := range orderSKUs {
		lines = append(lines, protocol.Line{SKU: orderSKU(i), Quantity: quantity})
	}
	return lines
}

// expectAll waits until every item stands as told.
func expectAll(t *testing.T, n *cluster.Cluster, onHand, reserved int64) {
	t.Helper()
	changed := make(chan struct{}, 1)
	defer n.Watch(func(*protocol.Changes) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	deadline := time.After(10 * time.Second)
	for {
		items := everything(n)
		bad := ""
		for _, it := range items {
			if it.OnHand != onHand || it.Reserved != reserved {
				bad = fmt.Sprintf("%s: on hand %d, reserved %d, want %d and %d", it.SKU, it.OnHand, it.Reserved, onHand, reserved)
			}
		}
		if bad == "" && len(items) == orderSKUs {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal(bad, len(items))
		}
	}
}

func TestOrderOverSeveralShards(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	reserve := protocol.Command{Op: protocol.OpReserve, Key: "r1", Lines: linesOf(3), User: "ann"}
	r := must(t, n, reserve)
	if got := r.Result.Reservation; len(got.Lines) != orderSKUs || got.State != protocol.Held {
		t.Fatalf("got %+v", got)
	}
	expectAll(t, n, 10, 3)
	if again := must(t, n, reserve); !again.Replayed || cmp.Diff(again.Result, r.Result) != "" {
		t.Fatalf("got %+v", again.Result)
	}
	expectAll(t, n, 10, 3) // what the retry held is given back
	other := reserve
	other.Lines = linesOf(4)
	refused(t, n, other, protocol.CodeKeyReused)
	must(t, n, protocol.Command{Op: protocol.OpConfirm, Key: "c1", Reservation: r.Result.Reservation.ID})
	expectAll(t, n, 7, 0)

	r = must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "r2", Lines: linesOf(7)})
	must(t, n, protocol.Command{Op: protocol.OpRelease, Key: "c2", Reservation: r.Result.Reservation.ID})
	expectAll(t, n, 7, 0)

	sold := must(t, n, protocol.Command{Op: protocol.OpSell, Key: "s1", Lines: linesOf(2)})
	if len(sold.Result.Items) != orderSKUs {
		t.Fatalf("%d items", len(sold.Result.Items))
	}
	for _, it := range sold.Result.Items {
		if it.OnHand != 5 {
			t.Fatalf("got %+v", it)
		}
	}
	if out := must(t, n, protocol.Command{Op: protocol.OpOutcome, Key: "s1"}); !out.Result.Known {
		t.Fatal("the sale is not known")
	}
}

func TestOrderIsAllOrNothing(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	for i := range orderSKUs { // whichever shard is short
		lines := linesOf(3)
		lines[i].Quantity = 11
		for _, op := range []protocol.Op{protocol.OpReserve, protocol.OpSell} {
			err := refused(t, n, protocol.Command{Op: op, Key: fmt.Sprint(op, i), Lines: lines}, protocol.CodeInsufficientStock)
			if len(err.Details.Lines) != 1 || err.Details.Lines[0].SKU != orderSKU(i) {
				t.Fatalf("got %+v", err.Details)
			}
		}
	}
	expectAll(t, n, 10, 0)
}

func TestOrderExpiresInEveryShard(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "r", Lines: linesOf(4), TTLMS: protocol.Ptr[int64](1000)})
	expectAll(t, n, 10, 4)
	expectAll(t, n, 10, 0)
}

// Orders of many customers at once: units are conserved, nothing stays held.
func TestManyOrders(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 1000)
	var shopping sync.WaitGroup
	var mu sync.Mutex
	sold := make(map[string]int64)
	for w := range 8 {
		shopping.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 40 {
				lines := linesOf(1)
				random.Shuffle(len(lines), func(a, b int) { lines[a], lines[b] = lines[b], lines[a] })
				lines = lines[:1+random.IntN(4)]
				key := fmt.Sprint(w, "-", i)
				var call *protocol.Call
				taken := true
				if random.IntN(2) == 0 {
					call = do(n, protocol.Command{Op: protocol.OpSell, Key: key, Lines: lines})
				} else {
					call = do(n, protocol.Command{Op: protocol.OpReserve, Key: key, Lines: lines})
					end := protocol.OpConfirm
					if random.IntN(2) == 0 {
						end, taken = protocol.OpRelease, false
					}
					if call.Err == nil {
						call = do(n, protocol.Command{Op: end, Key: key + "e", Reservation: call.Result.Reservation.ID})
					}
				}
				if call.Err != nil {
					t.Error(call.Err)
					return
				}
				mu.Lock()
				for _, l := range lines {
					if taken {
						sold[l.SKU]++
					}
				}
				mu.Unlock()
			}
		})
	}
	shopping.Wait()
	for _, it := range everything(n) {
		if it.OnHand != 1000-sold[it.SKU] || it.Reserved != 0 {
			t.Errorf("%s: on hand %d, reserved %d; %d were sold", it.SKU, it.OnHand, it.Reserved, sold[it.SKU])
		}
	}
}

// What one connection sends takes effect in order, orders too.
func TestOrderKeepsAConnectionsOrder(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	answers := make(chan *protocol.Call, 4)
	var calls []*protocol.Call
	for i, cmd := range []protocol.Command{
		{Op: protocol.OpSell, Key: "a", Lines: linesOf(10)},
		{Op: protocol.OpAdjust, Key: "b", SKU: orderSKU(3), Delta: 5},
		{Op: protocol.OpSell, Key: "c", Lines: []protocol.Line{{SKU: orderSKU(3), Quantity: 5}}},
		{Op: protocol.OpGet, SKUs: []string{orderSKU(3)}},
	} {
		if err := cmd.Check(); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, &protocol.Call{Command: cmd, Session: 7, Ordered: i > 0, Done: func(c *protocol.Call) { answers <- c }})
	}
	n.Submit(calls)
	for range calls {
		c := <-answers
		if c.Err != nil {
			t.Errorf("%s %s: %v", c.Command.Op, c.Command.Key, c.Err)
		}
		if c.Command.Op == protocol.OpGet && c.Result.Items[0].OnHand != 0 {
			t.Errorf("got %+v", c.Result.Items[0])
		}
	}
}

// A retry of an order that was done is answered as the first time, also when that took
// the last units.
func TestRetryOfAnOrderThatTookAll(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 3)
	sale := protocol.Command{Op: protocol.OpSell, Key: "k", Lines: linesOf(3)}
	must(t, n, sale)
	if again := must(t, n, sale); !again.Replayed {
		t.Fatalf("got %+v", again.Result)
	}
	other := sale
	other.Lines = linesOf(2)
	refused(t, n, other, protocol.CodeKeyReused)
	sale.Key = "k2"
	refused(t, n, sale, protocol.CodeInsufficientStock)
	expectAll(t, n, 0, 0)
}

// A key that was used in one shard is not used again by an order over it.
func TestOrderWithAKeyOfOneOfItsShards(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	for i := range orderSKUs {
		key := fmt.Sprint("k", i)
		must(t, n, sell(key, orderSKU(i), 1))
		refused(t, n, protocol.Command{Op: protocol.OpSell, Key: key, Lines: linesOf(1)}, protocol.CodeKeyReused)
	}
	expectAll(t, n, 9, 0)
}

// What a connection sends behind the release of an order may be for the units that are
// given back, in whichever shard.
func TestReleasedOrderIsFreeForTheNextCommand(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 1)
	for round := range 20 {
		r := must(t, n, protocol.Command{Op: protocol.OpReserve, Key: fmt.Sprint("r", round), Lines: linesOf(1)})
		commands := []protocol.Command{{Op: protocol.OpRelease, Key: fmt.Sprint("l", round), Reservation: r.Result.Reservation.ID}}
		for i := range orderSKUs {
			key := fmt.Sprint(round, "-", i)
			commands = append(commands,
				protocol.Command{Op: protocol.OpAdjust, Key: "-" + key, SKU: orderSKU(i), Delta: -1},
				protocol.Command{Op: protocol.OpAdjust, Key: "+" + key, SKU: orderSKU(i), Delta: 1})
		}
		for _, c := range pipeline(t, n, commands) {
			if c.Err != nil {
				t.Fatalf("round %d: %s %s: %v", round, c.Command.Op, c.Command.SKU, c.Err)
			}
		}
	}
}

// pipeline sends commands as one connection does, without waiting, and returns them
// answered.
func pipeline(t *testing.T, n *cluster.Cluster, commands []protocol.Command) (calls []*protocol.Call) {
	t.Helper()
	answers := make(chan *protocol.Call, len(commands))
	for i, cmd := range commands {
		if err := cmd.Check(); err != nil {
			t.Fatal(err)
		}
		n.Submit([]*protocol.Call{{Command: cmd, Session: 9, Ordered: i > 0, Done: func(c *protocol.Call) { answers <- c }}})
	}
	for range commands {
		select {
		case c := <-answers:
			calls = append(calls, c)
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d commands are answered", len(calls), len(commands))
		}
	}
	return calls
}

// Orders and counts in turns on one connection, as many as one may have under way: each
// is answered, each sees what was sent before it.
func TestPipelineOfOrders(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 10)
	for round := range 20 {
		var commands []protocol.Command
		for i := range 12 {
			key, sku := fmt.Sprint(round, "-", i), orderSKU(i)
			commands = append(commands,
				protocol.Command{Op: protocol.OpSell, Key: "s" + key, Lines: linesOf(10)}, // takes all
				protocol.Command{Op: protocol.OpAdjust, Key: "a" + key, SKU: sku, Delta: 1},
				protocol.Command{Op: protocol.OpSell, Key: "o" + key, Lines: []protocol.Line{{SKU: sku, Quantity: 1}}})
			for k := range orderSKUs {
				commands = append(commands, count(fmt.Sprint("c", key, "-", k), orderSKU(k), 10))
			}
		}
		for _, c := range pipeline(t, n, commands) {
			if c.Err != nil {
				t.Fatalf("round %d: %s %s: %v", round, c.Command.Op, c.Command.Key, c.Err)
			}
		}
	}
}

func TestGetOverSeveralShardsLeavesTheCallAlone(t *testing.T) {
	n := openShards(t, config(t.TempDir()), 1)
	cmd := protocol.Command{Op: protocol.OpGet}
	for i := range orderSKUs {
		cmd.SKUs = append(cmd.SKUs, orderSKU(i))
	}
	if err := cmd.Check(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		done := make(chan struct{})
		n.Submit([]*protocol.Call{{Command: cmd, Done: func(c *protocol.Call) {
			go func() {
				*c = protocol.Call{} // the submitter uses it again
				close(done)
			}()
		}}})
		<-done
	}
}
