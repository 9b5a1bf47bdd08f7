package ledger

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// firstReservation is the name of one made at 1 s in the first record of round 2.
const firstReservation = "eu.00000003X00000000000400000"

// held is a desk with 10 A of which 4 are reserved until 6 s.
func held(t testing.TB) *desk {
	k := newDesk(t)
	k.do(adjustA10)
	k.do(`{"op":"reserve","key":"r","lines":[{"sku":"A","quantity":4}],"ttl_ms":5000}`)
	return k
}

func on(op string) string {
	return `{"op":"` + op + `","reservation":"` + firstReservation + `"}`
}

func reserved(state, expires string) string {
	return `{"reservation":{"id":"` + firstReservation + `","state":"` + state + `","expires_at":"1970-01-01T00:00:` + expires +
		`Z","lines":[{"sku":"A","location":"main","quantity":4}]}}`
}

func ended(state string) string {
	return `{"code":"reservation_ended","message":"reservation \"` + firstReservation + `\" is ` + state +
		`","retryable":false,"retry_after_ms":0,"details":{"state":"` + state + `"}}`
}

func wantAnswer(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

func (k *desk) wantUnits(onHand, reserved int64) {
	k.t.Helper()
	if row := k.row("A"); row.OnHand() != onHand || row.Held != reserved {
		k.t.Fatalf("%d on hand, %d reserved, want %d, %d", row.OnHand(), row.Held, onHand, reserved)
	}
}

func TestReservationEnds(t *testing.T) {
	for _, tt := range []struct {
		op, state string
		onHand    int64
	}{{"confirm", "confirmed", 6}, {"release", "released", 10}} {
		t.Run(tt.op, func(t *testing.T) {
			k := held(t)
			k.wantUnits(10, 4)
			wantAnswer(t, k.do(on(tt.op)), reserved(tt.state, "06.000"))
			k.wantUnits(tt.onHand, 0)
			for _, again := range []string{on("confirm"), on("release"), strings.Replace(on("extend"), "}", `,"ttl_ms":9000}`, 1)} {
				wantAnswer(t, k.do(again), ended(tt.state))
			}
			k.now = 100_000
			if n := k.open().Expire(9); n != 0 {
				t.Fatalf("%d expired", n)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	k := held(t)
	k.now = 5999
	if n := k.open().Expire(9); n != 0 || !k.draft.Empty() {
		t.Fatalf("%d expired 1 ms before their time", n)
	}
	k.now = 6000
	if n := k.open().Expire(9); n != 1 {
		t.Fatalf("%d expired, want 1", n)
	}
	// Its units are free within the same round, and it has ended.
	wantAnswer(t, answerOf(k.decide(on("confirm"))), ended("expired"))
	if c := k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":10}]}`); c.Err != nil {
		t.Fatal(c.Err)
	}
	changes := k.commit()
	if len(changes.Reservations) != 1 || changes.Reservations[0].State != "expired" || changes.Reservations[0].By != 0 {
		t.Fatalf("changes %+v", changes)
	}
	k.wantUnits(0, 0)
}

// TestConfirmPastItsTime is a confirm that is decided before the expiry that was
// due: it wins, and the expiry of the same round must not end it once more.
func TestConfirmPastItsTime(t *testing.T) {
	k := held(t)
	k.now = 60_000
	d := k.open()
	wantAnswer(t, answerOf(k.decide(on("confirm"))), reserved("confirmed", "06.000"))
	if n := d.Expire(9); n != 0 {
		t.Fatalf("%d expired after they were confirmed", n)
	}
	k.commit()
	k.wantUnits(6, 0)
}

func TestExtendBeforeExpiryInOneRound(t *testing.T) {
	k := held(t)
	k.now = 6000
	d := k.open()
	k.decide(strings.Replace(on("extend"), "}", `,"ttl_ms":1000}`, 1))
	if n := d.Expire(9); n != 0 {
		t.Fatalf("%d expired after they were extended", n)
	}
	k.commit()
	if at, ok := k.state.NextExpiry(); !ok || at != 7000 {
		t.Fatalf("next expiry %d %v, want 7000", at, ok)
	}
}

func TestExtend(t *testing.T) {
	extend := func(ms string) string { return strings.Replace(on("extend"), "}", `,"ttl_ms":`+ms+`}`, 1) }
	k := held(t)
	wantAnswer(t, k.do(extend("1000")), reserved("held", "06.000")) // never shortens
	wantAnswer(t, k.do(extend("9000")), reserved("held", "10.000"))
	k.now = 2000
	wantAnswer(t, k.do(extend("7999")), reserved("held", "10.000"))
	k.now = 9999
	if n := k.open().Expire(9); n != 0 {
		t.Fatal("expired at the time it first had")
	}
	k.now = 10_000
	if n := k.open().Expire(9); n != 1 {
		t.Fatalf("%d expired, want 1", n)
	}
	k.commit()
	k.wantUnits(10, 0)
}

// TestExpireEarliestFirst ends many in rounds of a few, in order of their time.
func TestExpireEarliestFirst(t *testing.T) {
	k := newDesk(t)
	k.do(`{"op":"adjust","sku":"A","delta":100}`)
	for _, ms := range []string{"9000", "3000", "7000", "3000", "5000"} {
		k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":1}],"ttl_ms":` + ms + `}`)
	}
	k.now = 8500
	var got []int64
	for k.open().Expire(3) > 0 {
		for _, r := range k.commit().Reservations {
			got = append(got, int64(r.ExpiresAt))
		}
	}
	if diff := cmp.Diff([]int64{4000, 4000, 6000, 8000}, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
	if at, ok := k.state.NextExpiry(); !ok || at != 10_000 {
		t.Fatalf("next expiry %d %v, want 10000", at, ok)
	}
}

// TestConfirmCannotLeaveRange holds so much on backorder that confirming it would
// leave the range: the hold is refused, for a confirm never is.
func TestConfirmCannotLeaveRange(t *testing.T) {
	k := newDesk(t)
	k.do(`{"op":"configure","sku":"A","backorder_limit":9007199254740991}`)
	k.open().Accept(keyA, "us", 5)
	k.commit()
	wantAnswer(t, k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":9007199254740991},{"sku":"A","quantity":1}]}`), tooFar)
	k.do(`{"op":"sell","lines":[{"sku":"A","quantity":5}]}`)
	wantAnswer(t, k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":9007199254740991}]}`), tooFar)
	if got := k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":9007199254740986}]}`); strings.Contains(got, "code") {
		t.Fatal(got)
	}
}
