package relay

import (
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// hand is a sender with a hand that sends and answers for it.
type hand struct {
	*testing.T
	*Sender
}

func newHand(t *testing.T, o Options) *hand { return &hand{t, NewSender("n", 7, o)} }

func call(key string, due int64) *protocol.Call {
	return &protocol.Call{Command: protocol.Command{Op: protocol.OpReserve, Key: key}, Due: due, Session: 9}
}

func (h *hand) add(keys ...string) {
	for _, k := range keys {
		h.Add(call(k, 0))
	}
}

// keys joins the keys of calls.
func keys(calls []*protocol.Call) string {
	var all []string
	for _, c := range calls {
		all = append(all, c.Command.Key)
	}
	return strings.Join(all, " ")
}

// sends wants the next batch to be of these.
func (h *hand) sends(now int64, session, number uint64, want string) Batch {
	h.Helper()
	data, ok := h.Next(now)
	if !ok {
		h.Fatalf("nothing is sent, not %q", want)
	}
	b, err := DecodeBatch(data)
	if err != nil {
		h.Fatal(err)
	}
	if b.From != "n" || b.Session != session || b.Number != number || keys(b.Calls) != want {
		h.Fatalf("batch %d of session %d of %q has %q", b.Number, b.Session, b.From, keys(b.Calls))
	}
	return b
}

func (h *hand) sendsNothing(now int64) {
	h.Helper()
	if _, ok := h.Next(now); ok {
		h.Fatal("a batch is sent")
	}
}

// answers wants an answer to give back these.
func (h *hand) answers(now int64, b Batch, want string) Delivery {
	h.Helper()
	return h.gets(now, AppendAnswers(nil, "o", b.Session, b.Number, 70+b.Number, b.Calls), want)
}

func (h *hand) gets(now int64, data []byte, want string) Delivery {
	h.Helper()
	d, err := h.Answer(data, now)
	if err != nil {
		h.Fatal(err)
	}
	if keys(d.Calls) != want {
		h.Fatalf("answered %q, not %q", keys(d.Calls), want)
	}
	return d
}

func TestBatchesTakeWhatWaits(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 3, Window: 2})
	h.sendsNothing(1)
	h.add("a", "b", "c", "d", "e", "f", "g")
	h.sends(1, 7, 1, "a b c")
	two := h.sends(1, 7, 2, "d e f")
	h.sendsNothing(1) // the window is full
	if d := h.answers(2, two, "d e f"); d.Seq != 72 || d.From != "o" || d.Restarted {
		t.Fatalf("%+v", d)
	}
	h.sends(2, 7, 3, "g")
	h.sendsNothing(2)
}

func TestBatchesKeepToTheirBytes(t *testing.T) {
	h := newHand(t, Options{BatchBytes: 100})
	long := strings.Repeat("x", 128)
	h.add("a", "b", long, "c")
	h.sends(1, 7, 1, "a b")
	h.sends(1, 7, 2, long) // a call that is too long goes alone
	if n := len(h.buf); n < 128 {
		t.Fatal(n)
	}
	h.sends(1, 7, 3, "c")
	if got := (Options{BatchCalls: 1 << 20}).withDefaults(); got != (Options{BatchCalls: CallsMax, BatchBytes: 256 << 10, Window: 4}) {
		t.Fatalf("%+v", got)
	}
}

func TestWhatIsOutdatedIsIgnored(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 1})
	h.add("a", "b")
	a, b := h.sends(1, 7, 1, "a"), h.sends(1, 7, 2, "b")
	h.answers(2, a, "a")
	refusal := func(b Batch, v Verdict) []byte { return AppendRefusal(nil, "o", b.Session, b.Number, v, "p") }
	for _, data := range [][]byte{
		refusal(a, NotOwner),
		AppendAnswers(nil, "o", 7, 1, 1, a.Calls),
		AppendAnswers(nil, "o", 7, 3, 1, a.Calls),
		AppendAnswers(nil, "o", 6, 2, 1, a.Calls),
		AppendAnswers(nil, "o", 8, 2, 1, a.Calls),
	} {
		if d := h.gets(3, data, ""); d.Restarted || d.From != "" {
			t.Fatalf("%+v", d)
		}
	}
	if d := h.gets(3, refusal(b, NotOwner), ""); !d.Restarted || !d.NotOwner || d.Owner != "p" || d.From != "o" {
		t.Fatalf("%+v", d)
	}
	again := h.sends(3, 8, 1, "b")
	for _, data := range [][]byte{refusal(a, Gap), refusal(b, Gap), AppendAnswers(nil, "o", 7, 1, 1, a.Calls)} {
		if d := h.gets(3, data, ""); d.Restarted {
			t.Fatalf("%+v", d)
		}
	}
	if d := h.gets(3, refusal(again, Gap), ""); !d.Restarted || d.NotOwner {
		t.Fatalf("%+v", d)
	}
	h.answers(4, h.sends(4, 9, 1, "b"), "b")
}

