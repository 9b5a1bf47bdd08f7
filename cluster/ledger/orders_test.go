package ledger

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// homed is a desk of shard 0 with 10 A; B lies in shard 1, at another desk.
func homed(t testing.TB) (home, other *desk) {
	home, other = newDesk(t), newDesk(t)
	other.state = NewState("eu", 1)
	other.draft = NewDraft(other.state)
	home.do(adjustA10)
	other.do(strings.ReplaceAll(adjustA10, "A", "B"))
	return home, other
}

// command adds a command that no client can send to the open round.
func (k *desk) command(c protocol.Command) *protocol.Call {
	call := &protocol.Call{Command: c}
	k.draft.Decide(call)
	return call
}

func orderOf(op protocol.Op, key, id string, lines ...protocol.Line) protocol.Command {
	c := protocol.Command{Op: op, Key: key, Lines: lines[:1], Order: &protocol.Order{ID: id, Lines: lines}}
	if op == protocol.OpReserve {
		c.User, c.TTLMS = "u", protocol.Ptr[int64](5000)
	}
	return c
}

func lineOf(sku string, n int64) protocol.Line {
	return protocol.Line{SKU: sku, Location: "main", Quantity: n}
}

// part opens one of 3 B in shard 1, in a round of its own, and returns its id.
func (k *desk) part(order string) string {
	k.open()
	call := k.command(protocol.Command{
		Op: protocol.OpReserve, Key: order + "/1", Lines: []protocol.Line{lineOf("B", 3)},
		Order: &protocol.Order{ID: order, Part: true},
	})
	if call.Err != nil || call.Result.Reservation.ExpiresAt != 0 {
		k.t.Fatalf("part: %+v, %v", call.Result.Reservation, call.Err)
	}
	if changes := k.commit(); len(changes.Reservations) != 0 || len(changes.Items) != 1 {
		k.t.Fatalf("a part was shown: %+v", changes)
	}
	return call.Result.Reservation.ID
}

// decideOrder decides an order over 4 A and 3 B in a round of its own.
func (k *desk) decideOrder(op protocol.Op, key, id string, parts ...string) *protocol.Call {
	k.open()
	c := orderOf(op, key, id, lineOf("A", 4), lineOf("B", 3))
	c.Order.Parts = parts
	call := k.command(c)
	k.commit()
	return call
}

func (k *desk) wantOf(sku string, onHand, held int64) {
	k.t.Helper()
	if row := k.row(sku); row.OnHand() != onHand || row.Held != held {
		k.t.Fatalf("%s: %d on hand, %d held, want %d, %d", sku, row.OnHand(), row.Held, onHand, held)
	}
}

func TestPartIsNoClients(t *testing.T) {
	_, k := homed(t)
	id := k.part("o")
	k.wantOf("B", 10, 3)
	if _, shown := k.state.Reservation(id); shown {
		t.Error("a part is shown")
	}
	if _, live, _ := k.state.Sizes(); live != 0 {
		t.Errorf("%d reservations", live)
	}
	for _, op := range []string{"confirm", "release", "extend"} {
		got := k.do(`{"op":"` + op + `","reservation":"` + id + `","ttl_ms":1000}`)
		wantAnswer(t, got, `{"code":"not_found","message":"no reservation \"`+id+`\""`+plain)
	}
	if parts := k.state.PartsOf(id); parts != nil {
		t.Errorf("a part has parts %v", parts)
	}
}

func TestPartNeverExpires(t *testing.T) {
	_, k := homed(t)
	id := k.part("o")
	if at, ok := k.state.NextExpiry(); ok {
		t.Fatalf("expires at %d", at)
	}
	k.now = 1 << 50
	if n := k.open().Expire(9); n != 0 {
		t.Fatalf("%d expired", n)
	}
	want := []Part{{ID: id, Order: "o", Home: 0, Since: 1000}}
	if diff := cmp.Diff(want, k.state.Parts(nil, 9)); diff != "" {
		t.Fatal(diff)
	}
}

