package verify

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// history is what one region tells of an item, newest first.
type history struct {
	region    string
	movements []protocol.Movement
	unread    error // why it can't be read; nil: it can
}

// wrong is something found in histories.
type wrong struct {
	check check
	text  string
}

// account is an item at rest with the histories of all regions that have a part in it.
type account struct {
	item      protocol.Item
	version   protocol.Vector
	histories []history
	own       bool // as Config says
}

// newest is the latest movement; nil where none is kept.
func (h *history) newest() *protocol.Movement {
	if len(h.movements) == 0 {
		return nil
	}
	return &h.movements[0]
}

// judge returns what is wrong with a history by itself, whatever came after it.
func (h *history) judge(k protocol.ItemKey, window time.Duration) (list []wrong) {
	list = append(list, h.judgeChain(k)...)
	list = append(list, h.judgeKeys(window)...)
	return append(list, h.judgeReservations()...)
}

// judgeChain checks that each movement follows from the one before it.
func (h *history) judgeChain(k protocol.ItemKey) (list []wrong) {
	say := func(format string, args ...any) {
		list = append(list, wrong{checkHistory, fmt.Sprintf(format, args...)})
	}
	for i := range h.movements {
		m := &h.movements[i]
		if m.SKU != k.SKU || m.Location != k.Location || m.Region != h.region {
			say("the history in %s holds %s, of %q at %q in %s", h.region, m.Sequence, m.SKU, m.Location, m.Region)
		}
		if m.Reserved < 0 {
			list = append(list, wrong{checkBounds, fmt.Sprintf("%d were reserved after %s", m.Reserved, m.Sequence)})
		}
		if i+1 == len(h.movements) {
			continue
		}
		before := &h.movements[i+1]
		if m.OnHand != before.OnHand+m.OnHandDelta || m.Reserved != before.Reserved+m.ReservedDelta {
			say("%s %s (on hand %+d, reserved %+d) leads from %d and %d to %d and %d", m.Type, m.Sequence, m.OnHandDelta, m.ReservedDelta,
				before.OnHand, before.Reserved, m.OnHand, m.Reserved)
		}
		if !follows(m.Sequence, before.Sequence) {
			say("%s comes after %s", m.Sequence, before.Sequence)
		}
	}
	return list
}

// follows reports whether a movement's sequence is of the same log as another and behind
// it: region.shard.log sequence.index.
func follows(newer, older string) bool {
	n, o := strings.Split(newer, "."), strings.Split(older, ".")
	if len(n) != 4 || len(o) != 4 || n[0] != o[0] || n[1] != o[1] {
		return false
	}
	var at [4]uint64
	for i, text := range []string{n[2], n[3], o[2], o[3]} {
		v, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return false
		}
		at[i] = v
	}
	return at[0] > at[2] || at[0] == at[2] && at[1] > at[3]
}

// judgeKeys checks that no key has had an effect twice while the nodes had to know it.
func (h *history) judgeKeys(window time.Duration) (list []wrong) {
	seen := make(map[string]*protocol.Movement)
	for i := range h.movements {
		m := &h.movements[i]
		if m.Key == "" {
			continue // nobody asked for it
		}
		later := seen[m.Key]
		seen[m.Key] = m
		if later != nil && later.At.Std().Sub(m.At.Std()) < window {
			list = append(list, wrong{checkKeys, fmt.Sprintf("key %q made %s %s and %s %s", m.Key, m.Type, m.Sequence, later.Type, later.Sequence)})
		}
	}
	return list
}

// judgeReservations checks that nothing happens to a reservation after its end.
func (h *history) judgeReservations() (list []wrong) {
	seen := make(map[string]*protocol.Movement) // what came next
	for i := range h.movements {
		m := &h.movements[i]
		if m.Reservation == "" {
			continue
		}
		if later := seen[m.Reservation]; later != nil && ends(m.Type) {
			list = append(list, wrong{checkReservations, fmt.Sprintf("%s ended by %s %s, and then came %s %s", m.Reservation, m.Type, m.Sequence, later.Type, later.Sequence)})
		}
		seen[m.Reservation] = m
	}
	return list
}

func ends(movement string) bool {
	return movement == "confirm" || movement == "release" || movement == "expire"
}

// complete reports whether every history can be read, at least in part.
func (a *account) complete() bool {
	for i := range a.histories {
		if h := &a.histories[i]; h.unread != nil || h.newest() == nil {
			return false
		}
	}
	return len(a.histories) > 0
}

// whole reports whether the histories tell all there ever was: each version is one
// movement.
func (a *account) whole() bool {
	for i := range a.histories {
		if h := &a.histories[i]; h.unread != nil || uint64(len(h.movements)) < a.version.Get(h.region) {
			return false
		}
	}
	return len(a.histories) > 0
}

// configured reports whether a setting was ever changed, by what the histories tell.
func (a *account) configured() bool {
	for i := range a.histories {
		for j := range a.histories[i].movements {
			if a.histories[i].movements[j].Type == string(protocol.OpConfigure) {
				return true
			}
		}
	}
	return false
}

// judge returns where an item contradicts the histories, which must be as new as it is.
func (a *account) judge() (list []wrong) {
	var onHand, reserved int64
	for i := range a.histories {
		h := &a.histories[i]
		if n := a.version.Get(h.region); h.unread == nil && uint64(len(h.movements)) > n {
			list = append(list, wrong{checkHistory, fmt.Sprintf("%s has %d movements of version %d", h.region, len(h.movements), n)})
		}
		if m := h.newest(); m != nil {
			onHand, reserved = onHand+m.OnHand, reserved+m.Reserved
		}
	}
	it := &a.item
	if a.complete() && (it.OnHand != onHand || it.Reserved != reserved) {
		list = append(list, wrong{checkHistory, fmt.Sprintf("%d are on hand and %d reserved, the newest movements say %d and %d", it.OnHand, it.Reserved, onHand, reserved)})
	}
	if (a.own || a.whole()) && !a.configured() {
		list = append(list, a.judgeBounds()...)
	}
	if a.own {
		list = append(list, a.judgeGaps()...)
	}
	return list
}

// judgeGaps is about histories that nobody has pruned or forbidden: each region that has a
// part in an item can say how it came to it.
func (a *account) judgeGaps() (list []wrong) {
	for i := range a.histories {
		h := &a.histories[i]
		switch n := a.version.Get(h.region); {
		case h.unread != nil:
			list = append(list, wrong{checkHistory, fmt.Sprintf("the history in %s can't be read: %v", h.region, h.unread)})
		case n > 0 && len(h.movements) == 0:
			list = append(list, wrong{checkHistory, fmt.Sprintf("%s has no movement of version %d", h.region, n)})
		}
	}
	return list
}

// judgeBounds is about an item without any settings: nothing may be sold that isn't there.
func (a *account) judgeBounds() (list []wrong) {
	it := &a.item
	if owed := it.Reserved - it.OnHand; owed > 0 {
		list = append(list, wrong{checkBounds, fmt.Sprintf("oversold by %d: %d on hand, %d reserved, and no backorders were ever allowed", owed, it.OnHand, it.Reserved)})
	}
	if want := min(protocol.QuantityMax, max(0, it.OnHand-it.Reserved)); it.Available != want {
		list = append(list, wrong{checkBounds, fmt.Sprintf("%d available: want %d, %d on hand less %d reserved, as no setting was ever made", it.Available, want, it.OnHand, it.Reserved)})
	}
	return list
}
