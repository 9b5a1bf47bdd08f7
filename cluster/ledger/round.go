package ledger

import (
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// Type is what a record did. The values stand in the log and never change.
type Type uint8

// The types of records. All but the last three change items, each change is a
// movement.
const (
	TypeAdjust    Type = 1
	TypeCount     Type = 2
	TypeReserve   Type = 3
	TypeConfirm   Type = 4
	TypeRelease   Type = 5
	TypeExpire    Type = 6
	TypeExtend    Type = 7
	TypeSell      Type = 8
	TypeMove      Type = 9
	TypeConfigure Type = 10
	TypeGrant     Type = 11 // rights given to a region
	TypeAccept    Type = 12 // rights taken from a region
	TypeEpoch     Type = 13 // a node became the shard's owner
	TypeRotate    Type = 14 // keys and ended reservations of the window before last are forgotten
	TypeAbort     Type = 15 // an order over several shards was given up before it was decided
)

var typeNames = [...]string{
	"", "adjust", "count", "reserve", "confirm", "release", "expire", "extend", "sell", "move",
	"configure", "grant", "accept", "epoch", "rotate", "abort",
}

// String returns the movement type of protocol.Movement.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", t)
}

// Round is what one log message says: the records that were decided together and
// became true together.
type Round struct {
	At      protocol.Time      // never before the round that precedes it
	Nonce   uint64             // tells the author's own rounds from others'
	Items   []protocol.ItemKey // each once; events and lines point into it
	Records []Record

	// early: read in the first format, though a record has a second byte of flags.
	// Rounds were written so for some hours, before the second format.
	early bool
}

// Record is one command's, or one expiry's, effect.
type Record struct {
	Type        Type
	Key         string // "" for what no client asked for
	Print       uint64 // fingerprint of the command
	Reason      string
	Reference   string
	Subject     string
	Address     string // the caller came from
	Reservation string
	ExpiresAt   protocol.Time // TypeReserve, TypeExtend
	User        string        // TypeReserve
	Lines       []LineRef     // TypeReserve
	Epoch       uint64        // TypeEpoch: of the owner; TypeRotate: generation
	Node        string        // TypeEpoch
	Events      []Event
	Outcome     []byte          // the answer, for replays; with a Key only
	Order       *protocol.Order // TypeReserve, TypeSell: whose part or decision it is, if any; TypeAbort

	// By is the session that asked, for the node that decided; it is not stored.
	By uint64

	id keyHash // of Key; not stored
}

// LineRef is a line whose item is Items[Item] of its round.
type LineRef struct {
	Item     uint32
	Quantity int64
}

// Event is one item's change, as totals after it.
type Event struct {
	Item                          uint32
	Version                       uint64
	Received, Removed, Sold, Held int64
	OnHandDelta, ReservedDelta    int64
	Previous                      Position // of the item's movement before; zero: none
	Safety, Backorder, Low        int64    // TypeConfigure
	Peer                          string   // TypeGrant, TypeAccept
	Total                         int64    // TypeGrant, TypeAccept
}

// The formats of a round. It is written in the first one that has what it needs, so
// that earlier versions read all they can, and say why they don't read the others.
const (
	roundFormat  = 1
	roundFormat2 = 2 // a record has a second byte of flags
)

// The least that the parts of a round take in bytes.
const (
	recordBytesMin  = 4
	lineRefBytesMin = 2
	eventBytesMin   = 10
)

// Record flags: which optional fields follow.
const (
	hasKey = 1 << iota
	hasNote
	hasReservation
	hasLines
	hasEpoch
	hasEvents
	hasOrder
	hasMore // a second byte of flags follows
)

// Of a record's second byte of flags.
const hasAddress = 1 << 0

// AppendTo appends the round's stored form, described in DESIGN.md.
func (r *Round) AppendTo(b []byte) []byte {
	w := writer{b}
	w.byte(r.format())
	w.int(int64(r.At))
	w.fixed(r.Nonce)
	w.uint(uint64(len(r.Items)))
	for _, k := range r.Items {
		w.string(k.SKU)
		w.string(k.Location)
	}
	w.uint(uint64(len(r.Records)))
	for i := range r.Records {
		w.record(&r.Records[i])
	}
	return w.b
}