// What can't be read is refused at once, and said to be undone where nobody else may
// have done it. Nothing else goes again for it.
func TestUnreadBatch(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 2})
	unread := func(b Batch) []byte { return AppendRefusal(nil, "o", b.Session, b.Number, Unreadable, "") }
	h.add("a", "b", "c")
	h.sends(1, 7, 1, "a b")
	c := h.sends(1, 7, 2, "c")
	if d := h.gets(2, unread(c), "c"); !d.Unread || d.Restarted || d.From != "o" {
		t.Fatalf("%+v", d)
	} else {
		checkRefused(t, d)
	}
	h.Restart()
	h.sends(3, 8, 1, "a b")
	h.Restart()
	h.limits.BatchCalls = 3
	h.add("d")
	abd := h.sends(4, 9, 1, "a b d")
	d := h.gets(5, unread(abd), "a b d")
	for i, unknown := range []bool{true, true, false} {
		if err := d.Calls[i].Err; (err.Details != nil && err.Details.Outcome == "unknown") != unknown {
			t.Errorf("call %d: %+v", i, err)
		}
	}
	if h.Len() != 0 {
		t.Fatal(h.Len())
	}
	h.add("e")
	h.answers(7, h.sends(6, 9, 2, "e"), "e")
}

func TestABadAnswerChangesNothing(t *testing.T) {
	h := newHand(t, Options{})
	h.add("a", "b")
	b := h.sends(1, 7, 1, "a b")
	good := AppendAnswers(nil, "o", 7, 1, 1, b.Calls)
	unread := AppendRefusal(nil, "o", 7, 1, Unreadable, "")
	for _, bad := range [][]byte{nil, {answersFormat}, append(unread, 0), unread[:len(unread)-1], good[:len(good)-1], AppendAnswers(nil, "o", 7, 1, 1, b.Calls[:1])} {
		if d, err := h.Answer(bad, 2); err == nil || len(d.Calls) > 0 || h.Len() != 2 {
			t.Fatalf("%x: %+v, %v", bad, d, err)
		}
	}
	h.answers(3, b, "a b")
}

func TestStalled(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 1})
	want := func(now int64, stalled bool) {
		t.Helper()
		if got := h.Stalled(now, 10); got != stalled {
			t.Fatalf("at %d: %v", now, got)
		}
	}
	want(99, false)
	h.add("a", "b", "c", "d")
	want(99, false) // nothing is under way
	a := h.sends(100, 7, 1, "a")
	b := h.sends(105, 7, 2, "b")
	c := h.sends(106, 7, 3, "c")
	want(109, false)
	want(110, true)
	h.answers(108, a, "a")
	want(117, false) // its owner is slow, but there
	want(118, true)
	h.answers(117, c, "c")
	want(118, true) // b's answer is lost
	h.answers(118, b, "b")
	want(1000, false)
	h.sends(1000, 7, 4, "d")
	want(1009, false)
	want(1010, true)
}

func TestExpire(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 2, Window: 2})
	for _, c := range []*protocol.Call{
		call("a", 10), call("b", 0), call("c", 20), call("d", 0), call("e", 0), call("f", 20), call("g", 30), call("h", 0),
	} {
		h.Add(c)
	}
	want := func(now int64, never, maybe string) {
		t.Helper()
		if n, m := h.Expire(now); keys(n) != never || keys(m) != maybe {
			t.Fatalf("at %d: never %q, maybe %q", now, keys(n), keys(m))
		}
	}
	ab := h.sends(1, 7, 1, "a b")
	h.sends(1, 7, 2, "c d")
	want(9, "", "")
	want(10, "", "a")
	h.answers(11, ab, "b") // a's place is a hole
	want(20, "f", "c")
	h.Restart()
	h.sends(21, 8, 1, "d e")
	h.Restart()
	h.sends(22, 9, 1, "d e")
	h.sends(22, 9, 2, "g h")
	h.Restart()
	h.add("i")
	want(30, "", "g") // sent in an earlier session
	h.sends(31, 10, 1, "d e")
	h.sends(31, 10, 2, "h i")
	if h.Len() != 4 {
		t.Fatal(h.Len())
	}
}

func TestTakeAll(t *testing.T) {
	h := newHand(t, Options{BatchCalls: 2, Window: 2})
	h.add("a", "b", "c", "d", "e")
	h.sends(1, 7, 1, "a b")
	cd := h.sends(1, 7, 2, "c d")
	h.answers(2, cd, "c d")
	if got := keys(h.TakeAll()); got != "a b e" || h.Len() != 0 {
		t.Fatal(got, h.Len())
	}
	if _, ok := h.SessionOf("a"); ok {
		t.Fatal("a is remembered")
	}
	h.sendsNothing(3)
	h.add("f")
	f := h.sends(3, 8, 1, "f")
	h.answers(4, f, "f")
}

func TestSessionOf(t *testing.T) {
	h := newHand(t, Options{})
	want := func(key string, session uint64) {
		t.Helper()
		if got, ok := h.SessionOf(key); got != session || ok != (session != 0) {
			t.Fatalf("%s: %d, %v", key, got, ok)
		}
	}
	sell := call("s", 0)
	sell.Command.Op = protocol.OpSell
	again := call("a", 0)
	again.Session = 10
	h.Add(call("a", 0), sell)
	want("a", 0) // not sent
	first := h.sends(1, 7, 1, "a s")
	h.Add(again)
	second := h.sends(1, 7, 2, "a")
	want("a", 9)
	want("s", 0) // changes no reservation
	h.answers(2, first, "a s")
	want("a", 10)
	h.answers(2, second, "a")
	want("a", 0)
}

// TestQueueStaysSmall holds few calls at a time, never none.
func TestQueueStaysSmall(t *testing.T) {
	var q queue
	q.push([]*protocol.Call{{}, {}, {}})
	for range 10000 {
		q.push([]*protocol.Call{{}})
		q.drop(1)
	}
	if q.len() != 3 || cap(q.calls) > 16 {
		t.Fatalf("%d calls in memory for %d", q.len(), cap(q.calls))
	}
}
