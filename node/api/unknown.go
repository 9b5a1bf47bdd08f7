package api

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// unknown finds the named SKUs that a snapshot has not shown: they are sent as
// zero items. A reader that resumes has had them.
type unknown struct {
	pick    protocol.Selector
	access  *protocol.Access
	missing map[protocol.ItemKey]bool // location "" where none are named
}

func newUnknown(s *stream) *unknown {
	u := &unknown{pick: s.named, access: s.who.Access, missing: make(map[protocol.ItemKey]bool)}
	if s.since != nil {
		return u
	}
	for _, sku := range s.named.SKUs {
		for _, location := range u.locations() {
			u.missing[protocol.ItemKey{SKU: sku, Location: location}] = true
		}
	}
	return u
}

func (u *unknown) locations() []string {
	if len(u.pick.Locations) == 0 {
		return []string{""}
	}
	return u.pick.Locations
}

func (u *unknown) strike(items []protocol.Item) {
	for i := range items {
		k := items[i].Key()
		if len(u.pick.Locations) == 0 {
			k.Location = ""
		}
		delete(u.missing, k)
	}
}

func (u *unknown) items() []protocol.Item {
	out := make([]protocol.Item, 0, len(u.missing))
	for k := range u.missing {
		if k.Location == "" {
			k.Location = protocol.DefaultLocation
		}
		if u.access.Sees(k.SKU, k.Location) {
			out = append(out, protocol.Item{SKU: k.SKU, Location: k.Location})
		}
	}
	slices.SortFunc(out, func(x, y protocol.Item) int { return x.Key().Compare(y.Key()) })
	return out
}
