package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// stranger sends commands to bb as a node of aa that checks nothing.
type stranger struct {
	t    *testing.T
	aa   *Cluster
	mu   sync.Mutex
	send *relay.Sender
	done chan *protocol.Call

	change func(batch []byte) []byte // on the way; nil: nothing
}

func newStranger(t *testing.T, aa *Cluster) *stranger {
	t.Helper()
	s := &stranger{t: t, aa: aa, send: relay.NewSender("aa.stranger", 1, relay.Options{}), done: make(chan *protocol.Call, 64)}
	stop, err := aa.bus.Receive("answers.stranger", func(_, _ string, data []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delivery, err := s.send.Answer(slices.Clone(data), aa.config.elapsed())
		if err != nil {
			t.Errorf("an answer can't be read: %v", err)
		}
		for _, call := range delivery.Calls {
			s.done <- call
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// ask sends commands in one batch, again while nobody answers, and returns the answers by
// key.
func (s *stranger) ask(commands []protocol.Command) map[string]*protocol.Call {
	s.t.Helper()
	s.mu.Lock()
	for i := range commands {
		s.send.Add(&protocol.Call{Command: commands[i]})
	}
	s.mu.Unlock()
	answers := make(map[string]*protocol.Call)
	sent := time.Time{}
	eventually(s.t, "the commands are answered", func() bool {
		s.mu.Lock()
		if time.Since(sent) > 2*time.Second {
			s.send.Restart()
			if data, ok := s.send.Next(s.aa.config.elapsed()); ok {
				if s.change != nil {
					data = s.change(slices.Clone(data))
				}
				s.aa.mesh.peer("bb").send("calls.bb-1", data)
			}
			sent = time.Now()
		}
		s.mu.Unlock()
		for len(s.done) > 0 {
			call := <-s.done
			answers[call.Command.Key] = call
		}
		return len(answers) == len(commands)
	})
	return answers
}

// What another region forwards may be what no client could send: it is refused, and
// neither ends the owner nor gets into the log.
func TestForeignCommandsAreChecked(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	line := func(n int64) []protocol.Line { return []protocol.Line{{SKU: "x", Location: "main", Quantity: n}} }
	bad := []protocol.Command{
		{Op: protocol.OpCount, Key: "count of nothing", SKU: "x", Location: "main"},
		{Op: protocol.OpExtend, Key: "extend by nothing", Reservation: "bb.01"},
		{Op: protocol.OpSell, Key: "negative sale", Lines: line(-500)},
		{Op: protocol.OpSell, Key: "sale of nothing"},
		{Op: protocol.OpAdjust, Key: "no text", SKU: "x\xff", Location: "main", Delta: 5},
		{Op: protocol.OpAdjust, Key: "no name", Location: "main", Delta: 5},
		{Op: protocol.OpReserve, Key: "a node's own", Lines: line(1), TTLMS: new(int64(1000)), Order: &protocol.Order{ID: "o", Part: true}},
		{Op: protocol.OpSettle, Key: "settle"},
		{Op: protocol.OpResolve, Key: "resolve"},
		{Op: protocol.OpGet, Key: "get", SKUs: []string{"x"}},
		{Op: protocol.OpHistory, Key: "history", SKU: "x"},
	}
	answers := newStranger(t, aa).ask(append(slices.Clone(bad), adjusted("good", "good", 5, "")))
	for _, cmd := range bad {
		if call := answers[cmd.Key]; call.Err == nil || call.Err.Code != protocol.CodeBadRequest {
			t.Errorf("%s: got %v, want bad_request", cmd.Key, call.Err)
		}
	}
	if err := answers["good"].Err; err != nil {
		t.Errorf("the good one: %v", err)
	}
	if items := shownItems(bb); len(items) != 1 || items[0].SKU != "good" || items[0].Available != 5 {
		t.Errorf("got %+v", items)
	}
}

// No message makes rights of what nobody can have given.
func TestForeignTotalsAreBounded(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "x", 100))
	answers := hearAnswers(t, aa)
	forged := deal{Asks: []rightsAsk{{SKU: "nothing", Location: "main", Need: 1, Lacks: 1}}}
	for _, total := range []int64{math.MaxInt64, 1 << 62, protocol.QuantityMax + 1, -1, math.MinInt64} {
		for _, sku := range []string{"x", "y"} {
			forged.Answers = append(forged.Answers, rightsAnswer{SKU: sku, Location: "main", Granted: 1, Total: total})
		}
	}
	for _, key := range []protocol.ItemKey{{SKU: "bad\x01", Location: "main"}, {Location: "main"}, {SKU: "x"}, mainKey(strings.Repeat("x", 1<<10))} {
		forged.Answers = append(forged.Answers, rightsAnswer{SKU: key.SKU, Location: key.Location, Granted: 1, Total: 5})
	}
	aa.mesh.peer("bb").send(subjectRights, protocol.AppendJSON(nil, &forged))
	eventually(t, "the message is taken in", func() bool { return answers.Load() == 1 })
	if row := rowOf(bb, "x"); len(row.Accepted) > 0 {
		t.Errorf("accepted %v", row.Accepted)
	}
	if call := mustSubmit(t, bb, sold("s", "x", 100)); call.Result.Items[0].Available != 0 {
		t.Errorf("got %+v", call.Result.Items)
	}
	if items := shownItems(bb); len(items) != 1 {
		t.Errorf("items came up from messages: %+v", items)
	}
}

// hearAnswers counts answers about rights that a region gets.
func hearAnswers(t *testing.T, c *Cluster) *atomic.Int64 {
	t.Helper()
	answers := new(atomic.Int64)
	stop, err := c.bus.Receive(subjectRights, func(_, _ string, data []byte) {
		var d deal
		if err := protocol.UnmarshalJSON(data, &d); err != nil {
			t.Error(err)
		}
		answers.Add(int64(len(d.Answers)))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return answers
}

// What a region says that it took counts against what is left here only as far as it can
// be: a region that came back from a backup has forgotten what it gave.
func TestConcedeIsBounded(t *testing.T) {
	_, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "x", 100))
	took := []struct{ says, granted int64 }{
		{1 << 62, 0}, {101, 0}, {protocol.QuantityMax, 0}, {40, 40}, {30, 40}, {1 << 62, 40},
	}
	for i, c := range took {
		row := ledger.Row{Version: uint64(1000 + i), Low: -1, Accepted: map[string]int64{"bb": c.says}}
		bb.mesh.peer("aa").show([]ledger.PeerRow{{Region: "aa", Key: mainKey("x"), Row: row}})
		mustSubmit(t, bb, sold(fmt.Sprint("s", i), "x", 1)) // a round after it
		if got := rowOf(bb, "x").Granted["aa"]; got != c.granted {
			t.Fatalf("said to have taken %d: granted %d, want %d", c.says, got, c.granted)
		}
	}
}

// answerLate makes a region hear answers of others that much later than they come.
func answerLate(t *testing.T, c *Cluster, late time.Duration) {
	t.Helper()
	m := c.mesh
	for _, stop := range m.stops {
		stop()
	}
	m.stops = nil
	receive := func(subject string, fn func(from, subject string, data []byte)) {
		stop, err := c.bus.Receive(subject, fn)
		if err != nil {
			t.Fatal(err)
		}
		m.stops = append(m.stops, stop)
	}
	receive("answers."+m.config.Node, func(from, subject string, data []byte) {
		data = slices.Clone(data)
		time.AfterFunc(late, func() { m.answered(from, subject, data) })
	})
	receive(subjectRights, m.heardRights)
	var beats atomic.Int64
	receive(subjectBeat, func(from, subject string, data []byte) {
		m.heardBeat(from, subject, data)
		beats.Add(1)
	})
	eventually(t, "the other region is heard again", func() bool { return beats.Load() > 0 })
}

// An answer that takes its time is waited for, not asked for again and again: each new
// copy would make the answers to those before worthless.
func TestSlowLinkIsAnswered(t *testing.T) {
	aa, _ := linkedRegions(t, nil)
	answerLate(t, aa, 900*time.Millisecond)
	for _, key := range []string{"k1", "k2"} {
		mustSubmit(t, aa, adjusted(key, "x", 5, "bb"))
	}
}

// A node that refuses because it stops is left in peace until it gives a sign of life.
func TestDrainingNodeIsLeft(t *testing.T) {
	aa, bb := linkedRegions(t, func(c *Config) { c.Patience = 1500 * time.Millisecond })
	bb.draining.Store(true)
	var batches atomic.Int64
	stop, err := bb.bus.Receive("calls.bb-1", func(string, string, []byte) { batches.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	call := submit(t, aa, adjusted("k", "x", 5, "bb"))
	if call.Err == nil || call.Err.Code != protocol.CodeRegionUnreachable {
		t.Fatalf("got %v", call.Err)
	}
	if n := batches.Load(); n < 1 || n > 100 {
		t.Fatalf("%d batches were sent to a node that does nothing more", n)
	}
}

// Asks that one round has no room for are answered by the next, though nothing else
// happens.
func TestLeftOverAsksAreAnswered(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	answers := hearAnswers(t, aa)
	const asks = 2*asksMax + asksMax/2
	var d deal
	for i := range asks {
		d.Asks = append(d.Asks, rightsAsk{SKU: fmt.Sprint("s", i), Location: "main", Need: 1, Lacks: 1})
	}
	bb.shards[0].hear("aa", &d)
	eventually(t, "all asks are answered", func() bool { return answers.Load() == asks })
}

// Asks for items that nobody has are answered too: else a few typing errors would make a
// region believe that the others say nothing, and refuse what they have.
func TestUnknownItemsMakeNoPeerMute(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "x", 100000))
	awaitAvailable(t, aa, "x", 100000)
	mustSubmit(t, aa, sold("first", "x", 1))
	for i := range 12 {
		call := submit(t, aa, sold(fmt.Sprint("t", i), fmt.Sprint("typo", i), 1))
		if call.Err == nil || call.Err.Code != protocol.CodeInsufficientStock {
			t.Fatalf("got %v", call.Err)
		}
	}
	mustSubmit(t, aa, sold("much", "x", 20000))
}

// Only the region that was asked can answer.
func TestForgedTestimonyIsIgnored(t *testing.T) {
	m := &mesh{}
	answer := make(chan *protocol.Call, 1)
	m.tasks.open = map[uint64]*inquiry{1: {
		call: &protocol.Call{Done: func(c *protocol.Call) { answer <- c }}, of: "bb", timer: time.NewTimer(time.Hour),
	}}
	m.testified("cc", "", protocol.AppendJSON(nil, testimony{ID: 1, Next: "forged"}))
	if len(answer) > 0 {
		t.Fatal("answered by a region that was not asked")
	}
	m.testified("bb", "", protocol.AppendJSON(nil, testimony{ID: 1, Next: "true"}))
	if call := await(t, answer); call.Result.Next != "true" {
		t.Fatalf("got %+v", call.Result)
	}
}

// What a region can make others remember is bounded.
func TestForeignBeatsAreBounded(t *testing.T) {
	cfg := Config{Region: "aa", Node: "aa-1"}
	p := &peer{name: "bb", mesh: &mesh{config: &cfg}, behind: make(map[string][]logPlace), nodes: make(map[string]int64)}
	for n := range 10 * peerNodesMax {
		p.heardBeat(&beatMessage{Node: fmt.Sprint("n", n), Seq: uint64(n)})
		p.heardBeat(&beatMessage{Node: fmt.Sprint("not a node ", n)})
		p.heardBeat(&beatMessage{Node: "n1", Shard: ShardsMax + n, Seq: 1})
		p.heardBeat(&beatMessage{Node: "n1", Shard: -1 - n, Seq: 1})
	}
	if len(p.nodes) != peerNodesMax || len(p.behind) != 1 {
		t.Fatalf("%d nodes and %d logs are remembered", len(p.nodes), len(p.behind))
	}
}
