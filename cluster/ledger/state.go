package ledger

import (
	"fmt"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/tidwall/btree"
)

// State is everything a shard's log says: rows, reservations and the outcomes of
// remembered keys. It is not safe for concurrent use.
type State struct {
	region string
	shard  int

	items []item
	index map[protocol.ItemKey]protocol.ItemID
	order *btree.BTreeG[ranked] // by name

	live   map[string]*reservation
	due    expiries            // of live, possibly with outdated entries
	orders map[string]string   // of live: orders decided here, to their reservations
	parts  *btree.BTreeG[Part] // of live
	now    generation
	past   generation
	epoch  uint64

	generation uint64        // counts rotations
	rotatedAt  protocol.Time // when now began
	seq        uint64        // of the last round applied
	at         protocol.Time // of the last round applied
	settled    uint64        // see loadedTo in snapshot.go

	names map[string]string // one copy of other regions' names
	owed  map[protocol.ItemID]struct{}
}

type item struct {
	key   protocol.ItemKey
	row   Row        // this region's; of version 0 where only others have one
	parts []peerPart // the other regions', in order of their names
}

// ranked is an item in the order of names.
type ranked struct {
	key protocol.ItemKey
	id  protocol.ItemID
}

// reservation is a reservation as the ledger keeps it.
type reservation struct {
	protocol.Reservation
	tie *tie // nil for all but those of orders over several shards
}

// generation is what is forgotten together: keys, ended reservations and ended
// orders of one window. There are always two, so a key lives between one window and
// two, and forgetting costs nothing.
type generation struct {
	keys   keyTable
	ended  map[string]*reservation
	orders map[keyHash]OrderState // by the hash of the id
}

func newGeneration() generation {
	return generation{keys: newKeyTable(), ended: make(map[string]*reservation), orders: make(map[keyHash]OrderState)}
}

// NewState returns the state before the first round.
func NewState(region string, shard int) *State {
	s := &State{
		region: region, shard: shard,
		index: make(map[protocol.ItemKey]protocol.ItemID),
		live:  make(map[string]*reservation), orders: make(map[string]string),
		now: newGeneration(), past: newGeneration(),
		names: make(map[string]string), owed: make(map[protocol.ItemID]struct{}),
	}
	s.parts = btree.NewBTreeGOptions(Part.before, btree.Options{NoLocks: true})
	s.order = btree.NewBTreeGOptions(func(a, b ranked) bool { return a.key.Compare(b.key) < 0 }, btree.Options{NoLocks: true})
	return s
}

// Region returns the region whose rows these are.
func (s *State) Region() string { return s.region }

// Shard returns the shard's number.
func (s *State) Shard() int { return s.shard }

// Seq returns the log sequence of the last round applied.
func (s *State) Seq() uint64 { return s.seq }

// At returns the time of the last round applied. Rounds never go back in time.
func (s *State) At() protocol.Time { return s.at }

// RotatedAt returns when the present generation of keys began, 0 before the first.
func (s *State) RotatedAt() protocol.Time { return s.rotatedAt }

// Epoch counts the take-overs of the shard.
func (s *State) Epoch() uint64 { return s.epoch }

// Sizes returns the number of items, live reservations and remembered keys. A part
// is counted in its order's home.
func (s *State) Sizes() (items, reservations, keys int) {
	return len(s.items), len(s.live) - s.parts.Len(), s.now.keys.len() + s.past.keys.len()
}

// KeyBytes returns the memory that remembered outcomes take, of keys and of orders,
// in bytes.
func (s *State) KeyBytes() int64 {
	const orderBytes = 40 // estimated
	return s.now.keys.bytes() + s.past.keys.bytes() + int64(len(s.now.orders)+len(s.past.orders))*orderBytes
}

// ID returns the item's short name, false if it does not exist.
func (s *State) ID(key protocol.ItemKey) (protocol.ItemID, bool) {
	id, ok := s.index[key]
	return id, ok
}

