package ledger

import (
	"strings"
	"unicode/utf8"

	"github.com/stockmesh/stockmesh/protocol"
)

// Decide answers a write, which must have passed Check, by setting the call's
// Result, Err and Replayed. A success is pending until the round is committed,
// and must not be told to anybody before; a refusal leaves no trace.
func (d *Draft) Decide(call *protocol.Call) {
	c := &call.Command
	// A call of a dropped round comes here again with its old answer.
	call.Result, call.Err, call.Replayed = protocol.Result{}, nil, false
	if c.Op == protocol.OpSettle || c.Op == protocol.OpResolve {
		call.Result, call.Err = d.follow(call)
		return
	}
	d.scratch = append(d.scratch[:0], c.Key...)
	id := hashKey(d.scratch)
	var print uint64
	print, d.scratch = fingerprint(c, d.scratch)
	if d.replay(call, id, print) {
		return
	}
	rec := Record{
		Key: c.Key, Print: print, Reason: c.Reason, Reference: c.Reference,
		Subject: call.Subject, Address: addressOf(call), By: call.Session, id: id,
	}
	call.Result, call.Err = d.decide(c, rec)
	if call.Err != nil {
		return
	}
	last := len(d.round.Records) - 1
	start := len(d.outcomes)
	d.outcomes = appendOutcome(d.outcomes, &call.Result)
	d.round.Records[last].Outcome = d.outcomes[start:len(d.outcomes):len(d.outcomes)]
	d.keys[id] = last
}

// replay answers a key that is remembered, or pending in this very round.
func (d *Draft) replay(call *protocol.Call, id keyHash, print uint64) bool {
	before, outcome, ok := d.state.remembered(id)
	if i, pending := d.keys[id]; pending {
		before, outcome, ok = d.round.Records[i].Print, d.round.Records[i].Outcome, true
	}
	if !ok {
		return false
	}
	if before != print {
		call.Err = protocol.NewError(protocol.CodeKeyReused, "key %q was used for a different command before", call.Command.Key)
		return true
	}
	result := outcomeOf(outcome)
	if r := result.Reservation; r != nil && !call.Command.Within.Covers(r.User, r.Lines) {
		call.Err = NoReservation(call.Command.Reservation)
		return true
	}
	call.Result, call.Replayed = result, true
	return true
}

// addressBytesMax bounds what a record keeps of where its caller came from: every address
// fits, and nothing that only looks like one costs the log more.
const addressBytesMax = 64

func addressOf(call *protocol.Call) string {
	a := call.Address
	if len(a) <= addressBytesMax && utf8.ValidString(a) {
		return a
	}
	return strings.ToValidUTF8(a[:min(len(a), addressBytesMax)], "")
}

// decide appends the record of a command that is allowed.
func (d *Draft) decide(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	switch c.Op {
	case protocol.OpAdjust:
		return d.adjust(c, rec)
	case protocol.OpCount:
		return d.count(c, rec)
	case protocol.OpSell:
		return d.sell(c, rec)
	case protocol.OpReserve:
		return d.reserve(c, rec)
	case protocol.OpConfirm, protocol.OpRelease:
		return d.finish(c, rec)
	case protocol.OpExtend:
		return d.extend(c, rec)
	case protocol.OpMove:
		return d.move(c, rec)
	case protocol.OpConfigure:
		return d.configure(c, rec)
	}
	return protocol.Result{}, protocol.BadRequest("%s is not a write", c.Op)
}

func (d *Draft) checkVersion(c *protocol.Command, i uint32) *protocol.Error {
	if c.IfVersion == nil {
		return nil
	}
	it := d.item(i)
	if it.Version == *c.IfVersion {
		return nil
	}
	err := protocol.NewError(protocol.CodeVersionConflict, "%q at %q is at version %q, not %q", it.SKU, it.Location, it.Version, *c.IfVersion)
	err.Details = &protocol.Details{Item: &it}
	return err
}

var errTotal = protocol.BadRequest("a total would leave +-(2^53-1)")

