package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// followRows is how many rows a follower hands over at once at most.
	followRows = 1024
	// A pull of a follower ends after this, to be made again; its consumer is given
	// up when nothing at all was heard for longer.
	followPull = 5 * time.Second
	followBeat = time.Second
	// Between two tries of a follower whose consumer or stream went away.
	followPause = 100 * time.Millisecond
)

// followRequest is one pull, which waits for rows.
var followRequest = fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`,
	pullMessages, pullBytes, followPull, followBeat)

// Follow calls fn for all rows of the table, the oldest write first, and then for each
// row as it is written, until ctx ends, in batches and from one goroutine as
// Mirror.Follow does. It reads one of the table's copies: a row that was written is
// certain to come once that copy has it. See Last. Rows that are dropped are not told.
func (t *Table) Follow(ctx context.Context, fn func(rows []Row) error) error {
	f := &follower{bus: t.bus, stream: "KV_" + t.bucket, prefix: t.prefix, fn: fn}
	return f.follow(ctx)
}

// follower is one call of Follow.
type follower struct {
	bus      *Bus
	stream   string
	prefix   string // of a row's subject
	fn       func([]Row) error
	caughtUp func() error
	remake   func(context.Context) (*jetstream.StreamInfo, error) // a stream that went away; nil: it comes back by itself, or not

	life    time.Time // when the stream was created that next counts in
	next    uint64    // sequence to go on with
	rows    []Row     // not handed over yet
	refused error     // of fn or caughtUp
	told    bool      // caughtUp was called, and nothing came since
}

// follow runs until ctx ends, fn refuses or the Bus is closed.
func (f *follower) follow(ctx context.Context) error {
	for {
		err := f.run(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case f.refused != nil:
			return f.refused
		case errors.Is(err, ErrClosed):
			return err
		}
		f.bus.log.to.Debug("rows are read from where they were", "stream", f.stream, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.bus.closing:
			return ErrClosed
		case <-time.After(followPause):
		}
	}
}

// run follows with one consumer until something goes wrong.
func (f *follower) run(ctx context.Context) error {
	if err := f.place(ctx); err != nil {
		return err
	}
	s := &scanner{bus: f.bus, spec: scanSpec{stream: f.stream}, next: f.next, fn: f.take}
	if err := s.open(ctx); err != nil {
		return cause(err)
	}
	// One that failed is not asked to go: it would not answer, and goes by itself.
	defer func() { s.close(ctx, ctx.Err() != nil || f.refused != nil) }()
	f.told = false
	if s.pending == 0 {
		if err := f.atEnd(); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		if err := f.pull(ctx, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// place finds where to go on: from the beginning in a stream made anew.
func (f *follower) place(ctx context.Context) error {
	info, err := f.bus.streamInfo(ctx, f.stream)
	if errors.Is(err, ErrMissing) && f.remake != nil {
		info, err = f.remake(ctx)
	}
	if err != nil {
		return err
	}
	if !info.Created.Equal(f.life) || info.State.LastSeq+1 < f.next {
		f.life, f.next = info.Created, 1
	}
	f.next = max(f.next, 1)
	return nil
}

// take notes a row.
func (f *follower) take(e entry) error {
	f.next = e.seq + 1
	f.told = false
	if !isDeleteMark(e.msg.Header) {
		key := strings.TrimPrefix(e.msg.Subject, f.prefix)
		f.rows = append(f.rows, Row{Key: key, Value: e.msg.Data, Revision: e.seq})
	}
	return nil
}

// hand gives fn the rows noted.
func (f *follower) hand() error {
	if len(f.rows) > 0 {
		rows := f.rows
		f.rows = make([]Row, 0, min(len(rows), followRows)) // fn may keep its own
		if f.refused = f.fn(rows); f.refused != nil {
			return f.refused
		}
	}
	return nil
}

func (f *follower) atEnd() error {
	if err := f.hand(); err != nil || f.told {
		return err
	}
	f.told = true
	if f.caughtUp != nil {
		f.refused = f.caughtUp()
	}
	return f.refused
}

// pull asks for rows and hands them over as they come, until the pull is over. The
// rows noted when it fails are handed over too: next counts them.
func (f *follower) pull(ctx context.Context, s *scanner) error {
	if err := s.request(followRequest); err != nil {
		return err
	}
	for got := 0; got < pullMessages; {
		msg, err := s.receiveWithin(ctx, 3*followBeat)
		if err != nil {
			return errors.Join(err, f.hand())
		}
		if isStatus(msg) {
			if msg.Header.Get(statusHeader) == "100" {
				continue // it lives
			}
			over, _, err := pullEnded(msg)
			if over || err != nil {
				return errors.Join(err, f.hand())
			}
			continue
		}
		if err := s.handle(msg); err != nil {
			return errors.Join(err, f.hand())
		}
		got++
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		switch {
		case meta.NumPending == 0:
			err = f.atEnd()
		case len(f.rows) >= followRows || s.empty():
			err = f.hand()
		}
		if err != nil {
			return err
		}
	}
	return f.hand()
}
