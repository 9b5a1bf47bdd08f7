package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// regionHistory is what one region tells of an item, newest first.
type regionHistory struct {
	region    string
	movements []protocol.Movement
	missing   bool // can't be read here
	whole     bool // read back to the oldest that is kept
}

// checkItem returns what is wrong with an item and the histories of all regions
// that have a part in it. It judges only what it was given.
func checkItem(it *protocol.Item, histories []regionHistory) []string {
	var wrong []string
	differ := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("%s at %s: ", it.SKU, it.Location)+fmt.Sprintf(format, args...))
	}
	if it.Available < 0 {
		differ("available is %d", it.Available)
	}
	if it.Reserved < 0 {
		differ("reserved is %d", it.Reserved)
	}
	complete, configured := true, false
	var onHand, reserved int64
	for _, h := range histories {
		if h.missing || len(h.movements) == 0 {
			complete = false
			continue
		}
		onHand += h.movements[0].OnHand
		reserved += h.movements[0].Reserved
		for _, w := range checkChain(h.region, it, h.movements) {
			differ("%s", w)
		}
		configured = configured || !h.fromZero() || h.configures()
	}
	if !complete {
		return wrong
	}
	if it.OnHand != onHand || it.Reserved != reserved {
		differ("on_hand %d, reserved %d, but the newest movements say %d and %d", it.OnHand, it.Reserved, onHand, reserved)
	}
	if want := max(0, it.OnHand-it.Reserved); !configured && it.Available != want {
		differ("available is %d, want on_hand %d - reserved %d = %d", it.Available, it.OnHand, it.Reserved, want)
	}
	return wrong
}

// fromZero reports whether the history holds the item's first movement.
func (h *regionHistory) fromZero() bool {
	first := h.movements[len(h.movements)-1]
	return h.whole && first.OnHand == first.OnHandDelta && first.Reserved == first.ReservedDelta
}

func (h *regionHistory) configures() bool {
	for _, m := range h.movements {
		if m.Type == "configure" {
			return true
		}
	}
	return false
}

// checkChain checks that each movement follows from the one before it.
func checkChain(region string, it *protocol.Item, movements []protocol.Movement) []string {
	var wrong []string
	for i := range movements {
		m := &movements[i]
		if m.SKU != it.SKU || m.Location != it.Location || m.Region != region {
			wrong = append(wrong, fmt.Sprintf("the history of %s holds %s of %s at %s in %s", region, m.Sequence, m.SKU, m.Location, m.Region))
		}
		if m.Reserved < 0 {
			wrong = append(wrong, fmt.Sprintf("reserved was %d after %s", m.Reserved, m.Sequence))
		}
		if i+1 == len(movements) {
			continue
		}
		older := &movements[i+1]
		if m.OnHand != older.OnHand+m.OnHandDelta || m.Reserved != older.Reserved+m.ReservedDelta {
			wrong = append(wrong, fmt.Sprintf("%s %s (%+d/%+d) leads from %d/%d to %d/%d", m.Type, m.Sequence, m.OnHandDelta, m.ReservedDelta,
				older.OnHand, older.Reserved, m.OnHand, m.Reserved))
		}
		if !follows(m.Sequence, older.Sequence) {
			wrong = append(wrong, fmt.Sprintf("%s stands after %s", m.Sequence, older.Sequence))
		}
	}
	return wrong
}

// follows reports whether a sequence is of the same region and shard as the
// older one and behind it.
func follows(newer, older string) bool {
	n, o := strings.Split(newer, "."), strings.Split(older, ".")
	if len(n) != 4 || len(o) != 4 || n[0] != o[0] || n[1] != o[1] {
		return false
	}
	for i := 2; i < 4; i++ {
		x, errX := strconv.ParseUint(n[i], 10, 64)
		y, errY := strconv.ParseUint(o[i], 10, 64)
		if errX != nil || errY != nil {
			return false
		}
		if x != y {
			return x > y
		}
	}
	return false
}

// picture is all items as one way of reading showed them.
type picture map[protocol.ItemKey]protocol.Item

// comparePictures returns where a picture contradicts one that was taken before
// it: an item is gone, went back, or differs at the same version.
func comparePictures(earlierName, laterName string, earlier, later picture) []string {
	var wrong []string
	for k, e := range earlier {
		l, ok := later[k]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s at %s: in the %s, not in the %s", k.SKU, k.Location, earlierName, laterName))
			continue
		}
		if e.Version == l.Version && e != l {
			wrong = append(wrong, fmt.Sprintf("%s at %s: version %s is %s in the %s, %s in the %s", k.SKU, k.Location, e.Version,
				itemText(e), earlierName, itemText(l), laterName))
			continue
		}
		ev, errE := protocol.ParseVector(e.Version)
		lv, errL := protocol.ParseVector(l.Version)
		if errE != nil || errL != nil || !lv.AtLeast(ev) {
			wrong = append(wrong, fmt.Sprintf("%s at %s: went from %q in the %s to %q in the %s", k.SKU, k.Location, e.Version, earlierName, l.Version, laterName))
		}
	}
	return wrong
}

func itemText(it protocol.Item) string {
	return fmt.Sprintf("%d/%d/%d (%s)", it.OnHand, it.Reserved, it.Available, it.Version)
}
