package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

const (
	orderItems = 9 // spread over all shards
	orderStock = 100_000
)

// everyItem is an order of one unit of each item.
func everyItem() (lines []protocol.Line) {
	for i := range orderItems {
		lines = append(lines, protocol.Line{SKU: fmt.Sprint("order-", i), Location: "main", Quantity: 1})
	}
	return lines
}

// TestOrdersOverShardsSurviveKills: every order takes one unit of every item, so
// whatever dies in the middle of one, all items must end with the same count: the
// opening stock less the orders that were acknowledged.
func TestOrdersOverShardsSurviveKills(t *testing.T) {
	r := clustertest.Start(t, clustertest.Shards(3))
	for _, l := range everyItem() {
		if _, err := r.Dial().Count(t.Context(), l.SKU, l.Location, orderStock); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sold, done atomic.Int64
	var shopping sync.WaitGroup
	for i := range 6 {
		c := r.Dial(r.Nodes()[i%3], r.Nodes()[(i+1)%3], r.Nodes()[(i+2)%3])
		shopping.Go(func() { shop(t, ctx, c, uint64(i), &sold, &done) })
	}
	for i := range *kills {
		target := done.Load() + 60
		await(t, "60 more orders", func() bool { return done.Load() >= target })
		node := r.Owner(i % 3)
		node.Kill()
		target = done.Load() + 20
		await(t, "20 orders after a kill", func() bool { return done.Load() >= target })
		node.Start()
		r.AwaitReady()
	}
	stop()
	shopping.Wait()
	t.Logf("%d orders, %d of them sold", done.Load(), sold.Load())
	r.AwaitConverged()
	for _, node := range r.Nodes() {
		await(t, "orders settled on "+node.Name, func() bool { return same(t, node, orderStock-sold.Load()) == nil })
	}
}

// shop orders until ctx ends; an order that was begun is seen through.
func shop(t *testing.T, ctx context.Context, c *client.Client, seed uint64, sold, done *atomic.Int64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for ctx.Err() == nil {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		took, err := order(whole, c, rng.IntN(3))
		cancel()
		if err != nil {
			t.Errorf("order: %v", err)
			return
		}
		if took {
			sold.Add(1)
		}
		done.Add(1)
	}
}

func order(ctx context.Context, c *client.Client, kind int) (took bool, err error) {
	if kind == 0 {
		_, err := c.Sell(ctx, everyItem())
		return err == nil, err
	}
	held, err := c.Reserve(ctx, everyItem())
	if err != nil {
		return false, err
	}
	if kind == 1 {
		_, err = c.Confirm(ctx, held.ID)
		return err == nil, err
	}
	_, err = c.Release(ctx, held.ID)
	return false, err
}

// same checks that every item stands at so many and nothing is held.
func same(t *testing.T, node *clustertest.Node, want int64) error {
	items, err := node.Stock(t.Context())
	if err != nil {
		return err
	}
	if len(items) != orderItems {
		return fmt.Errorf("%d items", len(items))
	}
	var errs []error
	for _, it := range items {
		if it.OnHand != want || it.Reserved != 0 {
			errs = append(errs, fmt.Errorf("%s: on hand %d, reserved %d, want %d and 0", it.SKU, it.OnHand, it.Reserved, want))
		}
	}
	return errors.Join(errs...)
}

// await polls a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
