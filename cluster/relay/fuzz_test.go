package relay

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// growthMax is how many bytes of memory a byte of input may ask for: a call of
// which only the op is set is the largest for what it takes.
const growthMax = 250

// allocated returns the bytes that f asks for.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func checkGrowth(t *testing.T, input int, f func()) {
	limit := uint64(growthMax*input + 16<<10)
	// Others in the process, such as the fuzzer's own, allocate as well.
	if got := min(allocated(f), allocated(f), allocated(f)); got > limit {
		t.Fatalf("%d bytes of memory for %d bytes", got, input)
	}
}

// sampleCalls has every field and every kind of answer once.
func sampleCalls() []*protocol.Call {
	p, item := protocol.Ptr[int64], protocol.Item{SKU: "A", Location: "main", OnHand: -3, Version: "eu:7", UpdatedAt: 99, Low: true}
	reservation := &protocol.Reservation{ID: "eu.1.2", State: protocol.Held, ExpiresAt: 5, User: "u", Lines: []protocol.Line{{SKU: "A", Location: "main", Quantity: 2}}}
	return []*protocol.Call{
		{
			Command: protocol.Command{Op: protocol.OpSell, Key: "k1", Home: "eu", Reason: "till", Reference: "#1", Lines: reservation.Lines, User: "u"},
			Session: 1 << 60, Subject: "shop", Ordered: true,
			Result: protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{item, item}, Behind: true},
		},
		{
			Command:  protocol.Command{Op: protocol.OpCount, Key: "k2", SKU: "红色", Location: "main", OnHand: p(5), IfVersion: protocol.Ptr("")},
			Replayed: true, Result: protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{item}},
		},
		{
			Command: protocol.Command{Op: protocol.OpConfigure, SafetyStock: p(0), BackorderLimit: p(1), LowStock: p(1 << 53)},
			Err: &protocol.Error{Code: protocol.CodeInsufficientStock, Message: "no", Retryable: true, RetryAfterMS: 9, Details: &protocol.Details{
				State: protocol.Expired, Outcome: "unknown", Item: &item, Lines: []protocol.Shortage{{SKU: "A", Location: "main", Requested: 3, Available: 1, Elsewhere: 1}},
			}},
		},
		{Command: protocol.Command{Op: protocol.OpReserve, TTLMS: p(1000)}, Result: protocol.Result{Kind: protocol.KindReservation, Reservation: reservation}},
		{Command: protocol.Command{Op: protocol.OpMove, From: "a", To: "b", Quantity: 3, Delta: -1}, Err: protocol.BadRequest("no")},
		{
			Command: protocol.Command{Op: protocol.OpOutcome, Key: "k"},
			Result:  protocol.Result{Kind: protocol.KindOutcome, Known: true, Outcome: &protocol.Result{Kind: protocol.KindReservation, Reservation: reservation}},
		},
		{
			Command: protocol.Command{
				Op: protocol.OpSell, Key: "k", Lines: reservation.Lines,
				Order: &protocol.Order{ID: "o", Home: 3, Part: true, Lines: reservation.Lines, Parts: []string{"eu.1", "eu.2"}},
			},
			Result: protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{item}},
		},
		{Command: protocol.Command{Op: protocol.OpGet}},
		{Address: "2001:db8::1", Command: protocol.Command{Op: protocol.OpConfirm, Reservation: "eu.1", Within: protocol.Scope{
			{SKUs: []string{"tee-*", "A"}, Locations: []string{}}, {}, {Users: []string{"u"}},
		}}},
		{Command: protocol.Command{Op: protocol.OpRelease, Reservation: "eu.1", Within: protocol.Scope{}}},
		{Command: protocol.Command{Op: protocol.OpCount, SKU: "A"}, Trace: &protocol.Trace{Handover: [8]byte{7}}},
		{Command: protocol.Command{Op: "later", Reservation: "eu.1.2"}, Result: protocol.Result{Kind: protocol.KindOutcome}},
	}
}

// FuzzDecodeBatch wants no panic, memory in proportion and one form for one batch.
func FuzzDecodeBatch(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{batchFormat})
	f.Add([]byte{batchFormat2})
	f.Add([]byte{batchFormat3})
	f.Add(laterBatch("eu-1", 7, 1))
	f.Add(appendBatch(nil, "eu-1", 1<<60, 1, sampleCalls()))
	for _, c := range sampleCalls() {
		f.Add(appendBatch(nil, "eu-1", 2, 1, []*protocol.Call{c}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var batch Batch
		var err error
		checkGrowth(t, len(data), func() { batch, err = DecodeBatch(data) })
		if err != nil {
			if batch.Calls != nil {
				t.Fatalf("calls of a batch that can't be read: %v", batch.Calls)
			}
			return
		}
		if again := appendBatch(nil, batch.From, batch.Session, batch.Number, batch.Calls); !bytes.Equal(again, data) {
			t.Fatalf("\n%x read, written again it is\n%x", data, again)
		}
	})
}

