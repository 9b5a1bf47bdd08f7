package main

import (
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// chain returns an item and its history, newest first.
func chain() (protocol.Item, []protocol.Movement) {
	m := func(sequence, kind string, onHandDelta, reservedDelta, onHand, reserved int64) protocol.Movement {
		return protocol.Movement{Sequence: sequence, Region: "eu", Type: kind, SKU: "A", Location: "main",
			OnHandDelta: onHandDelta, ReservedDelta: reservedDelta, OnHand: onHand, Reserved: reserved}
	}
	return protocol.Item{SKU: "A", Location: "main", OnHand: 8, Reserved: 1, Available: 7, Version: "eu:4"}, []protocol.Movement{
		m("eu.0.10.1", "reserve", 0, 1, 8, 1),
		m("eu.0.10.0", "confirm", -2, -2, 8, 0),
		m("eu.0.9.3", "reserve", 0, 2, 10, 2),
		m("eu.0.2.0", "count", 10, 0, 10, 0),
	}
}

func TestCheckItem(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*protocol.Item, []protocol.Movement)
		want   string
	}{
		"good":               {func(*protocol.Item, []protocol.Movement) {}, ""},
		"on_hand":            {func(it *protocol.Item, _ []protocol.Movement) { it.OnHand, it.Available = 9, 8 }, "the newest movements say 8 and 1"},
		"available":          {func(it *protocol.Item, _ []protocol.Movement) { it.Available = 6 }, "available is 6, want"},
		"negative available": {func(it *protocol.Item, _ []protocol.Movement) { it.Available = -1 }, "available is -1"},
		"negative reserved":  {func(it *protocol.Item, m []protocol.Movement) { it.Reserved, m[0].Reserved = -1, -1 }, "reserved is -1"},
		"settings":           {func(it *protocol.Item, m []protocol.Movement) { it.Available, m[1].Type = 6, "configure" }, ""},
		"a gap":              {func(_ *protocol.Item, m []protocol.Movement) { m[1].OnHandDelta = -3 }, "leads from 10/2 to 8/0"},
		"order":              {func(_ *protocol.Item, m []protocol.Movement) { m[0].Sequence = "eu.0.9.9" }, "eu.0.9.9 stands after eu.0.10.0"},
		"another item":       {func(_ *protocol.Item, m []protocol.Movement) { m[2].SKU = "B" }, "holds eu.0.9.3 of B"},
	} {
		it, movements := chain()
		c.change(&it, movements)
		got := strings.Join(checkItem(&it, []regionHistory{{region: "eu", movements: movements, whole: true}}), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: found %q, want %q in it", name, got, c.want)
		}
	}
}

func TestCheckItemSumsRegions(t *testing.T) {
	it, eu := chain()
	us := []protocol.Movement{{Sequence: "us.0.1.0", Region: "us", SKU: "A", Location: "main", Type: "adjust", OnHandDelta: 5, OnHand: 5}}
	it.OnHand, it.Available = 13, 12
	histories := []regionHistory{{region: "eu", movements: eu, whole: true}, {region: "us", movements: us, whole: true}}
	if got := checkItem(&it, histories); len(got) > 0 {
		t.Errorf("%q", got)
	}
	it.OnHand = 99 // nothing to compare with when a region's part is missing
	histories[1] = regionHistory{region: "us", missing: true}
	if got := checkItem(&it, histories); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

func TestFollows(t *testing.T) {
	for _, c := range []struct {
		newer, older string
		want         bool
	}{
		{"eu.0.10.0", "eu.0.9.5", true}, {"eu.0.9.6", "eu.0.9.5", true}, {"eu.0.9.5", "eu.0.9.5", false}, {"eu.0.9.0", "eu.0.10.0", false},
		{"us.0.10.0", "eu.0.9.0", false}, {"eu.1.10.0", "eu.0.9.0", false}, {"eu.0.x.0", "eu.0.9.0", false}, {"eu.10", "eu.9", false},
	} {
		if got := follows(c.newer, c.older); got != c.want {
			t.Errorf("%s after %s: %v", c.newer, c.older, got)
		}
	}
}

func TestComparePictures(t *testing.T) {
	k := protocol.ItemKey{SKU: "A", Location: "main"}
	at := func(onHand int64, version string) picture {
		return picture{k: {SKU: "A", Location: "main", OnHand: onHand, Version: version}}
	}
	for name, c := range map[string]struct {
		earlier, later picture
		want           string
	}{
		"equal":     {at(1, "eu:1"), at(1, "eu:1"), ""},
		"newer":     {at(1, "eu:1"), at(2, "eu:2,us:1"), ""},
		"added":     {nil, at(1, "eu:1"), ""},
		"gone":      {at(1, "eu:1"), nil, "in the x, not in the y"},
		"back":      {at(1, "eu:2"), at(1, "eu:1"), "went from"},
		"two faces": {at(1, "eu:1"), at(2, "eu:1"), "version eu:1 is"},
	} {
		got := strings.Join(comparePictures("x", "y", c.earlier, c.later), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: found %q, want %q in it", name, got, c.want)
		}
	}
}
