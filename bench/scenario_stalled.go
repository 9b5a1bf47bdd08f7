package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	stalls        = 8  // in turn with as many slices without any
	stalledShare  = 10 // one reader in so many stalls
	slowTimeout   = 10 * time.Second
	slowLateness  = 15 * time.Second // what closing may take more: what the kernel still took, a busy machine
	stallsShorter = 5 * time.Second  // than this, so that nobody is closed before the last one
	stallWarmUp   = time.Second      // until the kernel takes no more
	stalledSettle = 200 * time.Millisecond

	stalledP99Max  = 1.05
	outboxMax      = 256 << 10 // what the node keeps for a connection at most
	stalledRSSRoom = 32 << 20  // what a heap grows by itself
)

// stalledTrial is a hall in which some stop reading.
type stalledTrial struct {
	*hall
	quick, slow *party
	sleepers    []*reader
	flow        *flow
	p99         [2][]float64 // ms, of the quick ones: with everybody reading, with some stalled

	told, reset int // sleepers that were closed with 4100, or lost otherwise
	other       []string
}

// stalled has a tenth of the readers stop reading, again and again, and compares what
// the others see with and without; the last time for good.
func stalled(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	h, err := r.openHall(ctx, gen, r.skus())
	if err != nil {
		return err
	}
	t := &stalledTrial{hall: h, quick: h.board.newParty(), slow: h.board.newParty()}
	t.slow.ages = gen.newLatencies("pushes to those who stall")
	t.flow = h.flow(t.quick, r.burst)
	if err := t.open(ctx); err != nil {
		return err
	}
	length := 2 * r.duration
	if err := r.profiled(length, func() error { return t.compare(ctx) }); err != nil {
		return t.late(err)
	}
	if err := t.stallForGood(ctx); err != nil {
		return t.late(err)
	}
	if err := t.comeBack(ctx); err != nil {
		return t.late(err)
	}
	t.judge()
	return nil
}

func (t *stalledTrial) open(ctx context.Context) error {
	slow := max(t.subscribers/stalledShare, 1)
	if _, err := t.seat(ctx, t.quick, max(t.subscribers-slow, 1), t.target.endpoint, nil, 0); err != nil {
		return err
	}
	// All at the node where the changes are made: others hear of fewer, and what the
	// kernels hold for their readers takes longer to fill.
	sleepers, err := t.seat(ctx, t.slow, slow, func(int) string { return t.target.endpoint(0) }, narrow, 0)
	for _, s := range sleepers {
		s.onLost = t.lost
	}
	t.sleepers = sleepers
	return err
}

func (t *stalledTrial) lost(_ *reader, err error) {
	switch {
	case strings.Contains(err.Error(), fmt.Sprint(protocol.CloseSlowConsumer)):
		t.told++
	default:
		if t.reset++; len(t.other) < faultsMax {
			t.other = append(t.other, err.Error())
		}
	}
}

// compare has everybody read and some stall in turn.
func (t *stalledTrial) compare(ctx context.Context) error {
	t.phase(fmt.Sprintf("%d bursts of %d a second before %d readers, %d of whom stall now and then", t.rate, t.burst, t.subscribers, len(t.sleepers)), 2*t.duration)
	began := time.Now()
	length := min(t.duration/stalls, stallsShorter)
	for i := range stalls {
		for j := range 2 {
			if err := t.slice(ctx, (i+j)%2 == 1, length, func() { t.progress.since(began) }); err != nil {
				return err
			}
		}
	}
	t.putCompared()
	return nil
}

// putCompared compares each slice with the one next to it.
func (t *stalledTrial) putCompared() {
	var ratios []float64
	for i, calm := range t.p99[0] {
		ratios = append(ratios, t.p99[1][i]/max(calm, 0.001))
	}
	ratio := spreadOf(ratios)
	t.numbers["p99_ms"], t.numbers["stalled_p99_ms"] = spreadOf(t.p99[0]).median, spreadOf(t.p99[1]).median
	t.numbers["p99_ratio"], t.numbers["p99_ratio_lowest"], t.numbers["p99_ratio_highest"] = ratio.median, ratio.low, ratio.high
	t.mark("p99_ratio", atMost, stalledP99Max)
}

// slice measures what the quick ones see for a while.
func (t *stalledTrial) slice(ctx context.Context, stall bool, length time.Duration, step func()) error {
	rate := float64(t.rate)
	if err := t.pause(stall); err != nil {
		return err
	}
	if stall {
		e := t.chronicle.note(fmt.Sprintf("%d readers stall", len(t.sleepers)))
		defer t.chronicle.end(e)
	}
	if err := t.flow.offer(ctx, 0, rate, min(length, stallWarmUp), step); err != nil {
		return err
	}
	t.quick.restart()
	if err := t.flow.offer(ctx, 0, rate, length, step); err != nil {
		return err
	}
	if err := t.flow.settle(ctx); err != nil {
		return err
	}
	which := 0
	if stall {
		which = 1
	}
	t.p99[which] = append(t.p99[which], float64(t.quick.ages.h.ValueAtQuantile(99))/1000)
	if !stall {
		return nil
	}
	if err := t.pause(false); err != nil {
		return err
	}
	return t.flow.until(ctx, func() bool { return t.slow.waiting() == 0 })
}

