package relay

import (
	"fmt"
	"math"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// Sender is a node's side for one shard: it queues calls, puts them into batches
// and finds out what became of each. A call stays with it until it is answered,
// expired or taken back; whoever gets it then calls its Done.
//
// Times are ns of any clock that does not go back.
type Sender struct {
	from    string
	session uint64
	number  uint64 // of the session's last batch
	limits  Options

	flight  []batch // sent in this session and not answered, oldest first
	under   int     // calls of flight
	waiting queue
	again   int // so many at the front of waiting were sent in an earlier session

	moved   int64 // when the oldest of flight became the oldest
	due     int64 // no call is due before this
	changes changes

	format  byte     // newest that whoever gets the batches reads
	buf     []byte   // of Next
	results []Answer // of Answer
}

// Reads tells the newest format of batches that whoever gets the next ones reads, 0 where
// that is not known: what only newer nodes need is left out for it.
func (s *Sender) Reads(format byte) { s.format = format }

// batch is one under way. Calls that expired are nil: their answers come still.
type batch struct {
	number uint64
	at     int64 // when it was sent
	again  int   // so many of calls, the first, were sent in an earlier session
	calls  []*protocol.Call
}

// Delivery is what an Answers message meant.
type Delivery struct {
	Calls     []*protocol.Call // answered and no longer the sender's, in order
	Seq       uint64           // what of the log must be applied before they are shown
	From      string           // node that answered; "": the message was outdated
	Unread    bool             // From can't read Calls and did none of them; each has its Err
	Restarted bool             // the batch was not taken: everything goes again
	NotOwner  bool             // for the reason that From is not the owner
	Owner     string           // which is this one, as far as From knows
}

// NewSender returns the sender of a node for one shard. The first session must be
// larger than any that the node, in this process or one before, has used for the
// shard since its owner became the owner: owners ignore smaller ones.
func NewSender(from string, session uint64, o Options) *Sender {
	return &Sender{
		from: from, session: session, limits: o.withDefaults(),
		due: math.MaxInt64, changes: changes{},
	}
}

// Add queues calls. Those with a Due must come in its order.
func (s *Sender) Add(calls ...*protocol.Call) {
	for _, c := range calls {
		if c.Due != 0 {
			s.due = min(s.due, c.Due)
		}
	}
	s.waiting.push(calls)
}

// Len returns how many calls the sender holds, sent or not.
func (s *Sender) Len() int { return s.under + s.waiting.len() }

// Next gives the next batch to publish, in memory that is valid until the next
// call of Next; false if nothing waits or the window is full. The batch counts as
// sent from now on: if publishing fails, call Restart or wait for Stalled.
func (s *Sender) Next(now int64) (data []byte, ok bool) {
	if s.waiting.len() == 0 || len(s.flight) >= s.limits.Window {
		return nil, false
	}
	s.number++
	n := s.encode()
	fresh := min(s.again, n) // those from here on were never sent
	s.again -= fresh
	calls := s.waiting.take(n)
	for _, c := range calls[fresh:] {
		s.changes.sent(c)
	}
	s.flight = append(s.flight, batch{number: s.number, at: now, again: fresh, calls: calls})
	s.under += n
	return s.buf, true
}

// encode puts as many of the waiting calls into buf as a batch may hold, and at
// least one.
func (s *Sender) encode() int {
	live := s.waiting.live()
	live = live[:min(len(live), s.limits.BatchCalls)]
	b := appendHeader(s.buf[:0], s.from, s.session, s.number)
	header, n, all := len(b), 0, uint32(0)
	without := uint32(hasTrace) // a command is done without it, too
	if s.format >= batchFormat3 {
		without = 0
	}
	for _, c := range live {
		before, flags := len(b), uint32(0)
		b, flags = appendCall(b, c, without)
		if len(b) > s.limits.BatchBytes && n > 0 {
			b = b[:before]
			break
		}
		all |= flags
		n++
	}
	seal(b, header, n, all)
	s.buf = b
	return n
}

// Answer reads an Answers message. One that is not for a batch under way gives an
// empty Delivery. After an error nothing has changed; the batch is still under
// way. Results share one copy of data, any of them keeps all of it alive.
func (s *Sender) Answer(data []byte, now int64) (Delivery, error) {
	r := answersReader{reader: reader{b: data}}
	head := r.header()
	if r.err != nil {
		return Delivery{}, fmt.Errorf("answers: %w", r.err)
	}
	i := slices.IndexFunc(s.flight, func(b batch) bool { return b.number == head.Number })
	if head.Session != s.session || i < 0 {
		return Delivery{}, nil
	}
	switch head.Verdict {
	case Done:
	case Unreadable:
		if err := r.end(); err != nil {
			return Delivery{}, fmt.Errorf("answers: %w", err)
		}
		return Delivery{From: head.From, Unread: true, Calls: s.unread(i, now)}, nil
	default:
		s.Restart()
		return Delivery{From: head.From, Restarted: true, NotOwner: head.Verdict == NotOwner, Owner: head.Owner}, nil
	}
	r.own(data)
	seq := r.uint()
	if err := s.read(&r, len(s.flight[i].calls)); err != nil {
		return Delivery{}, fmt.Errorf("answers: %w", err)
	}
	return Delivery{From: head.From, Seq: seq, Calls: s.answered(i, now)}, nil
}

// read decodes n answers into results.
func (s *Sender) read(r *answersReader, n int) error {
	if r.uint() != uint64(n) {
		r.fail("not as many answers as the batch has calls")
		return r.err
	}
	s.results = slices.Grow(s.results[:0], n)[:n]
	r.results(s.results)
	if err := r.end(); err != nil {
		clear(s.results)
		return err
	}
	return nil
}

// unread refuses the calls of a batch. Those that were sent in an earlier session
// may have been done by whom they were sent to then, and are not said to be undone.
func (s *Sender) unread(i int, now int64) []*protocol.Call {
	b := &s.flight[i]
	s.results = slices.Grow(s.results[:0], len(b.calls))[:len(b.calls)]
	for n := range s.results {
		err := protocol.RetryLater(protocol.CodeUnavailable, unreadRetryMS, "the node that has to do this runs an older version of stockmesh, and can't read it; upgrade that node")
		if n < b.again {
			err.Details = &protocol.Details{Outcome: "unknown"}
		}
		s.results[n] = Answer{Err: err}
	}
	return s.answered(i, now)
}

// unreadRetryMS is how long a client should wait for nodes to be upgraded.
const unreadRetryMS = 1000

// answered gives the calls of a batch their results and forgets them.
func (s *Sender) answered(i int, now int64) []*protocol.Call {
	calls := s.flight[i].calls
	s.flight = slices.Delete(s.flight, i, i+1)
	if i == 0 {
		s.moved = now
	}
	kept := calls[:0]
	for n, c := range calls {
		if c == nil {
			continue
		}
		a := &s.results[n]
		c.Result, c.Err, c.Replayed = a.Result, a.Err, a.Replayed
		kept = append(kept, c)
	}
	clear(s.results)
	s.under -= len(kept)
	for _, c := range kept {
		s.forget(c)
	}
	return kept
}

// Restart begins a session in which every unanswered call goes again, in the
// order of Add. Answers to earlier sessions are ignored from now on.
func (s *Sender) Restart() {
	if len(s.flight) > 0 {
		s.again += s.under
		s.waiting.replace(s.all())
	}
	s.grounded()
}

// grounded begins a session with nothing under way.
func (s *Sender) grounded() {
	s.session++
	s.number = 0
	clear(s.flight)
	s.flight, s.under = s.flight[:0], 0
}

// all lists the calls that the sender holds, in the order of Add.
func (s *Sender) all() []*protocol.Call {
	calls := make([]*protocol.Call, 0, s.Len())
	for _, b := range s.flight {
		for _, c := range b.calls {
			if c != nil {
				calls = append(calls, c)
			}
		}
	}
	return append(calls, s.waiting.live()...)
}

// TakeAll gives up all calls, in the order of Add, and remembers none. The sender
// may be used again.
func (s *Sender) TakeAll() []*protocol.Call {
	calls := s.all()
	s.waiting.replace(nil)
	s.grounded()
	s.again, s.due = 0, math.MaxInt64
	clear(s.changes)
	return calls
}

// Stalled reports whether the oldest batch under way has had no answer for wait
// ns, since it was sent or the one before it was answered. That later batches are
// answered does not count: the answer that is missing is lost.
func (s *Sender) Stalled(now, wait int64) bool {
	return len(s.flight) > 0 && now-max(s.moved, s.flight[0].at) >= wait
}

// SessionOf returns the Call.Session of the first call with this key that was
// sent and is not answered, for those that change reservations only. It tells who
// caused a change that the log shows before the answer is here.
func (s *Sender) SessionOf(key string) (uint64, bool) {
	e, ok := s.changes[key]
	if !ok {
		return 0, false
	}
	return e.call.Session, true
}

// forget takes a call that was sent, and is no longer in flight or waiting, out
// of changes.
func (s *Sender) forget(c *protocol.Call) {
	if s.changes.forget(c) {
		s.changes.lead(s.find(c.Command.Key))
	}
}

// find returns the first call with this key that was sent. It is needed only
// where a key is under way twice.
func (s *Sender) find(key string) *protocol.Call {
	same := func(c *protocol.Call) bool { return c != nil && tracked(c) && c.Command.Key == key }
	for _, b := range s.flight {
		if i := slices.IndexFunc(b.calls, same); i >= 0 {
			return b.calls[i]
		}
	}
	sent := s.waiting.live()[:s.again]
	if i := slices.IndexFunc(sent, same); i >= 0 {
		return sent[i]
	}
	return nil
}
