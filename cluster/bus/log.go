package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Log is an append-only sequence of messages, numbered 1, 2, 3 ... without
// holes. Only Trim removes any, and only from the front.
type Log struct {
	bus     *Bus
	name    string
	subject string
	stream  jetstream.Stream
	getReq  string

	// turn holds one token, and with it the right to use what follows: an append
	// names the last sequence, so a second one before the answer could only lose.
	turn    chan struct{}
	msg     *nats.Msg
	answers chan *nats.Msg
	inbox   string
	sent    uint64
	timer   *time.Timer
}

// Log opens the log called name, made of A-Z a-z 0-9 - and _. When it does not
// exist it is created if create is true; otherwise the error is ErrMissing. A
// handle holds a subscription until the Bus is closed: open it once and keep it.
func (b *Bus) Log(ctx context.Context, name string, create bool) (*Log, error) {
	return b.openLog(ctx, name, create, 0)
}

// LogFrom opens the log called name. When it does not exist it is created with first
// as the sequence of its first message, so that it can go on where another one ended.
func (b *Bus) LogFrom(ctx context.Context, name string, first uint64) (*Log, error) {
	return b.openLog(ctx, name, true, first)
}

func (b *Bus) openLog(ctx context.Context, name string, create bool, first uint64) (*Log, error) {
	if err := nameValid(name); err != nil {
		return nil, err
	}
	subject := "log." + name
	config := logConfig("LOG_"+name, subject)
	config.FirstSeq = first
	s, err := b.stream(ctx, config, create)
	if err != nil {
		return nil, err
	}
	l := &Log{
		bus: b, name: name, subject: subject, stream: s,
		getReq:  "$JS.API.DIRECT.GET.LOG_" + name,
		turn:    make(chan struct{}, 1),
		answers: make(chan *nats.Msg, 16),
		inbox:   b.commit.nc.NewInbox() + ".",
		timer:   time.NewTimer(time.Hour),
	}
	l.timer.Stop()
	l.msg = &nats.Msg{Subject: subject, Header: nats.Header{headerExpectedLast: {""}}}
	if _, err := b.commit.nc.ChanSubscribe(l.inbox+"*", l.answers); err != nil {
		return nil, fmt.Errorf("bus: log %s: %w", name, cause(err))
	}
	l.turn <- struct{}{}
	return l, nil
}

func logConfig(stream, subject string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        stream,
		Subjects:    []string{subject},
		Storage:     jetstream.FileStorage,
		Replicas:    1,
		Discard:     jetstream.DiscardNew,
		DenyDelete:  true,
		AllowDirect: true,
	}
}

// Append stores data as the message last+1 and returns its sequence once it is
// on disk, in a region on the disks of most replicas. It is sent once, never again.
//
//   - ErrWrongSequence: the log's last message is not last.
//   - ErrUnknown: sent, and no answer within Config.AnswerWait or ctx. The
//     message may be the log's last one now or a little later: read the tail.
//     Also when this server led the log and leads no more.
//   - ErrNoLeader: nobody leads the log just now. Not stored.
//   - ErrFull, ErrBusy, ErrTooBig, ErrClosed or ctx's error alone: not stored.
//
// Appends of one handle run one after the other. Data is not kept.
func (l *Log) Append(ctx context.Context, data []byte, last uint64) (uint64, error) {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return 0, fmt.Errorf("bus: log %s: %w", l.name, ctx.Err())
	}
	seq, err := l.append(ctx, data, last)
	l.turn <- struct{}{}
	if err != nil {
		return 0, fmt.Errorf("bus: log %s: append: %w", l.name, err)
	}
	return seq, nil
}

func (l *Log) append(ctx context.Context, data []byte, last uint64) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(data) > MessageBytesMax {
		return 0, ErrTooBig
	}
	l.sent++
	l.msg.Data = data
	l.msg.Reply = l.inbox + strconv.FormatUint(l.sent, 36)
	l.msg.Header[headerExpectedLast][0] = strconv.FormatUint(last, 10)
	led := l.bus.Clustered() && l.Leads()
	err := l.bus.commit.nc.PublishMsg(l.msg)
	l.msg.Data = nil
	if err != nil {
		return 0, unsent(err)
	}
	answer, err := l.answer(ctx, led)
	if err != nil {
		return 0, err
	}
	return l.appended(answer, last)
}

// answer waits for the answer to the message just sent, and drops answers to
// earlier ones which were given up. A leader which loses its place never answers,
// so when this server led the log as it was sent, led is true and the wait ends
// with that.
func (l *Log) answer(ctx context.Context, led bool) (*nats.Msg, error) {
	step, left := l.bus.answerWait, l.bus.answerWait
	if led {
		step = min(step, pollEvery)
	}
	l.timer.Reset(step)
	defer l.timer.Stop()
	for {
		select {
		case m := <-l.answers:
			if m.Subject == l.msg.Reply {
				return m, nil
			}
		case <-ctx.Done():
			return nil, l.bus.unanswered(ctx.Err())
		case <-l.timer.C:
			if left -= step; left <= 0 {
				return nil, l.bus.unanswered(fmt.Errorf("no answer within %v", l.bus.answerWait))
			}
			if led && !l.Leads() {
				return nil, l.bus.unanswered(errors.New("leadership is lost"))
			}
			l.timer.Reset(step)
		case <-l.bus.commit.down:
			return nil, fmt.Errorf("%w: connection closed", ErrUnknown)
		}
	}
}

