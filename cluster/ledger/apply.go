package ledger

import (
	"fmt"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// applier is one Apply under way.
type applier struct {
	*State
	round   *Round
	seq     uint64
	index   uint32 // of the next movement
	ids     []protocol.ItemID
	touched []bool // by place in round.Items
	changes protocol.Changes
}

func (a *applier) run() error {
	a.ids = make([]protocol.ItemID, len(a.round.Items))
	for i, key := range a.round.Items {
		a.ids[i] = a.add(key)
	}
	for i := range a.round.Records {
		if err := a.record(&a.round.Records[i]); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return nil
}

func (a *applier) record(rec *Record) error {
	for i := range rec.Events {
		if err := a.event(&rec.Events[i], rec); err != nil {
			return err
		}
	}
	switch rec.Type {
	case TypeEpoch:
		a.epoch = rec.Epoch
		return nil
	case TypeAbort:
		a.decided(rec, OrderDropped)
		return nil
	case TypeRotate:
		a.rotate(rec.Epoch, a.round.At)
		return nil
	case TypeSell:
		a.decided(rec, OrderSold)
	case TypeReserve:
		a.open(rec)
	case TypeConfirm, TypeRelease, TypeExpire, TypeExtend:
		if err := a.change(rec); err != nil {
			return err
		}
	}
	if rec.Key != "" {
		a.now.keys.put(rec.id, rec.Print, rec.Outcome)
	}
	return nil
}

func (a *applier) event(ev *Event, rec *Record) error {
	id := a.ids[ev.Item]
	row := &a.items[id].row
	index := a.index
	a.index++
	if a.seq <= a.settled && ev.Version <= row.Version {
		return nil // the snapshot already held it
	}
	if ev.Version != row.Version+1 {
		return fmt.Errorf("%q at %q: version %d follows %d", a.items[id].key.SKU, a.items[id].key.Location, ev.Version, row.Version)
	}
	ev.applyTo(row, rec.Type)
	if rec.Type == TypeAccept || rec.Type == TypeGrant {
		a.owe(id, &a.items[id])
	}
	row.UpdatedAt = a.round.At
	row.Last = Position{a.seq, index}
	if !a.touched[ev.Item] {
		a.touched[ev.Item] = true
		a.changes.Items = append(a.changes.Items, id)
	}
	return nil
}

// applyTo sets the totals of a row to what the event says they are afterwards.
func (ev *Event) applyTo(row *Row, t Type) {
	row.Version = ev.Version
	row.Received, row.Removed, row.Sold, row.Held = ev.Received, ev.Removed, ev.Sold, ev.Held
	switch t {
	case TypeConfigure:
		row.Safety, row.Backorder, row.Low = ev.Safety, ev.Backorder, ev.Low
	case TypeGrant:
		row.Granted = withTotal(row.Granted, strings.Clone(ev.Peer), ev.Total)
	case TypeAccept:
		row.Accepted = withTotal(row.Accepted, strings.Clone(ev.Peer), ev.Total)
	}
}

// decided remembers an order that ended with its decision.
func (a *applier) decided(rec *Record, state OrderState) {
	if rec.Order != nil {
		a.now.orders[keyID(rec.Order.ID)] = state
	}
}

// open starts a reservation. Its lines share the items' own strings, so a million
// reservations of one SKU hold its name once; its other strings are copies, for
// the round's may be part of the whole round.
func (a *applier) open(rec *Record) {
	r := &reservation{Reservation: protocol.Reservation{
		ID: strings.Clone(rec.Reservation), State: protocol.Held, ExpiresAt: rec.ExpiresAt, User: strings.Clone(rec.User),
		Lines: make([]protocol.Line, len(rec.Lines)),
	}}
	for i, l := range rec.Lines {
		key := a.items[a.ids[l.Item]].key
		r.Lines[i] = protocol.Line{SKU: key.SKU, Location: key.Location, Quantity: l.Quantity}
	}
	if o := rec.Order; o != nil {
		r.tie = newTie(o, a.round.At, r.Lines)
		if !o.Part {
			r.Lines = a.named(o.Lines)
		}
	}
	a.hold(r)
	a.report(r, rec)
}

// named copies lines of any shard, sharing the strings of this one's items.
func (a *applier) named(lines []protocol.Line) []protocol.Line {
	named := make([]protocol.Line, len(lines))
	for i, l := range lines {
		if id, ok := a.State.index[protocol.ItemKey{SKU: l.SKU, Location: l.Location}]; ok {
			key := a.items[id].key
			named[i] = protocol.Line{SKU: key.SKU, Location: key.Location, Quantity: l.Quantity}
			continue
		}
		named[i] = protocol.Line{SKU: strings.Clone(l.SKU), Location: strings.Clone(l.Location), Quantity: l.Quantity}
	}
	return named
}

func (a *applier) change(rec *Record) error {
	r := a.live[rec.Reservation]
	if r == nil {
		if a.seq <= a.settled {
			return nil // the snapshot already held its end
		}
		return fmt.Errorf("%s of %q, which is not held", rec.Type, rec.Reservation)
	}
	if rec.Type != TypeExtend {
		a.report(a.end(r, endState[rec.Type]), rec)
		return nil
	}
	// Readers may hold the old value, so a changed reservation is a new one.
	extended := *r
	extended.ExpiresAt = rec.ExpiresAt
	a.hold(&extended)
	a.report(&extended, rec)
	return nil
}

var endState = map[Type]protocol.State{
	TypeConfirm: protocol.Confirmed, TypeRelease: protocol.Released, TypeExpire: protocol.Expired,
}

// report tells watchers of a reservation. They see an order as what its home says:
// its parts are not theirs.
func (a *applier) report(r *reservation, rec *Record) {
	if r.isPart() {
		return
	}
	a.changes.Reservations = append(a.changes.Reservations, protocol.ReservationChange{Reservation: r.Reservation, By: rec.By})
}

// rotate forgets what is older than a window. The number makes it idempotent.
func (s *State) rotate(generation uint64, at protocol.Time) {
	if generation <= s.generation {
		return
	}
	s.generation, s.rotatedAt = generation, at
	s.past, s.now = s.now, newGeneration()
}
