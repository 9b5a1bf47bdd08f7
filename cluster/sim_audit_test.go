package cluster

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// simAudit follows a region's log and checks each round as it is stored, against what the
// clients asked for and what the other regions' logs say. What the log says is true,
// whoever has heard of it.
type simAudit struct {
	world        *simWorld
	region       int
	seq          uint64
	at           protocol.Time
	items        map[protocol.ItemKey]*simItem
	reservations map[string]*simReservation
	effects      map[int][]simEffect // by command
	generation   uint64
}

// simItem is an item's row in every version.
type simItem struct {
	rows         []ledger.Row
	backorderMax int64
}

type simReservation struct {
	lines     []protocol.Line
	expiresAt protocol.Time
	ended     bool
}

// simEffect is a command's record.
type simEffect struct {
	seq, generation uint64
}

func newSimAudit(w *simWorld, region int) *simAudit {
	return &simAudit{
		world: w, region: region, items: make(map[protocol.ItemKey]*simItem),
		reservations: make(map[string]*simReservation), effects: make(map[int][]simEffect),
	}
}

func (a *simAudit) name() string { return a.world.regions[a.region].name }

func (a *simAudit) item(key protocol.ItemKey) *simItem {
	if a.items[key] == nil {
		a.items[key] = &simItem{}
	}
	return a.items[key]
}

// row is the newest version; one that was never written is empty.
func (a *simAudit) row(key protocol.ItemKey) ledger.Row {
	if it := a.items[key]; it != nil && len(it.rows) > 0 {
		return it.rows[len(it.rows)-1]
	}
	return ledger.Row{Low: -1}
}

// round checks one round that was just stored.
func (a *simAudit) round(data []byte) {
	a.seq++
	r, err := ledger.Decode(data)
	if err != nil {
		a.world.fail("wire", "round %d of %s: %v", a.seq, a.name(), err)
		return
	}
	a.checkTime(r)
	index := uint32(0)
	for i := range r.Records {
		rec := &r.Records[i]
		a.world.tell("    %s %d: %s", a.name(), a.seq, simRecord(r, rec))
		want := a.record(r, rec)
		for j := range rec.Events {
			ev := &rec.Events[j]
			key := r.Items[ev.Item]
			a.event(r, rec, ev, want[key], ledger.Position{Seq: a.seq, Index: index})
			delete(want, key)
			index++
		}
		if len(want) > 0 {
			a.world.fail("I1", "%s of %s leaves out %v", rec.Type, a.name(), slices.Collect(maps.Keys(want)))
		}
	}
	for _, key := range r.Items {
		a.world.checkItem(key)
	}
}

func simRecord(r *ledger.Round, rec *ledger.Record) string {
	s := fmt.Sprint(rec.Type, " ", rec.Subject, " ", rec.Reservation)
	for i := range rec.Events {
		ev := &rec.Events[i]
		s += fmt.Sprintf(" [%v v%d received %d removed %d sold %d held %d %s %d]", r.Items[ev.Item], ev.Version, ev.Received, ev.Removed, ev.Sold, ev.Held, ev.Peer, ev.Total)
	}
	return s
}

// checkTime is a part of I9: no owner's time runs ahead of every clock of its region.
func (a *simAudit) checkTime(r *ledger.Round) {
	if wall := a.world.regions[a.region].maxWall; r.At < a.at || int64(r.At) > wall {
		a.world.fail("I9", "round %d of %s is of %d, the one before of %d, the clock showed %d", a.seq, a.name(), r.At, a.at, wall)
	}
	a.at = r.At
}

// simChange is what a record must do to an item's totals.
type simChange struct{ received, removed, sold, held int64 }

// simWants is what a record must do to each item.
type simWants map[protocol.ItemKey]simChange

func (m simWants) add(key protocol.ItemKey, c simChange) {
	have := m[key]
	m[key] = simChange{have.received + c.received, have.removed + c.removed, have.sold + c.sold, have.held + c.held}
}

// lines adds what is wanted of each unit.
func (m simWants) lines(lines []protocol.Line, sold, held int64) {
	for _, l := range lines {
		m.add(protocol.ItemKey{SKU: l.SKU, Location: l.Location}, simChange{sold: sold * l.Quantity, held: held * l.Quantity})
	}
}

