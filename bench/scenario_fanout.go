package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Kinds of change.
const (
	single = iota
	burst
	kinds
)

// stage is a source of changes and who hears of them.
type stage struct {
	*audience
	change func(kind int) error
	idle   func() bool      // every change has been answered
	pids   []int            // who delivers; nil: not known here
	ready  func(n int) bool // so many commands more may be under way; nil: any number

	delivered [kinds]int64
	took      [kinds]time.Duration
	kindAges  [kinds]latencies
	kindFirst [kinds]latencies
}

// fanout changes stock as fast as everybody has heard of the last change, on the
// node and on the floor in turn.
func fanout(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	node, err := r.openNodeStage(ctx, gen)
	if err != nil {
		return err
	}
	texts, err := r.recordTexts(ctx, node)
	if err != nil || len(r.violations) > 0 {
		return err
	}
	floor, stop, err := r.openFloorStage(ctx, gen, texts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := r.alternate(ctx, node, floor); err != nil {
		return err
	}
	r.putFanout(node, floor)
	return r.fanoutOverlapping(ctx, node, floor, texts)
}

func (r *round) openNodeStage(ctx context.Context, gen *generator) (*stage, error) {
	r.progress.counted(fmt.Sprintf("%s: %d subscribers", r.name, r.subscribers), r.subscribers)
	a := newAudience(gen)
	a.expect, a.drawn = map[string]int64{}, "pushes"
	skus := r.skus()
	err := dialAll(ctx, r.target, r.subscribers, func(i int, d *dialed) error {
		r.progress.at(int64(i))
		c, err := a.add(d)
		if err != nil {
			return err
		}
		return c.subscribe(skus, "", 0)
	})
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, gen, func() bool { return a.subscribed == r.subscribers || len(a.faults) > 0 }); err != nil {
		return nil, fmt.Errorf("%d of %d subscribed: %w", a.subscribed, r.subscribers, err)
	}
	return r.openDriver(ctx, gen, a, skus)
}

func (r *round) skus() []string {
	var skus []string
	for i := range r.burst {
		skus = append(skus, fmt.Sprintf("bench-fan-%s-%d", r.id, i))
	}
	return skus
}

// openDriver connects what changes the stock that an audience hears of.
func (r *round) openDriver(ctx context.Context, gen *generator, a *audience, skus []string) (*stage, error) {
	d, err := r.newDriver(ctx, gen, skus, a.fault)
	if err != nil {
		return nil, err
	}
	change := func(kind int) error {
		n := r.changed(kind)
		for _, sku := range skus[:n] {
			a.expect[sku]++
		}
		return d.change(n)
	}
	s := newStage(a, change, d.idle)
	s.ready = d.ready
	return s, nil
}

// changed is how many SKUs a change of a kind touches.
func (r *round) changed(kind int) int { return [kinds]int{1, r.burst}[kind] }

func newStage(a *audience, change func(int) error, idle func() bool) *stage {
	s := &stage{audience: a, change: change, idle: idle}
	for kind := range kinds {
		s.kindAges[kind], s.kindFirst[kind] = a.gen.newLatencies(a.drawn), newLatencies()
	}
	return s
}

// recordTexts makes one change of each kind and returns what a subscriber got, as
// bytes on the wire.
func (r *round) recordTexts(ctx context.Context, node *stage) (texts [kinds][]byte, err error) {
	witness := node.subscribers[0]
	witness.keep = true
	for kind := range kinds {
		witness.raw = nil
		if err := r.changeOnce(ctx, node, kind); err != nil {
			return texts, err
		}
		texts[kind] = witness.raw
	}
	witness.keep = false
	return texts, nil
}

// openFloorStage starts the bare write loop and connects as many subscribers.
func (r *round) openFloorStage(ctx context.Context, gen *generator, texts [kinds][]byte) (*stage, func() error, error) {
	p, err := startProcess(ctx, os.Stderr, childFloor)
	if err != nil {
		return nil, nil, err
	}
	a := newAudience(gen)
	a.drawn = "bare writes"
	floor := "ws://" + p.Public
	dial := func(ctx context.Context, _ int) (*net.TCPConn, error) {
		nc, err := dialTCP(ctx, floor)
		if err == nil {
			_, err = nc.Write([]byte{floorSubscriber})
		}
		return nc, err
	}
	err = inParallel(ctx, r.subscribers, dial, func(_ int, nc *net.TCPConn) error {
		_, err := a.add(&dialed{TCPConn: nc})
		return err
	})
	var change func(int) error
	if err == nil {
		change, err = openFloorDriver(ctx, floor, texts)
	}
	if err != nil {
		return nil, nil, errors.Join(err, p.stop())
	}
	s := newStage(a, change, func() bool { return true })
	s.pids = []int{p.pid()}
	return s, p.stop, nil
}