func (l *Log) appended(answer *nats.Msg, last uint64) (uint64, error) {
	if len(answer.Data) == 0 { // a status alone: no stream listens on the subject
		return 0, l.bus.unheard(errors.New("status " + answer.Header.Get(statusHeader)))
	}
	a, err := parseAck(answer.Data)
	switch {
	case err != nil:
		return 0, err
	case a.Error == nil:
		return a.Seq, nil
	case a.Error.ErrCode == codeWrongSequence:
		return 0, &SequenceError{Expected: last, Actual: lastNumber(a.Error.Description)}
	}
	return 0, refused(a.Error)
}

// lastNumber reads N of "wrong last sequence: N"; 0 when there is none.
func lastNumber(description string) uint64 {
	_, s, _ := strings.Cut(description, ": ")
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// Bounds returns the sequences of the first and the last message. In an empty
// log first is last+1, and last is what the next Append must name.
func (l *Log) Bounds(ctx context.Context) (first, last uint64, err error) {
	s, err := l.state(ctx)
	if err != nil {
		return 0, 0, err
	}
	if s.Msgs == 0 {
		return s.LastSeq + 1, s.LastSeq, nil
	}
	return s.FirstSeq, s.LastSeq, nil
}

// Bytes returns the size of the messages with their framing, as stored.
func (l *Log) Bytes(ctx context.Context) (uint64, error) {
	s, err := l.state(ctx)
	return s.Bytes, err
}

func (l *Log) state(ctx context.Context) (jetstream.StreamState, error) {
	ctx, cancel := l.bus.within(ctx)
	defer cancel()
	info, err := l.stream.Info(ctx) // of the leader, or of who was it before while a region starts
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("bus: log %s: state: %w", l.name, cause(err))
	}
	return info.State, nil
}

// Read calls fn for every message from..to, both included, in order. The error
// is ErrGap when one of them is missing, fn's own when it returns one. Data is
// only valid during the call. An empty range (from > to) reads nothing.
func (l *Log) Read(ctx context.Context, from, to uint64, fn func(seq uint64, data []byte) error) error {
	if from > to {
		return nil
	}
	next := from
	err := l.bus.scan(ctx, scanSpec{stream: "LOG_" + l.name, from: max(from, 1), most: to - from + 1}, func(e entry) error {
		if e.seq != next {
			return fmt.Errorf("%w: %d to %d", ErrGap, next, e.seq-1)
		}
		next++
		return fn(e.seq, e.msg.Data)
	})
	if err == nil && next <= to {
		err = fmt.Errorf("%w: %d to %d", ErrGap, next, to)
	}
	if err != nil {
		return fmt.Errorf("bus: log %s: read: %w", l.name, err)
	}
	return nil
}

// Get returns one message, or ErrMissing when it was trimmed or not yet written.
func (l *Log) Get(ctx context.Context, seq uint64) ([]byte, error) {
	data, err := l.get(ctx, seq)
	if err != nil && l.bus.Clustered() && ctx.Err() == nil && seq > 0 {
		// The replica may be behind, or gone.
		var m storedMsg
		m, err = l.bus.leaderGet(ctx, "LOG_"+l.name, fmt.Appendf(nil, `{"seq":%d}`, seq))
		data = m.Data
	}
	if err != nil {
		return nil, fmt.Errorf("bus: log %s: get %d: %w", l.name, seq, err)
	}
	return data, nil
}

// get asks any replica, as a message never changes: a direct get skips the base64
// and JSON of asking the leader.
func (l *Log) get(ctx context.Context, seq uint64) ([]byte, error) {
	ctx, cancel := l.bus.within(ctx)
	defer cancel()
	req := strconv.AppendUint([]byte(`{"seq":`), max(seq, 1), 10)
	m, err := l.bus.bulk.nc.RequestWithContext(ctx, l.getReq, append(req, '}'))
	if err != nil {
		return nil, cause(err)
	}
	if status := m.Header.Get(statusHeader); status != "" || seq == 0 {
		return nil, getError(m)
	}
	return m.Data, nil
}

// getError reads a direct get's answer which carries no message.
func getError(m *nats.Msg) error {
	status := m.Header.Get(statusHeader)
	if status == "" || status == statusNotFound {
		return ErrMissing
	}
	return errors.New(strings.TrimSpace("status " + status + " " + m.Header.Get("Description")))
}

// Trim drops the messages with a sequence below before. Sequences go on as if
// they were there. A before beyond the end empties the log.
func (l *Log) Trim(ctx context.Context, before uint64) error {
	first, last, err := l.Bounds(ctx)
	if err != nil {
		return err
	}
	// The engine takes 0 as "all", and a sequence beyond the end as the wish to
	// continue from there.
	before = min(before, last+1)
	if before <= first {
		return nil
	}
	ctx, cancel := l.bus.within(ctx)
	defer cancel()
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(before)); err != nil {
		return fmt.Errorf("bus: log %s: trim: %w", l.name, cause(err))
	}
	return nil
}
