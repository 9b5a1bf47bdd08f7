package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// faultyJournal is a log in memory whose appends fail as told, each told failure
// once.
type faultyJournal struct {
	mu     sync.Mutex
	rounds [][]byte
	faults []fault
}

// fault is what becomes of one append: stored or not, and the answer.
type fault struct {
	stored bool
	err    error
}

func (j *faultyJournal) Append(_ context.Context, data []byte, last uint64) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if last != uint64(len(j.rounds)) {
		return 0, &bus.SequenceError{Expected: last, Actual: uint64(len(j.rounds))}
	}
	var f fault
	if len(j.faults) > 0 {
		f, j.faults = j.faults[0], j.faults[1:]
	}
	if f.err == nil || f.stored {
		j.rounds = append(j.rounds, append([]byte(nil), data...))
	}
	return uint64(len(j.rounds)), f.err
}

func (j *faultyJournal) Bounds(context.Context) (uint64, uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return 1, uint64(len(j.rounds)), nil
}

func (j *faultyJournal) Get(_ context.Context, seq uint64) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seq < 1 || seq > uint64(len(j.rounds)) {
		return nil, bus.ErrMissing
	}
	return j.rounds[seq-1], nil
}

func (j *faultyJournal) Leads() bool { return true }

func (j *faultyJournal) tell(f ...fault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.faults = f
}

// seat is an owner with the desk before it.
type seat struct {
	*owner
	desk *desk
}

func newSeat(t *testing.T, c Config, j *faultyJournal) *seat {
	t.Helper()
	c = c.withDefaults()
	q := newQueue(c.QueueMax)
	o := newOwner(&c, j, newReplica(ledger.NewState("eu", 0)), q, newMetrics(prometheus.NewRegistry()))
	o.onRound = func(*protocol.Changes, []byte) {}
	s := &seat{o, newDesk(&c, 0, nil, q, nil)}
	if err := o.takeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.desk.enter(1)
	return s
}

// startOwner runs an owner over a journal until the test ends.
func startOwner(t *testing.T, j *faultyJournal) (o *seat, ended chan error) {
	t.Helper()
	o = newSeat(t, Config{Node: "eu-1", KeyWindow: time.Hour}, j)
	ended = make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		left, err := o.run(ctx)
		o.desk.end(left, err)
		ended <- err
	}()
	t.Cleanup(func() {
		o.queue.close()
		cancel()
		<-done
	})
	return o, ended
}

func ask(o *seat, key string) *protocol.Call {
	answered := make(chan struct{})
	call := &protocol.Call{
		Command: protocol.Command{Op: protocol.OpAdjust, Key: key, SKU: "A", Location: "main", Delta: 1},
		Done:    func(*protocol.Call) { close(answered) },
	}
	o.desk.put(call)
	<-answered
	return call
}

func TestAppendsOfUnknownFate(t *testing.T) {
	unknown := fmt.Errorf("no answer: %w", bus.ErrUnknown)
	for name, faults := range map[string][]fault{
		"stored":                  {{stored: true, err: unknown}},
		"not stored":              {{err: unknown}},
		"not stored, then stored": {{err: unknown}, {stored: true, err: unknown}},
		"busy, then unknown":      {{err: bus.ErrBusy}, {stored: true, err: unknown}},
	} {
		t.Run(name, func(t *testing.T) {
			j := &faultyJournal{}
			o, _ := startOwner(t, j)
			j.tell(faults...)
			if call := ask(o, "k1"); call.Err != nil || call.Result.Items[0].OnHand != 1 {
				t.Fatalf("got %+v, %v", call.Result, call.Err)
			}
			if call := ask(o, "k2"); call.Err != nil || call.Result.Items[0].OnHand != 2 {
				t.Fatalf("got %+v, %v", call.Result, call.Err)
			}
			if n := len(j.rounds); n != 3 { // the take-over's and two
				t.Fatalf("%d rounds in the log", n)
			}
		})
	}
}

// A round that was certainly not stored leaves no trace, and the owner goes on.
func TestRefusedAppend(t *testing.T) {
	j := &faultyJournal{}
	o, _ := startOwner(t, j)
	j.tell(fault{err: bus.ErrFull})
	call := ask(o, "k1")
	if call.Err == nil || call.Err.Code != protocol.CodeUnavailable || !call.Err.Retryable || call.Err.Details != nil {
		t.Fatalf("got %v", call.Err)
	}
	if call := ask(o, "k1"); call.Err != nil || call.Replayed || call.Result.Items[0].Version != "eu:1" {
		t.Fatalf("got %+v, %v", call.Result, call.Err)
	}
}

// A refusal after a try of unknown fate proves nothing about that try.
func TestRefusedAfterAnUnknownTry(t *testing.T) {
	j := &faultyJournal{}
	o, _ := startOwner(t, j)
	j.tell(fault{err: bus.ErrUnknown}, fault{err: bus.ErrFull})
	call := ask(o, "k1")
	if call.Err == nil || call.Err.Details == nil || call.Err.Details.Outcome != "unknown" {
		t.Fatalf("got %+v", call.Err)
	}
	if call := ask(o, "k1"); call.Err != nil || call.Result.Items[0].OnHand != 1 {
		t.Fatalf("got %+v, %v", call.Result, call.Err)
	}
}

