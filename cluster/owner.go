package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// Bounds of a round. A round is one message and one fsync: more commands in it
// are cheaper each, but wait longer.
const (
	roundCommandsMax = 4096
	roundBytesMax    = 1 << 20
	expiriesMax      = 1024
	expiriesStep     = 16 // between two looks at the round's size
)

// journal is what the owner needs of the log.
type journal interface {
	Append(ctx context.Context, data []byte, last uint64) (seq uint64, err error)
	Bounds(ctx context.Context) (first, last uint64, err error)
	Get(ctx context.Context, seq uint64) ([]byte, error)
	Leads() bool
}

// owner decides for a shard. Everything below queue belongs to the goroutine that
// calls takeOver and run.
type owner struct {
	config  *Config
	log     journal
	replica *replica
	queue   *queue
	metrics *metrics
	logger  *slog.Logger

	draft    *ledger.Draft
	last     uint64 // log sequence of the last round known to be committed
	nonce    uint64
	buf      []byte
	spare    []*protocol.Call
	current  []*protocol.Call // of the round being committed, unanswered
	batch    []*protocol.Call // current's memory
	turns    uint64           // calls decided, or kept waiting
	ended    int              // reservations that the round lets expire
	followed bool             // one of current at least
	trade    *trader          // with other regions; nil where there are none
	counters commandCounters

	onRefusal func(*protocol.Error)                         // hears of refusals; may be nil
	onTaken   func(units map[string]int64)                  // hears of rights taken, by region; may be nil
	onRound   func(changes *protocol.Changes, round []byte) // hands a committed round on
	read      func(*protocol.Call)                          // answers a read
	outage    outage                                        // of commits
	resigned  atomic.Bool
}

func newOwner(c *Config, log journal, r *replica, q *queue, m *metrics) *owner {
	return &owner{
		config: c, log: log, replica: r, metrics: m, logger: c.Logger,
		counters: make(commandCounters),
		queue:    q, draft: ledger.NewDraft(r.state), nonce: rand.Uint64(),
		outage: outage{logger: c.Logger, began: "rounds can't be committed; their commands are refused", ended: "rounds are committed again"},
	}
}

func (o *owner) now() protocol.Time { return protocol.TimeOf(o.config.Clock()) }

func (o *owner) reset() {
	o.nonce++
	o.draft.Reset(o.now(), o.nonce)
}

// takeOver writes the record that makes this node the shard's owner. The replica
// must hold the log to its end; if somebody else wrote meanwhile the error is a
// lostError. Until the record is acknowledged nothing is decided.
func (o *owner) takeOver(ctx context.Context) error {
	o.resigned.Store(false)
	o.last, o.current = o.replica.state.Seq(), nil
	if o.trade != nil {
		o.trade.reset()
	}
	o.reset()
	o.draft.Becomes(o.config.Node)
	if o.replica.state.RotatedAt() == 0 {
		o.draft.Rotate(0) // a new shard's first generation begins here
	}
	if err := o.commit(ctx); err != nil {
		return fmt.Errorf("take over shard %d: %w", o.replica.state.Shard(), err)
	}
	_, err := o.applyRound()
	return err
}

// resign makes run end before its next round.
func (o *owner) resign() {
	o.resigned.Store(true)
	o.queue.signal()
}

// run decides until the queue is closed and empty, the owner resigns, or the log is
// lost. It returns the calls it took and neither decided nor answered, in order;
// those it never took are still in the queue.
func (o *owner) run(ctx context.Context) (left []*protocol.Call, err error) {
	if o.trade != nil {
		o.queue.signal() // rights may be waiting to be taken
	}
	left, err = o.loop(ctx)
	if o.trade != nil {
		left = append(o.trade.abandon(), left...) // those of a failed round are among left
	}
	return left, err
}

func (o *owner) loop(ctx context.Context) (left []*protocol.Call, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		o.schedule(timer)
		select {
		case <-o.queue.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case !o.log.Leads():
			return nil, &lostError{errNotLeader}
		case o.resigned.Load():
			return nil, nil
		}
		o.gather()
		calls := o.queue.take(o.spare)
		if left, err := o.rounds(ctx, calls); err != nil {
			return left, err
		}
		clear(calls)
		o.spare = calls
		if o.queue.isClosed() && o.queue.len() == 0 {
			return nil, nil
		}
	}
}