func (d *Draft) adjust(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	i := d.entry(protocol.ItemKey{SKU: c.SKU, Location: c.Location})
	if err := d.checkVersion(c, i); err != nil {
		return protocol.Result{}, err
	}
	rec.Type = TypeAdjust
	return d.correct(i, c.Delta, rec)
}

func (d *Draft) count(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	i := d.entry(protocol.ItemKey{SKU: c.SKU, Location: c.Location})
	if err := d.checkVersion(c, i); err != nil {
		return protocol.Result{}, err
	}
	rec.Type = TypeCount
	on := d.entries[i].row.OnHand()
	for _, p := range d.entries[i].parts { // what other regions have was counted too
		on += p.onHand
	}
	return d.correct(i, *c.OnHand-on, rec)
}

// correct brings units in or takes units out that nobody bought. A stock take
// that finds what was expected is a movement of zero.
func (d *Draft) correct(i uint32, delta int64, rec Record) (protocol.Result, *protocol.Error) {
	row := d.entries[i].row
	if delta >= 0 {
		row.Received += delta
	} else {
		if row.Removable() < -delta {
			return protocol.Result{}, d.short(d.shortage(i, -delta, row.Removable()))
		}
		row.Removed -= delta
	}
	if !row.totalsFit() {
		return protocol.Result{}, errTotal
	}
	rec.Events = d.changed(i, &row)
	return d.record(protocol.KindItem, rec, i)
}

// record makes a record pending and answers with its items as they now are.
func (d *Draft) record(kind protocol.Kind, rec Record, changed ...uint32) (protocol.Result, *protocol.Error) {
	d.round.Records = append(d.round.Records, rec)
	items := d.answers.items(len(changed))
	for n, i := range changed {
		items[n] = d.item(i)
	}
	return protocol.Result{Kind: kind, Items: items}, nil
}

func (d *Draft) shortage(i uint32, requested, available int64) protocol.Shortage {
	e := &d.entries[i]
	return protocol.Shortage{
		SKU: e.key.SKU, Location: e.key.Location, Requested: requested, Available: available, Elsewhere: elsewhere(e.parts),
	}
}

func (d *Draft) short(lines ...protocol.Shortage) *protocol.Error {
	l := lines[0]
	err := protocol.NewError(protocol.CodeInsufficientStock, "%d of %q at %q requested, %d available", l.Requested, l.SKU, l.Location, l.Available)
	if n := len(lines) - 1; n > 0 {
		err.Message += ", and others"
	}
	err.Details = &protocol.Details{Lines: lines}
	return err
}

// enough checks that every summed line can be served and stays in range.
func (d *Draft) enough(items []uint32) *protocol.Error {
	var missing []protocol.Shortage
	for _, i := range items {
		if free := d.entries[i].row.Free(); free < d.entries[i].need {
			missing = append(missing, d.shortage(i, d.entries[i].need, free))
		}
	}
	if len(missing) > 0 {
		return d.short(missing...)
	}
	return nil
}

func (d *Draft) sell(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	rec.Type = TypeSell
	if c.Order == nil {
		return d.take(c, rec)
	}
	order, err := d.orderOf(c)
	if err != nil {
		return protocol.Result{}, err
	}
	rec.Order = order
	res, err := d.take(c, rec)
	if err == nil {
		d.orders[order.ID] = OrderSold
	}
	return res, err
}

// take sells or holds each summed item, or none.
func (d *Draft) take(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	items := d.sum(c.Lines)
	if err := d.enough(items); err != nil {
		return protocol.Result{}, err
	}
	for _, i := range items {
		row := d.entries[i].row
		row.take(rec.Type, d.entries[i].need)
		if !row.totalsFit() {
			return protocol.Result{}, errTotal
		}
	}
	rec.Events = d.eventsOf(len(items))
	for n, i := range items {
		row := d.entries[i].row
		row.take(rec.Type, d.entries[i].need)
		d.event(&rec.Events[n], i, &row)
	}
	return d.record(protocol.KindItems, rec, items...)
}

