package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	sellK    = `{"op":"sell","key":"k","lines":[{"sku":"A","quantity":3}]}`
	soldOnce = `{"items":[{"sku":"A","location":"main","available":7,"on_hand":7,"reserved":0,"version":"eu:2","updated_at":"1970-01-01T00:00:01.000Z"}]}`
	reusedK  = `{"code":"key_reused","message":"key \"k\" was used for a different command before"` + plain
)

func TestSameKeyTwiceInOneRound(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	k.open()
	wantAnswer(t, answerOf(k.decide(sellK)), soldOnce)
	wantAnswer(t, answerOf(k.decide(sellK)), soldOnce+" replayed")
	wantAnswer(t, answerOf(k.decide(strings.Replace(sellK, "3", "4", 1))), reusedK)
	k.commit()
	k.wantUnits(7, 0)
	wantAnswer(t, k.do(sellK), soldOnce+" replayed")
	wantAnswer(t, k.do(strings.Replace(sellK, `"key"`, `"reason":"r","key"`, 1)), reusedK)
	wantAnswer(t, k.do(strings.Replace(sellK, `"key"`, `"home":"us","id":7,"key"`, 1)), soldOnce+" replayed")
	wantAnswer(t, k.do(`{"op":"sell","key":"k","lines":[{"sku":"A","location":"main","quantity":3}]}`), soldOnce+" replayed")
	k.wantUnits(7, 0)
}

func TestRefusalIsNotRemembered(t *testing.T) {
	k := newDesk(t)
	if got := k.do(sellK); !strings.Contains(got, "insufficient_stock") {
		t.Fatal(got)
	}
	if _, known := k.state.Outcome("k"); known || k.state.Seq() != 0 {
		t.Fatal("a refusal was written down")
	}
	k.do(adjustA10)
	wantAnswer(t, k.do(sellK), soldOnce)
}

// TestDroppedRound decides the calls of a round that was not committed once more,
// in another order: what they were told before must not shine through.
func TestDroppedRound(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	k.open()
	first, second := k.decide(sellK), k.decide(sellK)
	refused := k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":9}]}`)
	if !second.Replayed || refused.Err == nil {
		t.Fatal("not as this test needs it")
	}
	k.open()
	k.draft.Decide(refused)
	k.draft.Decide(second)
	k.draft.Decide(first)
	wantAnswer(t, answerOf(refused), `{"items":[`+shown("A", `"available":1,"on_hand":1,"reserved":0,"version":"eu:2"`)+`}]}`)
	for _, c := range []*protocol.Call{first, second} {
		if c.Err == nil || c.Replayed || len(c.Result.Items) > 0 {
			t.Fatalf("%+v", c)
		}
	}
	k.commit()
	k.wantUnits(1, 0)
}

// TestKeysAreForgotten follows a key through two windows.
func TestKeysAreForgotten(t *testing.T) {
	const window = 1000
	k := newDesk(t)
	rotate := func(want bool) {
		t.Helper()
		if got := k.open().Rotate(window); got != want {
			t.Fatalf("rotated: %v, want %v", got, want)
		}
		k.commit()
	}
	rotate(true) // the first generation begins
	k.do(adjustA10)
	k.do(sellK)
	rotate(false)
	k.now += window
	rotate(true)
	wantAnswer(t, k.do(sellK), soldOnce+" replayed")
	k.now += window
	rotate(true)
	if _, known := k.state.Outcome("k"); known {
		t.Fatal("known after two windows")
	}
	k.do(sellK)
	k.wantUnits(4, 0)
}

// TestEndedReservationsAreForgotten with the keys, held ones never.
func TestEndedReservationsAreForgotten(t *testing.T) {
	k := held(t)
	k.do(`{"op":"reserve","key":"other","lines":[{"sku":"A","quantity":1}],"ttl_ms":14400000}`)
	k.do(on("release"))
	for range 3 {
		k.now++
		k.open().Rotate(1)
		k.commit()
	}
	wantAnswer(t, k.do(on("release")), `{"code":"not_found","message":"no reservation \"`+firstReservation+`\""`+plain)
	if _, live, keys := k.state.Sizes(); live != 1 || keys != 0 {
		t.Fatalf("%d reservations and %d keys, want 1 and 0", live, keys)
	}
}

func TestPendingOutcome(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	k.open()
	if k.draft.Outcome("k").Known {
		t.Fatal("known before it was sent")
	}
	k.decide(sellK)
	want := `{"known":true,"reply":{"ok":` + soldOnce + `}}`
	for range 2 {
		res := k.draft.Outcome("k")
		wantAnswer(t, string(protocol.AppendOK(nil, &res)), want)
		if k.state.Seq() == 1 {
			k.commit()
			k.open()
		}
	}
}

// TestSize holds the estimate above what is written, so that a bound on it is a
// bound on the message, and not too far above.
func TestSize(t *testing.T) {
	for _, length := range []int{1, 20, 128} {
		k := newDesk(t)
		k.open()
		for i := range 300 {
			sku := fmt.Sprintf("%0*d", length, i)[:length]
			k.decide(`{"op":"adjust","sku":"` + sku + `","delta":9007199254740991}`)
			k.decide(`{"op":"move","sku":"` + sku + `","from":"main","to":"` + sku + `","quantity":1}`)
			k.decide(`{"op":"reserve","lines":[{"sku":"` + sku + `","quantity":1}]}`)
			long := strings.Repeat("x", length)
			c := orderOf(protocol.OpSell, "k"+sku, sku, lineOf(sku, 1), lineOf(long, protocol.QuantityMax), lineOf(long, 1))
			c.Order.Parts = []string{long, long}
			k.command(c)
			k.command(protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: "lost" + sku}})
		}
		if got, size := k.draft.Size(), len(k.draft.Round().AppendTo(nil)); got < size || got > 2*size {
			t.Fatalf("names of %d bytes: %d bytes estimated as %d", length, size, got)
		}
	}
}

func TestKeyTablePages(t *testing.T) {
	table := newKeyTable()
	long := strings.Repeat("x", keyPageBytes+1)
	for i := range 5000 {
		table.put(keyID(fmt.Sprint(i)), uint64(i), []byte(long[:i]))
	}
	table.put(keyID("long"), 7, []byte(long))
	for i := range 5000 {
		if print, outcome, ok := table.get(keyID(fmt.Sprint(i))); !ok || print != uint64(i) || len(outcome) != i {
			t.Fatalf("key %d: %v %d, %d bytes", i, ok, print, len(outcome))
		}
	}
	if print, outcome, ok := table.get(keyID("long")); !ok || print != 7 || string(outcome) != long {
		t.Fatal("the outcome longer than a page is lost")
	}
	if _, _, ok := table.get(keyID("never")); ok {
		t.Fatal("a key that was never put")
	}
	if b := table.bytes(); b < 12_500_000 || b > 20_000_000 {
		t.Fatalf("takes %d bytes", b)
	}
}
