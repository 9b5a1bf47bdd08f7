package ledger

import (
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// span is the SKUs from lo up to, not including, hi; an empty hi is no bound.
type span struct{ lo, hi string }

// spans turns a selector into ordered spans that don't overlap.
func spans(sel *protocol.Selector) []span {
	if sel.Wide() {
		return []span{{}}
	}
	out := make([]span, 0, len(sel.SKUs)+len(sel.Prefixes))
	for _, s := range sel.SKUs {
		out = append(out, span{s, s + "\x00"})
	}
	for _, p := range sel.Prefixes {
		out = append(out, span{p, afterPrefix(p)})
	}
	slices.SortFunc(out, func(a, b span) int { return strings.Compare(a.lo, b.lo) })
	merged := out[:0]
	for _, s := range out {
		if n := len(merged); n > 0 && (merged[n-1].hi == "" || s.lo <= merged[n-1].hi) {
			if last := &merged[n-1]; last.hi != "" && (s.hi == "" || s.hi > last.hi) {
				last.hi = s.hi
			}
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// afterPrefix returns the first string after all that begin with p, "" if none.
func afterPrefix(p string) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			return p[:i] + string([]byte{p[i] + 1})
		}
	}
	return ""
}

// Changed returns the items whose row changed after a round.
func (s *State) Changed(since uint64) (ids []protocol.ItemID) {
	for i := range s.items {
		if row := &s.items[i].row; row.Version > 0 && row.Last.Seq > since {
			ids = append(ids, protocol.ItemID(i))
		}
	}
	return ids
}

// exists tells whether some region has a row of the item.
func (it *item) exists() bool { return it.row.Version > 0 || len(it.parts) > 0 }

// visitsMax is how many items a Scan looks at. Of a million items a cursor or a location
// may pick a handful; looking for those in one go would keep commits waiting.
const visitsMax = 1024

// Scan returns the ids of the items that the query picks, in order, and whether more may
// follow: then next is the After to go on with. It may return fewer than the limit, even
// none, as it looks at a bounded number of items.
func (s *State) Scan(q *protocol.Query) (ids []protocol.ItemID, next protocol.ItemKey, more bool) {
	next = q.After
	visits := 0
	since := q.Since.Get(s.region)
	if since > s.seq {
		since = 0 // of a log that is not this one, as after a restore: send everything
	}
	for _, sp := range spans(&q.Selector) {
		start := protocol.ItemKey{SKU: sp.lo}
		if q.After.Compare(start) > 0 {
			start = q.After
		}
		s.order.Ascend(ranked{key: start}, func(r ranked) bool {
			it := &s.items[r.id]
			if sp.hi != "" && it.key.SKU >= sp.hi {
				return false
			}
			picked := it.key != q.After && it.changedAfter(since, q.Since) && atOne(q.Locations, it.key.Location)
			if more = visits == visitsMax || picked && len(ids) == q.Limit; more {
				return false
			}
			if picked {
				ids = append(ids, r.id)
			}
			visits++
			next = it.key
			return true
		})
		if more {
			break
		}
	}
	return ids, next, more
}

// changedAfter tells whether the item exists and has changed since a round of this log
// or since what others have told by a cursor.
func (it *item) changedAfter(round uint64, cursor protocol.Vector) bool {
	return it.exists() && (it.row.Last.Seq > round || newerThan(it.parts, cursor))
}

// atOne tells whether a location is one of those named; none named means all.
func atOne(locations []string, l string) bool {
	return len(locations) == 0 || slices.Contains(locations, l)
}
