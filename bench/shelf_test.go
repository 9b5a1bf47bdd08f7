package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// newTestBuyer has a shelf of four SKUs, one of them without stock, and a buyer of two
// lines whose first order is of the SKUs that it returns.
func newTestBuyer(t *testing.T) (*checkout, *buyer, [2]uint64) {
	t.Helper()
	c := newCheckout(&generator{}, newShelf(assortment{"s-", 4}, 2, func(i int) int64 { return int64(i) }))
	c.regions["local"] = true
	b := &buyer{checkout: c, key: "k-", conn: &conn{}, next: numberMin, slots: make([]order, 1), free: []int{0}, reserve: newTemplate([4]byte{}, `{"id":#,"a":"~","b":"~"}`)}
	b.slots[0].before = make([]int64, 2)
	b.reserve.pick = func(_ uint64, line int) uint64 { return uint64(2 * line) } // SKUs 0 and 2, of 0 and 2 units
	c.buyers = append(c.buyers, b)
	return c, b, [2]uint64{0, 2}
}

func TestOrderTakesAllOfItsLines(t *testing.T) {
	c, b, items := newTestBuyer(t)
	c.releaseEvery = 2
	b.due(0)
	b.due(3) // no slot is free
	if c.waiting() != 2 || c.begun != 1 {
		t.Fatalf("%+v", c.tally)
	}
	b.received(b.conn, []byte(`{"op":"cursor"}`))
	b.received(b.conn, []byte(`{"id":1000000000,"ok":{"reservation":{"state":"held","id":"eu.1"}}}`))
	b.received(b.conn, []byte(`{"id":1000000001,"ok":{"reservation":{"id":"eu.1","state":"confirmed"}}}`)) // and the next begins
	b.received(b.conn, []byte(`{"id":1000000002,"ok":{"reservation":{"id":"eu.2","state":"held"}}}`))
	b.received(b.conn, []byte(`{"id":1000000003,"ok":{"reservation":{"id":"eu.2","state":"released"}}}`))
	if c.waiting() != 0 || c.tally != (tally{begun: 2, acked: 4, confirmed: 1, released: 1}) || len(c.faults) > 0 {
		t.Errorf("%+v, faults %q", c.tally, c.faults)
	}
	if c.oversold != 2 { // of the SKU without stock, each time
		t.Errorf("%d oversold", c.oversold)
	}
	for _, i := range items {
		if u := c.shelf.stands[i]; u.sold != 1 || u.taken != 1 || u.asked != 2 || u.ended != 1 {
			t.Errorf("SKU %d: %+v", i, u)
		}
	}
	if want := c.shelf.want()["s-0000000002"]; want != (standing{onHand: 1}) {
		t.Errorf("%v", want)
	}
}

// TestRefusalsAreLookedInto refuses an order of SKUs of which there are 0 and 2 units.
func TestRefusalsAreLookedInto(t *testing.T) {
	const short = `{"id":1000000000,"error":{"code":"insufficient_stock","details":{"lines":[{"sku":"s-000000000%d","requested":1,"available":%d,"elsewhere":%d}]}}}`
	for name, c := range map[string]struct {
		message               string
		refused, wrong, false int64
		faults                int
	}{
		"as it should be":      {fmt.Sprintf(short, 0, 0, 0), 1, 0, 0, 0},
		"there was stock":      {fmt.Sprintf(short, 2, 0, 0), 1, 1, 0, 1},
		"of another order":     {fmt.Sprintf(short, 1, 0, 0), 1, 1, 0, 1},
		"it says itself":       {fmt.Sprintf(short, 0, 1, 0), 1, 1, 0, 1},
		"other regions have":   {fmt.Sprintf(short, 2, 0, 4), 1, 0, 1, 0},
		"without a reason":     {`{"id":1000000000,"error":{"code":"insufficient_stock"}}`, 1, 1, 0, 1},
		"for another reason":   {`{"id":1000000000,"error":{"code":"overloaded"}}`, 0, 0, 0, 1},
		"to nothing":           {`{"id":7,"error":{"code":"insufficient_stock"}}`, 0, 0, 0, 1},
		"held without a name":  {`{"id":1000000000,"ok":{"reservation":{"state":"held"}}}`, 0, 0, 0, 1},
		"held no more":         {`{"id":1000000000,"ok":{"reservation":{"id":"eu.1","state":"expired"}}}`, 0, 0, 0, 1},
		"not what is asked":    {`{"id":1000000000,"ok":{}}`, 0, 0, 0, 1},
		"what can't be read":   {`{"id":10000`, 0, 0, 0, 1},
		"a push of no meaning": {`{"op":"reservation","reservation":{"id":"eu.1"}}`, 0, 0, 0, 0},
		"to be sent again":     {`{"id":1000000000,"error":{"code":"unavailable","retryable":true}}`, 0, 0, 0, 0},
	} {
		co, b, _ := newTestBuyer(t)
		b.due(0)
		b.received(b.conn, []byte(c.message))
		if co.refused != c.refused || co.wronglyRefused != c.wrong || co.falselyRefused != c.false || len(co.faults) != c.faults {
			t.Errorf("%s: %d refused, %d wrongly, %d falsely, faults %q", name, co.refused, co.wronglyRefused, co.falselyRefused, co.faults)
		}
		if again := co.again.count; again > 0 != strings.Contains(c.message, "retryable") || again > 0 && co.waiting() != 1 {
			t.Errorf("%s: %d sent again, %d orders wait", name, again, co.waiting())
		}
	}
}

