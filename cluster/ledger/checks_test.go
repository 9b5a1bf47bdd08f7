package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// The invariants of the design, each by a check of its own. All but the last few
// read nothing but the log, through an audit.

// audit follows a log by adding up what its events say has changed.
type audit struct {
	items        map[protocol.ItemKey]*auditItem
	reservations map[string]*auditReservation
	keys         map[string]uint64 // generation that remembers it
	orders       map[string]*auditOrder
	generation   uint64
	at           protocol.Time
}

type auditItem struct {
	onHand, held, given, taken int64
	safety, backorder          int64
	version                    uint64
	last                       Position
}

type auditReservation struct {
	expiresAt protocol.Time
	ended     bool
	order     *protocol.Order // whose part or decision it is, if any
	state     OrderState
	lines     []protocol.Line
}

// auditOrder is an order that was decided or given up here.
type auditOrder struct {
	state OrderState
	key   string
	own   []protocol.Line
	order protocol.Order
}

func newAudit() *audit {
	return &audit{
		items:        make(map[protocol.ItemKey]*auditItem),
		reservations: make(map[string]*auditReservation), keys: make(map[string]uint64),
		orders: make(map[string]*auditOrder),
	}
}

// round checks one round and follows it.
func (a *audit) round(r *Round, seq uint64) error {
	if r.At < a.at {
		return fmt.Errorf("round %d goes back in time", seq)
	}
	a.at = r.At
	index := uint32(0)
	for i := range r.Records {
		rec := &r.Records[i]
		if err := a.record(rec, r.Items); err != nil {
			return fmt.Errorf("round %d, record %d (%s): %w", seq, i, rec.Type, err)
		}
		for j := range rec.Events {
			key := r.Items[rec.Events[j].Item]
			if err := a.event(rec, &rec.Events[j], key, Position{seq, index}); err != nil {
				return fmt.Errorf("round %d, movement %d (%s of %v): %w", seq, index, rec.Type, key, err)
			}
			index++
		}
	}
	return nil
}

func (a *audit) record(rec *Record, items []protocol.ItemKey) error {
	if err := a.checkOneEffect(rec); err != nil {
		return err
	}
	if err := a.checkDecidedOnce(rec); err != nil {
		return err
	}
	switch rec.Type {
	case TypeRotate:
		a.generation = rec.Epoch
	case TypeReserve:
		a.reservations[rec.Reservation] = &auditReservation{
			expiresAt: rec.ExpiresAt, order: rec.Order, state: OrderHeld, lines: linesOf(rec.Lines, items),
		}
	case TypeConfirm, TypeRelease, TypeExpire, TypeExtend:
		if err := a.checkEndsOnce(rec); err != nil {
			return err
		}
		if err := a.checkNeverEarly(rec); err != nil {
			return err
		}
		r := a.reservations[rec.Reservation]
		if rec.Type == TypeExtend {
			r.expiresAt = rec.ExpiresAt
		} else {
			a.ended(r, rec.Type)
		}
	}
	a.follow(rec, items)
	return nil
}

func linesOf(refs []LineRef, items []protocol.ItemKey) (lines []protocol.Line) {
	for _, l := range refs {
		lines = append(lines, protocol.Line{SKU: items[l.Item].SKU, Location: items[l.Item].Location, Quantity: l.Quantity})
	}
	return lines
}

func (a *audit) ended(r *auditReservation, t Type) {
	r.ended, r.state = true, orderStates[endState[t]]
	if r.order != nil && !r.order.Part {
		a.orders[r.order.ID].state = r.state
	}
}

// follow takes note of an order that a record decides.
func (a *audit) follow(rec *Record, items []protocol.ItemKey) {
	if rec.Order == nil || rec.Order.Part {
		return
	}
	o := &auditOrder{key: rec.Key, order: *rec.Order, state: OrderHeld, own: linesOf(rec.Lines, items)}
	switch rec.Type {
	case TypeAbort:
		o.state = OrderDropped
	case TypeSell:
		o.state = OrderSold
		for _, ev := range rec.Events {
			o.own = append(o.own, protocol.Line{SKU: items[ev.Item].SKU, Location: items[ev.Item].Location, Quantity: -ev.OnHandDelta})
		}
	}
	a.orders[rec.Order.ID] = o
}

// checkDecidedOnce is a half of I14: an order is decided or given up, not both, and
// not twice.
func (a *audit) checkDecidedOnce(rec *Record) error {
	if rec.Order == nil || rec.Order.Part {
		return nil
	}
	if o := a.orders[rec.Order.ID]; o != nil {
		return fmt.Errorf("I14: order %q, which is %d, is decided again", rec.Order.ID, o.state)
	}
	return nil
}

