package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// newTestBoard has two SKUs and one reader.
func newTestBoard() (*board, *reader) {
	b := newBoard(&generator{}, []string{"a", "b"})
	b.opening[1] = 40
	return b, b.newReader(b.newParty())
}

func stockOf(a, b int) []byte {
	return fmt.Appendf(nil, `{"op":"stock","items":[{"sku":"a","on_hand":%d},{"sku":"b","on_hand":%d}]}`, a, b)
}

func TestBoardCountsWhatWasPassedOver(t *testing.T) {
	b, r := newTestBoard()
	p := r.party
	for due := range int64(4) {
		b.note(2, due*int64(time.Millisecond))
	}
	b.note(1, 0)
	b.gen.now = 10 * int64(time.Millisecond)
	r.received(nil, stockOf(1, 41))
	if p.owed != 9 || p.delivered != 2 || p.conflated != 0 || p.ages.h.Max()/1000 != 10 {
		t.Errorf("%+v, oldest %d", p, p.ages.h.Max())
	}
	r.received(nil, stockOf(3, 44))
	if p.delivered != 4 || p.conflated != 3 || p.waiting() != 2 || r.current() {
		t.Errorf("%+v", p)
	}
	if min := p.ages.h.Min() / 1000; min != 9 { // of the oldest change that a push tells of
		t.Errorf("youngest %d ms", min)
	}
	r.received(nil, stockOf(3, 44)) // a snapshot may say it again
	r.received(nil, stockOf(5, 44))
	if p.waiting() != 0 || !r.current() || len(b.faults) > 0 {
		t.Errorf("%+v, faults %q", p, b.faults)
	}
	p.restart()
	if p.owed != 0 || p.delivered != 0 || p.ages.h.TotalCount() != 0 {
		t.Errorf("%+v", p)
	}
}

func TestBoardCatchesALyingNode(t *testing.T) {
	for want, messages := range map[string][][]byte{
		"a was pushed at change 1 after 2, of 2":         {stockOf(2, 42), stockOf(1, 42)},
		"a was pushed at change 3 after 0, of 2":         {stockOf(3, 42)},
		`"c" was pushed to those who did not ask for it`: {[]byte(`{"op":"stock","items":[{"sku":"c","on_hand":1}]}`)},
		"unreadable":               {[]byte(`{"op":`)},
		"subscribe: too_large: no": {[]byte(`{"id":1,"error":{"code":"too_large","message":"no"}}`)},
		"a reader's connection ended: closed by the node": nil,
	} {
		b, r := newTestBoard()
		b.note(2, 0)
		b.note(2, 0)
		for _, m := range messages {
			r.received(nil, m)
		}
		if messages == nil {
			r.conn = &conn{}
			r.lost(r.conn, errors.New("closed by the node: 4100"))
		}
		if len(b.faults) != 1 || !strings.Contains(b.faults[0], want) {
			t.Errorf("faults %q, want %q", b.faults, want)
		}
	}
}

func TestReaderOnAnotherNode(t *testing.T) {
	b, r := newTestBoard()
	b.note(2, 0)
	b.note(2, 0)
	r.received(nil, stockOf(2, 42))
	r.received(nil, []byte(`{"op":"cursor","cursor":"eu:7"}`))
	r.received(nil, []byte(`{"op":"goaway","endpoints":[]}`))
	if r.cursor != "eu:7" || !r.away || r.ready {
		t.Errorf("%+v", r)
	}
	clear(r.fresh) // as land does
	r.received(nil, stockOf(1, 41))
	r.received(nil, []byte(`{"id":1,"ok":{"items":2,"cursor":"eu:9"}}`))
	if r.cursor != "eu:9" || !r.ready || r.backsteps != 2 || len(b.faults) > 0 || !r.current() {
		t.Errorf("%+v, faults %q", r, b.faults)
	}
}

func TestDensest(t *testing.T) {
	var even []time.Duration
	for i := range 100 {
		even = append(even, time.Duration(i)*10*time.Millisecond)
	}
	if d := densest(even, time.Second); d != 1 {
		t.Errorf("evenly: %v", d)
	}
	if d := densest(slices.Repeat([]time.Duration{time.Second}, 9), time.Second); d != closedInPieces {
		t.Errorf("all at once: %v", d)
	}
	if d := densest(nil, time.Second); d != 0 {
		t.Errorf("nobody: %v", d)
	}
}