func (r *Round) format() byte {
	if !r.early && r.hasMore() {
		return roundFormat2
	}
	return roundFormat
}

// hasMore tells whether a record has a second byte of flags.
func (r *Round) hasMore() bool {
	for i := range r.Records {
		if r.Records[i].hasMore() {
			return true
		}
	}
	return false
}

func (rec *Record) hasMore() bool { return rec.Address != "" }

func (rec *Record) flags() byte {
	var f byte
	set := func(bit byte, on bool) {
		if on {
			f |= bit
		}
	}
	set(hasKey, rec.Key != "")
	set(hasNote, rec.Reason != "" || rec.Reference != "" || rec.Subject != "")
	set(hasReservation, rec.Reservation != "")
	set(hasLines, len(rec.Lines) > 0)
	set(hasEpoch, rec.Epoch != 0)
	set(hasEvents, len(rec.Events) > 0)
	set(hasOrder, rec.Order != nil)
	set(hasMore, rec.hasMore())
	return f
}

func (w *writer) record(rec *Record) {
	f := rec.flags()
	w.byte(byte(rec.Type))
	w.byte(f)
	if f&hasKey != 0 {
		w.string(rec.Key)
		w.fixed(rec.Print)
		w.bytes(rec.Outcome)
	}
	if f&hasNote != 0 {
		w.string(rec.Reason)
		w.string(rec.Reference)
		w.string(rec.Subject)
	}
	if f&hasReservation != 0 {
		w.string(rec.Reservation)
		w.int(int64(rec.ExpiresAt))
	}
	if f&hasLines != 0 {
		w.string(rec.User)
		w.uint(uint64(len(rec.Lines)))
		for _, l := range rec.Lines {
			w.uint(uint64(l.Item))
			w.int(l.Quantity)
		}
	}
	if f&hasEpoch != 0 {
		w.uint(rec.Epoch)
		w.string(rec.Node)
	}
	if f&hasEvents != 0 {
		w.uint(uint64(len(rec.Events)))
		for i := range rec.Events {
			w.event(&rec.Events[i], rec.Type)
		}
	}
	if f&hasOrder != 0 {
		w.order(rec.Order)
	}
	if f&hasMore != 0 {
		w.byte(hasAddress)
		w.string(rec.Address)
	}
}

func (w *writer) order(o *protocol.Order) {
	w.string(o.ID)
	w.uint(uint64(o.Home))
	w.bool(o.Part)
	w.lines(o.Lines)
	w.strings(o.Parts)
}

func (r *reader) order() *protocol.Order {
	return &protocol.Order{ID: r.string(), Home: int(r.index(shardsMax)), Part: r.bool(), Lines: r.lines(), Parts: r.strings()}
}

func (w *writer) event(ev *Event, t Type) {
	w.uint(uint64(ev.Item))
	w.uint(ev.Version)
	w.int(ev.Received)
	w.int(ev.Removed)
	w.int(ev.Sold)
	w.int(ev.Held)
	w.int(ev.OnHandDelta)
	w.int(ev.ReservedDelta)
	w.uint(ev.Previous.Seq)
	w.uint(uint64(ev.Previous.Index))
	switch t {
	case TypeConfigure:
		w.int(ev.Safety)
		w.int(ev.Backorder)
		w.int(ev.Low)
	case TypeGrant, TypeAccept:
		w.string(ev.Peer)
		w.int(ev.Total)
	}
}

// Decode reads a round's stored form. Outcomes alias b, and all strings share one
// copy of it.
func Decode(b []byte) (*Round, error) {
	r := reader{b: b, text: string(b)}
	format := r.byte()
	if r.err == nil && format != roundFormat && format != roundFormat2 {
		return nil, fmt.Errorf("round of format %d, this version reads %d and %d: a later version of stockmesh wrote it, run that one or restore a backup of before", format, roundFormat, roundFormat2)
	}
	round := &Round{At: protocol.Time(r.int()), Nonce: r.fixed()}
	round.Items = make([]protocol.ItemKey, r.count(2))
	for i := range round.Items {
		round.Items[i] = protocol.ItemKey{SKU: r.string(), Location: r.string()}
	}
	round.Records = make([]Record, r.count(recordBytesMin))
	for i := range round.Records {
		r.record(&round.Records[i], len(round.Items))
	}
	more := round.hasMore()
	if !more && format == roundFormat2 {
		r.fail("a format without its flags")
	}
	round.early = more && format == roundFormat
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("round: %w", err)
	}
	return round, nil
}

