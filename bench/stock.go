package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	settleStockMax  = 10 * time.Second
	settleStockPoll = 50 * time.Millisecond
)

// settledStock reads from a node what is on hand of the SKUs of want. A node that
// leaves decisions to another hears of them a little later than that one's clients: it
// gets the time to show what is wanted.
func (r *round) settledStock(ctx context.Context, node int, want map[string]int64) (map[string]int64, error) {
	for late := time.Now().Add(settleStockMax); ; {
		stock, err := r.stock(ctx, node, slices.Sorted(maps.Keys(want)))
		if err != nil || maps.Equal(stock, want) || len(r.target.endpoints) == 1 || time.Now().After(late) {
			return stock, err
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return nil, err
		}
	}
}

// stock leaves out what the node doesn't answer.
func (r *round) stock(ctx context.Context, node int, skus []string) (map[string]int64, error) {
	get := protocol.Command{Op: protocol.OpGet, SKUs: skus, Locations: []string{protocol.DefaultLocation}}
	a, err := ask(ctx, r.target.endpoint(node), get)
	if err != nil {
		return nil, err
	}
	onHand := make(map[string]int64)
	for _, it := range a.OK.Items {
		onHand[it.SKU] = it.OnHand
	}
	return onHand, nil
}