func openFloorDriver(ctx context.Context, floor string, texts [kinds][]byte) (change func(int) error, err error) {
	nc, err := dialTCP(ctx, floor)
	if err != nil {
		return nil, err
	}
	head := []byte{floorDriver}
	for _, text := range texts {
		head = append(binary.BigEndian.AppendUint32(head, uint32(len(text))), text...)
	}
	if _, err := nc.Write(head); err != nil {
		return nil, err
	}
	return func(kind int) error {
		_, err := nc.Write([]byte{byte(kind)})
		return err
	}, nc.SetDeadline(time.Time{})
}

// phaseSlices is in how many pieces a phase is cut, so that a minute's noise falls on
// the node and the floor alike.
const phaseSlices = 4

func (r *round) alternate(ctx context.Context, node, floor *stage) error {
	for kind := range kinds {
		r.phase(r.kindName(kind)+", the node and a bare write loop in turn", 2*r.duration)
		begin := time.Now()
		for i := range phaseSlices {
			for j := range 2 {
				s := [2]*stage{node, floor}[(i+j)%2]
				if err := r.slice(ctx, s, kind, begin); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// slice makes changes for a part of a phase.
func (r *round) slice(ctx context.Context, s *stage, kind int, began time.Time) error {
	s.ages, s.firsts = s.kindAges[kind], s.kindFirst[kind]
	items, begin := s.items, time.Now()
	for time.Since(begin) < r.duration/phaseSlices && len(r.violations) == 0 {
		if err := r.changeOnce(ctx, s, kind); err != nil {
			return err
		}
		r.progress.since(began)
	}
	s.took[kind] += time.Since(begin)
	s.delivered[kind] += s.items - items
	return nil
}

// changeOnce makes one change and waits until every subscriber has heard of it,
// exactly once.
func (r *round) changeOnce(ctx context.Context, s *stage, kind int) error {
	before := s.subscribers[0].items
	each := int64(r.changed(kind))
	goal := s.items + each*int64(len(s.subscribers))
	s.gen.tick()
	s.sentAt, s.fresh = s.gen.now, true
	if err := s.change(kind); err != nil {
		return err
	}
	err := r.await(ctx, s.gen, func() bool { return s.items >= goal && s.idle() || len(s.faults) > 0 })
	if errors.Is(err, errLate) {
		r.violate("%d of %d pushes came within %v", s.items-goal+each*int64(len(s.subscribers)), each*int64(len(s.subscribers)), awaitTimeout)
		return nil
	}
	for i, sub := range s.subscribers {
		if err == nil && sub.items != before+each && len(s.faults) == 0 {
			s.fault("subscriber %d was pushed %d items of a change of %d", i, sub.items-before, each)
		}
	}
	for _, fault := range s.faults {
		r.violate("%s", fault)
	}
	s.faults = nil
	return err
}

const awaitTimeout = 10 * time.Second

var errLate = fmt.Errorf("nothing more within %v", awaitTimeout)

// await turns until done.
func (r *round) await(ctx context.Context, gen *generator, done func() bool) error {
	end := time.Now().Add(awaitTimeout)
	for !done() {
		if time.Now().After(end) {
			return errLate
		}
		if err := errors.Join(ctx.Err(), gen.turn(100*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

const bareWrite = "bare-write"

func (r *round) putFanout(node, floor *stage) {
	for kind, prefix := range kindPrefixes {
		ours, bare := node.rate(kind), floor.rate(kind)
		r.numbers[prefix+"delivered_per_second"] = ours
		r.numbers[prefix+"floor_ratio"] = ours / max(bare, 1)
		node.kindAges[kind].put(r.numbers, prefix)
		node.kindFirst[kind].put(r.numbers, prefix+"first_push_")
		r.peer(bareWrite)[prefix+"delivered_per_second"] = bare
		floor.kindAges[kind].put(r.peer(bareWrite), prefix)
		floor.kindFirst[kind].put(r.peer(bareWrite), prefix+"first_push_")
	}
}

func (s *stage) rate(kind int) float64 {
	return float64(s.delivered[kind]) / max(s.took[kind].Seconds(), 1e-9)
}
