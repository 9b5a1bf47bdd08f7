package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// One pull of a scan: many small messages or few large ones. The bytes must
	// stay above the largest message, or it could never be delivered.
	pullMessages = 4096
	pullBytes    = 2 * payloadBytesMax
)

// scanSpec says what to read: a stream's messages in order, from a sequence on
// (0 = the first), of one subject or all (""), at most so many (0 = no bound).
type scanSpec struct {
	stream  string
	subject string
	from    uint64
	most    uint64
}

// entry is one message of a scan, valid only during the call it is passed to.
type entry struct {
	seq uint64
	msg *nats.Msg
}

// scan calls fn for each message until there are no more, or fn returns an
// error. Every message which was stored when the scan began is seen, unless it
// was removed or replaced meanwhile; a replacement is seen.
//
// It pulls without waiting, so that "no more" is an answer of the server and
// not a count or a time: under writes the count of what is left never settles.
func (b *Bus) scan(ctx context.Context, spec scanSpec, fn func(entry) error) error {
	s := &scanner{bus: b, spec: spec, fn: fn}
	if err := s.open(ctx); err != nil {
		return cause(err)
	}
	err := s.run(ctx)
	s.close(ctx)
	return err
}

type scanner struct {
	bus      *Bus
	spec     scanSpec
	fn       func(entry) error
	sub      *nats.Subscription
	consumer string
	seen     uint64
}

func (s *scanner) open(ctx context.Context) error {
	ctx, cancel := s.bus.within(ctx)
	defer cancel()
	c := jetstream.ConsumerConfig{
		FilterSubject:     s.spec.subject,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		InactiveThreshold: 30 * time.Second, // should the delete at the end get lost
	}
	if s.spec.from > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, s.spec.from
	}
	cons, err := s.bus.bulk.js.CreateConsumer(ctx, s.spec.stream, c)
	if err != nil {
		return err
	}
	s.consumer = cons.CachedInfo().Name
	if s.sub, err = s.bus.bulk.nc.SubscribeSync(s.bus.bulk.nc.NewInbox()); err != nil {
		return err
	}
	return s.sub.SetPendingLimits(-1, -1) // a pull's own bounds apply
}

func (s *scanner) close(ctx context.Context) {
	ctx, cancel := s.bus.within(context.WithoutCancel(ctx))
	defer cancel()
	_ = s.sub.Unsubscribe()
	_ = s.bus.bulk.js.DeleteConsumer(ctx, s.spec.stream, s.consumer)
}

func (s *scanner) run(ctx context.Context) error {
	for s.spec.most == 0 || s.seen < s.spec.most {
		more, err := s.pull(ctx)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// pull asks for some messages and handles them; more is false at the end.
func (s *scanner) pull(ctx context.Context) (more bool, err error) {
	batch := uint64(pullMessages)
	if s.spec.most > 0 {
		batch = min(batch, s.spec.most-s.seen)
	}
	req := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"no_wait":true}`, batch, pullBytes)
	subject := "$JS.API.CONSUMER.MSG.NEXT." + s.spec.stream + "." + s.consumer
	if err := s.bus.bulk.nc.PublishRequest(subject, s.sub.Subject, req); err != nil {
		return false, cause(err)
	}
	for got := uint64(0); got < batch; {
		m, err := s.next(ctx)
		if err != nil {
			return false, err
		}
		if isStatus(m) {
			if over, more, err := pullEnded(m); over {
				return more, err
			}
			continue
		}
		if err := s.handle(m); err != nil {
			return false, err
		}
		got++
	}
	return true, nil
}

func (s *scanner) next(ctx context.Context) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Most messages are here already, and then a context with a timer for each
	// would be the larger part of the work.
	if n, _, err := s.sub.Pending(); err == nil && n > 0 {
		return s.sub.NextMsg(s.bus.answerWait)
	}
	within, cancel := s.bus.within(ctx)
	defer cancel()
	m, err := s.sub.NextMsgWithContext(within)
	return m, cause(err)
}

func (s *scanner) handle(m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	s.seen++
	if meta.Sequence.Consumer != s.seen {
		return fmt.Errorf("lost messages on the way: got %d, expected %d", meta.Sequence.Consumer, s.seen)
	}
	return s.fn(entry{seq: meta.Sequence.Stream, msg: m})
}

// isStatus tells the server's remarks on a pull from messages, which always
// carry a reply subject.
func isStatus(m *nats.Msg) bool { return m.Reply == "" && m.Header.Get(statusHeader) != "" }

// pullEnded reads a status: whether the pull is over before its count was
// reached, and if so whether there may be more messages.
func pullEnded(m *nats.Msg) (over, more bool, err error) {
	status, description := m.Header.Get(statusHeader), m.Header.Get("Description")
	switch {
	case status == statusNotFound:
		return true, false, nil
	case status == "408" || description == "Message Size Exceeds MaxBytes":
		return true, true, nil
	case description == "Batch Completed": // the tail of the pull before
		return false, true, nil
	}
	return true, false, errors.New("status " + status + " " + description)
}