func TestUnitsThatMayHaveBeenTaken(t *testing.T) {
	s := newShelf(assortment{"s-", 1}, 1, func(int) int64 { return 2 })
	ended := s.ask(0)
	if !s.wasThere(0, ended) {
		t.Error("nobody else has asked")
	}
	s.ask(0)
	s.ask(0)
	if s.wasThere(0, ended) {
		t.Error("two others have asked for two units")
	}
	s.end(0)
	if s.wasThere(0, ended) {
		t.Error("one of them has ended too late to be sure")
	}
	if ended = s.ask(0); s.wasThere(0, ended) { // three others, of which one has ended
		t.Error("two are left")
	}
}

func TestLinesOfAnOrderAreOfDifferentSKUs(t *testing.T) {
	s := newShelf(assortment{"s-", 100}, 3, orderedOpening)
	pairs := make(map[[2]uint64]bool)
	for n := range uint64(3000) {
		bits := (numberMin + n) * golden
		a, b, c := s.pick(bits, 0), s.pick(bits, 1), s.pick(bits, 2)
		if a >= 33 || b < 33 || b >= 66 || c < 66 || c >= 99 {
			t.Fatalf("%d, %d, %d", a, b, c)
		}
		pairs[[2]uint64{a, b}] = true
	}
	if len(pairs) < 500 { // of 1,089
		t.Errorf("%d pairs of SKUs in 3,000 orders", len(pairs))
	}
	if i, known := s.indexOf(s.sku(42)); i != 42 || !known {
		t.Errorf("%d, %v", i, known)
	}
	for _, sku := range []string{"s-0000000100", "s-42", "t-0000000042", "s-", "s-0000000042x"} {
		if i, known := s.indexOf(sku); known {
			t.Errorf("%s is %d", sku, i)
		}
	}
}

func TestZipf(t *testing.T) {
	const items, sales = 1000, 200_000
	pick, sold := zipf(7, items), make([]int, items)
	random := rand.New(rand.NewPCG(1, 2))
	for range sales {
		sold[pick(random.Uint64(), 0)]++
	}
	if top, third := float64(sold[0])/sales, float64(sold[2])/sales; top < 0.15 || top > 0.21 || third < top/4 || third > top/2.8 {
		t.Errorf("the first has %.3f of the sales, the third %.3f", top, third)
	}
	if never := slices.Index(sold[:items/2], 0); never >= 0 {
		t.Errorf("item %d is never sold", never)
	}
	if one := zipf(7, 1); one(random.Uint64(), 0) != 0 {
		t.Error("there is only one")
	}
}

func TestReservationsInReplies(t *testing.T) {
	call := protocol.Call{Command: protocol.Command{ID: []byte("7")}}
	call.Result = protocol.Result{Kind: protocol.KindReservation, Reservation: &protocol.Reservation{ID: "eu.9", State: protocol.Held, Lines: []protocol.Line{{SKU: `"state":"`, Location: "main", Quantity: 1}}}}
	for message, want := range map[string]string{
		string(protocol.AppendReply(nil, &call)):                                                       "eu.9 held",
		`{"id":1,"ok":{"x":[{}],"reservation":{"lines":[{"id":"no"}],"state":"released","id":"a.b"}}}`: "a.b released",
		`{"id":1,"ok":{}}`:                       " ",
		`{"id":1,"ok":7}`:                        " ",
		`{"id":1}`:                               " ",
		`{"ok":{"reservation":{"id":4}}`:         " ",
		`{"ok":{"reservation":{"id":"a","state"`: "a ",
		`{"op":"reservation","reservation":{}}`:  " ",
		`[]`:                                     " ",
	} {
		id, state := scanReservation([]byte(message))
		if got := string(id) + " " + string(state); got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
}

func BenchmarkScanReservation(b *testing.B) {
	message := fmt.Appendf(nil, `{"id":1000000041,"ok":%s}`, fmt.Sprintf(nullReservation, "held"))
	for b.Loop() {
		scanReservation(message)
	}
}

func TestResends(t *testing.T) {
	gen := &generator{start: time.Now()}
	r, sent := &resends{gen: gen}, 0
	send := func() error { sent++; return nil }
	r.add(&protocol.Error{}, send)
	r.add(&protocol.Error{RetryAfterMS: 3600_000}, send)
	gen.start = gen.start.Add(-time.Minute)
	for range 2 {
		if err := r.sendDue(); err != nil {
			t.Fatal(err)
		}
	}
	if sent != 1 || len(r.later) != 1 || r.count != 2 {
		t.Errorf("%d sent, %d to be sent, %d in all", sent, len(r.later), r.count)
	}
}
