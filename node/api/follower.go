package api

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// owner is who follows: a stream or a long poll.
type owner interface {
	// wake is called when ids are pending where none were. It must not block.
	wake()
}

// follower collects which items have changed since its owner last looked. It
// holds ids and no states, so it can't grow beyond a few times the items there are.
type follower struct {
	owner   owner
	pick    protocol.Selector
	access  *protocol.Access
	seesAll bool

	pending []protocol.ItemID // some perhaps twice; guarded by hub.members
}

// pendingKept is for how many ids a follower keeps its room while it has none.
const pendingKept = 16

func (f *follower) isWide() bool { return f.pick.Wide() || len(f.pick.Prefixes) > 0 }

// offer reports whether the id is the first that is pending.
func (f *follower) offer(k protocol.ItemKey, id protocol.ItemID) (first bool) {
	if !f.pick.Match(k) || !f.seesAll && !f.access.Sees(k.SKU, k.Location) {
		return false
	}
	n := len(f.pending)
	if n > 0 && f.pending[n-1] == id {
		return false
	}
	if n > 0 && n == cap(f.pending) {
		f.compact()
	}
	f.pending = append(f.pending, id)
	return n == 0
}

// compact drops what is twice. Room is made for as many again, or the next few ids
// would have it all sorted once more.
func (f *follower) compact() {
	slices.Sort(f.pending)
	f.pending = slices.Compact(f.pending)
	f.pending = slices.Grow(f.pending, len(f.pending)+1)
}

// take appends the pending ids and forgets them.
func (f *follower) take(ids []protocol.ItemID) []protocol.ItemID {
	ids = append(ids, f.pending...)
	f.pending = f.pending[:0]
	if cap(f.pending) > pendingKept {
		f.pending = nil
	}
	return ids
}
