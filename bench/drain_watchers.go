package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// scenarioDrain is the scenario whose first node takes its time to stop.
const scenarioDrain = "drain"

const (
	leaversSKUs    = 8
	leaversPerSec  = 20   // bursts of changes
	leaversEveryMS = 1000 // least time between two pushes of an item to one watcher
	closedInPieces = 10   // of the time over which a node drains, to see whether it is paced
	pieceMax       = 3    // times its fair part that one piece may have
	leaversTries   = 50   // of a reader that looks for a node, 20 ms apart
)

// leavers are the watchers of a node that drains.
type leavers struct {
	*hall
	party *party
	flow  *flow

	began  time.Time
	left   []time.Duration // when each was closed
	broken []error         // closed in any other way
	dials  sync.WaitGroup
	homes  chan newHome
	wait   int // dials under way
	cancel context.CancelFunc
	ctx    context.Context
}

// newHome is a connection to another node, or why there is none.
type newHome struct {
	reader *reader
	dialed *dialed
	err    error
}

// drainWatchers fills the first node with watchers and stops it while the stock they
// watch changes. Each has to end on another node with the right state.
func (r *round) drainWatchers(ctx context.Context) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	l := &leavers{homes: make(chan newHome, r.watchers)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	defer func() {
		l.cancel()
		l.dials.Wait()
		close(l.homes)
		for home := range l.homes {
			if home.dialed != nil {
				home.dialed.Close()
			}
		}
		err = errors.Join(err, gen.close())
	}()
	if err := l.open(ctx, r, gen); err != nil {
		return err
	}
	if err := l.drain(ctx); err != nil {
		return r.late(err)
	}
	l.put()
	l.judge()
	// What follows is not to take as long.
	first := r.target.nodes[0]
	first.args, first.grace = append(first.args, "--drain", drainOver.String()), 0
	return first.start(ctx)
}

func (l *leavers) open(ctx context.Context, r *round, gen *generator) error {
	var skus []string
	for i := range leaversSKUs {
		skus = append(skus, fmt.Sprintf("bench-left-%s-%d", r.id, i))
	}
	elsewhere := *r
	elsewhere.target = &target{endpoints: r.target.endpoints[1:]} // what changes the stock stays
	var err error
	if l.hall, err = elsewhere.openHall(ctx, gen, skus); err != nil {
		return err
	}
	l.round = r
	l.party = l.board.newParty()
	l.flow = l.hall.flow(l.party, leaversSKUs)
	readers, err := l.seat(ctx, l.party, r.watchers, func(int) string { return r.target.endpoint(0) }, nil, leaversEveryMS)
	for _, reader := range readers {
		reader.onLost = l.lost
	}
	return err
}

// lost sends a reader whose connection was closed to another node, with its cursor.
func (l *leavers) lost(reader *reader, err error) {
	if !errors.Is(err, errDrained) || !reader.away {
		l.broken = append(l.broken, err)
	}
	number := len(l.left)
	l.left = append(l.left, time.Since(l.began))
	l.wait++
	l.dials.Go(func() {
		var home newHome
		for range leaversTries {
			others := l.target.endpoints[1:]
			d, err := dial(l.ctx, others[number%len(others)])
			if home = (newHome{reader, d, err}); err == nil || l.ctx.Err() != nil {
				break
			}
			number++
			_ = pause(l.ctx, redialPause) // the loop looks at ctx
		}
		l.homes <- home
	})
}

// takeHomes gives readers the connections that were made.
func (l *leavers) takeHomes() error {
	for {
		select {
		case home := <-l.homes:
			l.wait--
			if home.err != nil {
				return fmt.Errorf("a watcher finds no other node: %w", home.err)
			}
			if err := errors.Join(home.reader.land(home.dialed), home.reader.conn.subscribe(l.board.skus, home.reader.cursor, leaversEveryMS)); err != nil {
				return err
			}
			home.reader.onLost = nil // it stays now
		default:
			return nil
		}
	}
}

// drain stops the node while changes go on.
func (l *leavers) drain(ctx context.Context) error {
	step := func() {}
	offer := func(length time.Duration) error {
		return l.flow.offer(ctx, 0, leaversPerSec, length, step)
	}
	l.phase(fmt.Sprintf("%d watchers leave %s over %v", l.watchers, l.target.nodes[0].name, l.over), l.over)
	if err := offer(warmUp(l.duration)); err != nil {
		return err
	}
	l.party.restart()
	stopped := make(chan error, 1)
	gone := l.happening("%s told to stop", l.target.nodes[0].name)
	l.began = time.Now()
	step = func() { l.progress.since(l.began) }
	go func() { stopped <- l.target.nodes[0].stop() }()
	for running := true; running || len(l.left) < l.watchers || l.wait > 0; {
		if err := errors.Join(offer(leaversTurn), l.takeHomes()); err != nil {
			return err
		}
		select {
		case err := <-stopped:
			running = false
			gone()
			l.numbers["leave_stop_ms"] = milliseconds(time.Since(l.began))
			if err != nil {
				return err
			}
		default:
		}
		if time.Since(l.began) > l.over+settleMeshMax {
			l.violate("%d of %d watchers were closed, %d look for a node, within %v", len(l.left), l.watchers, l.wait, l.over+settleMeshMax)
			return nil
		}
	}
	if err := offer(stallWarmUp); err != nil {
		return err
	}
	return errors.Join(l.awaitReady(ctx, l.readers), l.flow.settle(ctx))
}

const leaversTurn = 20 * time.Millisecond

func (l *leavers) put() {
	n := l.numbers
	n["leave_watchers"] = float64(l.watchers)
	backsteps := 0
	for _, reader := range l.readers {
		backsteps += reader.backsteps
	}
	n["leave_backsteps"] = float64(backsteps) // shown by a node that knew less than the last one
	if len(l.left) > 0 {
		n["leave_first_ms"], n["leave_last_ms"] = milliseconds(l.left[0]), milliseconds(l.left[len(l.left)-1])
		n["leave_densest_share"] = densest(l.left, l.over)
		l.mark("leave_densest_share", atMost, pieceMax)
		// However busy the machine is, the last one has its time.
		if last := l.left[len(l.left)-1]; last < l.over*3/4 {
			l.violate("closing is not paced: all were closed after %v of %v", last.Round(time.Millisecond), l.over)
		}
	}
	if len(l.broken) > 0 {
		l.violate("%d watchers were not sent elsewhere with 4200 after a goaway: %v", len(l.broken), l.broken[0])
	}
}

// densest says how many times its fair part was closed in the fullest tenth of the time.
func densest(at []time.Duration, over time.Duration) float64 {
	piece := max(over/closedInPieces, 1)
	counts := make(map[time.Duration]int)
	for _, d := range at {
		counts[d/piece]++
	}
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	return float64(most) * closedInPieces / float64(max(len(at), 1))
}