func TestSettle(t *testing.T) {
	for sold, onHand := range map[bool]int64{true: 7, false: 10} {
		_, k := homed(t)
		id := k.part("o")
		d := k.open()
		if !d.Settle(id, sold) || d.Settle(id, sold) || d.Settle(id, !sold) {
			t.Fatal("not settled once")
		}
		if changes := k.commit(); len(changes.Reservations) != 0 {
			t.Fatalf("the end of a part was shown: %+v", changes)
		}
		k.wantOf("B", onHand, 0)
		if k.open().Settle(id, !sold) || !k.draft.Empty() || len(k.state.Parts(nil, 9)) != 0 {
			t.Fatal("settled again")
		}
		if len(k.state.live)+len(k.state.now.ended) != 0 {
			t.Fatal("a settled part is kept")
		}
	}
}

// TestSettleOnlyParts: neither what is not there nor a client's reservation.
func TestSettleOnlyParts(t *testing.T) {
	home, other := homed(t)
	call := home.decideOrder(protocol.OpReserve, "k", "o", other.part("o"))
	home.do(`{"op":"reserve","key":"r","lines":[{"sku":"A","quantity":1}]}`)
	res, _ := home.state.Outcome("r")
	for _, id := range []string{"", "eu.1", call.Result.Reservation.ID, res.Reservation.ID} {
		if home.open().Settle(id, true) || !home.draft.Empty() {
			t.Errorf("%q was settled", id)
		}
	}
}

