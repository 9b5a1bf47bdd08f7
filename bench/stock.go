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
	settleMeshMax   = 30 * time.Second // what a mesh has after a cut
	skusAtOnce      = 1000             // their answer must fit in answerMax
	settleStockPoll = 50 * time.Millisecond
)

// settledStock reads from a node what is on hand of the SKUs of want. A node that
// leaves decisions to another hears of them a little later than that one's clients: it
// gets the time to show what is wanted, as does another region.
func (r *round) settledStock(ctx context.Context, node int, want map[string]int64) (map[string]int64, error) {
	return r.settledStockOf(ctx, r.target, node, want)
}

func (r *round) settledStockOf(ctx context.Context, t *target, node int, want map[string]int64) (map[string]int64, error) {
	patience := settleStockMax
	if r.meshed() {
		patience = settleMeshMax
	}
	for late := time.Now().Add(patience); ; {
		stock, err := stock(ctx, t.endpoint(node), slices.Sorted(maps.Keys(want)))
		if err != nil || maps.Equal(stock, want) || len(t.endpoints) == 1 || time.Now().After(late) {
			return stock, err
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return nil, err
		}
	}
}

// stock is what is on hand, without what the node doesn't answer.
func stock(ctx context.Context, endpoint string, skus []string) (map[string]int64, error) {
	items, err := readItems(ctx, endpoint, skus)
	onHand := make(map[string]int64)
	for _, it := range items {
		onHand[it.SKU] = it.OnHand
	}
	return onHand, err
}

func readItems(ctx context.Context, endpoint string, skus []string) (items []protocol.Item, err error) {
	for part := range slices.Chunk(skus, skusAtOnce) {
		get := protocol.Command{Op: protocol.OpGet, SKUs: part, Locations: []string{protocol.DefaultLocation}}
		a, err := ask(ctx, endpoint, get)
		if err != nil {
			return nil, err
		}
		items = append(items, a.OK.Items...)
	}
	return items, nil
}

// meshed reports whether the spawned nodes are those of several regions.
func (r *round) meshed() bool { return r.regions > 1 }
