package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/stockmesh/stockmesh/bench/fault"
)

// ward sees to it that a region has no more nodes down than its plan allows, also where
// one takes longer to come back than was thought.
type ward struct {
	minority *semaphore.Weighted
	whole    int64
	nodes    []sync.Mutex // of one node, one fault at a time
}

func newWard(each int) *ward {
	whole := int64(max((each-1)/2, 1))
	return &ward{minority: semaphore.NewWeighted(whole), whole: whole, nodes: make([]sync.Mutex, each)}
}

// admit waits until a region can bear a fault of its nodes. The returned function ends it.
func (w *ward) admit(ctx context.Context, e fault.Event) (func(), error) {
	weight := w.whole
	if e.AtNode() {
		weight = 1
	}
	if err := w.minority.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	if !e.AtNode() {
		return func() { w.minority.Release(weight) }, nil
	}
	w.nodes[e.Node].Lock()
	return func() {
		w.nodes[e.Node].Unlock()
		w.minority.Release(weight)
	}, nil
}

// carryOut makes the faults of the plan happen. It ends when all are undone, and not
// before the time of the plan is over.
func (s *soakTrial) carryOut(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	var faults sync.WaitGroup
	for _, e := range s.plan {
		if pause(ctx, e.At-time.Since(began)) != nil {
			break
		}
		faults.Go(func() {
			if err := s.suffer(ctx, e); err != nil {
				cancel(fmt.Errorf("%s: %w", s.tell(e), err)) // the first one counts
			}
		})
	}
	faults.Wait()
	_ = pause(ctx, s.duration-time.Since(began)) // context.Cause tells
	return context.Cause(ctx)
}

// suffer makes one fault happen and undoes it, also when ctx has ended.
func (s *soakTrial) suffer(ctx context.Context, e fault.Event) error {
	if !e.AtLinks() {
		over, err := s.wards[e.Region].admit(ctx, e)
		if err != nil {
			return err
		}
		defer over()
	}
	over := s.happening("%s", s.tell(e))
	defer over()
	a, err := s.expect(ctx, e)
	if err != nil {
		return err
	}
	undo, err := s.strike(ctx, e)
	if err != nil {
		return err
	}
	err = s.crowd.call(ctx, func() { a.struck = min(a.struck, s.crowd.gen.now) })
	if err == nil {
		err = pause(ctx, e.For)
	}
	if err := errors.Join(err, undo(ctx)); err != nil {
		return err
	}
	if err := s.awaitServing(ctx, e); err != nil {
		return err
	}
	return s.crowd.call(ctx, func() { a.undone = s.crowd.gen.now })
}

// expect has the crowd look out for what a fault does to the clients.
func (s *soakTrial) expect(ctx context.Context, e fault.Event) (*awaited, error) {
	a := &awaited{kind: e.Kind, region: e.Region, struck: math.MaxInt64}
	return a, s.crowd.call(ctx, func() {
		a.since, a.last = s.crowd.gen.now, s.crowd.gen.now
		if e.Kind == fault.Restart || e.Kind == fault.Clock || e.Kind == fault.Upgrade {
			a.struck = a.since // the node takes its time, and serves meanwhile
		}
		s.awaiting = append(s.awaiting, a)
	})
}

// strike does what the fault is, and returns what undoes it.
func (s *soakTrial) strike(ctx context.Context, e fault.Event) (undo func(context.Context) error, err error) {
	w := s.target.wires
	mended := func(mend func()) (func(context.Context) error, error) {
		return func(context.Context) error { mend(); return nil }, nil
	}
	switch e.Kind {
	case fault.Cut:
		w.sever(e.Region)
		return mended(func() { w.rejoin(e.Region) })
	case fault.Oneway:
		w.hush(e.Region, e.Peer)
		return mended(func() { w.unhush(e.Region, e.Peer) })
	case fault.Slow:
		w.worsen(e.Region, e.Peer, slowRoad)
		return mended(func() { w.clear(e.Region, e.Peer) })
	case fault.Lossy:
		w.worsen(e.Region, e.Peer, lossyRoad)
		return mended(func() { w.clear(e.Region, e.Peer) })
	case fault.Region:
		return s.killAll(s.victims(e))
	case fault.Kill:
		return s.killAll([]*node{s.victim(e)})
	}
	return s.strikeNode(ctx, e, s.victim(e))
}

// strikeNode is strike for what a node survives, or ends with in good order.
func (s *soakTrial) strikeNode(ctx context.Context, e fault.Event, n *node) (undo func(context.Context) error, err error) {
	switch e.Kind {
	case fault.Stop:
		return n.freeze(ctx)
	case fault.Restart:
		return n.start, n.stop()
	case fault.Disk:
		return s.fill(n)
	case fault.Clock:
		return n.altered(ctx, n.withClock(e.By))
	case fault.Upgrade:
		return n.altered(ctx, n.withBinary(s.previous))
	}
	return nil, fmt.Errorf("nobody knows how to do it")
}

// awaitServing waits until the nodes that a fault has hit serve again.
func (s *soakTrial) awaitServing(ctx context.Context, e fault.Event) error {
	if e.AtLinks() {
		return nil
	}
	nodes := s.victims(e)
	if e.AtNode() {
		nodes = []*node{s.victim(e)}
	}
	for _, n := range nodes {
		if err := n.awaitServing(ctx); err != nil {
			return err
		}
	}
	return nil
}

// killAll kills nodes at once; they are undone by being started at once.
func (s *soakTrial) killAll(nodes []*node) (func(context.Context) error, error) {
	undo := func(ctx context.Context) error {
		return each(nodes, func(n *node) error { return n.start(ctx) })
	}
	return undo, each(nodes, (*node).kill)
}

// each does the same to all nodes at once.
func each(nodes []*node, do func(*node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}