// checkFollows is the other half: what ended a part is what its order's home had
// said by then, and what the home decided on was held.
func checkFollows(shards ...*audit) error {
	for n, a := range shards {
		for id, part := range a.reservations {
			if part.order == nil || !part.order.Part || !part.ended {
				continue
			}
			home := shards[part.order.Home].orders[part.order.ID]
			if home == nil || home.state != part.state {
				return fmt.Errorf("I14: part %q in shard %d ended as %d, its order is %+v", id, n, part.state, home)
			}
		}
		for id, o := range a.orders {
			if err := checkParts(o, shards); err != nil {
				return fmt.Errorf("I14: order %q: %w", id, err)
			}
		}
	}
	return nil
}

// checkParts says that an order's parts and the home's own lines are the order.
func checkParts(o *auditOrder, shards []*audit) error {
	got := slices.Clone(o.own)
	for _, id := range o.order.Parts {
		n, ok := ReservationShard(id)
		if !ok || n >= len(shards) || shards[n].reservations[id] == nil {
			return fmt.Errorf("no part %q", id)
		}
		got = append(got, shards[n].reservations[id].lines...)
	}
	_, want := summed(o.order.Lines)
	if _, sums := summed(got); !maps.Equal(sums, want) {
		return fmt.Errorf("parts of %v, lines of %v", sums, want)
	}
	return nil
}

// checkAllOrNothing is I14 once all is quiet: no part waits, each ended as its order
// did, and no more of any item was sold than the orders that were sold say.
func checkAllOrNothing(shards ...*audit) error {
	sold := make(map[protocol.ItemKey]int64)
	for _, a := range shards {
		for id, o := range a.orders {
			if o.state == OrderHeld {
				return fmt.Errorf("I14: order %q is still held", id)
			}
			for _, part := range o.order.Parts {
				n, _ := ReservationShard(part)
				if got := shards[n].reservations[part].state; got != o.state {
					return fmt.Errorf("I14: part %q is %d, order %q is %d", part, got, id, o.state)
				}
			}
			if o.state == OrderSold {
				_, sums := summed(o.order.Lines)
				for key, n := range sums {
					sold[key] += n
				}
			}
		}
		for id, r := range a.reservations {
			if !r.ended {
				return fmt.Errorf("I14: %q still waits", id)
			}
		}
	}
	return checkSold(sold, shards)
}