// Somebody else's round in the owner's place ends the owner: what it was deciding
// is not acknowledged, and nothing is decided after it.
func TestSomebodyElseWrote(t *testing.T) {
	j := &faultyJournal{}
	o, ended := startOwner(t, j)
	j.mu.Lock()
	j.rounds = append(j.rounds, (&ledger.Round{Nonce: 7}).AppendTo(nil))
	j.mu.Unlock()
	call := ask(o, "k1")
	if call.Err == nil || call.Err.Code != protocol.CodeUnavailable || call.Err.Details.Outcome != "unknown" {
		t.Fatalf("got %+v", call.Err)
	}
	var lost *lostError
	if err := <-ended; !errors.As(err, &lost) {
		t.Fatalf("got %v", err)
	}
	if call := ask(o, "k2"); call.Err == nil || call.Err.Code != protocol.CodeUnavailable {
		t.Fatalf("got %v", call.Err)
	}
	if len(j.rounds) != 2 {
		t.Fatalf("%d rounds in the log", len(j.rounds))
	}
}

// An outcome asked for behind a command waits for the command's round.
func TestOutcomeSeesWhatWasSentBefore(t *testing.T) {
	o, _ := startOwner(t, &faultyJournal{})
	answered := make(chan *protocol.Call, 2)
	done := func(c *protocol.Call) { answered <- c }
	write := &protocol.Call{Done: done, Command: protocol.Command{Op: protocol.OpAdjust, Key: "k1", SKU: "A", Location: "main", Delta: 1}}
	asked := &protocol.Call{Done: done, Command: protocol.Command{Op: protocol.OpOutcome, Key: "k1"}}
	o.desk.put(write, asked)
	<-answered
	if got := (<-answered).Result; !got.Known || got.Outcome.Items[0].OnHand != 1 {
		t.Fatalf("got %+v", got)
	}
}

func TestQueueBound(t *testing.T) {
	c := Config{Node: "eu-1", KeyWindow: time.Hour, QueueMax: 2}
	o := newSeat(t, c, &faultyJournal{})
	codes := make([]protocol.Code, 0, 3)
	call := func() *protocol.Call {
		return &protocol.Call{Done: func(c *protocol.Call) { codes = append(codes, c.Err.Code) }}
	}
	o.desk.put(call(), call(), call())
	o.desk.close()
	o.desk.put(call())
	if len(codes) != 2 || codes[0] != protocol.CodeOverloaded || codes[1] != protocol.CodeUnavailable {
		t.Fatalf("got %v", codes)
	}
}

// Many large reservations that end at once don't make a round larger than the log
// takes: they are spread over several.
func TestManyExpiriesAtOnce(t *testing.T) {
	j := &faultyJournal{}
	var clock struct {
		sync.Mutex
		at time.Time
	}
	clock.at = time.Now()
	o := newSeat(t, Config{Node: "eu-1", KeyWindow: time.Hour, Clock: func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.at
	}}, j)
	const reservations, lines = 300, 100
	name := func(n int) string { return fmt.Sprintf("%0128d", n) }
	for i := range reservations {
		reserve := protocol.Command{Op: protocol.OpReserve, Key: fmt.Sprint("r", i), TTLMS: protocol.Ptr[int64](1000)}
		var calls []*protocol.Call
		for n := range lines {
			sku := name(i*lines + n)
			calls = append(calls, &protocol.Call{Done: func(*protocol.Call) {}, Command: protocol.Command{Op: protocol.OpAdjust, Key: sku, SKU: sku, Location: name(0), Delta: 1}})
			reserve.Lines = append(reserve.Lines, protocol.Line{SKU: sku, Location: name(0), Quantity: 1})
		}
		calls = append(calls, &protocol.Call{Done: func(*protocol.Call) {}, Command: reserve})
		if _, err := o.rounds(t.Context(), calls); err != nil || calls[lines].Err != nil {
			t.Fatal(err, calls[lines].Err)
		}
	}
	before := len(j.rounds)
	clock.Lock()
	clock.at = clock.at.Add(time.Minute)
	clock.Unlock()
	if _, err := o.rounds(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, left, _ := o.replica.state.Sizes(); left != 0 {
		t.Fatalf("%d reservations left", left)
	}
	for _, b := range j.rounds[before:] {
		if len(b) > 2*roundBytesMax {
			t.Errorf("a round of %d bytes", len(b))
		}
	}
}

// However many calls wait when the log is lost, each is answered.
func TestEveryCallIsAnsweredWhenTheLogIsLost(t *testing.T) {
	j := &faultyJournal{}
	o, ended := startOwner(t, j)
	j.mu.Lock()
	j.rounds = append(j.rounds, (&ledger.Round{Nonce: 7}).AppendTo(nil))
	j.mu.Unlock()
	const n = 3 * roundCommandsMax
	answered := make(chan *protocol.Call, n)
	calls := make([]*protocol.Call, n)
	for i := range calls {
		calls[i] = &protocol.Call{
			Command: protocol.Command{Op: protocol.OpAdjust, Key: fmt.Sprint(i), SKU: "A", Location: "main", Delta: 1},
			Done:    func(c *protocol.Call) { answered <- c },
		}
	}
	o.desk.put(calls...)
	for range n {
		if c := <-answered; c.Err == nil || c.Err.Code != protocol.CodeUnavailable {
			t.Fatalf("got %v", c.Err)
		}
	}
	<-ended
}
