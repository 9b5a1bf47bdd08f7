package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
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
}

// owner decides for a shard. Everything below queue belongs to run's goroutine.
type owner struct {
	config  *Config
	log     journal
	replica *replica
	queue   *queue
	metrics *metrics
	logger  *slog.Logger

	draft   *ledger.Draft
	last    uint64 // log sequence of the last round known to be committed
	nonce   uint64
	buf     []byte
	spare   []*protocol.Call
	onRound func(changes *protocol.Changes, bytes int) // hands changed rows on
	read    func(*protocol.Call)                       // answers a read
	outage  outage                                     // of commits
}

func newOwner(c *Config, log journal, r *replica, m *metrics) *owner {
	return &owner{
		config: c, log: log, replica: r, metrics: m, logger: c.Logger,
		queue: newQueue(c.QueueMax), draft: ledger.NewDraft(r.state),
		last: r.state.Seq(), nonce: rand.Uint64(),
		outage: outage{logger: c.Logger, began: "rounds can't be committed; their commands are refused", ended: "rounds are committed again"},
	}
}

func (o *owner) now() protocol.Time { return protocol.TimeOf(o.config.Clock()) }

func (o *owner) reset() {
	o.nonce++
	o.draft.Reset(o.now(), o.nonce)
}

// takeOver writes the record that makes this node the shard's owner. Until it is
// acknowledged nothing is decided.
func (o *owner) takeOver(ctx context.Context) error {
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

// run decides until the queue is closed and empty, or the log is lost.
func (o *owner) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		o.schedule(timer)
		select {
		case <-o.queue.wake:
		case <-timer.C:
		case <-ctx.Done():
			return o.abandon(ctx.Err())
		}
		o.gather()
		calls := o.queue.take(o.spare)
		if err := o.rounds(ctx, calls); err != nil {
			return o.abandon(err)
		}
		clear(calls)
		o.spare = calls
		if o.queue.isClosed() && o.queue.len() == 0 {
			return nil
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

// abandon answers what still waits; outcomes are not known once the log is lost.
func (o *owner) abandon(err error) error {
	o.queue.close()
	for _, c := range o.queue.take(nil) {
		c.Fail(protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node stopped before this was decided"))
	}
	return err
}

// schedule sets the timer to the next expiry. Expiry is by this clock only: late
// where the clock went back, never early.
func (o *owner) schedule(timer *time.Timer) {
	wait := time.Minute
	if at, ok := o.replica.state.NextExpiry(); ok {
		wait = min(wait, max(0, at.Std().Sub(o.config.Clock())))
	}
	timer.Reset(wait)
}

// rounds decides and commits the calls in as many rounds as their size asks for,
// at least one, so that what is due is done.
func (o *owner) rounds(ctx context.Context, calls []*protocol.Call) error {
	if len(calls) > 0 { // an idle node writes nothing
		if err := o.rotate(ctx); err != nil {
			o.refuseAll(calls, protocol.RetryLater(protocol.CodeUnavailable, 1000, "not decided: %v", err))
			return err
		}
	}
	for {
		n, err := o.round(ctx, calls)
		if err != nil {
			o.refuseAll(calls[n:], protocol.RetryLater(protocol.CodeUnavailable, 1000, "not decided: %v", err))
			return err
		}
		calls = calls[n:]
		if len(calls) == 0 && !o.expiryDue() {
			return nil
		}
	}
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
		o.onRound(changes, len(o.buf))
	}
	return nil
}

func (o *owner) expiryDue() bool {
	at, ok := o.replica.state.NextExpiry()
	return ok && at <= o.now()
}

// round decides one round of what is due and of some calls, commits it and
// answers them. It returns how many calls it took.
func (o *owner) round(ctx context.Context, calls []*protocol.Call) (int, error) {
	o.reset()
	o.expire()
	n := o.decide(calls)
	calls = calls[:n]
	if o.draft.Empty() {
		o.answer(calls)
		return n, nil
	}
	start := time.Now()
	if err := o.commit(ctx); err != nil {
		return n, o.refuse(calls, err)
	}
	o.outage.note(nil)
	o.metrics.round(time.Since(start), n, len(o.buf))
	changes, err := o.applyRound()
	if err != nil {
		o.refuseAll(calls, unknownOutcome("%v", err))
		return n, err
	}
	o.onRound(changes, len(o.buf))
	o.answer(calls)
	return n, nil
}

// expire ends reservations whose time has come, as many as one round should hold.
func (o *owner) expire() {
	for ended := 0; ended < expiriesMax && o.draft.Size() <= roundBytesMax; {
		n := o.draft.Expire(expiriesStep)
		if n == 0 {
			return
		}
		ended += n
	}
}

// decide puts as many calls into the draft as one round may hold.
func (o *owner) decide(calls []*protocol.Call) int {
	for i, c := range calls {
		if i == roundCommandsMax || o.draft.Size() > roundBytesMax {
			return i
		}
		switch {
		case c.Command.Op == protocol.OpOutcome:
			c.Result = o.draft.Outcome(c.Command.Key)
		case c.Command.Op.IsWrite():
			o.draft.Decide(c)
		}
	}
	return len(calls)
}

func (o *owner) answer(calls []*protocol.Call) {
	for _, c := range calls {
		if c.Err == nil && !c.Command.Op.IsWrite() && c.Command.Op != protocol.OpOutcome {
			o.read(c)
			continue
		}
		o.metrics.command(c)
		c.Done(c)
	}
}

// applyRound makes the committed round visible.
func (o *owner) applyRound() (*protocol.Changes, error) {
	changes, err := o.replica.apply(o.draft.Round(), o.last)
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	return changes, nil
}

// refuse answers the calls of a round that was certainly not committed, or, with
// an error that ends the owner, of one whose fate is unknown.
func (o *owner) refuse(calls []*protocol.Call, err error) error {
	var fatal *lostError
	if errors.As(err, &fatal) {
		o.refuseAll(calls, unknownOutcome("%v", err))
		return err
	}
	o.outage.note(err)
	o.refuseAll(calls, protocol.RetryLater(protocol.CodeUnavailable, 1000, "not committed: %v", err))
	return nil
}

func (o *owner) refuseAll(calls []*protocol.Call, err *protocol.Error) {
	for _, c := range calls {
		// Refusals too: they were decided against what the round would have made true.
		c.Err, c.Result, c.Replayed = err, protocol.Result{}, false
	}
	o.answer(calls)
}

func unknownOutcome(format string, args ...any) *protocol.Error {
	err := protocol.RetryLater(protocol.CodeUnavailable, 1000, format, args...)
	err.Details = &protocol.Details{Outcome: "unknown"}
	return err
}

// lostError ends the owner: the log holds something else than it believes, or
// can't be read, so nothing more may be decided here.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the log is lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// commit appends the draft to the log. It returns nil once the round is on disk,
// an ordinary error if it certainly is not, a lostError if that can't be told.
func (o *owner) commit(ctx context.Context) error {
	o.buf = o.draft.Round().AppendTo(o.buf[:0])
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		seq, err := o.log.Append(ctx, o.buf, o.last)
		if err == nil {
			o.last = seq
			return nil
		}
		o.metrics.commitErrors.Inc()
		if errors.Is(err, bus.ErrUnknown) || errors.Is(err, bus.ErrWrongSequence) {
			committed, err := o.find(ctx)
			if committed || err != nil {
				return err
			}
		} else if !errors.Is(err, bus.ErrBusy) {
			return fmt.Errorf("append round %d: %w", o.last+1, err)
		}
		if err := pause(ctx, wait); err != nil {
			return &lostError{err}
		}
	}
}

// find reads the log's tail after an append whose outcome is unknown, for as long
// as that takes: deciding on without knowing could decide twice.
func (o *owner) find(ctx context.Context) (committed bool, err error) {
	for {
		_, last, err := o.log.Bounds(ctx)
		switch {
		case err != nil:
			o.logger.Warn("reading the log's end", "error", err)
		case last == o.last:
			return false, nil
		default:
			return o.isOurs(ctx, last)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return false, &lostError{err}
		}
	}
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
