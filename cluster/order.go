package cluster

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// An order is a reserve or sell whose lines lie in several shards. It stays all or
// nothing by two-phase commit: every other shard holds its part first, then the home
// shard decides in its own log, then the parts follow. Whoever coordinates may die at
// any point: a part whose order was not decided is asked about, and what the home
// shard says then is final (ledger/DESIGN.md).
type order struct {
	cluster *Cluster
	call    *protocol.Call
	id      string
	home    *shard
	lines   [][]protocol.Line // by shard
	others  []*shard
	parts   []*protocol.Call // of others
	left    atomic.Int32
}

// order coordinates a command over several shards; the first is its home.
func (c *Cluster) order(call *protocol.Call, targets []*shard) {
	o := &order{
		cluster: c, call: call, id: rand.Text()[:16], home: targets[0], others: targets[1:],
		lines: make([][]protocol.Line, len(c.shards)),
	}
	for _, l := range call.Command.Lines {
		n := place(l.SKU, len(c.shards))
		o.lines[n] = append(o.lines[n], l)
	}
	c.orders.begin(call.Session)
	o.left.Store(int32(len(o.others)))
	for _, s := range o.others {
		o.parts = append(o.parts, o.part(s))
	}
	for i, s := range o.others {
		s.desk.put(o.parts[i])
	}
}

// part is the command that holds a shard's lines until the order is decided.
func (o *order) part(s *shard) *protocol.Call {
	cmd := protocol.Command{
		Op: protocol.OpReserve, Key: o.id + "." + strconv.Itoa(s.n), Lines: o.lines[s.n],
		TTLMS: o.call.Command.TTLMS, Reason: o.call.Command.Reason, Reference: o.call.Command.Reference,
		Order: &protocol.Order{ID: o.id, Home: o.home.n, Part: true},
	}
	if cmd.TTLMS == nil {
		cmd.TTLMS = protocol.Ptr[int64](protocol.ReserveMSDefault)
	}
	return &protocol.Call{
		Command: cmd, Session: o.call.Session, Subject: o.call.Subject, Address: o.call.Address, Due: o.call.Due,
		Done: func(*protocol.Call) {
			if o.left.Add(-1) == 0 {
				o.held()
			}
		},
	}
}

// held goes on once every part is answered: to the decision, or back.
func (o *order) held() {
	if err := refusal(o.parts); err != nil {
		// What the parts hold is given back first: the client's next command may be for
		// these units.
		o.settle(false, func() { o.recall(err) })
		return
	}
	var parts []string
	for _, p := range o.parts {
		parts = append(parts, p.Result.Reservation.ID)
	}
	o.decide(parts, o.decided)
}

// decide sends the client's command to the home shard.
func (o *order) decide(parts []string, done func(*protocol.Call)) {
	d := &protocol.Call{Command: o.call.Command, Session: o.call.Session, Due: o.call.Due, Done: done}
	d.Subject, d.Address, d.Trace = o.call.Subject, o.call.Address, o.call.Trace
	d.Command.Lines = o.lines[o.home.n]
	d.Command.Order = &protocol.Order{ID: o.id, Home: o.home.n, Lines: o.call.Command.Lines, Parts: parts}
	o.home.desk.put(d)
}

// recall answers an order whose parts could not be held. Perhaps it is a retry, and it
// was its first try that took the last units: the home shard is asked once this attempt
// can't be decided any more, so all it can do is answer as before.
func (o *order) recall(refused *protocol.Error) {
	o.cluster.resolve(o.home, o.id, o.call.Due, func(state ledger.OrderState) {
		if state != ledger.OrderDropped {
			o.finish(protocol.Result{}, errNoWord, false)
			return
		}
		o.decide(nil, func(d *protocol.Call) {
			switch {
			case d.Replayed, d.Err != nil && d.Err.Code == protocol.CodeKeyReused:
				o.answer(d)
			case d.Err != nil && d.Err.Message == ledger.GivenUp:
				o.finish(protocol.Result{}, refused, false)
			default:
				o.finish(protocol.Result{}, errNoWord, false)
			}
		})
	})
}

// errNoWord is the answer where the home shard can't say whether an order's first try
// was done.
var errNoWord = unknownOutcome("the shard that decides this order can't be reached")