func TestPartsOldestFirst(t *testing.T) {
	_, k := homed(t)
	var want []string
	for _, order := range []string{"z", "a", "m"} {
		k.now++
		want = append(want, k.part(order))
	}
	for limit := range 5 {
		var got []string
		for _, p := range k.state.Parts([]Part{}, limit) {
			got = append(got, p.ID)
		}
		if diff := cmp.Diff(want[:min(limit, 3)], append([]string{}, got...)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// TestDecisionIsTheClientsCommand: it shows all lines, takes its own, and is one
// command with the same fingerprint, however it was split.
func TestDecisionIsTheClientsCommand(t *testing.T) {
	home, other := homed(t)
	part := other.part("o")
	call := home.decideOrder(protocol.OpReserve, "k", "o", part)
	r := call.Result.Reservation
	want := []protocol.Line{lineOf("A", 4), lineOf("B", 3)}
	if call.Err != nil || !cmp.Equal(r.Lines, want) || r.User != "u" || r.ExpiresAt != 6000 {
		t.Fatalf("%+v, %v", r, call.Err)
	}
	home.wantOf("A", 10, 4)
	if _, exists := home.state.ID(protocol.ItemKey{SKU: "B", Location: "main"}); exists {
		t.Fatal("an item of another shard was created")
	}
	const sent = `{"op":"reserve","key":"k","user":"u","ttl_ms":5000,"lines":[{"sku":"A","quantity":4},{"sku":"B","quantity":3}]}`
	wantAnswer(t, home.do(sent), answerOf(call)+" replayed")
	wantAnswer(t, answerOf(home.decideOrder(protocol.OpReserve, "k", "o2", "eu.x")), answerOf(call)+" replayed")
	if state := home.state.Order("o2"); state != OrderUnknown {
		t.Errorf("the order that was not needed is %d", state)
	}
	home.open()
	changed := home.command(orderOf(protocol.OpReserve, "k", "o3", lineOf("A", 4), lineOf("B", 4)))
	if changed.Err == nil || changed.Err.Code != protocol.CodeKeyReused {
		t.Errorf("other lines of other shards: %v", changed.Err)
	}
}

// TestOrderGoesBackToItsSender: what it does with it does not reach the round.
func TestOrderGoesBackToItsSender(t *testing.T) {
	home, _ := homed(t)
	home.open()
	c := orderOf(protocol.OpReserve, "k", "o", lineOf("A", 4), lineOf("B", 3))
	c.Order.Parts = []string{"eu.x"}
	id := home.command(c).Result.Reservation.ID
	clear(c.Order.Lines)
	clear(c.Order.Parts)
	home.commit()
	r, _ := home.state.Reservation(id)
	if !cmp.Equal(r.Lines, []protocol.Line{lineOf("A", 4), lineOf("B", 3)}) || !cmp.Equal(home.state.PartsOf(id), []string{"eu.x"}) {
		t.Fatalf("%v, parts %v", r.Lines, home.state.PartsOf(id))
	}
}

func TestDecisionEnds(t *testing.T) {
	for _, tt := range []struct {
		op     string
		state  OrderState
		onHand int64
	}{{"confirm", OrderSold, 6}, {"release", OrderDropped, 10}, {"", OrderDropped, 10}} {
		home, other := homed(t)
		part := other.part("o")
		id := home.decideOrder(protocol.OpReserve, "k", "o", part).Result.Reservation.ID
		home.do(`{"op":"extend","reservation":"` + id + `","ttl_ms":9000}`)
		home.wantOf("A", 10, 4)
		if state := home.state.Order("o"); state != OrderHeld {
			t.Fatalf("%s: %d before", tt.op, state)
		}
		if items, _, _ := home.state.Sizes(); items != 1 {
			t.Fatal("extending touched an item of another shard")
		}
		home.now += 9000
		d := home.open()
		if tt.op == "" {
			d.Expire(9)
		} else {
			home.decide(`{"op":"` + tt.op + `","reservation":"` + id + `"}`)
		}
		if state := d.Resolve("o"); state != tt.state || len(d.round.Records) != 1 {
			t.Fatalf("%s: pending %d", tt.op, state)
		}
		if changes := home.commit(); len(changes.Reservations) != 1 || len(changes.Reservations[0].Lines) != 2 {
			t.Fatalf("%s: %+v", tt.op, changes)
		}
		home.wantOf("A", tt.onHand, 0)
		if state := home.state.Order("o"); state != tt.state || !cmp.Equal(home.state.PartsOf(id), []string{part}) {
			t.Fatalf("%s: %d, parts %v", tt.op, state, home.state.PartsOf(id))
		}
	}
}

func TestDecisionSells(t *testing.T) {
	home, _ := homed(t)
	call := home.decideOrder(protocol.OpSell, "k", "o", "eu.x")
	if call.Err != nil || len(call.Result.Items) != 1 || call.Result.Items[0].SKU != "A" {
		t.Fatalf("%+v, %v", call.Result, call.Err)
	}
	home.wantOf("A", 6, 0)
	if state := home.open().Resolve("o"); state != OrderSold || !home.draft.Empty() {
		t.Fatalf("resolved as %d", state)
	}
	const sent = `{"op":"sell","key":"k","lines":[{"sku":"A","quantity":4},{"sku":"B","quantity":3}]}`
	wantAnswer(t, home.do(sent), answerOf(call)+" replayed")
}

const givenUp = `{"code":"unavailable","message":"the order was given up meanwhile; send it again","retryable":true,"retry_after_ms":100}`

// TestDecisionAfterAbort: in the same round and after it, and of no trace.
func TestDecisionAfterAbort(t *testing.T) {
	for _, op := range []protocol.Op{protocol.OpSell, protocol.OpReserve} {
		home, _ := homed(t)
		home.open()
		home.command(protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: "o"}})
		for range 2 {
			before := traceOf(home.draft)
			call := home.command(orderOf(op, "k", "o", lineOf("A", 4), lineOf("B", 3)))
			wantAnswer(t, answerOf(call), givenUp)
			must(t, checkNoTrace(before, traceOf(home.draft)))
			home.commit()
			home.open()
		}
		if call := home.decideOrder(op, "k", "o2"); call.Err != nil {
			t.Fatalf("another attempt: %v", call.Err)
		}
	}
}

// TestResolve gives an order up once, and never one that is decided.
func TestResolve(t *testing.T) {
	home, _ := homed(t)
	d := home.open()
	for range 2 {
		if state := d.Resolve("o"); state != OrderDropped || len(d.round.Records) != 1 {
			t.Fatalf("%d, %d records", state, len(d.round.Records))
		}
	}
	home.open() // the round was dropped: so is what it said
	if state := home.state.Order("o"); state != OrderUnknown {
		t.Fatalf("%d without a commit", state)
	}
	call := home.command(orderOf(protocol.OpReserve, "k", "o", lineOf("A", 4), lineOf("B", 3)))
	if state := d.Resolve("o"); call.Err != nil || state != OrderHeld {
		t.Fatalf("%d, %v", state, call.Err)
	}
	if len(d.round.Records) != 1 {
		t.Fatal("a decided order was given up")
	}
}

func TestOrderOps(t *testing.T) {
	home, other := homed(t)
	part := other.part("o")
	other.open()
	for _, quantity := range []int64{1, 1, 0} {
		call := other.command(protocol.Command{Op: protocol.OpSettle, Reservation: part, Quantity: quantity})
		if call.Err != nil || call.Result.Kind != protocol.KindEmpty {
			t.Fatalf("settle: %+v, %v", call.Result, call.Err)
		}
	}
	other.commit()
	other.wantOf("B", 7, 0)
	home.open()
	call := home.command(protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: "o"}})
	if call.Err != nil || call.Result.Kind != protocol.KindEmpty || call.Result.Count != int(OrderDropped) {
		t.Fatalf("resolve: %+v, %v", call.Result, call.Err)
	}
	for _, o := range []*protocol.Order{nil, {}} {
		if call := home.command(protocol.Command{Op: protocol.OpResolve, Order: o}); call.Err == nil {
			t.Errorf("resolve of %v: %+v", o, call.Result)
		}
	}
}

