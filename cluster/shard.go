package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// shard is one log of the region on this node: its replica, and either the owner that
// decides, or the follower that applies what another node decided. One goroutine does
// both in turns, so the replica has one writer.
type shard struct {
	n       int
	config  *Config
	log     *bus.Log
	table   *bus.Table
	archive *bus.Archive
	wire    messenger // nil where the node is alone
	logger  *slog.Logger
	metrics *metrics

	replica *replica
	queue   *queue
	desk    *desk
	owner   *owner
	follow  *follower
	snaps   *snapshotter
	history *historian
	herald  atomic.Pointer[herald]        // of the present or last term
	reached func(component string) uint64 // how far another region's log goes; nil where there are none
	tellAll func(news []byte)             // tells other regions; nil where there are none
	flusher atomic.Pointer[flusher]       // of the present term; nil elsewhere
	marked  atomic.Uint64                 // epoch of the present term, for signs of life

	handOver atomic.Bool // this node is about to stop: others shall decide
	behind   sync.WaitGroup
	stops    []func() // of subscriptions
	frameBuf []byte
	unfit    atomic.Int64 // until then others shall decide, if there are any
}

// newShard recovers a shard's state: its replica holds the log as it stood at the
// beginning. Before run, read must be set and listen called.
func newShard(ctx context.Context, n int, c *Config, log *bus.Log, table *bus.Table, archive *bus.Archive, wire messenger, m *metrics) (*shard, error) {
	state, err := recoverState(ctx, c, log, table, archive, n)
	if err != nil {
		return nil, err
	}
	s := &shard{
		n: n, config: c, log: log, table: table, archive: archive, wire: wire, metrics: m,
		logger:  c.Logger.With("shard", n),
		replica: newReplica(state), queue: newQueue(c.QueueMax),
	}
	s.snaps = newSnapshotter(c, archive, log, s.replica, m)
	if s.history, err = newHistorian(c, log, s.replica); err != nil {
		return nil, err
	}
	s.owner = newOwner(c, log, s.replica, s.queue, m)
	s.owner.onRound = s.committed
	s.desk = newDesk(c, n, wire, s.queue, nil)
	s.desk.applied.Store(state.Seq())
	s.follow = newFollower(log, s.replica, s.desk, s.logger)
	return s, nil
}

// listen takes part in the region's traffic.
func (s *shard) listen() error {
	if s.wire == nil {
		return nil
	}
	for subject, fn := range map[string]func(string, []byte){
		s.desk.subject("rounds", ""):              s.heard,
		s.desk.subject("commands", s.config.Node): s.desk.relayed,
		s.desk.subject("answers", s.config.Node):  s.desk.answered,
	} {
		stop, err := s.wire.Subscribe(subject, fn)
		if err != nil {
			return fmt.Errorf("shard %d: %w", s.n, err)
		}
		s.stops = append(s.stops, stop)
	}
	return nil
}

func (s *shard) heard(_ string, data []byte) {
	f, err := decodeFrame(data)
	if err != nil {
		s.logger.Error("a message of another node can't be read", "error", err)
		return
	}
	if f.node == s.config.Node {
		return // our own
	}
	s.desk.follow(&f)
	s.follow.add(&f)
}

// run follows and decides in turns until ctx ends or the queue of an owner is closed.
// An error means that this node's replica can't be kept up.
func (s *shard) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.awaitTurn(ctx); err != nil {
			return err
		}
		left, err := s.decide(ctx)
		if s.alone() {
			s.desk.end(left, err)
			return err
		}
		s.desk.leave(left)
		if s.queue.isClosed() {
			return nil
		}
		if err := s.termEnded(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// termEnded sees to what ended a term. It returns what the node can't go on with.
func (s *shard) termEnded(ctx context.Context, err error) error {
	var lost *lostError
	var broken *brokenError
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.As(err, &broken):
		return err
	case errors.As(err, &lost) && !errors.Is(err, bus.ErrFull):
		s.logger.Warn("this node decides no more for now", "reason", err)
	default: // it may last, so it shows in health, and is not tried again at once
		s.owner.outage.note(err)
		s.unfit.Store(s.config.elapsed() + int64(unfitFor))
		_ = pause(ctx, readPause) // the loop's condition sees its end
	}
	return nil
}

func (s *shard) alone() bool { return !s.config.clustered() }

// awaitTurn follows until this node should decide.
func (s *shard) awaitTurn(ctx context.Context) error {
	if s.alone() {
		return nil
	}
	look := time.NewTicker(followLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.follow.wake:
		case <-look.C:
		}
		if err := s.follow.catchUp(ctx); err != nil {
			return fmt.Errorf("shard %d: %w", s.n, err)
		}
		if s.log.Leads() && s.wanted(ctx) {
			return nil
		}
	}
}

// followLook is how often a follower looks whether it leads by now.
const followLook = 5 * time.Millisecond

// wanted tells whether this node should decide now that it leads. One that is about
// to stop, or could not commit, hands on, unless nobody is there to take it.
func (s *shard) wanted(ctx context.Context) bool {
	if !s.handOver.Load() && s.config.elapsed() >= s.unfit.Load() {
		return true
	}
	err := errNobody
	if to := s.config.successor(s.n); to != "" {
		ctx, cancel := context.WithTimeout(ctx, handOverWait)
		defer cancel()
		err = s.log.StepDown(ctx, to)
	}
	if err == nil || !s.log.Leads() { // whatever the error is, another node has it
		return false
	}
	if s.handOver.Swap(false) {
		s.logger.Warn("no other node takes over; this one decides on", "error", err)
	}
	return true
}