// FuzzDecodeAnswers wants the same of answers.
func FuzzDecodeAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{answersFormat})
	f.Add(AppendRefusal(nil, "eu-1", 1, 1, Gap, ""))
	f.Add(AppendRefusal(nil, "eu-1", 1, 1, NotOwner, "eu-2"))
	f.Add(AppendRefusal(nil, "eu-1", 1, 1, Unreadable, ""))
	f.Add(AppendAnswers(nil, "eu-1", 1<<60, 1, 77, sampleCalls()))
	for _, c := range sampleCalls() {
		f.Add(AppendAnswers(nil, "eu-1", 2, 1, 77, []*protocol.Call{c}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a Answers
		var err error
		checkGrowth(t, len(data), func() { a, err = DecodeAnswers(data) })
		if err != nil {
			return
		}
		if again := appendDecoded(a); !bytes.Equal(again, data) {
			t.Fatalf("\n%x read, written again it is\n%x", data, again)
		}
	})
}

// appendDecoded writes answers again.
func appendDecoded(a Answers) []byte {
	if a.Verdict != Done {
		return AppendRefusal(nil, a.From, a.Session, a.Number, a.Verdict, a.Owner)
	}
	var calls []*protocol.Call
	for _, r := range a.Results {
		calls = append(calls, &protocol.Call{Result: r.Result, Err: r.Err, Replayed: r.Replayed})
	}
	return AppendAnswers(nil, a.From, a.Session, a.Number, a.Seq, calls)
}

// FuzzSenderAnswer wants that a sender takes a message as DecodeAnswers does, or
// not at all, and loses no call by it.
func FuzzSenderAnswer(f *testing.F) {
	sample := sampleCalls()
	f.Add([]byte{})
	f.Add(AppendRefusal(nil, "eu-1", 7, 1, Gap, ""))
	f.Add(AppendRefusal(nil, "eu-1", 7, 1, Unreadable, ""))
	f.Add(AppendAnswers(nil, "eu-1", 7, 1, 77, sample))
	f.Add(AppendAnswers(nil, "eu-1", 7, 1, 77, sample[1:]))
	f.Add(AppendAnswers(nil, "eu-1", 8, 1, 77, sample))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewSender("n", 7, Options{})
		s.Add(sampleCalls()...)
		n := s.Len()
		if _, ok := s.Next(1); !ok {
			t.Fatal("nothing to send")
		}
		d, err := s.Answer(data, 2)
		if s.Len()+len(d.Calls) != n || err != nil && (len(d.Calls) > 0 || s.number != 1) {
			t.Fatalf("%d of %d calls left, delivery %+v, error %v", s.Len(), n, d, err)
		}
		if len(d.Calls) == 0 {
			return
		}
		a, err := DecodeAnswers(data)
		if err != nil {
			t.Fatalf("a sender takes what can't be decoded: %v", err)
		}
		if a.Verdict == Unreadable {
			checkRefused(t, d)
			return
		}
		if diff := cmp.Diff(appendDecoded(a), AppendAnswers(nil, a.From, a.Session, a.Number, a.Seq, d.Calls)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// checkRefused wants that each call is told that nothing was done.
func checkRefused(t *testing.T, d Delivery) {
	t.Helper()
	for _, c := range d.Calls {
		if !d.Unread || c.Err == nil || c.Err.Code != protocol.CodeUnavailable || !c.Err.Retryable || c.Err.Details != nil {
			t.Fatalf("call %q of an unread batch: %v", c.Command.Key, c.Err)
		}
	}
}

// TestDamage cuts and flips: no part of a message may be taken for the whole.
func TestDamage(t *testing.T) {
	batch := appendBatch(nil, "eu-1", 1<<60, 1, sampleCalls())
	answers := AppendAnswers(nil, "eu-1", 1<<60, 1, 77, sampleCalls())
	for name, message := range map[string][]byte{"batch": batch, "answers": answers} {
		decode := func(b []byte) error {
			if name == "batch" {
				_, err := DecodeBatch(b)
				return err
			}
			_, err := DecodeAnswers(b)
			return err
		}
		for n := range message {
			if decode(message[:n]) == nil {
				t.Errorf("%s: the first %d of %d bytes were taken", name, n, len(message))
			}
			for bit := range 8 { // some give another valid message; none may panic
				damaged := bytes.Clone(message)
				damaged[n] ^= 1 << bit
				_ = decode(damaged)
			}
		}
		if decode(append(bytes.Clone(message), 0)) == nil {
			t.Errorf("%s: bytes after the end were taken", name)
		}
	}
}

// TestMemoryOfBoastfulMessages has counts and lengths that the input can't hold.
func TestMemoryOfBoastfulMessages(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	batch := append([]byte{batchFormat, 0, 1, 1}, 0xff, 0xff, 0xff, 0xff)
	long := append([]byte{batchFormat}, huge...)
	answers := append([]byte{answersFormat, 0, 1, 1, byte(Done), 1}, huge...)
	list := append([]byte{answersFormat, 0, 1, 1, byte(Done), 1, 1, byte(protocol.KindItems)}, huge...)
	for _, data := range [][]byte{batch, long, answers, list} {
		checkGrowth(t, len(data), func() {
			if _, err := DecodeBatch(data); err == nil {
				t.Errorf("%x was read as a batch", data)
			}
			if _, err := DecodeAnswers(data); err == nil {
				t.Errorf("%x was read as answers", data)
			}
		})
	}
	if growth := float64(callSize) / callBytesMin; growth > growthMax {
		t.Errorf("a call takes %d bytes, %.0f for each of its input", callSize, growth)
	}
}