// gather lets callers that were just answered ask again before the next round is
// closed, for as long as more of them do: a fuller round costs the same fsync. With
// nobody else to run it returns at once.
func (o *owner) gather() {
	const yieldsMax = 8
	waiting := o.queue.len()
	for range yieldsMax {
		runtime.Gosched()
		n := o.queue.len()
		if n == waiting {
			return
		}
		waiting = n
	}
}

// leadershipLook is how often an owner that has nothing to commit looks whether it
// still leads.
const leadershipLook = 50 * time.Millisecond

// schedule sets the timer to the next expiry. Expiry is by this clock only: late
// where the clock went back, never early.
func (o *owner) schedule(timer *time.Timer) {
	wait := time.Minute
	if o.config.clustered() {
		wait = leadershipLook
	}
	if at, ok := o.replica.state.NextExpiry(); ok {
		wait = min(wait, max(0, at.Std().Sub(o.config.Clock())))
	}
	if o.trade != nil {
		if at, ok := o.trade.next(); ok {
			wait = min(wait, max(0, time.Duration(at-o.config.elapsed())))
		}
	}
	if o.outage.health() != nil {
		wait = max(wait, outagePause)
	}
	timer.Reset(wait)
}

// outagePause is the time between two tries to do what is due while rounds can't be
// committed.
const outagePause = 100 * time.Millisecond

// rounds decides and commits the calls in as many rounds as their size asks for,
// at least one, so that what is due is done. With an error it returns the calls that
// are unanswered.
func (o *owner) rounds(ctx context.Context, calls []*protocol.Call) (left []*protocol.Call, err error) {
	if len(calls) > 0 { // an idle node writes nothing
		if err := o.rotate(ctx); err != nil {
			return calls, err
		}
	}
	for {
		n, err := o.round(ctx, calls)
		calls = calls[n:]
		if err != nil {
			return append(o.unanswered(), calls...), err
		}
		if len(calls) == 0 && (o.outage.health() != nil || !o.expiryDue() && !o.tradeDue(n == 0 && o.draft.Empty())) {
			return nil, nil
		}
	}
}

// unanswered takes the calls that were to be decided and are not answered, in order.
func (o *owner) unanswered() []*protocol.Call {
	if o.trade == nil {
		return o.current
	}
	calls := append(o.trade.abandon(), o.current...)
	slices.SortFunc(calls, byTurn)
	return calls
}

// rotate forgets keys that have outlived their window, before anything is decided
// with them. After two windows without a command that is both generations.
func (o *owner) rotate(ctx context.Context) error {
	window := protocol.Time(o.config.KeyWindow.Milliseconds())
	age := o.now() - o.replica.state.RotatedAt()
	for n := min(2, age/window); n > 0; n-- {
		o.reset()
		o.draft.Rotate(0)
		err := o.commit(ctx)
		var lost *lostError
		switch {
		case errors.As(err, &lost):
			return err
		case err != nil:
			o.outage.note(err)
			return nil // keys live on until the disk takes rounds again
		}
		changes, err := o.applyRound()
		if err != nil {
			return err
		}
		o.onRound(changes, o.buf)
	}
	return nil
}

func (o *owner) expiryDue() bool {
	at, ok := o.replica.state.NextExpiry()
	return ok && at <= o.now()
}

// round decides one round of what is due and of some calls, commits it and
// answers them. It returns how many calls it took; with an error, which ends the
// owner, those still unanswered are in current.
func (o *owner) round(ctx context.Context, calls []*protocol.Call) (int, error) {
	n := o.plan(calls)
	if o.draft.Empty() && !o.needsProof() {
		o.answer()
		o.settled(true)
		return n, nil
	}
	start := time.Now()
	if err := o.commit(ctx); err != nil {
		var lost *lostError
		o.settled(false)
		if errors.As(err, &lost) || o.config.clustered() && errors.Is(err, bus.ErrFull) {
			return n, err // for the next owner: another node may have room
		}
		o.outage.note(err)
		if errors.Is(err, errDoubtful) {
			o.refuse(unknownOutcome("perhaps not committed: %v", err))
		} else {
			o.refuse(protocol.RetryLater(protocol.CodeUnavailable, 1000, "not committed: %v", err))
		}
		return n, nil
	}
	o.outage.note(nil)
	o.stored()
	o.metrics.round(time.Since(start), n, len(o.buf))
	o.metrics.expired.Add(float64(o.ended))
	if o.onTaken != nil {
		o.onTaken(o.draft.Taken())
	}
	changes, err := o.applyRound()
	if err != nil {
		o.refuse(unknownOutcome("%v", err))
		return n, err
	}
	o.onRound(changes, o.buf)
	o.answer()
	o.settled(true)
	return n, nil
}