// TestOrdersRefused are mistakes of a coordinator that must not reach the log.
func TestOrdersRefused(t *testing.T) {
	a := []protocol.Line{lineOf("A", 1)}
	for name, c := range map[string]protocol.Command{
		"no id":                 {Op: protocol.OpReserve, Lines: a, Order: &protocol.Order{Lines: a}},
		"another's home":        {Op: protocol.OpSell, Lines: a, Order: &protocol.Order{ID: "o", Home: 1, Lines: a}},
		"a part at home":        {Op: protocol.OpReserve, Lines: a, Order: &protocol.Order{ID: "o", Part: true}},
		"a part that sells":     {Op: protocol.OpSell, Lines: a, Order: &protocol.Order{ID: "o", Home: 1, Part: true}},
		"a home below all":      {Op: protocol.OpReserve, Lines: a, Order: &protocol.Order{ID: "o", Home: -1, Part: true}},
		"a home beyond all":     {Op: protocol.OpReserve, Lines: a, Order: &protocol.Order{ID: "o", Home: shardsMax, Part: true}},
		"a part of no line":     {Op: protocol.OpReserve, Order: &protocol.Order{ID: "o", Home: 1, Part: true}},
		"a decision of no line": {Op: protocol.OpSell, Order: &protocol.Order{ID: "o", Lines: a}},
	} {
		home, _ := homed(t)
		home.open()
		c.Key, c.TTLMS = "k", protocol.Ptr[int64](1000)
		before := traceOf(home.draft)
		if call := home.command(c); call.Err == nil || call.Err.Code != protocol.CodeBadRequest {
			t.Errorf("%s: %v", name, call.Err)
		}
		must(t, checkNoTrace(before, traceOf(home.draft)))
	}
}

// TestOrdersAreRemembered while they are held, and for a window after they ended.
func TestOrdersAreRemembered(t *testing.T) {
	home, other := homed(t)
	rotate := func() {
		home.now++
		home.open().Rotate(1)
		home.commit()
	}
	id := home.decideOrder(protocol.OpReserve, "k", "o", other.part("o")).Result.Reservation.ID
	for range 3 {
		rotate()
		if state := home.state.Order("o"); state != OrderHeld {
			t.Fatalf("a held order is %d", state)
		}
	}
	home.do(`{"op":"confirm","reservation":"` + id + `"}`)
	home.decideOrder(protocol.OpSell, "s", "sale")
	home.open().Resolve("lost")
	home.commit()
	for _, want := range [][3]OrderState{
		{OrderSold, OrderSold, OrderDropped}, {OrderSold, OrderSold, OrderDropped}, {},
	} {
		got := [3]OrderState{home.state.Order("o"), home.state.Order("sale"), home.state.Order("lost")}
		if got != want || (home.state.PartsOf(id) != nil) != (want[0] != OrderUnknown) {
			t.Fatalf("%v, want %v; parts %v", got, want, home.state.PartsOf(id))
		}
		loaded, err := Load(bytes.NewReader(snapshotOf(t, home.state)))
		must(t, err)
		must(t, checkParity(home.state, loaded))
		rotate()
	}
}

// TestOrderKnownTwice: an order that is decided is not decided again under another
// key, as when its key was forgotten.
func TestOrderKnownTwice(t *testing.T) {
	home, _ := homed(t)
	home.decideOrder(protocol.OpReserve, "k", "o")
	wantAnswer(t, answerOf(home.decideOrder(protocol.OpReserve, "k2", "o")), givenUp)
	home.wantOf("A", 10, 4)
}