func TestFateOfAGuest(t *testing.T) {
	hello := "HTTP/1.1 101 Switching Protocols\r\n\r\n" + string(appendServerFrame(nil, opText, []byte(`{"op":"hello"}`)))
	for said, want := range map[string]fate{
		"":                   hung,
		hello[:20]:           hung,
		hello[:len(hello)-1]: hung,
		hello:                served,
		"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n":                       told,
		"HTTP/1.1 429 Many\r\nRetry-After: 3\r\nContent-Length: 9\r\n\r\nx": told,
		"HTTP/1.1 503 Busy\r\n\r\n":                                         broken,
		"HTTP/1.1 400 Bad\r\nRetry-After: 3\r\n\r\n":                        broken,
		"nonsense\r\n\r\n":                                                  broken,
		strings.Replace(hello, "hello", "hallo", 1):                         broken,
	} {
		got, wait, err := judge([]byte(said))
		if got != want || (err != nil) != (want == broken) || want == told && wait != 3 {
			t.Errorf("%q: %v, %d s, %v", said, got, wait, err)
		}
	}
}

func TestGuestWhoIsThrownOut(t *testing.T) {
	g, err := newGuests()
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	v := &guest{fate: served}
	g.counts[served] = 1
	g.leave(v, nil) // a ping, perhaps
	g.leave(v, errors.New("gone"))
	g.leave(v, errors.New("gone"))
	if g.counts[served] != 0 || g.counts[broken] != 1 || len(g.faults) != 1 {
		t.Errorf("%+v", g)
	}
}

// TestEndsOfStalledReaders feeds a trial with ends that are right and wrong.
func TestEndsOfStalledReaders(t *testing.T) {
	for want, c := range map[string]struct {
		closed      int64
		first, last time.Duration
		grown       int64
	}{
		"":               {2, 11 * time.Second, 12 * time.Second, 1 << 20},
		"1 of 2 stalled": {1, 11 * time.Second, 12 * time.Second, 0},
		"before 10s":     {2, time.Second, 12 * time.Second, 0},
		"its budget is":  {2, 11 * time.Second, 12 * time.Second, 64 << 20},
	} {
		r := &round{numbers: numbers{}}
		trial := &stalledTrial{hall: &hall{round: r}, sleepers: make([]*reader, 2)}
		w := &nodeWatch{first: c.first, last: c.last}
		w.closed.Store(c.closed)
		w.rss.Store(100<<20 + c.grown)
		trial.putStalled(w, 100<<20)
		if all := strings.Join(r.violations, "; "); (want == "") != (all == "") || !strings.Contains(all, want) {
			t.Errorf("%q, want %q", all, want)
		}
	}
	trial := &stalledTrial{}
	trial.lost(nil, closedBy([]byte{protocol.CloseSlowConsumer >> 8, protocol.CloseSlowConsumer & 0xff}))
	trial.lost(nil, errors.New("connection reset by peer"))
	if trial.told != 1 || trial.reset != 1 {
		t.Errorf("%d told, %d not", trial.told, trial.reset)
	}
}

func TestMarks(t *testing.T) {
	for _, strict := range []bool{false, true} {
		rep := newReport(&options{dir: t.TempDir(), strict: strict})
		r := &round{numbers: numbers{"ratio": 0.8, "p99_ms": 4}, marks: map[string]mark{}}
		r.mark("ratio", atLeast, 0.85)
		r.mark("p99_ms", atMost, 5)
		r.mark("unknown", atMost, 1)
		rep.add(r)
		rep.judge()
		var out strings.Builder
		rep.print(&out)
		for _, want := range []string{"MARK p99_ms at most 5: 4, met", "MARK ratio at least 0.850: 0.800, missed", "MARK unknown at most 1: 0, missed"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in %s", want, out.String())
			}
		}
		if err := rep.verdict(); (err != nil) != strict {
			t.Errorf("strict %v: %v", strict, err)
		}
	}
}

func TestFigures(t *testing.T) {
	figures, err := parseFigures(strings.NewReader("# HELP x y\n\nx 3\nstockmesh_sessions_closed_total{code=\"4100\"} 7\ny{a=\"b c\"} 1e3\n"))
	if err != nil || len(figures) != 3 || figures["x"] != 3 || figures[closedWith(4100)] != 7 || figures[`y{a="b c"}`] != 1000 {
		t.Errorf("%v, %v", figures, err)
	}
	if _, err := parseFigures(strings.NewReader("x three\n")); err == nil {
		t.Error("three is no number")
	}
}

func TestPanicsAreSeen(t *testing.T) {
	for line, want := range map[string]bool{
		"panic: runtime error: index out of range": true, "fatal error: all goroutines are asleep": true,
		"goroutine 12 [running]:": true, `time=x level=ERROR msg="http: panic serving 127.0.0.1"`: true,
		"time=x level=WARN msg=busy goroutines=3": false, "": false,
	} {
		if panicked.MatchString(line) != want {
			t.Errorf("%q", line)
		}
	}
}
