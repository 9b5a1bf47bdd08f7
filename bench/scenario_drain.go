package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// drainOver is the time over which a node of a spawned region sends its clients
// elsewhere.
const drainOver = 2 * time.Second

// drain has watchers leave a node that is full of them, then ends each node in good
// order and starts it again: a rolling restart.
func drain(ctx context.Context, r *round) error {
	if r.watchers > 0 {
		if err := r.drainWatchers(ctx); err != nil {
			return err
		}
	}
	var stops []float64 // ms
	err := r.withstand(ctx, func(ctx context.Context, t *trial) error {
		for i, n := range r.target.nodes {
			took, err := t.roll(ctx, i, n)
			if err != nil {
				return err
			}
			stops = append(stops, milliseconds(took))
		}
		return t.crowd.call(ctx, func() {
			// Ended by the node, that is, without the word of where to go.
			if n := t.crowd.broken; n > 0 {
				t.violate("%d connections ended without close code 4200", n)
			}
		})
	})
	r.numbers["restarts"] = float64(len(stops))
	r.numbers["stop_max_ms"] = slices.Max(append(stops, 0))
	return err
}

// roll restarts one node and returns how long it took to stop.
func (t *trial) roll(ctx context.Context, i int, n *node) (time.Duration, error) {
	what := fmt.Sprintf("restart %d/%d: %s", i+1, len(t.target.nodes), n.name)
	if err := t.crowd.call(ctx, func() { t.announce(what, 2*drainOver) }); err != nil {
		return 0, err
	}
	began := time.Now()
	back := t.happening("%s told to stop", n.name)
	if err := n.stop(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := t.restart(ctx, n); err != nil {
		return 0, err
	}
	back()
	return took, t.crowd.call(ctx, func() {
		t.progress.note("  stopped in %v, ready again after %.0f ms", took.Round(time.Millisecond), t.ready[len(t.ready)-1])
	})
}
