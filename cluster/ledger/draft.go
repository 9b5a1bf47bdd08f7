package ledger

import (
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// Draft is the round being decided. It sees the state with its own pending
// events on top, and leaves the state alone, so an uncommitted round is dropped
// by forgetting it. A Draft is reused by Reset.
type Draft struct {
	state   *State
	round   Round
	entries []entry // every item that a command of the round named
	index   map[protocol.ItemKey]uint32

	reservations map[string]*reservation
	orders       map[string]OrderState
	keys         map[keyHash]int // index of the record that holds the outcome
	movements    uint32
	bytes        int // of the records before measured and items before named, see Size
	measured     int
	named        int
	scratch      []byte
	touched      []uint32
	taken        map[string]int64 // units of rights accepted, by region

	events   []Event // of the round
	outcomes []byte  // of the round
	answers  answers
}

// entry is an item with the pending events. It is brought into the round by its
// first event, so that a refused command leaves no trace.
type entry struct {
	key   protocol.ItemKey
	row   Row
	parts []peerPart // the other regions'
	need  int64      // scratch of sum
	place int        // in round.Items, -1 until its first event
}

// NewDraft returns a draft over the state. Call Reset before use.
func NewDraft(s *State) *Draft {
	return &Draft{
		state: s, index: make(map[protocol.ItemKey]uint32),
		reservations: make(map[string]*reservation), orders: make(map[string]OrderState), keys: make(map[keyHash]int),
	}
}

// Reset forgets everything pending and starts a round at the given time, or at
// the last round's time where the clock went back. Nonce must not repeat.
func (d *Draft) Reset(now protocol.Time, nonce uint64) {
	d.round.At, d.round.Nonce = max(now, d.state.at), nonce
	clear(d.round.Records)
	d.round.Items, d.round.Records = d.round.Items[:0], d.round.Records[:0]
	clear(d.entries)
	clear(d.events)
	d.entries, d.events, d.outcomes, d.movements = d.entries[:0], d.events[:0], d.outcomes[:0], 0
	d.bytes, d.measured, d.named = 0, 0, 0
	clear(d.index)
	clear(d.reservations)
	clear(d.orders)
	clear(d.keys)
	clear(d.taken)
}

// Round returns what was decided so far; it is valid until the next Reset.
func (d *Draft) Round() *Round { return &d.round }

// Empty reports whether there is nothing to commit.
func (d *Draft) Empty() bool { return len(d.round.Records) == 0 }

// Becomes says that a node takes over the shard.
func (d *Draft) Becomes(node string) {
	d.round.Records = append(d.round.Records, Record{Type: TypeEpoch, Epoch: d.state.epoch + 1, Node: node})
}

// Rotate forgets old keys if the present generation has lasted for window
// (milliseconds), and reports whether it did.
func (d *Draft) Rotate(windowMS int64) bool {
	s := d.state
	if s.generation > 0 && int64(d.round.At-s.rotatedAt) < windowMS {
		return false
	}
	d.round.Records = append(d.round.Records, Record{Type: TypeRotate, Epoch: s.generation + 1})
	return true
}

// Expire ends up to limit reservations whose time has come and returns how many.
func (d *Draft) Expire(limit int) int {
	due := d.state.due.until(d.round.At, limit, func(e expiry) bool {
		r := d.reservation(e.id) // may have ended or been extended in this very round
		return r != nil && r.State == protocol.Held && r.ExpiresAt == e.at
	})
	for _, e := range due {
		d.end(d.reservation(e.id), TypeExpire, Record{})
	}
	return len(due)
}

// entry returns the index of an item in d.entries, looking it up once a round.
func (d *Draft) entry(key protocol.ItemKey) uint32 {
	if i, ok := d.index[key]; ok {
		return i
	}
	e := entry{key: key, row: noRow(), place: -1}
	if id, ok := d.state.index[key]; ok {
		it := &d.state.items[id]
		e.key, e.row, e.parts = it.key, it.row, it.parts // the item's own strings outlive the command's
	}
	i := uint32(len(d.entries))
	d.entries = append(d.entries, e)
	d.index[e.key] = i
	return i
}

// Row returns an item's row with what the round has done to it so far. Its maps must
// not be changed.
func (d *Draft) Row(key protocol.ItemKey) Row { return d.entries[d.entry(key)].row }

// place returns the entry's index in the round's items.
func (d *Draft) place(i uint32) uint32 {
	e := &d.entries[i]
	if e.place < 0 {
		e.place = len(d.round.Items)
		d.round.Items = append(d.round.Items, e.key)
	}
	return uint32(e.place)
}

func (d *Draft) item(i uint32) protocol.Item {
	e := &d.entries[i]
	it := e.row.item(e.key, e.parts)
	switch {
	case len(e.parts) > 0:
		it.Version = string(appendVersions(nil, d.state.region, e.row.Version, e.parts))
	case e.row.Version > 0:
		it.Version = d.answers.version(d.state.region, e.row.Version)
	}
	return it
}

func (d *Draft) reservation(id string) *reservation {
	if r := d.reservations[id]; r != nil {
		return r
	}
	return d.state.reservation(id)
}

// eventsOf returns n events to be filled in. Those of earlier records stay valid
// when the backing array is outgrown.
func (d *Draft) eventsOf(n int) []Event {
	start := len(d.events)
	d.events = slices.Grow(d.events, n)[:start+n]
	return d.events[start : start+n : start+n]
}

// event makes a change pending: the row as it shall be becomes the working row,
// and its difference to the one before becomes an event.
func (d *Draft) event(ev *Event, i uint32, row *Row) {
	place := d.place(i)
	old := &d.entries[i].row
	row.Version = old.Version + 1
	*ev = Event{
		Item: place, Version: row.Version,
		Received: row.Received, Removed: row.Removed, Sold: row.Sold, Held: row.Held,
		OnHandDelta: row.OnHand() - old.OnHand(), ReservedDelta: row.Held - old.Held,
		Previous: old.Last,
		Safety:   row.Safety, Backorder: row.Backorder, Low: row.Low,
	}
	row.UpdatedAt = d.round.At
	row.Last = Position{Seq: d.state.seq + 1, Index: d.movements}
	d.movements++
	*old = *row
}

// changed is event for the only item of a record.
func (d *Draft) changed(i uint32, row *Row) []Event {
	events := d.eventsOf(1)
	d.event(&events[0], i, row)
	return events
}

// end finishes a reservation: what it held is given back, or sold.
func (d *Draft) end(r *reservation, t Type, rec Record) {
	rec.Type, rec.Reservation = t, r.ID
	items := d.sum(r.own())
	rec.Events = d.eventsOf(len(items))
	for n, i := range items {
		row, held := d.entries[i].row, d.entries[i].need
		row.Held -= held
		if t == TypeConfirm {
			row.Sold += held
		}
		d.event(&rec.Events[n], i, &row)
	}
	ended := *r
	ended.State = endState[t]
	d.reservations[r.ID] = &ended
	if r.decides() {
		d.orders[r.tie.order] = orderStates[ended.State]
	}
	d.round.Records = append(d.round.Records, rec)
}

// sum adds up the lines per item into need and returns the entries, each
// once, in order of first mention. The slice is valid until the next call.
func (d *Draft) sum(lines []protocol.Line) []uint32 {
	d.touched = d.touched[:0]
	for i := range lines {
		e := d.entry(protocol.ItemKey{SKU: lines[i].SKU, Location: lines[i].Location})
		if !slices.Contains(d.touched, e) {
			d.touched = append(d.touched, e)
			d.entries[e].need = 0
		}
		d.entries[e].need += lines[i].Quantity
	}
	return d.touched
}

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// newReservationID names a reservation by its home region, the time and its place
// in the log, so it is unique as long as the log is.
func (d *Draft) newReservationID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(d.round.At)<<16|uint64(d.state.shard)&0xffff)
	binary.BigEndian.PutUint64(b[8:], (d.state.seq+1)<<24|uint64(len(d.round.Records))&0xffffff)
	return d.state.region + "." + crockford.EncodeToString(b[:])
}

// shardsMax is how many shards a reservation's id can tell apart.
const shardsMax = 1 << 16

// ReservationShard returns the shard that made a reservation's id, false if no shard
// did.
func ReservationShard(id string) (shard int, ok bool) {
	_, name, _ := strings.Cut(id, ".")
	var b [16]byte
	if len(name) != crockford.EncodedLen(len(b)) {
		return 0, false
	}
	if n, err := crockford.Decode(b[:], []byte(name)); err != nil || n != len(b) {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(b[6:])), true
}