// refusal is why an order can't be made: what is short in all shards, or the first
// other reason.
func refusal(parts []*protocol.Call) *protocol.Error {
	var short *protocol.Error
	for _, p := range parts {
		switch {
		case p.Err == nil:
		case p.Err.Code != protocol.CodeInsufficientStock:
			err := *p.Err
			err.Details = nil // the order was not decided, so nothing of it will happen
			return &err
		case short == nil:
			short = p.Err
		case short.Details != nil && p.Err.Details != nil:
			both := *short
			both.Details = &protocol.Details{Lines: slices.Concat(short.Details.Lines, p.Err.Details.Lines)}
			short = &both
		}
	}
	return short
}

// decided makes the parts follow the home shard, then answers.
func (o *order) decided(d *protocol.Call) {
	unknown := d.Err != nil && d.Err.Details != nil && d.Err.Details.Outcome != ""
	switch {
	case unknown: // whoever owns the parts will find out
		o.finish(d.Result, d.Err, false)
	case d.Err != nil || d.Replayed:
		// Neither says what became of this attempt: an owner that is gone may have
		// decided it, or another may still.
		o.cluster.resolve(o.home, o.id, o.call.Due, func(state ledger.OrderState) {
			switch state {
			case ledger.OrderSold, ledger.OrderDropped:
				o.settle(state == ledger.OrderSold, func() { o.answer(d) })
			default:
				o.answer(d)
			}
		})
	case d.Command.Op == protocol.OpSell:
		o.settle(true, func() { o.answer(d) })
	default:
		o.answer(d)
	}
}

// answer gives the home's answer, with what a sale left of the other shards' items.
func (o *order) answer(d *protocol.Call) {
	if d.Err == nil && d.Command.Op == protocol.OpSell {
		d.Result.Items = o.cluster.itemsOf(o.call.Command.Lines)
	}
	o.finish(d.Result, d.Err, d.Replayed)
}

func (o *order) finish(result protocol.Result, err *protocol.Error, replayed bool) {
	call, session := o.call, o.call.Session
	call.Result, call.Err, call.Replayed = result, err, replayed
	call.Done(call)
	o.cluster.resume(session)
}

// settle ends the parts that are held, then calls then.
func (o *order) settle(sold bool, then func()) {
	var ids []string
	for _, p := range o.parts {
		if p.Err == nil {
			ids = append(ids, p.Result.Reservation.ID)
		}
	}
	o.cluster.settle(ids, sold, o.call, then)
}

// resolve asks the home shard for the last word on an order. One that is not decided
// is given up by that.
func (c *Cluster) resolve(home *shard, id string, due int64, then func(ledger.OrderState)) {
	ask := protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: id, Home: home.n}}
	home.desk.put(&protocol.Call{
		Command: ask, Due: due,
		// Its answer is shown once the home's replica here holds it.
		Done: func(*protocol.Call) { then(home.replica.order(id)) },
	})
}

// due is when something that begins now must be answered.
func (c *Cluster) due() int64 { return c.config.elapsed() + int64(c.config.Patience) }

// settle ends parts, as whoever sent a call asked for, then calls then, at the latest when
// the call is due. A part that can't be settled now will be by its shard's owner.
func (c *Cluster) settle(parts []string, sold bool, by *protocol.Call, then func()) {
	if len(parts) == 0 {
		then()
		return
	}
	var left atomic.Int32
	left.Store(int32(len(parts)))
	for _, id := range parts {
		cmd := protocol.Command{Op: protocol.OpSettle, Reservation: id, Reason: by.Command.Reason, Reference: by.Command.Reference}
		if sold {
			cmd.Quantity = 1
		}
		c.shardsOf(&cmd)[0].desk.put(&protocol.Call{
			Command: cmd, Subject: by.Subject, Address: by.Address, Due: by.Due,
			Done: func(*protocol.Call) {
				if left.Add(-1) == 0 {
					then()
				}
			},
		})
	}
}

// itemsOf reads the items of lines, each once.
func (c *Cluster) itemsOf(lines []protocol.Line) (items []protocol.Item) {
	seen := make(map[protocol.ItemKey]bool, len(lines))
	for _, l := range lines {
		key := protocol.ItemKey{SKU: l.SKU, Location: l.Location}
		if !seen[key] {
			seen[key] = true
			items = append(items, c.shardOf(l.SKU).replica.item(key))
		}
	}
	return items
}

