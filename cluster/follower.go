package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
)

// follower keeps the replica up with rounds that other nodes decided. They arrive as
// frames; what a frame shows to be missing is read in the log.
type follower struct {
	log     *bus.Log
	replica *replica
	desk    *desk
	logger  *slog.Logger
	wake    chan struct{} // holds a token while there may be something to apply
	outage  outage

	mu     sync.Mutex
	frames []frame // with a round; consecutive or not
	bytes  int
	tried  time.Time // of the last failed reading of the log
}

const (
	// framesBytesMax bounds what waits to be applied. Beyond it frames are dropped and
	// read in the log.
	framesBytesMax = 64 << 20

	// readPause is the time between two tries to read what is missing.
	readPause = 100 * time.Millisecond

	// getsMax is how many missing rounds are fetched one by one; more are streamed.
	getsMax = 8
)

func newFollower(log *bus.Log, r *replica, d *desk, logger *slog.Logger) *follower {
	return &follower{
		log: log, replica: r, desk: d, logger: logger, wake: make(chan struct{}, 1),
		outage: outage{logger: logger, began: "the log can't be read; this node falls behind", ended: "the log can be read again"},
	}
}

// add takes a frame; its round is copied.
func (f *follower) add(fr *frame) {
	if fr.round != nil {
		f.mu.Lock()
		if f.bytes+len(fr.round) <= framesBytesMax {
			kept := *fr
			kept.round = append([]byte(nil), fr.round...)
			f.frames = append(f.frames, kept)
			f.bytes += len(fr.round)
		}
		f.mu.Unlock()
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *follower) take() []frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	frames := f.frames
	f.frames, f.bytes = nil, 0
	return frames
}

// catchUp applies what has arrived, and reads what is missing. That the log can't be
// read for now is no error; that it holds something unreadable is.
func (f *follower) catchUp(ctx context.Context) error {
	for _, fr := range f.take() {
		next := f.replica.seq() + 1
		if fr.seq < next {
			continue
		}
		if fr.seq > next {
			if err := f.read(ctx, fr.seq-1); err != nil {
				return err
			}
			if f.replica.seq()+1 != fr.seq {
				continue // could not be read now; it will be, with what follows
			}
		}
		if err := f.apply(fr.seq, fr.round); err != nil {
			return err
		}
	}
	if target := f.desk.target(); target > f.replica.seq() {
		return f.read(ctx, target)
	}
	return nil
}

// toEnd reads the log to its end, as long as that takes.
func (f *follower) toEnd(ctx context.Context) error {
	for {
		_, last, err := f.bounds(ctx)
		if err == nil && last <= f.replica.seq() {
			f.outage.note(nil)
			return nil
		}
		if err == nil {
			if err := f.read(ctx, last); err != nil {
				return err
			}
		}
		if !f.log.Leads() {
			return &lostError{errNotLeader}
		}
		if err != nil || f.replica.seq() < last {
			f.outage.note(err)
			if err := pause(ctx, readPause); err != nil {
				return err
			}
		}
	}
}

func (f *follower) bounds(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	return f.log.Bounds(ctx)
}

// read applies the log's rounds up to seq, or as many as can be had now.
func (f *follower) read(ctx context.Context, seq uint64) error {
	if time.Since(f.tried) < readPause {
		return nil // just tried; the next look at the log comes soon
	}
	err := f.fetch(ctx, seq)
	var broken *brokenError
	switch {
	case errors.As(err, &broken):
		return err
	case err != nil && ctx.Err() == nil:
		f.tried = time.Now()
		f.outage.note(err)
	default:
		f.outage.note(nil)
	}
	return nil
}

// brokenError is a round that can't be applied: trying again would not help.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func (f *follower) fetch(ctx context.Context, seq uint64) error {
	from := f.replica.seq() + 1
	if seq-from < getsMax {
		for ; from <= seq; from++ {
			data, err := f.log.Get(ctx, from)
			if err != nil {
				return fmt.Errorf("round %d: %w", from, err)
			}
			if err := f.apply(from, data); err != nil {
				return err
			}
		}
		return nil
	}
	return f.log.Read(ctx, from, seq, f.apply)
}

// apply makes a round that another node decided visible here.
func (f *follower) apply(seq uint64, data []byte) error {
	round, err := ledger.Decode(data)
	if err != nil {
		return &brokenError{fmt.Errorf("round %d: %w", seq, err)}
	}
	f.sign(round)
	if _, err := f.replica.apply(round, seq); err != nil {
		return &brokenError{fmt.Errorf("apply: %w", err)}
	}
	f.desk.show(seq)
	return nil
}

// sign names the sessions on this node that asked for changes of reservations: they
// know already, and get no push.
func (f *follower) sign(round *ledger.Round) {
	if f.desk.len() == 0 {
		return
	}
	for i := range round.Records {
		if rec := &round.Records[i]; rec.Reservation != "" && rec.Key != "" {
			rec.By = f.desk.author(rec.Key)
		}
	}
}
