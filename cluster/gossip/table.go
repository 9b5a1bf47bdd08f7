package gossip

import (
	"slices"
	"strings"
	"time"
)

// Member is one node of the mesh as seen from here.
type Member struct {
	Name string
	Addr string // gossip host:port
	Meta
	Alive bool      // false: failed, and not seen again so far; one only suspected is alive
	Since time.Time // of the present Alive value, by the local clock
}

// table holds the members. It has no clock and no lock of its own.
type table struct {
	keep    time.Duration // how long one that failed is shown
	records map[string]*record
}

type record struct {
	Member
	leaving bool  // it said that it is about to leave
	garbled error // why Meta is empty
	warned  bool  // this member's oddities have been logged
}

// put enters a member that is alive, with what it says of itself.
func (t *table) put(name, addr string, meta []byte, now time.Time) *record {
	r := t.records[name]
	if r == nil {
		r = &record{Member: Member{Name: name}}
		t.records[name] = r
	}
	if !r.Alive {
		r.Alive, r.Since = true, now
	}
	r.Addr = addr
	r.Meta, r.leaving, r.garbled = decodeMeta(meta)
	return r
}

// gone marks a member as failed, or drops it when it had said that it leaves.
func (t *table) gone(name string, now time.Time) (left bool) {
	r := t.records[name]
	if r == nil {
		return false
	}
	if r.leaving {
		delete(t.records, name)
		return true
	}
	r.Alive, r.Since = false, now
	return false
}

// prune forgets those which failed too long ago and returns how many.
func (t *table) prune(now time.Time) (n int) {
	for name, r := range t.records {
		if t.stale(r, now) {
			delete(t.records, name)
			n++
		}
	}
	return n
}

func (t *table) stale(r *record, now time.Time) bool {
	return !r.Alive && now.Sub(r.Since) > t.keep
}

// list returns the members sorted by name; the caller may change what it got.
func (t *table) list(now time.Time) []Member {
	out := make([]Member, 0, len(t.records))
	for _, r := range t.records {
		if !t.stale(r, now) {
			m := r.Member
			m.Owns = slices.Clone(m.Owns)
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}