// plan makes the draft of a round of what is due and of some calls, and returns how many
// it took. News of other regions come in between rounds, not within.
func (o *owner) plan(calls []*protocol.Call) int {
	o.reset()
	o.current, o.followed = o.batch[:0], false
	if o.trade == nil {
		o.expire()
		return o.decide(calls)
	}
	o.replica.mu.RLock()
	defer o.replica.mu.RUnlock()
	o.expire()
	o.trade.open(o.draft, o.queue.isClosed(), o.decideOne)
	n := o.decide(calls)
	o.trade.grant(o.draft)
	return n
}

// needsProof tells whether answers that changed nothing still ask for a round. In a
// region another node may have become the owner unnoticed, and what is refused, or
// unknown, here may have been done there: an empty round that commits is the proof that
// it was not.
func (o *owner) needsProof() bool {
	if !o.config.clustered() {
		return false
	}
	for _, c := range o.current {
		if c.Err != nil || c.Command.Op == protocol.OpOutcome && !c.Result.Known {
			return true
		}
	}
	return false
}

// expire ends reservations whose time has come, as many as one round should hold.
func (o *owner) expire() {
	for o.ended = 0; o.ended < expiriesMax && o.draft.Size() <= roundBytesMax; {
		n := o.draft.Expire(expiriesStep)
		if n == 0 {
			return
		}
		o.ended += n
	}
}

// decide puts as many calls into the draft as one round may hold.
func (o *owner) decide(calls []*protocol.Call) int {
	for i, c := range calls {
		if i == roundCommandsMax || o.draft.Size() > roundBytesMax {
			return i
		}
		o.turns++
		c.Turn = o.turns
		o.decideOne(waitingCall{call: c})
	}
	return len(calls)
}

// decideOne decides a call, or lets it wait for rights.
func (o *owner) decideOne(w waitingCall) {
	c := w.call
	if c.Trace != nil {
		o.follow(c.Trace)
	}
	if o.trade != nil && o.trade.behind(w) {
		return
	}
	switch {
	case c.Command.Op == protocol.OpOutcome:
		c.Result = o.draft.Outcome(c.Command.Key)
	case c.Command.Op.IsWrite():
		o.draft.Decide(c)
		if o.trade != nil {
			if o.trade.lacks(w) {
				return
			}
			if c.Err == nil && !c.Replayed {
				o.trade.demand(&c.Command, w.until == 0)
			}
		}
	}
	o.current = append(o.current, c)
}

// answer hands the current calls back.
func (o *owner) answer() {
	for _, c := range o.current {
		if c.Err == nil && isBarrier(c) && !c.Relayed {
			o.read(c)
			continue
		}
		o.counters.count(o.metrics, c)
		if o.onRefusal != nil && c.Err != nil {
			o.onRefusal(c.Err)
		}
		c.Done(c)
	}
	clear(o.current)
	o.batch, o.current = o.current[:0], nil
}

// isBarrier tells a read that only waits for the commands before it.
func isBarrier(c *protocol.Call) bool {
	return !c.Command.Op.IsWrite() && c.Command.Op != protocol.OpOutcome
}

// applyRound makes the committed round visible.
func (o *owner) applyRound() (*protocol.Changes, error) {
	changes, err := o.replica.apply(o.draft.Round(), o.last)
	if err != nil {
		return nil, &brokenError{fmt.Errorf("apply: %w", err)}
	}
	return changes, nil
}

// refuse answers the current calls with an error: refusals too, for they were decided
// against what the round would have made true.
func (o *owner) refuse(err *protocol.Error) {
	for _, c := range o.current {
		why := err
		if c.Replayed && err.Details == nil {
			why = unknownOutcome("%s", err.Message) // its key may have been applied before this round
		}
		forget(c)
		c.Err = why
	}
	o.answer()
}

// forget takes back what was decided about a call.
func forget(c *protocol.Call) { c.Err, c.Result, c.Replayed = nil, protocol.Result{}, false }

