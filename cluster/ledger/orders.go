package ledger

import (
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// An order whose lines lie in several shards is held in parts and decided in one
// shard, its home. DESIGN.md says how, and why no death in between can split it.

// OrderState is what a shard knows of an order that it was to decide.
type OrderState uint8

// The states of an order. Sold and dropped are final. The values stand in
// snapshots and never change.
const (
	OrderUnknown OrderState = 0 // neither decided nor given up, or forgotten
	OrderHeld    OrderState = 1 // its reservation is live
	OrderSold    OrderState = 2 // sold or confirmed
	OrderDropped OrderState = 3 // released, expired or given up
)

var orderStates = map[protocol.State]OrderState{
	protocol.Held: OrderHeld, protocol.Confirmed: OrderSold, protocol.Released: OrderDropped, protocol.Expired: OrderDropped,
}

// Part is a hold that waits for what an order's home decides.
type Part struct {
	ID    string // of the reservation
	Order string
	Home  int           // shard to ask
	Since protocol.Time // when it was opened
}

func (p Part) before(o Part) bool {
	return p.Since < o.Since || p.Since == o.Since && p.ID < o.ID
}

// tie binds a reservation to an order over several shards.
type tie struct {
	order string
	home  int
	part  bool
	since protocol.Time   // part: when it was opened
	own   []protocol.Line // decision: those of this shard; the reservation shows all
	parts []string        // decision
}

func newTie(o *protocol.Order, at protocol.Time, own []protocol.Line) *tie {
	t := &tie{order: strings.Clone(o.ID), home: o.Home, part: o.Part}
	if o.Part {
		t.since = at
		return t
	}
	t.own, t.parts = own, make([]string, len(o.Parts))
	for i, id := range o.Parts {
		t.parts[i] = strings.Clone(id)
	}
	return t
}

func (r *reservation) isPart() bool { return r != nil && r.tie != nil && r.tie.part }

// decides reports whether the reservation is an order's, in its home.
func (r *reservation) decides() bool { return r.tie != nil && !r.tie.part }

// own returns the lines whose units this shard holds.
func (r *reservation) own() []protocol.Line {
	if r.decides() {
		return r.tie.own
	}
	return r.Lines
}

func (r *reservation) asPart() Part {
	return Part{ID: r.ID, Order: r.tie.order, Home: r.tie.home, Since: r.tie.since}
}

// GivenUp is the message of the refusal of a decision whose order was given up before.
// It proves that the command's key was not applied.
const GivenUp = "the order was given up meanwhile; send it again"

// Order returns what became of an order whose home is this shard.
func (s *State) Order(id string) OrderState {
	if _, held := s.orders[id]; held {
		return OrderHeld
	}
	hash := keyID(id)
	if state, ok := s.now.orders[hash]; ok {
		return state
	}
	return s.past.orders[hash]
}

// Parts appends up to limit parts that wait for their order, oldest first.
func (s *State) Parts(dst []Part, limit int) []Part { return s.PartsAfter(dst, Part{}, limit) }

// PartsAfter is Parts from the one behind a given part on, which may have ended.
func (s *State) PartsAfter(dst []Part, after Part, limit int) []Part {
	s.parts.Ascend(after, func(p Part) bool {
		if p == after {
			return true
		}
		if limit--; limit < 0 {
			return false
		}
		dst = append(dst, p)
		return true
	})
	return dst
}

// PartsOf returns the ids of the parts of the order that a reservation decides,
// live or ended, nil if it is no such. They must not be changed.
func (s *State) PartsOf(reservation string) []string {
	if r := s.reservation(reservation); r != nil && r.decides() {
		return r.tie.parts
	}
	return nil
}

// hold makes a reservation live. A part has no expiry: only its order ends it.
func (s *State) hold(r *reservation) {
	s.live[r.ID] = r
	if r.isPart() {
		s.parts.Set(r.asPart())
		return
	}
	if r.decides() {
		s.orders[r.tie.order] = r.ID
	}
	s.due.push(expiry{r.ExpiresAt, r.ID})
}

// end makes a live reservation an ended one. A part is forgotten at once: nobody
// asks for it again, and what is not open can't be settled.
func (s *State) end(r *reservation, state protocol.State) *reservation {
	// Readers may hold the old value, so a changed reservation is a new one.
	ended := *r
	ended.State = state
	delete(s.live, r.ID)
	switch {
	case r.isPart():
		s.parts.Delete(r.asPart())
		return &ended
	case r.decides():
		delete(s.orders, r.tie.order)
		s.now.orders[keyID(r.tie.order)] = orderStates[state]
	}
	s.now.ended[r.ID] = &ended
	return &ended
}

// order returns what became of an order, pending records included.
func (d *Draft) order(id string) OrderState {
	if state, pending := d.orders[id]; pending {
		return state
	}
	return d.state.Order(id)
}

// orderOf returns the record's form of the order that a command belongs to, nil if
// it belongs to none. What was given up can't be decided any more: its parts may
// have been told.
func (d *Draft) orderOf(c *protocol.Command) (*protocol.Order, *protocol.Error) {
	o := c.Order
	if o == nil {
		return nil, nil
	}
	home := o.Home == d.state.shard
	if o.ID == "" || o.Part == home || o.Home < 0 || o.Home >= shardsMax || len(c.Lines) == 0 || o.Part && c.Op != protocol.OpReserve {
		return nil, protocol.BadRequest("no order that shard %d could take", d.state.shard)
	}
	if o.Part {
		return &protocol.Order{ID: o.ID, Home: o.Home, Part: true}, nil
	}
	if d.order(o.ID) != OrderUnknown {
		return nil, protocol.RetryLater(protocol.CodeUnavailable, givenUpAfterMS, GivenUp)
	}
	// The command's own go back to its sender.
	return &protocol.Order{ID: o.ID, Home: o.Home, Lines: slices.Clone(o.Lines), Parts: slices.Clone(o.Parts)}, nil
}

const givenUpAfterMS = 100

// Settle ends an open part as its order ended: its units are sold, or given back.
// It returns false if the part is not open, as when it was settled before. Only what
// the home said may be passed on here.
func (d *Draft) Settle(part string, sold bool) bool { return d.settle(part, sold, Record{}) }

// settle takes what its record shall say of who ended the order.
func (d *Draft) settle(part string, sold bool, rec Record) bool {
	r := d.reservation(part)
	if !r.isPart() || r.State != protocol.Held {
		return false
	}
	t := TypeRelease
	if sold {
		t = TypeConfirm
	}
	d.end(r, t, rec)
	return true
}

// Resolve tells what became of an order whose home is this shard, pending records
// included. One that is not decided yet is given up, so the answer is never
// OrderUnknown, and holds once the round is committed: dropped stays dropped.
func (d *Draft) Resolve(order string) OrderState {
	if state := d.order(order); state != OrderUnknown {
		return state
	}
	d.orders[order] = OrderDropped
	d.round.Records = append(d.round.Records, Record{Type: TypeAbort, Order: &protocol.Order{ID: order, Home: d.state.shard}})
	return OrderDropped
}

// follow does what nodes ask of each other about orders. It needs no key: asked
// again, it changes nothing.
func (d *Draft) follow(call *protocol.Call) (protocol.Result, *protocol.Error) {
	c := &call.Command
	if c.Op == protocol.OpSettle {
		d.settle(c.Reservation, c.Quantity == 1, Record{
			Reason: c.Reason, Reference: c.Reference, Subject: call.Subject, Address: addressOf(call),
		})
		return protocol.Result{}, nil
	}
	if c.Order == nil || c.Order.ID == "" {
		return protocol.Result{}, protocol.BadRequest("%s names no order", c.Op)
	}
	return protocol.Result{Count: int(d.Resolve(c.Order.ID))}, nil
}
