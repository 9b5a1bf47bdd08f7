package protocol

import (
	"slices"
	"strings"
)

// ItemKey names an item.
type ItemKey struct{ SKU, Location string }

// Compare orders items by SKU, then location, byte by byte.
func (k ItemKey) Compare(o ItemKey) int {
	if c := strings.Compare(k.SKU, o.SKU); c != 0 {
		return c
	}
	return strings.Compare(k.Location, o.Location)
}

// ItemID is an item's short name within one running node: small numbers, given
// in order of first write, never reused and never sent to anybody.
type ItemID uint32

// Selector picks items: SKUs, Prefixes and All are united, Locations narrows. A
// selector of Locations alone picks every SKU there.
type Selector struct {
	SKUs      []string
	Prefixes  []string
	Locations []string
	All       bool
}

// Selector returns what a subscribe, unsubscribe or get names.
func (c *Command) Selector() Selector {
	return Selector{SKUs: c.SKUs, Prefixes: c.Prefixes, Locations: c.Locations, All: c.All}
}

// Wide reports whether the selector reaches every SKU.
func (s *Selector) Wide() bool {
	return s.All || len(s.SKUs) == 0 && len(s.Prefixes) == 0
}

// Match reports whether the item is picked.
func (s *Selector) Match(k ItemKey) bool {
	if len(s.Locations) > 0 && !slices.Contains(s.Locations, k.Location) {
		return false
	}
	if s.Wide() || slices.Contains(s.SKUs, k.SKU) {
		return true
	}
	return slices.ContainsFunc(s.Prefixes, func(p string) bool { return strings.HasPrefix(k.SKU, p) })
}

// Query asks for existing items in order of ItemKey.
type Query struct {
	Selector
	Since Vector  // only items changed after this cursor; nil: all
	After ItemKey // only items after this one; zero: from the start
	Limit int     // at most so many
}

// Changes is what one committed round, or a news from a peer region, changed.
type Changes struct {
	Items        []ItemID // each once
	Reservations []ReservationChange
	Cursor       Vector // everything up to here is in the node's state
}

// ReservationChange is a reservation's new state and the session that caused it
// (Call.Session), 0 where none on this node did, as for expiry.
type ReservationChange struct {
	Reservation
	By uint64
}