// correct adds what a stock-take or a delivery wants.
func (m simWants) correct(c *protocol.Command, delta int64) {
	m.add(protocol.ItemKey{SKU: c.SKU, Location: c.Location}, simChange{received: max(0, delta), removed: max(0, -delta)})
}

// record follows a record and tells what it must do to each item.
func (a *simAudit) record(r *ledger.Round, rec *ledger.Record) simWants {
	want := make(simWants)
	var command protocol.Command
	if rec.Key != "" {
		c := a.effect(rec)
		if c == nil {
			return want
		}
		command = c.command
	}
	switch rec.Type {
	case ledger.TypeSell:
		want.lines(command.Lines, 1, 0)
	case ledger.TypeReserve:
		want.lines(command.Lines, 0, 1)
		a.reservations[rec.Reservation] = &simReservation{lines: command.Lines, expiresAt: rec.ExpiresAt}
	case ledger.TypeConfirm:
		want.lines(a.checkEnd(rec), 1, -1)
	case ledger.TypeRelease, ledger.TypeExpire:
		want.lines(a.checkEnd(rec), 0, -1)
	case ledger.TypeExtend:
		want.lines(a.checkEnd(rec), 0, 0)
	case ledger.TypeAdjust, ledger.TypeConfigure:
		want.correct(&command, command.Delta)
	case ledger.TypeCount: // depends on rows that were known: any is right
		want.correct(&command, rec.Events[0].OnHandDelta)
	case ledger.TypeMove:
		want.add(protocol.ItemKey{SKU: command.SKU, Location: command.From}, simChange{removed: command.Quantity})
		want.add(protocol.ItemKey{SKU: command.SKU, Location: command.To}, simChange{received: command.Quantity})
	case ledger.TypeGrant, ledger.TypeAccept:
		want.add(r.Items[rec.Events[0].Item], simChange{})
	case ledger.TypeRotate:
		a.generation = rec.Epoch
	}
	return want
}

// effect is I4 and a part of I6: a command takes effect once within the window, and not
// after it was refused for good.
func (a *simAudit) effect(rec *ledger.Record) *simCommand {
	w := a.world
	c := w.commandOf(rec.Subject)
	if c == nil || c.region != a.region {
		w.fail("I6", "%s stores a %s of %q, who asked for nothing here", a.name(), rec.Type, rec.Subject)
		return nil
	}
	if a.remembers(c) {
		w.fail("I4", "command %v took effect twice in %s: %v and in round %d", c, a.name(), a.effects[c.id], a.seq)
	}
	if c.verdict == simRefused && len(c.open) == 0 {
		w.fail("I6", "command %v was refused and took effect in round %d", c, a.seq)
	}
	if string(c.command.Op) != rec.Type.String() {
		w.fail("I6", "command %v became a %s", c, rec.Type)
	}
	a.effects[c.id] = append(a.effects[c.id], simEffect{a.seq, a.generation})
	return c
}

// remembers tells whether a command took effect and must be known still.
func (a *simAudit) remembers(c *simCommand) bool {
	e := a.effects[c.id]
	return len(e) > 0 && e[len(e)-1].generation+1 >= a.generation
}

// checkEnd is I8 and I9: a reservation ends once, and expires by the clock only.
func (a *simAudit) checkEnd(rec *ledger.Record) []protocol.Line {
	r := a.reservations[rec.Reservation]
	if r == nil || r.ended {
		a.world.fail("I8", "%s of %q in %s, which is not held", rec.Type, rec.Reservation, a.name())
		return nil
	}
	switch {
	case rec.Type == ledger.TypeExtend && rec.ExpiresAt < r.expiresAt:
		a.world.fail("I9", "%q in %s was shortened", rec.Reservation, a.name())
	case rec.Type == ledger.TypeExtend:
		r.expiresAt = rec.ExpiresAt
	default:
		r.ended = true
	}
	if rec.Type == ledger.TypeExpire && a.at < r.expiresAt {
		a.world.fail("I9", "%q in %s of %d expired at %d", rec.Reservation, a.name(), r.expiresAt, a.at)
	}
	return r.lines
}