func unknownOutcome(format string, args ...any) *protocol.Error {
	err := protocol.RetryLater(protocol.CodeUnavailable, 1000, format, args...)
	err.Details = &protocol.Details{Outcome: "unknown"}
	return err
}

// overdue answers what can't wait any longer while a round's fate is open.
func (o *owner) overdue() {
	now := o.config.elapsed()
	late := unknownOutcome("not acknowledged in time: the region has no quorum, or its disks are stuck")
	for _, c := range o.queue.takeDue(now) {
		c.Fail(late) // an owner before this one may have committed it
	}
	if o.trade != nil {
		for _, c := range o.trade.takeDue(now) {
			c.Fail(late)
		}
	}
	due, later := splitDue(o.current, now)
	o.current = due
	o.refuse(late)
	o.current = later
}

// lostError ends the owner: the log holds something else than it believes, or
// can't be read, so nothing more may be decided here.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the log is lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// errDoubtful marks a round that was refused after a try that may have stored it.
var errDoubtful = errors.New("its fate is open")

var errNotLeader = errors.New("another node leads it")

// Bounds of one try to append, and of one look at the log's end: what waits for them
// must be answered in time.
const (
	appendWait = 400 * time.Millisecond
	lookWait   = 300 * time.Millisecond
)

// commit appends the draft to the log. It returns nil once the round is on disk,
// an ordinary error if it certainly is not (errDoubtful: perhaps), a lostError if this
// node can't tell and another may decide, or it may not decide any more itself.
func (o *owner) commit(ctx context.Context) error {
	o.buf = o.draft.Round().AppendTo(o.buf[:0])
	doubtful := false // an earlier try may still be stored
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		seq, err := o.append(ctx)
		if err == nil {
			o.last = seq
			return nil
		}
		o.metrics.commitErrors.Inc()
		switch {
		case errors.Is(err, bus.ErrUnknown), errors.Is(err, bus.ErrWrongSequence):
			doubtful = doubtful || errors.Is(err, bus.ErrUnknown)
			committed, err := o.find(ctx)
			if committed || err != nil {
				return err
			}
		case errors.Is(err, bus.ErrBusy), errors.Is(err, bus.ErrNoLeader):
		case doubtful && o.config.clustered():
			return &lostError{fmt.Errorf("append round %d: %w", o.last+1, err)}
		case doubtful:
			return fmt.Errorf("append round %d: %w: %w", o.last+1, errDoubtful, err)
		default:
			return fmt.Errorf("append round %d: %w", o.last+1, err)
		}
		if err := o.wait(ctx, wait); err != nil {
			return err
		}
	}
}

func (o *owner) append(ctx context.Context) (uint64, error) {
	if o.config.clustered() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, appendWait)
		defer cancel()
	}
	return o.log.Append(ctx, o.buf, o.last)
}

// wait is the pause before another try, if there is to be one.
func (o *owner) wait(ctx context.Context, d time.Duration) error {
	if !o.log.Leads() {
		return &lostError{errNotLeader} // the next owner may be in time
	}
	o.overdue()
	if err := pause(ctx, d); err != nil {
		return &lostError{err}
	}
	return nil
}

// find reads the log's tail after an append whose outcome is unknown, for as long
// as that takes: deciding on without knowing could decide twice.
func (o *owner) find(ctx context.Context) (committed bool, err error) {
	for {
		_, last, err := o.bounds(ctx)
		switch {
		case err != nil:
			o.logger.Warn("reading the log's end", "error", err)
		case last == o.last:
			return false, nil
		default:
			return o.isOurs(ctx, last)
		}
		if err := o.wait(ctx, 100*time.Millisecond); err != nil {
			return false, err
		}
	}
}

func (o *owner) bounds(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	return o.log.Bounds(ctx)
}

func (o *owner) isOurs(ctx context.Context, last uint64) (bool, error) {
	data, err := o.log.Get(ctx, o.last+1)
	if err != nil {
		return false, &lostError{fmt.Errorf("round %d: %w", o.last+1, err)}
	}
	round, err := ledger.Decode(data)
	if err != nil {
		return false, &lostError{err}
	}
	if last != o.last+1 || round.Nonce != o.draft.Round().Nonce {
		return false, &lostError{fmt.Errorf("somebody else wrote round %d", o.last+1)}
	}
	o.last++
	return true, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
