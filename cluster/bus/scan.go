package bus

import (
	"context"
	"encoding/json"
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

// How often in a row a scan in a region may fail or find nothing new, before it
// gives up; the pauses between are some 3 s together, longer than an election.
const scanTries = 12

// scan calls fn for each message until there are no more, or fn returns an
// error. Every message which was stored when the scan began is seen, unless it
// was removed or replaced meanwhile; a replacement is seen.
//
// It pulls without waiting, so that "no more" is an answer of the server and
// not a count or a time: under writes the count of what is left never settles.
//
// In a region the messages come from any replica. One that is lagging has no more
// too early, and one that dies falls silent: so the stream's leader says what the
// end is, and until it is reached the scan goes on where it was, maybe elsewhere.
func (b *Bus) scan(ctx context.Context, spec scanSpec, fn func(entry) error) error {
	s := &scanner{bus: b, spec: spec, fn: fn, next: max(spec.from, 1)}
	if !b.Clustered() {
		return s.pass(ctx)
	}
	info, err := b.streamInfo(ctx, spec.stream)
	if err != nil {
		return err
	}
	s.end = info.State.LastSeq
	return s.insist(ctx)
}

type scanner struct {
	bus  *Bus
	spec scanSpec
	fn   func(entry) error

	next uint64 // sequence to go on with
	seen uint64 // messages handed out
	end  uint64 // last sequence when the scan began; known in a region
	over bool   // fn has returned an error

	// Of one pass.
	sub       *nats.Subscription
	consumer  string
	pending   uint64 // messages the consumer found when it was made
	delivered uint64
}

// insist makes passes until the leader's end is reached.
func (s *scanner) insist(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for tries := 0; ; tries++ {
		before := s.next
		behind, err := s.passChecked(ctx)
		if err == nil && !behind {
			return nil
		}
		if s.over || ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrMissing) {
			return err
		}
		if s.next > before {
			tries = 0
		}
		if tries == scanTries {
			return s.givenUp(err)
		}
		pause.Reset(pollEvery << min(tries, 4))
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *scanner) givenUp(err error) error {
	if err == nil {
		err = fmt.Errorf("replicas lag behind the leader: at %d of %d", s.next-1, s.end)
	}
	return fmt.Errorf("%w: %w", ErrNoLeader, err)
}

// passChecked makes a pass and asks whether it has left anything out.
func (s *scanner) passChecked(ctx context.Context) (behind bool, err error) {
	if err := s.pass(ctx); err != nil {
		return false, err
	}
	if s.next > s.end || s.complete() {
		return false, nil
	}
	subject := s.spec.subject
	if subject == "" {
		subject = ">"
	}
	request := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, s.next, subject)
	m, err := s.bus.leaderGet(ctx, s.spec.stream, request)
	if errors.Is(err, errNoMessage) {
		return false, nil
	}
	return err == nil && m.Seq <= s.end, err
}

// pass reads what one replica has.
func (s *scanner) pass(ctx context.Context) error {
	s.delivered = 0
	if err := s.open(ctx); err != nil {
		return cause(err)
	}
	err := s.run(ctx)
	s.close(ctx, err == nil || s.over || ctx.Err() != nil)
	return err
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
	if s.next > 1 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, s.next
	}
	cons, err := s.bus.bulk.js.CreateConsumer(ctx, s.spec.stream, c)
	if err != nil {
		return err
	}
	s.consumer, s.pending = cons.CachedInfo().Name, cons.CachedInfo().NumPending
	if s.sub, err = s.bus.bulk.nc.SubscribeSync(s.bus.bulk.nc.NewInbox()); err != nil {
		return err
	}
	return s.sub.SetPendingLimits(-1, -1) // a pull's own bounds apply
}

// close removes the consumer, unless its server is not heard of anyway.
func (s *scanner) close(ctx context.Context, answers bool) {
	ctx, cancel := s.bus.within(context.WithoutCancel(ctx))
	defer cancel()
	_ = s.sub.Unsubscribe()
	if answers {
		_ = s.bus.bulk.js.DeleteConsumer(ctx, s.spec.stream, s.consumer)
	}
}

func (s *scanner) complete() bool { return s.spec.most > 0 && s.seen >= s.spec.most }

func (s *scanner) run(ctx context.Context) error {
	for !s.complete() {
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
	if err := s.request(fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"no_wait":true}`, batch, pullBytes)); err != nil {
		return false, err
	}
	for got := uint64(0); got < batch; {
		m, err := s.receive(ctx)
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

// request sends a pull.
func (s *scanner) request(pull []byte) error {
	subject := "$JS.API.CONSUMER.MSG.NEXT." + s.spec.stream + "." + s.consumer
	return cause(s.bus.bulk.nc.PublishRequest(subject, s.sub.Subject, pull))
}

func (s *scanner) receive(ctx context.Context) (*nats.Msg, error) {
	return s.receiveWithin(ctx, s.bus.answerWait)
}

func (s *scanner) receiveWithin(ctx context.Context, wait time.Duration) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Most messages are here already, and then a context with a timer for each
	// would be the larger part of the work.
	if !s.empty() {
		return s.sub.NextMsg(wait)
	}
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	m, err := s.sub.NextMsgWithContext(within)
	return m, cause(err)
}

// empty tells whether nothing has arrived that was not received yet.
func (s *scanner) empty() bool {
	n, _, err := s.sub.Pending()
	return err != nil || n == 0
}

func (s *scanner) handle(m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	s.delivered++
	if meta.Sequence.Consumer != s.delivered {
		return fmt.Errorf("lost messages on the way: got %d, expected %d", meta.Sequence.Consumer, s.delivered)
	}
	if meta.Sequence.Stream < s.next {
		return nil // a consumer which is to start beyond its replica's end starts at that end
	}
	s.next = meta.Sequence.Stream + 1
	s.seen++
	err = s.fn(entry{seq: meta.Sequence.Stream, msg: m})
	s.over = err != nil
	return err
}

// storedMsg is a message as a stream's leader reports it.
type storedMsg struct {
	Seq    uint64 `json:"seq"`
	Header []byte `json:"hdrs"`
	Data   []byte `json:"data"`
}

// errNoMessage is an ErrMissing of the message and not of the stream.
var errNoMessage = fmt.Errorf("%w: no such message", ErrMissing)

// leaderGet asks a stream's leader for a message.
func (b *Bus) leaderGet(ctx context.Context, stream string, request []byte) (storedMsg, error) {
	within, cancel := b.within(ctx)
	defer cancel()
	m, err := b.bulk.nc.RequestWithContext(within, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return storedMsg{}, b.silence(ctx, cause(err))
	}
	var answer struct {
		Error   *apiError `json:"error"`
		Message storedMsg `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return storedMsg{}, err
	}
	switch {
	case answer.Error == nil:
		return answer.Message, nil
	case answer.Error.ErrCode == codeNoMessageFound:
		return storedMsg{}, fmt.Errorf("%w: %w", errNoMessage, answer.Error)
	}
	return storedMsg{}, refused(answer.Error)
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