// abdicate keeps a node that can't follow the log any more from leading it.
func (s *shard) abdicate(ctx context.Context) {
	for pause(ctx, handOverWait) == nil {
		if to := s.config.successor(s.n); s.log.Leads() && to != "" {
			if err := s.log.StepDown(ctx, to); err != nil {
				s.logger.Warn("this node leads a log that it can't use", "error", err)
			}
		}
	}
}

// unfitFor is how long a node that could not commit leaves deciding to others.
const unfitFor = 10 * time.Second

var errNobody = errors.New("no other node serves")

const handOverWait = time.Second

// decide is one term as the owner: it takes over, decides until the term ends, and
// returns what it left unanswered.
func (s *shard) decide(ctx context.Context) (left []*protocol.Call, err error) {
	if err := s.takeOver(ctx); err != nil {
		return nil, err
	}
	if s.handOver.Load() {
		return nil, nil // it was told to leave meanwhile
	}
	term, end := context.WithCancel(ctx)
	defer end()
	s.begin(term)
	defer s.flusher.Store(nil)
	s.desk.enter(s.replica.epoch())
	return s.owner.run(ctx)
}

// takeOver reads the log to its end and writes the epoch record behind it. Where
// somebody else wrote in between the log is read again.
func (s *shard) takeOver(ctx context.Context) error {
	start := time.Now()
	for {
		if err := s.follow.toEnd(ctx); err != nil {
			return err
		}
		err := s.owner.takeOver(ctx)
		var lost *lostError
		if errors.As(err, &lost) && s.log.Leads() && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	s.marked.Store(s.replica.epoch())
	s.announce(s.owner.buf)
	s.desk.show(s.replica.seq())
	s.logger.Info("this node decides", "epoch", s.replica.epoch(), "after", time.Since(start).Round(time.Millisecond))
	return nil
}

// begin starts what an owner does behind the log. It ends with the term.
func (s *shard) begin(term context.Context) {
	f := newFlusher(s.table, s.replica, s.config, s.metrics)
	s.flusher.Store(f)
	s.behind.Go(func() { f.run(term) })
	s.behind.Go(func() { s.snaps.run(term) })
	if s.tellAll != nil {
		h := newHerald(s.replica, s.tellAll)
		s.herald.Store(h)
		s.behind.Go(func() { h.run(term) })
	}
	if s.wire != nil {
		s.behind.Go(func() { s.beat(term) })
	}
}

// inTime does what may fail at the beginning of a term, while the other streams still
// choose their leaders; it gives up after some seconds.
func inTime(ctx context.Context, do func() error) error {
	const tries, between = 20, 250 * time.Millisecond
	for n := 1; ; n++ {
		err := do()
		if err == nil || n == tries || pause(ctx, between) != nil {
			return err
		}
	}
}

// committed passes a round on: to the other nodes first, for they answer clients too.
func (s *shard) committed(changes *protocol.Changes, round []byte) {
	s.announce(round)
	s.desk.show(changes.Cursor[0].N)
	s.flusher.Load().add(changes.Items, changes.Cursor[0].N)
	if h := s.herald.Load(); h != nil {
		h.add(changes.Items, changes.Cursor[0].N)
	}
	s.snaps.add(len(round))
}

// announce tells the other nodes of a committed round; called by the owner alone.
func (s *shard) announce(round []byte) {
	if s.wire == nil {
		return
	}
	s.frameBuf = s.frame(round).appendTo(s.frameBuf[:0])
	if err := s.wire.Publish(s.desk.subject("rounds", ""), s.frameBuf); err != nil {
		s.logger.Warn("a round could not be announced; the other nodes read it in the log", "error", err)
	}
}

func (s *shard) frame(round []byte) *frame {
	return &frame{epoch: s.marked.Load(), node: s.config.Node, seq: s.replica.seq(), round: round}
}

// beatEvery is the time between an owner's signs of life.
const beatEvery = 200 * time.Millisecond

// beat gives signs of life, which also tell those who missed a round.
func (s *shard) beat(term context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-term.Done():
			return
		}
		if err := s.wire.Publish(s.desk.subject("rounds", ""), s.frame(nil).appendTo(nil)); err != nil {
			s.logger.Warn("the owner's sign of life was not sent", "error", err)
		}
	}
}

// resign makes this node hand over, if it decides, and not decide again.
func (s *shard) resign() {
	if s.alone() {
		return
	}
	s.handOver.Store(true)
	s.owner.resign()
}

// close waits for what runs behind the log.
func (s *shard) close() {
	for _, stop := range s.stops {
		stop()
	}
	s.behind.Wait()
	s.replica.dismissWaiters()
}

func (s *shard) pendingRows() int {
	if f := s.flusher.Load(); f != nil {
		return f.pending()
	}
	return 0
}

// problems returns what is wrong with the shard on this node.
func (s *shard) problems() []Problem {
	var problems []Problem
	add := func(kind string, err error) {
		if err != nil {
			problems = append(problems, Problem{kind, err})
		}
	}
	if owner, _ := s.desk.ownerKnown(); owner == s.config.Node || s.config.elapsed() < s.unfit.Load() {
		add("commit", s.owner.outage.health())
	}
	add("log", s.follow.outage.health())
	if f := s.flusher.Load(); f != nil {
		add("rows", f.outage.health())
	}
	if owner, alive := s.desk.ownerKnown(); !alive {
		add("owner", fmt.Errorf("shard %d: no node decides (last heard of: %q)", s.n, owner))
	}
	return problems
}
