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
	case TypeRotate:
		a.rotate(rec.Epoch, a.round.At)
		return nil
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

// open starts a reservation. Its lines share the items' own strings, so a million
// reservations of one SKU hold its name once; its other strings are copies, for
// the round's may be part of the whole round.
func (a *applier) open(rec *Record) {
	r := &reservation{protocol.Reservation{
		ID: strings.Clone(rec.Reservation), State: protocol.Held, ExpiresAt: rec.ExpiresAt, User: strings.Clone(rec.User),
		Lines: make([]protocol.Line, len(rec.Lines)),
	}}
	for i, l := range rec.Lines {
		key := a.items[a.ids[l.Item]].key
		r.Lines[i] = protocol.Line{SKU: key.SKU, Location: key.Location, Quantity: l.Quantity}
	}
	a.live[r.ID] = r
	a.due.push(expiry{r.ExpiresAt, r.ID})
	a.report(r, rec)
}

func (a *applier) change(rec *Record) error {
	r := a.live[rec.Reservation]
	if r == nil {
		if a.seq <= a.settled {
			return nil // the snapshot already held its end
		}
		return fmt.Errorf("%s of %q, which is not held", rec.Type, rec.Reservation)
	}
	// Readers may hold the old value, so a changed reservation is a new one.
	c := &reservation{r.Reservation}
	if rec.Type == TypeExtend {
		c.ExpiresAt = rec.ExpiresAt
		a.live[c.ID] = c
		a.due.push(expiry{c.ExpiresAt, c.ID})
	} else {
		c.State = endState[rec.Type]
		delete(a.live, c.ID)
		a.now.ended[c.ID] = c
	}
	a.report(c, rec)
	return nil
}

var endState = map[Type]protocol.State{
	TypeConfirm: protocol.Confirmed, TypeRelease: protocol.Released, TypeExpire: protocol.Expired,
}

func (a *applier) report(r *reservation, rec *Record) {
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