// pause stops the sleepers' reading, or lets them go on.
func (t *stalledTrial) pause(on bool) error {
	for _, s := range t.sleepers {
		if s.conn == nil || s.conn.socket.paused == on {
			continue
		}
		if err := s.conn.socket.pause(on); err != nil {
			return err
		}
	}
	return nil
}

// stallForGood lets the sleepers sleep until the node has given them all up.
func (t *stalledTrial) stallForGood(ctx context.Context) error {
	limit := slowTimeout + slowLateness
	t.phase(fmt.Sprintf("%d readers stall until they are closed", len(t.sleepers)), slowTimeout)
	before, err := t.residentBytes()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := t.pause(true); err != nil {
		return err
	}
	woken := t.happening("%d readers stall", len(t.sleepers))
	defer woken()
	w := t.watch(ctx)
	began := time.Now()
	for int(w.closed.Load()) < len(t.sleepers) && time.Since(began) < limit {
		if err := t.flow.offer(ctx, 0, float64(t.rate), stalledSettle, func() { t.progress.since(began) }); err != nil {
			return errors.Join(err, w.stop())
		}
	}
	if err := w.stop(); err != nil {
		return err
	}
	t.putStalled(w, before)
	return nil
}

func (t *stalledTrial) putStalled(w *nodeWatch, before int64) {
	n := t.numbers
	n["stalled_readers"], n["closed_4100"] = float64(len(t.sleepers)), float64(w.closed.Load())
	n["first_closed_ms"], n["last_closed_ms"] = milliseconds(w.first), milliseconds(w.last)
	if int(w.closed.Load()) != len(t.sleepers) {
		t.violate("%d of %d stalled readers were closed with %d within %v", w.closed.Load(), len(t.sleepers), protocol.CloseSlowConsumer, slowTimeout+slowLateness)
	}
	if w.first > 0 && w.first < slowTimeout-watchEvery {
		t.violate("a stalled reader was closed after %v, which is before %v", w.first, slowTimeout)
	}
	if before == 0 {
		return
	}
	grown := w.rss.Load() - before
	n["rss_growth_bytes"] = float64(max(grown, 0))
	if budget := int64(len(t.sleepers))*outboxMax + stalledRSSRoom; grown > budget {
		t.violate("the node grew by %d bytes over %d stalled readers: its budget is %d", grown, len(t.sleepers), budget)
	}
}

// nodeWatch looks at the node while the crowd's goroutine is busy.
type nodeWatch struct {
	closed      atomic.Int64
	rss         atomic.Int64 // the most
	first, last time.Duration
	cancel      context.CancelFunc
	done        chan error
}

const watchEvery = 250 * time.Millisecond

// watch counts closed sleepers until it is stopped.
func (t *stalledTrial) watch(ctx context.Context) *nodeWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &nodeWatch{cancel: cancel, done: make(chan error, 1)}
	began := time.Now()
	go func() {
		for ctx.Err() == nil {
			figures, err := scrape(ctx, t.target.nodes[0].Admin)
			if err != nil && ctx.Err() == nil {
				w.done <- err
				return
			}
			if n := int64(figures[closedWith(protocol.CloseSlowConsumer)]); n > w.closed.Load() {
				w.last = time.Since(began)
				if w.first == 0 {
					w.first = w.last
				}
				w.closed.Store(n)
			}
			if rss, err := t.residentBytes(); err == nil {
				w.rss.Store(max(w.rss.Load(), rss))
			}
			_ = pause(ctx, watchEvery) // ctx is looked at above
		}
		w.done <- nil
	}()
	return w
}

func (w *nodeWatch) stop() error {
	w.cancel()
	return <-w.done
}

// comeBack has the sleepers wake up, see that they were closed, and go on with their
// cursors, while the stock goes on changing.
func (t *stalledTrial) comeBack(ctx context.Context) error {
	t.phase("they come back with their cursors", stallWarmUp)
	if err := t.pause(false); err != nil {
		return err
	}
	rate := float64(t.rate)
	step := func() {}
	for end := time.Now().Add(awaitTimeout); t.told+t.reset < len(t.sleepers) && time.Now().Before(end); {
		if err := t.flow.offer(ctx, 0, rate, stalledSettle, step); err != nil {
			return err
		}
	}
	t.numbers["told_why"] = float64(t.told)
	if gone := t.told + t.reset; gone < len(t.sleepers) {
		t.violate("%d of %d readers don't see that they were closed", len(t.sleepers)-gone, len(t.sleepers))
		return nil
	}
	for i, s := range t.sleepers {
		d, err := dialAs(ctx, t.target.endpoint(i), narrow)
		if err != nil {
			return err
		}
		if err := errors.Join(s.land(d), s.conn.subscribe(t.board.skus, s.cursor, 0)); err != nil {
			return err
		}
		if s.cursor == "" {
			t.violate("a reader has no cursor to come back with")
		}
		s.onLost = nil
	}
	if err := errors.Join(t.flow.offer(ctx, 0, rate, stallWarmUp, step), t.awaitReady(ctx, t.sleepers), t.flow.settle(ctx)); err != nil {
		return err
	}
	err := t.flow.until(ctx, func() bool { return t.slow.waiting() == 0 })
	for _, s := range t.sleepers {
		if s.backsteps > 0 {
			t.violate("a reader that came back was shown older states than before")
			break
		}
	}
	return err
}