func (d *Draft) reserve(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	order, err := d.orderOf(c)
	if err != nil {
		return protocol.Result{}, err
	}
	rec.Type, rec.User, rec.Order = TypeReserve, c.User, order
	rec.Reservation = d.newReservationID()
	if order == nil || !order.Part {
		rec.ExpiresAt = d.round.At + protocol.Time(*c.TTLMS)
	}
	if _, err := d.take(c, rec); err != nil {
		return protocol.Result{}, err
	}
	d.round.Records[len(d.round.Records)-1].Lines = d.lineRefs(c.Lines)
	// The command's lines go back to its sender; the ledger keeps its own.
	r := &reservation{Reservation: protocol.Reservation{
		ID: rec.Reservation, State: protocol.Held, ExpiresAt: rec.ExpiresAt, User: c.User,
		Lines: append([]protocol.Line(nil), c.Lines...),
	}}
	if order != nil {
		d.tie(r, order)
	}
	d.reservations[r.ID] = r
	return reservationResult(r), nil
}

// tie makes a pending reservation an order's.
func (d *Draft) tie(r *reservation, o *protocol.Order) {
	r.tie = newTie(o, d.round.At, r.Lines)
	if !o.Part {
		r.Lines = o.Lines
		d.orders[o.ID] = OrderHeld
	}
}

func (d *Draft) lineRefs(lines []protocol.Line) []LineRef {
	refs := make([]LineRef, len(lines))
	for n, l := range lines {
		i := d.entry(protocol.ItemKey{SKU: l.SKU, Location: l.Location})
		refs[n] = LineRef{d.place(i), l.Quantity}
	}
	return refs
}

func reservationResult(r *reservation) protocol.Result {
	v := r.Reservation
	return protocol.Result{Kind: protocol.KindReservation, Reservation: &v}
}

// held returns the reservation that a command names, if it has not ended. One that the
// command's sender may not touch is as one that does not exist.
func (d *Draft) held(c *protocol.Command) (*reservation, *protocol.Error) {
	id := c.Reservation
	r := d.reservation(id)
	if r == nil || r.isPart() || !c.Within.Covers(r.User, r.Lines) {
		return nil, NoReservation(id)
	}
	if r.State != protocol.Held {
		err := protocol.NewError(protocol.CodeReservationEnded, "reservation %q is %s", id, r.State)
		err.Details = &protocol.Details{State: r.State}
		return nil, err
	}
	return r, nil
}

// NoReservation is the answer about a reservation that does not exist, or that whoever
// asks may not know of: the two must not be told apart.
func NoReservation(id string) *protocol.Error {
	return protocol.NewError(protocol.CodeNotFound, "no reservation %q", id)
}

// finish confirms or releases. Confirming can't run out of range: the units it
// sells were counted when they were held.
func (d *Draft) finish(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	r, err := d.held(c)
	if err != nil {
		return protocol.Result{}, err
	}
	t := TypeRelease
	if c.Op == protocol.OpConfirm {
		t = TypeConfirm
	}
	d.end(r, t, rec)
	return reservationResult(d.reservations[r.ID]), nil
}

func (d *Draft) extend(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	r, err := d.held(c)
	if err != nil {
		return protocol.Result{}, err
	}
	extended := *r
	extended.ExpiresAt = max(r.ExpiresAt, d.round.At+protocol.Time(*c.TTLMS))
	d.reservations[r.ID] = &extended
	rec.Type, rec.Reservation, rec.ExpiresAt = TypeExtend, r.ID, extended.ExpiresAt
	items := d.sum(r.own())
	rec.Events = d.eventsOf(len(items))
	for n, i := range items {
		row := d.entries[i].row
		d.event(&rec.Events[n], i, &row)
	}
	d.round.Records = append(d.round.Records, rec)
	return reservationResult(&extended), nil
}

