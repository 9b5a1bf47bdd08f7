package ledger

import (
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

const noFirst = `{"code":"not_found","message":"no reservation \"` + firstReservation + `\""` + plain

// scopeOfB is a scope that covers no reservation of A.
var scopeOfB = protocol.Scope{{SKUs: []string{"B*"}}, {Locations: []string{"shop"}}}

// What a caller may not touch answers as what does not exist, in every state it may have,
// and leaves no trace.
func TestReservationOutsideTheScope(t *testing.T) {
	commands := []string{on("confirm"), on("release"), strings.Replace(on("extend"), "}", `,"ttl_ms":9000}`, 1)}
	for name, scope := range map[string]protocol.Scope{
		"of another item": scopeOfB, "of nothing": {}, "of another user": {{Users: []string{"u"}}},
	} {
		t.Run(name, func(t *testing.T) {
			k := held(t)
			before := k.state.Seq()
			k.call.Command.Within = scope
			for _, c := range commands {
				wantAnswer(t, k.do(c), noFirst)
			}
			k.wantUnits(10, 4)
			if k.state.Seq() != before {
				t.Error("a refusal was written down")
			}
			k.call.Command.Within = protocol.Scope{{SKUs: []string{"A"}}}
			wantAnswer(t, k.do(commands[0]), reserved("confirmed", "06.000"))
			k.call.Command.Within = scope
			for _, c := range commands { // nor is it told that it ended
				wantAnswer(t, k.do(c), noFirst)
			}
		})
	}
}

// A remembered answer is no way around the scope, and a key that was used for something
// else answers as it does where there is no such reservation.
func TestReplayOutsideTheScope(t *testing.T) {
	k := held(t)
	confirm := strings.Replace(on("confirm"), "{", `{"key":"k",`, 1)
	unknown := strings.Replace(confirm, firstReservation, "eu.other", 1)
	wantAnswer(t, k.do(confirm), reserved("confirmed", "06.000"))
	k.call.Command.Within = scopeOfB
	wantAnswer(t, k.do(confirm), noFirst)
	reused := k.do(unknown)
	other := strings.Replace(confirm, "confirm", "release", 1)
	if got := k.do(other); got != reused || !strings.Contains(got, "key_reused") {
		t.Errorf("of what there is: %s, of what there is not: %s", got, reused)
	}
	k.open() // the same within one round
	k.call.Command.Within = nil
	wantAnswer(t, answerOf(k.decide(confirm)), reserved("confirmed", "06.000")+" replayed")
	k.call.Command.Within = scopeOfB
	wantAnswer(t, answerOf(k.decide(confirm)), noFirst)
}

// The scope counts against all lines of an order, also those that other shards hold.
func TestOrderOutsideTheScope(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	k.open()
	id := k.command(orderOf(protocol.OpReserve, "o", "key", lineOf("A", 1), lineOf("B", 3))).Result.Reservation.ID
	k.commit()
	confirm := `{"op":"confirm","reservation":"` + id + `"}`
	for _, scope := range []protocol.Scope{{{SKUs: []string{"A"}}}, {{SKUs: []string{"B"}}}} {
		k.call.Command.Within = scope
		if got := k.do(confirm); !strings.Contains(got, "not_found") {
			t.Errorf("within %v: %s", scope, got)
		}
	}
	k.call.Command.Within = protocol.Scope{{SKUs: []string{"A"}}, {SKUs: []string{"B"}}}
	if got := k.do(confirm); !strings.Contains(got, `"state":"confirmed"`) {
		t.Error(got)
	}
}

// Where a caller came from stands in the movement, but no more of it than an address has.
func TestMovementSaysWhereFrom(t *testing.T) {
	for _, tt := range []struct{ address, want string }{
		{"", ""}, {"192.0.2.1", "192.0.2.1"}, {strings.Repeat("x", 99), strings.Repeat("x", 64)},
		{strings.Repeat("€", 33), strings.Repeat("€", 21)}, {"a\xff", "a"},
	} {
		k := newDesk(t)
		k.call.Address = tt.address
		k.do(adjustA10)
		r, err := Decode(k.log[0])
		must(t, err)
		if m, _, ok := r.Movement("eu", 0, Position{Seq: 1}); !ok || m.Address != tt.want || m.Subject != "till" {
			t.Errorf("from %q: got %+v", tt.address, m)
		}
	}
}
