package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/bench/powerfs"
)

// power cuts the power of all nodes at once, again and again, under load: every
// process ends without a warning and every disk loses what was not synced. In the end
// a disk fails to sync. No answer may turn out to have been wrong.
func power(ctx context.Context, r *round) error {
	r.progress.note("seed %d", r.seed)
	p, err := r.openPower(ctx)
	// Not before: the nodes have yet to be held against their promises.
	r.finish = func(error) error { return p.close(ctx) }
	if err != nil {
		return err
	}
	err = r.withstand(ctx, func(ctx context.Context, t *trial) error {
		p.trial = t
		return p.disturb(ctx)
	})
	p.put()
	return err
}

// outageOfAll is a power cut, or another reason for nobody to answer, and is over when
// a command is answered with success that was not even due before.
type outageOfAll struct {
	since int64 // ns on the generator's clock: from here on nothing could be answered
	over  chan int64
}

// powerTrial is a trial in which the disks of the nodes can be switched.
type powerTrial struct {
	*trial
	disks  []*disk // by node
	random *rand.Rand

	outage *outageOfAll // nil: there is none; the crowd's goroutine looks at it
	broken *brokenDisk  // likewise

	took  []float64 // ms from each cut until commands were answered again
	lost  []powerfs.Loss
	again int // cuts while nodes started
}

// powerPauseMax is the longest time between two cuts, in which commands are answered.
// It is drawn, so that cuts come at any moment of what a node does at its start.
const powerPauseMax = 2 * time.Second

const cutTypical = 4 * time.Second // from one to the next

const againOneIn = 4 // cuts that are followed by another one while the nodes start

// disturb is what happens to the nodes; not on the crowd's goroutine.
func (p *powerTrial) disturb(ctx context.Context) error {
	err := p.crowd.call(ctx, func() {
		p.crowd.patient, p.crowd.onAck = true, p.acked
		p.announce(fmt.Sprintf("%d power cuts", p.losses), time.Duration(p.losses)*cutTypical)
	})
	if err != nil {
		return err
	}
	for i := range p.losses {
		what := fmt.Sprintf("power cut %d/%d", i+1, p.losses)
		if err := p.cutAndRecover(ctx, what); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := pause(ctx, time.Duration(p.random.Int64N(int64(min(powerPauseMax, p.duration))))); err != nil {
			return err
		}
	}
	if p.noSync {
		return nil // a disk that lies fails nothing
	}
	return p.failDisk(ctx)
}

// cutAndRecover cuts the power of all, brings it back and waits until commands are
// answered.
func (p *powerTrial) cutAndRecover(ctx context.Context, what string) error {
	began := time.Now()
	back := p.happening("%s", what)
	loss, err := p.cut(ctx)
	if err != nil {
		return err
	}
	if p.random.IntN(againOneIn) == 0 {
		p.happened("power cut again while they start")
		again, at, err := p.cutStart(ctx, p.startTypical())
		if err != nil {
			return err
		}
		loss, began = sum([]powerfs.Loss{loss, again}), at
		p.again++
	}
	p.lost = append(p.lost, loss)
	o, err := p.watch(ctx)
	if err != nil {
		return err
	}
	if err := p.restartAll(ctx, what); err != nil {
		return err
	}
	ready := time.Since(began)
	at, err := p.await(ctx, o)
	if err != nil {
		return err
	}
	back()
	if at == 0 {
		p.violate("%s: no command was answered within %v after all nodes were ready", what, recoveryWithin)
		return nil
	}
	took := time.Duration(at) - began.Sub(p.crowd.gen.start)
	p.took, p.ready = append(p.took, milliseconds(took)), append(p.ready, milliseconds(ready))
	p.note("  %d bytes of %d files and %d changes of names lost; ready after %v, answered after %v", loss.Bytes, loss.Files, loss.Names, ready.Round(time.Millisecond), took.Round(time.Millisecond))
	return nil
}

// watch begins an outage: commands that are due from now on count.
func (p *powerTrial) watch(ctx context.Context) (*outageOfAll, error) {
	o := &outageOfAll{over: make(chan int64, 1)}
	return o, p.crowd.call(ctx, func() {
		p.crowd.gen.tick()
		o.since, p.outage = p.crowd.gen.now, o
	})
}

// await returns when the outage was over, in ns on the generator's clock; 0 if it is
// not in time.
func (p *powerTrial) await(ctx context.Context, o *outageOfAll) (int64, error) {
	select {
	case at := <-o.over:
		return at, nil
	case <-time.After(recoveryWithin):
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// acked looks at a success; on the crowd's goroutine.
func (p *powerTrial) acked(m *member, age int64) {
	now := p.crowd.gen.now
	if o := p.outage; o != nil && now-age >= o.since {
		o.over <- now
		p.outage = nil
	}
	if b := p.broken; b != nil && now-age >= b.since {
		b.count(m.at)
	}
}

func (p *powerTrial) note(format string, args ...any) { p.progress.note(format, args...) }

// provingCuts are enough for something to be dropped by at least one. By fewer it may
// happen that nothing is: that is said in the report.
const provingCuts = 10

// put writes what the cuts were like.
func (p *powerTrial) put() {
	n := p.numbers
	n["losses"], n["losses_during_start"] = float64(len(p.lost)), float64(p.again)
	n["recovery_p50_ms"], n["recovery_max_ms"] = quantile(p.took, 0.5), slices.Max(append(p.took, 0))
	var bytes, names []float64
	var total float64
	for _, l := range p.lost {
		bytes, names = append(bytes, float64(l.Bytes)), append(names, float64(l.Names))
		total += float64(l.Bytes)
	}
	n["dropped_bytes_p50"], n["dropped_bytes_max"], n["dropped_bytes"] = quantile(bytes, 0.5), slices.Max(append(bytes, 0)), total
	n["dropped_names_max"] = slices.Max(append(names, 0))
	if total > 0 {
		return
	}
	if len(p.lost) >= provingCuts {
		p.violate("nothing was dropped by %d power cuts, which proves nothing", len(p.lost))
		return
	}
	p.leaveOut("proof", fmt.Sprintf("this run proves nothing: nothing was dropped by %d power cuts; --losses %d or more will tell", len(p.lost), provingCuts))
}