// Key returns the name of an existing item.
func (s *State) Key(id protocol.ItemID) protocol.ItemKey { return s.items[id].key }

// Row returns the row of an existing item. Its maps must not be changed.
func (s *State) Row(id protocol.ItemID) Row { return s.items[id].row }

// Item returns an existing item as clients see it.
func (s *State) Item(id protocol.ItemID) protocol.Item {
	it := &s.items[id]
	if len(it.parts) == 0 {
		return it.row.Item(s.region, it.key)
	}
	v := it.row.item(it.key, it.parts)
	v.Version = string(appendVersions(nil, s.region, it.row.Version, it.parts))
	return v
}

// ItemAt returns an item by name; one that does not exist reads as zero.
func (s *State) ItemAt(key protocol.ItemKey) protocol.Item {
	if id, ok := s.index[key]; ok {
		return s.Item(id)
	}
	row := noRow()
	return row.Item(s.region, key)
}

// Reservation returns a live reservation, or an ended one that is still
// remembered. A part is none.
func (s *State) Reservation(id string) (protocol.Reservation, bool) {
	if r := s.reservation(id); r != nil && !r.isPart() {
		return r.Reservation, true
	}
	return protocol.Reservation{}, false
}

func (s *State) reservation(id string) *reservation {
	if r := s.live[id]; r != nil {
		return r
	}
	if r := s.now.ended[id]; r != nil {
		return r
	}
	return s.past.ended[id]
}

// Outcome returns the remembered answer of a key.
func (s *State) Outcome(key string) (protocol.Result, bool) {
	_, blob, ok := s.remembered(keyID(key))
	if !ok {
		return protocol.Result{}, false
	}
	return outcomeOf(blob), true
}

func (s *State) remembered(id keyHash) (print uint64, outcome []byte, ok bool) {
	if print, outcome, ok = s.now.keys.get(id); ok {
		return print, outcome, true
	}
	return s.past.keys.get(id)
}

// NextExpiry returns when the next live reservation ends, false if there is none.
func (s *State) NextExpiry() (protocol.Time, bool) {
	if len(s.due) == 0 {
		return 0, false
	}
	return s.due[0].at, true
}

// dropOutdated removes leading entries of reservations that ended or were
// extended, so that the first entry is always a true one and the others go when
// their time comes.
func (s *State) dropOutdated() {
	for len(s.due) > 0 {
		r := s.live[s.due[0].id]
		if r != nil && r.ExpiresAt == s.due[0].at {
			return
		}
		s.due.pop()
	}
}

// add returns the item's id, creating it with strings of its own: the given ones
// may be part of a whole round.
func (s *State) add(key protocol.ItemKey) protocol.ItemID {
	if id, ok := s.index[key]; ok {
		return id
	}
	key = protocol.ItemKey{SKU: strings.Clone(key.SKU), Location: strings.Clone(key.Location)}
	id := protocol.ItemID(len(s.items))
	s.items = append(s.items, item{key: key, row: noRow()})
	s.index[key] = id
	s.order.Set(ranked{key, id})
	return id
}

// Apply applies a committed round. The sequence must follow the last one. An
// error means that the log and this code disagree: the state is then unusable.
// The returned changes are valid until the next Apply.
func (s *State) Apply(r *Round, seq uint64) (protocol.Changes, error) {
	if seq != s.seq+1 {
		return protocol.Changes{}, fmt.Errorf("round %d applied after round %d", seq, s.seq)
	}
	a := applier{State: s, round: r, seq: seq, touched: make([]bool, len(r.Items))}
	if err := a.run(); err != nil {
		return protocol.Changes{}, fmt.Errorf("round %d: %w", seq, err)
	}
	s.seq, s.at = seq, max(s.at, r.At)
	s.dropOutdated()
	a.changes.Cursor = protocol.Vector{{Region: s.region, N: seq}}
	return a.changes, nil
}
