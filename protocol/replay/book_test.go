package replay

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stockmesh/stockmesh/protocol"
)

// honest is a node's side of a book: the item and history that its answers led to.
type honest struct {
	item    protocol.Item
	history []protocol.Movement
}

func (h *honest) move(kind, key, reservation string, onHand, reserved int64) {
	h.item.OnHand += onHand
	h.item.Reserved += reserved
	h.item.Available = max(0, h.item.OnHand-h.item.Reserved)
	m := protocol.Movement{Type: kind, Key: key, Reservation: reservation, OnHandDelta: onHand, ReservedDelta: reserved,
		OnHand: h.item.OnHand, Reserved: h.item.Reserved}
	h.history = append([]protocol.Movement{m}, h.history...)
}

// exampleBook has one SKU with every kind of end, and the node that goes with it.
func exampleBook() (*book, *honest) {
	b, h := newBook("replay:x:"), &honest{}
	line := func(n int64) []protocol.Line { return []protocol.Line{{SKU: "A", Location: "main", Quantity: n}} }
	h.move("adjust", "another run", "", 99, 0)
	b.opened("A", 10)
	h.move("count", "replay:x:open:0", "", -89, 0)
	for i, end := range []string{"confirm", "release", "expire"} {
		r := hold{id: fmt.Sprint("eu.", i), key: fmt.Sprint("replay:x:", i, ":reserve:0"), invoice: fmt.Sprint(i), lines: line(2)}
		key := fmt.Sprint("replay:x:", i, ":", end, ":0")
		b.held(r)
		h.move("reserve", r.key, r.id, 0, 2)
		switch end {
		case "confirm":
			b.confirmed(r, key)
			h.move(end, key, r.id, -2, -2)
		case "release":
			b.released(r, key)
			h.move(end, key, r.id, 0, -2)
		case "expire":
			b.expired(r)
			h.move(end, "", r.id, 0, -2)
		}
	}
	b.returned(line(1)[0], "replay:x:C1:return:0")
	h.move("adjust", "replay:x:C1:return:0", "", 1, 0)
	return b, h
}

func TestBookAgreesWithAnHonestNode(t *testing.T) {
	b, h := exampleBook()
	if diffs := b.check("A", h.item, h.history); len(diffs) > 0 {
		t.Errorf("%q", diffs)
	}
}

func TestBookFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*honest)
		want   string
	}{
		"a unit too few":           {func(h *honest) { h.item.OnHand-- }, "on_hand is 8, want opening 10 + returned 1 - sold 2 = 9"},
		"something stays reserved": {func(h *honest) { h.item.Reserved = 2 }, "reserved is 2, want 0"},
		"negative":                 {func(h *honest) { h.item.OnHand = -1 }, "negative: on_hand -1"},
		"a lost sale": {func(h *honest) {
			h.history = without(h.history, "confirm")
		}, "the history lacks confirm replay:x:0:confirm:0"},
		"a lost expiry": {func(h *honest) { h.history = without(h.history, "expire") }, "the history lacks expire eu.2"},
		"applied twice": {func(h *honest) {
			h.move("confirm", "replay:x:0:confirm:0", "eu.0", -2, -2)
		}, "holds confirm replay:x:0:confirm:0 2 times"},
		"a refused invoice left a trace": {func(h *honest) {
			h.move("reserve", "replay:x:9:reserve:0", "eu.9", 0, 1)
		}, "holds reserve replay:x:9:reserve:0 (), which was never acknowledged"},
		"expired and confirmed": {func(h *honest) { h.move("expire", "", "eu.0", 0, -2) }, "holds expire eu.0"},
		"another quantity":      {func(h *honest) { h.history[0].OnHandDelta = 3 }, "changed +3/+0, want +1/+0"},
	} {
		b, h := exampleBook()
		c.break_(h)
		if diffs := strings.Join(b.check("A", h.item, h.history), "\n"); !strings.Contains(diffs, c.want) {
			t.Errorf("%s: found %q, want %q in it", name, diffs, c.want)
		}
	}
}

func TestPictureIsHeldAgainstTheBook(t *testing.T) {
	b, h := exampleBook()
	k := protocol.ItemKey{SKU: "A", Location: "main"}
	for want, p := range map[string]picture{
		"[]":                              {k: h.item},
		"[A: reserved is 1, want 0]":      {k: {SKU: "A", OnHand: 9, Reserved: 1, Available: 8}},
		"[A: on_hand is 0, want opening ": {},
	} {
		if got := fmt.Sprint(b.checkPicture(p)); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestOversold(t *testing.T) {
	b, _ := exampleBook() // opening 10, 1 returned, 2 sold
	line := []protocol.Line{{SKU: "A", Quantity: 12}}
	if n := b.oversold(); n != 0 {
		t.Errorf("%d units of those that were there", n)
	}
	if b.confirmed(hold{lines: line}, "k"); b.oversold() != 3 {
		t.Errorf("%d units, want 3", b.oversold())
	}
}

func TestRefusedElsewhere(t *testing.T) {
	short := func(lines ...protocol.Shortage) error {
		return &protocol.Error{Code: protocol.CodeInsufficientStock, Details: &protocol.Details{Lines: lines}}
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{short(protocol.Shortage{Requested: 3, Available: 1, Elsewhere: 2}), true},
		{short(protocol.Shortage{Requested: 3, Available: 1, Elsewhere: 1}), false},
		{short(protocol.Shortage{Requested: 1, Elsewhere: 9}, protocol.Shortage{Requested: 1}), false},
		{short(), false},
		{&protocol.Error{Code: protocol.CodeInsufficientStock}, false},
	} {
		if got := thereElsewhere(c.err); got != c.want {
			t.Errorf("%+v: %v", c.err, got)
		}
	}
}

func without(movements []protocol.Movement, kind string) (kept []protocol.Movement) {
	for _, m := range movements {
		if m.Type != kind {
			kept = append(kept, m)
		}
	}
	return kept
}

// TestBookNoticesAnyLostOrRepeatedMovement breaks the history at random.
func TestBookNoticesAnyLostOrRepeatedMovement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, h := exampleBook()
		ours := b.ours(h.history)
		i := rapid.IntRange(0, len(ours)-1).Draw(t, "movement")
		broken := append([]protocol.Movement{}, ours...)
		if rapid.Bool().Draw(t, "repeat") {
			broken = append(broken, ours[i])
		} else {
			broken = append(broken[:i], broken[i+1:]...)
		}
		if len(b.check("A", h.item, broken)) == 0 {
			t.Fatalf("nothing found in %v", broken)
		}
	})
}

func TestPicturesDiffer(t *testing.T) {
	a := protocol.ItemKey{SKU: "A", Location: "main"}
	b := protocol.ItemKey{SKU: "B", Location: "main"}
	it := func(n int64, v string) protocol.Item { return protocol.Item{SKU: "A", OnHand: n, Version: v} }
	node := picture{a: it(1, "eu:1")}
	for name, c := range map[string]struct {
		seen picture
		want int
	}{
		"equal":   {picture{a: it(1, "eu:1")}, 0},
		"missing": {nil, 1},
		"old":     {picture{a: it(2, "eu:0")}, 1},
		"more":    {picture{a: it(1, "eu:1"), b: it(1, "eu:1")}, 1},
	} {
		if diffs := c.seen.differences("w", node); len(diffs) != c.want {
			t.Errorf("%s: %q", name, diffs)
		}
	}
}