// checkSold compares what orders took with what the log sold for orders.
func checkSold(want map[protocol.ItemKey]int64, shards []*audit) error {
	got := make(map[protocol.ItemKey]int64)
	add := func(lines []protocol.Line) {
		_, sums := summed(lines)
		for key, n := range sums {
			got[key] += n
		}
	}
	for _, a := range shards {
		for _, o := range a.orders {
			if o.state == OrderSold {
				add(o.own)
			}
		}
		for _, r := range a.reservations {
			if r.order != nil && r.order.Part && r.state == OrderSold {
				add(r.lines)
			}
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("I14: orders were sold %v, the log sold %v", want, got)
	}
	return nil
}

// checkOneEffect is I4: within the window a key stands in one record only.
func (a *audit) checkOneEffect(rec *Record) error {
	if rec.Key == "" {
		return nil
	}
	if g, ok := a.keys[rec.Key]; ok && g+1 >= a.generation {
		return fmt.Errorf("I4: key %q took effect twice", rec.Key)
	}
	a.keys[rec.Key] = a.generation
	return nil
}

// checkEndsOnce is I8: only what is held can end or be extended.
func (a *audit) checkEndsOnce(rec *Record) error {
	if r := a.reservations[rec.Reservation]; r == nil || r.ended {
		return fmt.Errorf("I8: reservation %q is not held", rec.Reservation)
	}
	return nil
}

// checkNeverEarly is I9: nothing expires before its time, extending included, and
// a part never.
func (a *audit) checkNeverEarly(rec *Record) error {
	r := a.reservations[rec.Reservation]
	if part := r.order != nil && r.order.Part; part && (rec.Type == TypeExpire || rec.Type == TypeExtend) {
		return fmt.Errorf("I9: %s of part %q", rec.Type, rec.Reservation)
	}
	if rec.Type == TypeExpire && a.at < r.expiresAt {
		return fmt.Errorf("I9: reservation %q of %d expired at %d", rec.Reservation, r.expiresAt, a.at)
	}
	if rec.Type == TypeExtend && rec.ExpiresAt < r.expiresAt {
		return fmt.Errorf("I9: reservation %q was shortened", rec.Reservation)
	}
	return nil
}

func (a *audit) event(rec *Record, ev *Event, key protocol.ItemKey, at Position) error {
	it := a.items[key]
	if it == nil {
		it = &auditItem{}
		a.items[key] = it
	}
	if err := it.checkVersion(ev); err != nil {
		return err
	}
	if err := it.checkChain(ev); err != nil {
		return err
	}
	before := it.share()
	it.follow(rec.Type, ev)
	it.last = at
	if err := it.checkTotals(ev); err != nil {
		return err
	}
	return it.checkBounds(rec.Type, ev, before)
}

func (it *auditItem) share() int64 { return it.onHand - it.held + it.taken - it.given }

func (it *auditItem) follow(t Type, ev *Event) {
	it.version++
	it.onHand += ev.OnHandDelta
	it.held += ev.ReservedDelta
	switch t {
	case TypeConfigure:
		it.safety, it.backorder = ev.Safety, ev.Backorder
	case TypeGrant:
		it.given = ev.Total
	case TypeAccept:
		it.taken = ev.Total
	}
}

// checkVersion is I7: row versions rise by one.
func (it *auditItem) checkVersion(ev *Event) error {
	if ev.Version != it.version+1 {
		return fmt.Errorf("I7: version %d follows %d", ev.Version, it.version)
	}
	return nil
}

// checkChain is the history's: each movement points to the one before.
func (it *auditItem) checkChain(ev *Event) error {
	if ev.Previous != it.last {
		return fmt.Errorf("history: points to %v, not %v", ev.Previous, it.last)
	}
	return nil
}

// checkTotals says that differences and totals of the log tell the same story.
func (it *auditItem) checkTotals(ev *Event) error {
	if onHand := ev.Received - ev.Removed - ev.Sold; onHand != it.onHand || ev.Held != it.held {
		return fmt.Errorf("I13: totals say %d on hand and %d held, differences %d and %d", onHand, ev.Held, it.onHand, it.held)
	}
	return nil
}

// checkBounds is I2.
func (it *auditItem) checkBounds(t Type, ev *Event, before int64) error {
	share := it.share()
	low := before // ends, extensions, settings and accepted rights take nothing
	switch t {
	case TypeSell, TypeReserve, TypeGrant:
		low = it.safety - it.backorder
	case TypeAdjust, TypeCount, TypeMove:
		if ev.OnHandDelta < 0 {
			low = 0
		}
	}
	const limit = protocol.QuantityMax
	if share < low || it.held < 0 || it.held > limit || it.onHand > limit || it.onHand < -limit {
		return fmt.Errorf("I2: share %d (bound %d), held %d, on hand %d", share, low, it.held, it.onHand)
	}
	return nil
}

// checkRights is I3: no region has taken more than was given to it, and after
// everything was told not less.
func checkRights(donor, receiver *State, healed bool) error {
	for i := range donor.items {
		key := donor.items[i].key
		given := donor.items[i].row.Granted[receiver.region]
		taken := rowOf(receiver, key).Accepted[donor.region]
		if taken > given || healed && taken != given {
			return fmt.Errorf("I3: %s gave %d of %v, %s took %d", donor.region, given, key, receiver.region, taken)
		}
	}
	return nil
}

func rowOf(s *State, key protocol.ItemKey) Row {
	if id, ok := s.ID(key); ok {
		return s.Row(id)
	}
	return noRow()
}

// checkConservation is I1: shares, held units and rights on their way between the
// regions are the units that came in and did not go out.
func checkConservation(key protocol.ItemKey, units int64, states ...*State) error {
	var sum int64
	for _, s := range states {
		row := rowOf(s, key)
		sum += row.Share() + row.Held
		for _, peer := range states {
			sum += row.Granted[peer.region] - rowOf(peer, key).Accepted[s.region]
		}
	}
	if sum != units {
		return fmt.Errorf("I1: %d units of %v, should be %d", sum, key, units)
	}
	return nil
}

// checkNoTrace is I6: the state and the round are what they were before.
func checkNoTrace(before, after trace) error {
	if before.digest != after.digest || !bytes.Equal(before.round, after.round) {
		return fmt.Errorf("I6: a refused or repeated command left a trace")
	}
	return nil
}

type trace struct {
	digest uint64
	round  []byte
}

func traceOf(d *Draft) trace {
	return trace{d.state.Digest(), d.round.AppendTo(nil)}
}

type applyFunc func(s *State, r *Round, seq uint64) error

func apply(s *State, r *Round, seq uint64) error {
	_, err := s.Apply(r, seq)
	return err
}

// checkReplay is I13: a state brought forward by the log is the state.
func checkReplay(want, s *State, log [][]byte, apply applyFunc) error {
	for s.Seq() < want.Seq() {
		seq := s.Seq() + 1
		r, err := Decode(log[seq-1])
		if err != nil {
			return fmt.Errorf("I13: round %d: %w", seq, err)
		}
		if err := apply(s, r, seq); err != nil {
			return fmt.Errorf("I13: %w", err)
		}
	}
	if s.Digest() != want.Digest() {
		return fmt.Errorf("I13: the log up to %d gives another state", s.Seq())
	}
	return nil
}

// checkHistory walks every item's movements back from the newest: each once,
// newest first, each beginning where the one before it ended.
func checkHistory(s *State, log [][]byte) error {
	movements := make(map[protocol.ItemKey]uint64)
	for _, b := range log {
		r, err := Decode(b)
		if err != nil {
			return err
		}
		for i := range r.Records {
			for j := range r.Records[i].Events {
				movements[r.Items[r.Records[i].Events[j].Item]]++
			}
		}
	}
	for i := range s.items {
		if err := checkWalk(s, &s.items[i], log, movements[s.items[i].key]); err != nil {
			return fmt.Errorf("history of %v: %w", s.items[i].key, err)
		}
	}
	return nil
}

func checkWalk(s *State, it *item, log [][]byte, movements uint64) error {
	onHand, reserved := it.row.OnHand(), it.row.Held
	at, n := it.row.Last, uint64(0)
	for at != (Position{}) {
		r, err := Decode(log[at.Seq-1])
		if err != nil {
			return err
		}
		m, previous, ok := r.Movement(s.region, s.shard, at)
		if !ok || (protocol.ItemKey{SKU: m.SKU, Location: m.Location}) != it.key {
			return fmt.Errorf("%v is no movement of it", at)
		}
		if m.OnHand != onHand || m.Reserved != reserved {
			return fmt.Errorf("%v ends with %d and %d, the next begins with %d and %d", at, m.OnHand, m.Reserved, onHand, reserved)
		}
		if previous.Seq > at.Seq || previous.Seq == at.Seq && previous.Index >= at.Index {
			return fmt.Errorf("%v points forward to %v", at, previous)
		}
		if _, _, p, err := ParseSequence(m.Sequence); err != nil || p != at {
			return fmt.Errorf("sequence %q of %v: %w", m.Sequence, at, err)
		}
		onHand, reserved, at = onHand-m.OnHandDelta, reserved-m.ReservedDelta, previous
		n++
	}
	if n != movements || n != it.row.Version || onHand != 0 || reserved != 0 {
		return fmt.Errorf("%d movements of %d, version %d, begins with %d and %d", n, movements, it.row.Version, onHand, reserved)
	}
	return nil
}

// checkModel says that the state is what the model says, answers included.
func checkModel(s *State, m *model) error {
	items, live, keys := s.Sizes()
	held := 0
	for id, want := range m.reservations {
		got, ok := s.Reservation(id)
		if !ok || !bytes.Equal(protocol.AppendReservation(nil, &got), protocol.AppendReservation(nil, &want.Reservation)) {
			return fmt.Errorf("reservation %q: %v %v, want %v", id, ok, got, want.Reservation)
		}
		if want.State == protocol.Held {
			held++
		}
	}
	if items != len(m.items) || live != held || keys != len(m.keys) {
		return fmt.Errorf("%d items, %d reservations, %d keys, want %d, %d, %d", items, live, keys, len(m.items), held, len(m.keys))
	}
	for key, want := range m.items {
		row := rowOf(s, key)
		got := modelItem{
			units: row.OnHand(), held: row.Held, given: row.Granted[peerOf(s.region)], taken: row.Accepted[peerOf(s.region)],
			safety: row.Safety, backorder: row.Backorder, low: row.Low, version: row.Version, at: row.UpdatedAt,
		}
		if got != want || s.ItemAt(key) != m.view(key) || row.Share() != want.share() || row.Free() != want.free() {
			return fmt.Errorf("%v: %+v, want %+v", key, got, want)
		}
	}
	for key, want := range m.keys {
		res, ok := s.Outcome(key)
		if got := string(protocol.AppendOK(nil, &res)); !ok || got != want.answer {
			return fmt.Errorf("I4: key %q answers %s, want %s", key, got, want.answer)
		}
	}
	return nil
}

func peerOf(region string) string {
	if region == "eu" {
		return "us"
	}
	return "eu"
}