// event checks what a record did to an item and follows it.
func (a *simAudit) event(r *ledger.Round, rec *ledger.Record, ev *ledger.Event, want simChange, at ledger.Position) {
	w, key := a.world, r.Items[ev.Item]
	it, old := a.item(key), a.row(key)
	row := old
	row.Version, row.UpdatedAt, row.Last = old.Version+1, r.At, at
	row.Received += want.received
	row.Removed += want.removed
	row.Sold += want.sold
	row.Held += want.held
	w.units[key] += want.received - want.removed - want.sold
	switch {
	case ev.Version != row.Version:
		w.fail("I7", "%s of %v in %s: version %d follows %d", rec.Type, key, a.name(), ev.Version, old.Version)
	case ev.Received != row.Received || ev.Removed != row.Removed || ev.Sold != row.Sold || ev.Held != row.Held:
		w.fail("I1", "%s of %v in %s: %+v, should be %+v", rec.Type, key, a.name(), *ev, row)
	case ev.Previous != old.Last:
		w.fail("history", "%s of %v in %s points to %v, not %v", rec.Type, key, a.name(), ev.Previous, old.Last)
	}
	switch rec.Type {
	case ledger.TypeConfigure:
		row.Safety, row.Backorder, row.Low = ev.Safety, ev.Backorder, ev.Low
		it.backorderMax = max(it.backorderMax, ev.Backorder)
	case ledger.TypeGrant:
		row.Granted = a.total(row.Granted, rec, ev)
	case ledger.TypeAccept:
		row.Accepted = a.total(row.Accepted, rec, ev)
	}
	it.rows = append(it.rows, row)
	a.checkBounds(rec.Type, key, &old, &row)
}

// total is a running total after an event; it can only grow.
func (a *simAudit) total(totals map[string]int64, rec *ledger.Record, ev *ledger.Event) map[string]int64 {
	if ev.Total <= totals[ev.Peer] {
		a.world.fail("I3", "%s of %s: total %d after %d", rec.Type, a.name(), ev.Total, totals[ev.Peer])
	}
	totals = maps.Clone(totals)
	if totals == nil {
		totals = make(map[string]int64)
	}
	totals[ev.Peer] = ev.Total
	return totals
}

// checkBounds is I2: no sale, hold, grant or removal takes more than there is, and no
// other change takes anything.
func (a *simAudit) checkBounds(t ledger.Type, key protocol.ItemKey, old, row *ledger.Row) {
	low := old.Share()
	switch t {
	case ledger.TypeSell, ledger.TypeReserve, ledger.TypeGrant:
		low = row.Safety - row.Backorder
	case ledger.TypeAdjust, ledger.TypeCount, ledger.TypeMove:
		if row.Removed > old.Removed {
			low = 0
		}
	}
	if row.Share() < low || row.Held < 0 {
		a.world.fail("I2", "%s of %v in %s: share %d (bound %d), held %d", t, key, a.name(), row.Share(), low, row.Held)
	}
}

// checkRow says that a row is the one that the log gives its version. It is I13 for a
// node's own rows, I10 for those it shows to others. That it stands in the log is I5.
func (a *simAudit) checkRow(name string, key protocol.ItemKey, row *ledger.Row) {
	it := a.items[key]
	if it == nil || row.Version == 0 || row.Version > uint64(len(it.rows)) {
		a.world.fail("I5", "%v in %s: version %d was never stored", key, a.name(), row.Version)
		return
	}
	if want := &it.rows[row.Version-1]; !sameSimRow(row, want) {
		a.world.fail(name, "%v in %s: %+v, the log says %+v", key, a.name(), *row, *want)
	}
}

func sameSimRow(a, b *ledger.Row) bool {
	x, y := *a, *b
	same := maps.Equal(x.Granted, y.Granted) && maps.Equal(x.Accepted, y.Accepted)
	return same && x.Version == y.Version && x.Received == y.Received && x.Removed == y.Removed && x.Sold == y.Sold &&
		x.Held == y.Held && x.Safety == y.Safety && x.Backorder == y.Backorder && x.Low == y.Low &&
		x.UpdatedAt == y.UpdatedAt && x.Last == y.Last
}

// checkTold is I3 on the wire: only rights whose grant is stored are told of.
func (a *simAudit) checkTold(to int, d *deal) {
	for _, t := range d.Answers {
		key := protocol.ItemKey{SKU: t.SKU, Location: t.Location}
		row := a.row(key)
		if given := row.Granted[a.world.regions[to].name]; t.Total > given {
			a.world.fail("I3", "%s tells of %d units of %v, the log says %d", a.name(), t.Total, key, given)
		}
	}
}