func TestReservationShard(t *testing.T) {
	for _, shard := range []int{0, 1, 255, 65535} {
		s := NewState("eu-1", shard)
		d := NewDraft(s)
		d.Reset(1<<47, 0)
		if got, ok := ReservationShard(d.newReservationID()); got != shard || !ok {
			t.Errorf("%d is read as %d, %v", shard, got, ok)
		}
	}
	for _, id := range []string{"", "eu", "eu.", "eu.nobody", firstReservation + "0", firstReservation[:28], strings.ToLower(firstReservation), "eu.\n" + firstReservation[4:]} {
		if got, ok := ReservationShard(id); ok {
			t.Errorf("%q is of shard %d", id, got)
		}
	}
}

// TestOldForms are a log and a snapshot of before there were orders over several
// shards: read, written and summed up as they were.
func TestOldForms(t *testing.T) {
	const digest = 0x54ad368be047d66
	s := NewState("eu", 0)
	for i, line := range strings.Fields(oldLog) {
		b, err := hex.DecodeString(line)
		must(t, err)
		r, err := Decode(b)
		must(t, err)
		if !bytes.Equal(r.AppendTo(nil), b) {
			t.Errorf("round %d is written as %x", i+1, r.AppendTo(nil))
		}
		must(t, apply(s, r, uint64(i+1)))
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(oldSnapshot), ""))
	must(t, err)
	loaded, err := Load(bytes.NewReader(b))
	must(t, err)
	if s.Digest() != digest || loaded.Digest() != digest || len(snapshotOf(t, s)) != len(b) {
		t.Errorf("digests %#x and %#x, a snapshot of %d bytes", s.Digest(), loaded.Digest(), len(snapshotOf(t, s)))
	}
}

const oldLog = `
01d00f0000000000000000010141046d61696e010123066175746f20315a523dc07110b6a31401010141046d61696e1414000465753a31d00f0000000474696c6c0100011400000014000000
01d00f0100000000000000010141046d61696e01032f01726f98ea86d647eee430031d65752e30303030303030335830303030303030303030303430303030300468656c64e05d00010141046d61696e0800000474696c6c1d65752e3030303030303033583030303030303030303030343030303030e05d000100080100021400000800080100
01d00f0200000000000000010141046d61696e010427066175746f2032aba4ebdff49d9ef335031d65752e303030303030303358303030303030303030303034303030303009636f6e6669726d6564e05d00010141046d61696e0800000474696c6c1d65752e3030303030303033583030303030303030303030343030303030000100031400080007070200
01d00f030000000000000000020d10010465752d310e100100
01d00f0400000000000000010141046d61696e0108230173b22a4bff275c1a991402010141046d61696e0a0a000465753a34d00f000674696c6c2034000474696c6c01000414000a0001000300
01d00f0500000000000000010141046d61696e01032f0272324758596b435c54a331031d65752e30303030303030335830303030303030303030304330303030300468656c64a01f0175010141046d61696e0200000474696c6c1d65752e3030303030303033583030303030303030303030433030303030a01f017501000201000514000a0200020500`

const oldSnapshot = `
0c010265750006d00f0101d00f16690141046d61696e0514000a02000001d00f06000000316c1d65752e30303030303030335830303030303030303030304330303030300468656c64a01f0175010141
046d61696e023665001d65752e303030303030303358303030303030303030303034303030303009636f6e6669726d6564e05d00010141046d61696e084b6b00454349e422f05297191ead13e21d3db5
6f98ea86d647eee430031d65752e30303030303030335830303030303030303030303430303030300468656c64e05d00010141046d61696e08506b0077ff85fc5b9d5173395afe68b79eaa32aba4ebdf
f49d9ef335031d65752e303030303030303358303030303030303030303034303030303009636f6e6669726d6564e05d00010141046d61696e082f6b0052c5dec96215fb68908f9cd13a16a8565a523d
c07110b6a31401010141046d61696e1414000465753a31d00f002f6b01043a718774c572bd8a25adbeb1bfcd5cb22a4bff275c1a991402010141046d61696e0a0a000465753a34d00f004c6b01db77fd
01af957221a4989b64b3770a834758596b435c54a331031d65752e30303030303030335830303030303030303030304330303030300468656c64a01f0175010141046d61696e02027a06`
