package main

import (
	"context"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// awaitEqual waits until all nodes of all regions show the same rows: not only the
// same stock, which rights on their way don't change.
func (t *cutTrial) awaitEqual(ctx context.Context) error {
	t.announce("waiting until all regions are equal", settleMeshMax)
	began := time.Now()
	for {
		differ, err := t.differ(ctx)
		if err != nil {
			return err
		}
		if differ == "" {
			t.numbers["equal_ms"] = milliseconds(time.Since(began)) // after the last command
			return nil
		}
		if time.Since(began) > settleMeshMax {
			t.violate("not equal within %v without any command: %s", settleMeshMax, differ)
			return nil
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return err
		}
	}
}

// differ names an item of which two nodes show different rows.
func (t *cutTrial) differ(ctx context.Context) (string, error) {
	skus := []string{t.marker.sku}
	for _, a := range t.crowd.accounts {
		skus = append(skus, a.sku)
	}
	var first []protocol.Item
	for i, n := range t.target.nodes {
		items, err := readItems(ctx, t.target.endpoint(i), skus)
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.name, err)
		}
		if i == 0 {
			first = items
		}
		if differ := difference(first, items); differ != "" {
			return fmt.Sprintf("%s and %s: %s", t.target.nodes[0].name, n.name, differ), nil
		}
	}
	return "", nil
}

// difference compares the answers to the same get.
func difference(a, b []protocol.Item) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d items and %d", len(a), len(b))
	}
	for i, x := range a {
		y := b[i]
		if x.SKU != y.SKU || x.Version != y.Version || x.OnHand != y.OnHand || x.Reserved != y.Reserved || x.Available != y.Available {
			return fmt.Sprintf("%s has %d on hand, %d reserved, %d available at %s; %s has %d, %d, %d at %s",
				x.SKU, x.OnHand, x.Reserved, x.Available, x.Version, y.SKU, y.OnHand, y.Reserved, y.Available, y.Version)
		}
	}
	return ""
}