func (d *Draft) move(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	from := d.entry(protocol.ItemKey{SKU: c.SKU, Location: c.From})
	to := d.entry(protocol.ItemKey{SKU: c.SKU, Location: c.To})
	source, target := d.entries[from].row, d.entries[to].row
	if source.Removable() < c.Quantity {
		return protocol.Result{}, d.short(d.shortage(from, c.Quantity, source.Removable()))
	}
	source.Removed += c.Quantity
	target.Received += c.Quantity
	if !source.totalsFit() || !target.totalsFit() {
		return protocol.Result{}, errTotal
	}
	rec.Type = TypeMove
	rec.Events = d.eventsOf(2)
	d.event(&rec.Events[0], from, &source)
	d.event(&rec.Events[1], to, &target)
	return d.record(protocol.KindItems, rec, from, to)
}

func (d *Draft) configure(c *protocol.Command, rec Record) (protocol.Result, *protocol.Error) {
	i := d.entry(protocol.ItemKey{SKU: c.SKU, Location: c.Location})
	row := d.entries[i].row
	set := func(field *int64, v *int64) {
		if v != nil {
			*field = *v
		}
	}
	set(&row.Safety, c.SafetyStock)
	set(&row.Backorder, c.BackorderLimit)
	set(&row.Low, c.LowStock)
	rec.Type = TypeConfigure
	rec.Events = d.changed(i, &row)
	return d.record(protocol.KindItem, rec, i)
}

// Grant gives n units of rights to a peer region, or as many as are free, and
// returns how many. It is the donor's half of a transfer: one commit here.
func (d *Draft) Grant(key protocol.ItemKey, peer string, n int64) int64 {
	i := d.entry(key)
	row := d.entries[i].row
	n = min(n, row.Free(), protocol.QuantityMax-row.Granted[peer])
	if n <= 0 {
		return 0
	}
	total := row.Granted[peer] + n
	row.Granted = withTotal(row.Granted, peer, total)
	d.rights(TypeGrant, i, &row, peer, total)
	return n
}

// Accept takes the rights that a peer region's row says it granted to this one,
// as a total: telling it twice, or an older total later, changes nothing.
func (d *Draft) Accept(key protocol.ItemKey, peer string, total int64) bool {
	i := d.entry(key)
	row := d.entries[i].row
	if total <= row.Accepted[peer] || total > protocol.QuantityMax {
		return false
	}
	d.note(peer, total-row.Accepted[peer])
	row.Accepted = withTotal(row.Accepted, peer, total)
	d.rights(TypeAccept, i, &row, peer, total)
	return true
}

// note counts units that were taken from a region.
func (d *Draft) note(peer string, units int64) {
	if d.taken == nil {
		d.taken = make(map[string]int64)
	}
	d.taken[peer] += units
}

// Taken returns the units of rights accepted so far, by region; it is valid until the
// next Reset.
func (d *Draft) Taken() map[string]int64 { return d.taken }

// concede notes rights that a peer region has taken and that this one has forgotten to have
// given: it came back from a backup. They are gone, even if that leaves less than nothing.
func (d *Draft) concede(key protocol.ItemKey, peer string, total int64) {
	i := d.entry(key)
	row := d.entries[i].row
	if !row.mustConcede(peer, total) {
		return
	}
	row.Granted = withTotal(row.Granted, peer, total)
	d.rights(TypeGrant, i, &row, peer, total)
}

// mustConcede tells whether a peer region has taken rights that are not known to have been
// given. More than there ever was to give nobody can have taken.
func (r *Row) mustConcede(peer string, total int64) bool {
	most := r.Received
	for _, n := range r.Accepted {
		most += n
	}
	return total > r.Granted[peer] && total <= min(most, protocol.QuantityMax)
}

func (d *Draft) rights(t Type, i uint32, row *Row, peer string, total int64) {
	events := d.changed(i, row)
	events[0].Peer, events[0].Total = peer, total
	d.round.Records = append(d.round.Records, Record{Type: t, Events: events})
}