// endOrder confirms or releases the reservation of an order: its parts follow before
// that is answered, and before the connection's next command.
func (c *Cluster) endOrder(call *protocol.Call, home *shard) {
	session := call.Session
	c.orders.begin(session)
	inner := &protocol.Call{Command: call.Command, Session: session, Subject: call.Subject, Address: call.Address, Due: call.Due}
	inner.Done = func(d *protocol.Call) {
		call.Result, call.Err, call.Replayed = d.Result, d.Err, d.Replayed
		var parts []string
		if d.Err == nil {
			parts = home.replica.partsOf(call.Command.Reservation)
		}
		c.settle(parts, call.Command.Op == protocol.OpConfirm, call, func() {
			call.Done(call)
			c.resume(session)
		})
	}
	home.desk.put(inner)
}

// ordersUnderWay keeps a connection's commands in order: what it sends while one of its
// orders is under way waits for that, and for what waits before it.
type ordersUnderWay struct {
	mu       sync.Mutex
	sessions map[uint64][]*protocol.Call // there: an order is under way; what waits for it
}

// begin notes an order; HTTP requests have no session and no order among them.
func (u *ordersUnderWay) begin(session uint64) {
	if session == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions == nil {
		u.sessions = make(map[uint64][]*protocol.Call)
	}
	if _, there := u.sessions[session]; !there {
		u.sessions[session] = nil
	}
}

// wait takes a call that must wait for an order of its session.
func (u *ordersUnderWay) wait(call *protocol.Call) bool {
	if call.Session == 0 {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	waiting, there := u.sessions[call.Session]
	if there {
		u.sessions[call.Session] = append(waiting, call)
	}
	return there
}

// next takes the first call that waits; where none does the session goes on by itself.
func (u *ordersUnderWay) next(session uint64) *protocol.Call {
	u.mu.Lock()
	defer u.mu.Unlock()
	waiting := u.sessions[session]
	if len(waiting) == 0 {
		delete(u.sessions, session)
		return nil
	}
	u.sessions[session] = waiting[1:]
	return waiting[0]
}

// resume goes on with what a session sent behind an order, up to its next order.
func (c *Cluster) resume(session uint64) {
	if session == 0 {
		return
	}
	for call := c.orders.next(session); call != nil; call = c.orders.next(session) {
		if call.Due <= c.config.elapsed() {
			call.Fail(protocol.RetryLater(protocol.CodeUnavailable, 500, "an order sent before it took too long"))
			continue
		}
		if c.dispatch(call, c.putNow) {
			return // an order again, which resumes when it is done
		}
	}
}

func (c *Cluster) putNow(s *shard, call *protocol.Call) { s.desk.put(call) }

// Times of looking after parts whose coordinator may have died.
const (
	partsLook  = 250 * time.Millisecond
	partsMax   = 4096            // looked at in one go
	partsDoubt = 5 * time.Second // after which the home shard is asked
)

// lookAfterParts settles the parts of the shards that this node owns. Parts of orders
// that are held stay for hours, so each look goes on where the last one ended.
func (c *Cluster) lookAfterParts(ctx context.Context) {
	seen := make([]ledger.Part, len(c.shards))
	for pause(ctx, partsLook) == nil {
		for _, n := range c.owns() {
			parts := c.shards[n].replica.parts(seen[n], partsMax)
			seen[n] = ledger.Part{}
			if len(parts) == partsMax {
				seen[n] = parts[partsMax-1]
			}
			for _, p := range parts {
				c.lookAfter(p)
			}
		}
	}
}

func (c *Cluster) lookAfter(p ledger.Part) {
	if p.Home >= len(c.shards) {
		return
	}
	home := c.shards[p.Home]
	switch home.replica.order(p.Order) {
	case ledger.OrderSold:
		c.settle([]string{p.ID}, true, &protocol.Call{Due: c.due()}, func() {})
	case ledger.OrderDropped:
		c.settle([]string{p.ID}, false, &protocol.Call{Due: c.due()}, func() {})
	case ledger.OrderUnknown:
		if c.config.Clock().Sub(p.Since.Std()) < partsDoubt {
			return // its coordinator is probably at work
		}
		c.resolve(home, p.Order, c.due(), func(ledger.OrderState) {}) // seen at the next look
	}
}
