package clustertest

import (
	"context"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// AwaitConverged waits until every running node of every region shows the same items, and
// returns how long that took. Nobody may write meanwhile.
func (m *Mesh) AwaitConverged() time.Duration {
	m.t.Helper()
	begun := time.Now()
	m.await("converged", convergeWait*Slow, func(ctx context.Context) error {
		var first *Node
		var stock []protocol.Item
		for _, n := range m.Running() {
			items, err := n.Stock(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
			if first == nil {
				first, stock = n, items
				continue
			}
			if diff := firstDifference(stock, items); diff != "" {
				return fmt.Errorf("%s and %s differ: %s", first, n, diff)
			}
		}
		return nil
	})
	return time.Since(begun)
}

// firstDifference tells what two nodes show differently, "" where they agree. When an
// item changed last is not compared: regions have clocks of their own.
func firstDifference(a, b []protocol.Item) string {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		x.UpdatedAt, y.UpdatedAt = 0, 0
		if x != y {
			return fmt.Sprintf("%+v, %+v", x, y)
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d items, %d items", len(a), len(b))
	}
	return ""
}
