package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// failover kills the node that decides, again and again, and measures how long it
// takes until the others have a new one.
func failover(ctx context.Context, r *round) error {
	var took []float64 // ms
	err := r.withstand(ctx, func(ctx context.Context, t *trial) (err error) {
		took, err = t.killOwners(ctx)
		return err
	})
	r.numbers["kills"] = float64(r.kills)
	r.numbers["failover_p50_ms"] = quantile(took, 0.5)
	r.numbers["failover_p99_ms"] = quantile(took, 0.99)
	r.numbers["failover_max_ms"] = slices.Max(append(took, 0))
	return err
}

func (t *trial) killOwners(ctx context.Context) (took []float64, err error) {
	for k := range t.kills {
		if k > 0 {
			if err := pause(ctx, t.every-time.Since(t.killedAt)); err != nil {
				return took, err
			}
		}
		d, err := t.killOwner(ctx, k)
		if err != nil {
			return took, err
		}
		if d > 0 {
			took = append(took, milliseconds(d))
		}
	}
	return took, nil
}

// Patience with a region that has lost its owner: after the first it gets the node
// back, after the second it is judged not to recover.
const (
	restartAfter   = 5 * time.Second
	recoveryWithin = 20 * time.Second
)

// killOwner kills the owner and starts it again once the others do without it. It
// returns how long that took them, 0 if they never did.
func (t *trial) killOwner(ctx context.Context, k int) (time.Duration, error) {
	owner, err := t.target.owner(ctx)
	if err != nil {
		return 0, err
	}
	n := t.target.nodes[owner]
	what := fmt.Sprintf("kill %d/%d: %s, the owner", k+1, t.kills, n.name)
	if err := t.crowd.call(ctx, func() { t.announce(what, t.every) }); err != nil {
		return 0, err
	}
	o, err := t.kill(ctx, n, owner)
	if err != nil {
		return 0, err
	}
	back := t.happening("%s killed", n.name)
	took := o.await(ctx, restartAfter)
	if err := t.restart(ctx, n); err != nil {
		return 0, err
	}
	back()
	if took == 0 {
		took = o.await(ctx, recoveryWithin)
	}
	return took, t.crowd.call(ctx, func() {
		if took == 0 {
			t.violate("%s: the others have not succeeded with anything since", what)
		}
		t.progress.note("  others succeed after %v, %s is ready again after %.0f ms", took.Round(time.Millisecond), n.name, t.ready[len(t.ready)-1])
	})
}

// kill ends a node and has the crowd look out for the first success without it.
func (t *trial) kill(ctx context.Context, n *node, number int) (*outage, error) {
	o := &outage{node: number, over: make(chan time.Duration, 1)}
	t.killedAt = time.Now()
	o.killed = int64(time.Since(t.crowd.gen.start))
	if err := n.kill(); err != nil {
		return nil, err
	}
	o.dead = int64(time.Since(t.crowd.gen.start))
	return o, t.crowd.call(ctx, func() { t.crowd.outage = o })
}

// await returns how long the outage took, 0 if it is not over in time.
func (o *outage) await(ctx context.Context, patience time.Duration) time.Duration {
	select {
	case took := <-o.over:
		return took
	case <-time.After(patience):
	case <-ctx.Done():
	}
	return 0
}