func (r *reader) record(rec *Record, items int) {
	rec.Type = Type(r.byte())
	if rec.Type < TypeAdjust || rec.Type > TypeAbort {
		r.fail("unknown record type")
	}
	f := r.byte()
	if f&hasKey != 0 {
		key := r.bytes()
		rec.id = hashKey(key)
		rec.Key, rec.Print, rec.Outcome = r.share(key), r.fixed(), r.outcome()
	}
	if f&hasNote != 0 {
		rec.Reason, rec.Reference, rec.Subject = r.string(), r.string(), r.string()
	}
	if f&hasReservation != 0 {
		rec.Reservation, rec.ExpiresAt = r.string(), protocol.Time(r.int())
	}
	if f&hasLines != 0 {
		rec.User = r.string()
		rec.Lines = make([]LineRef, r.count(lineRefBytesMin))
		for i := range rec.Lines {
			rec.Lines[i] = LineRef{Item: r.index(items), Quantity: r.int()}
		}
	}
	if f&hasEpoch != 0 {
		rec.Epoch, rec.Node = r.uint(), r.string()
	}
	if f&hasEvents != 0 {
		rec.Events = r.eventsOf(r.count(eventBytesMin))
		for i := range rec.Events {
			r.event(&rec.Events[i], rec.Type, items)
		}
	}
	if f&hasOrder != 0 {
		rec.Order = r.order()
	}
	if f&hasMore != 0 {
		r.more(rec)
	}
	if f == 0 || f != rec.flags() {
		r.fail("flags without their fields")
	}
}

// more reads what a record's second byte of flags says.
func (r *reader) more(rec *Record) {
	if f := r.byte(); f != hasAddress {
		r.fail("unknown flags")
	}
	rec.Address = r.string()
}

// eventsOf carves n events out of a larger piece, which is no larger than what is
// left to read may need.
func (r *reader) eventsOf(n int) []Event {
	const piece = 64
	if len(r.events) < n {
		r.events = make([]Event, max(n, min(piece, len(r.b)/eventBytesMin)))
	}
	events := r.events[:n:n]
	r.events = r.events[n:]
	return events
}

func (r *reader) event(ev *Event, t Type, items int) {
	*ev = Event{
		Item: r.index(items), Version: r.uint(),
		Received: r.int(), Removed: r.int(), Sold: r.int(), Held: r.int(),
		OnHandDelta: r.int(), ReservedDelta: r.int(),
		Previous: Position{Seq: r.uint(), Index: r.index(1 << 31)},
	}
	switch t {
	case TypeConfigure:
		ev.Safety, ev.Backorder, ev.Low = r.int(), r.int(), r.int()
	case TypeGrant, TypeAccept:
		ev.Peer, ev.Total = r.string(), r.int()
	}
}

// Movement returns the n-th movement of a round that stands at seq in the log of
// a region's shard, and the place of the item's movement before it; false if the
// round has no such movement.
func (r *Round) Movement(region string, shard int, at Position) (m protocol.Movement, previous Position, ok bool) {
	n := int(at.Index)
	for i := range r.Records {
		rec := &r.Records[i]
		if n >= len(rec.Events) {
			n -= len(rec.Events)
			continue
		}
		ev := &rec.Events[n]
		key := r.Items[ev.Item]
		return protocol.Movement{
			Sequence: sequence(region, shard, at), At: r.At, Region: region, Type: rec.Type.String(),
			SKU: key.SKU, Location: key.Location,
			OnHandDelta: ev.OnHandDelta, ReservedDelta: ev.ReservedDelta,
			OnHand: ev.Received - ev.Removed - ev.Sold, Reserved: ev.Held,
			Key: rec.Key, Reservation: rec.Reservation,
			Reason: rec.Reason, Reference: rec.Reference, Subject: rec.Subject, Address: rec.Address,
		}, ev.Previous, true
	}
	return m, previous, false
}
