package edge

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// hub is a loop's picture of who wants to hear of what.
type hub struct {
	index

	loop    *loop
	made    map[string]uint64                      // token of the connection that made a live reservation
	waiting map[*conn]struct{}                     // whose first fill can't begin yet
	ended   map[string]*protocol.ReservationChange // in this pass, by a maker not known (yet)

	cursor     protocol.Vector // everything up to here has been handed out
	before     protocol.Vector // the cursor before this pass
	cursorText string
	changedAt  int64  // when the first change of this pass came, by the loop's clock
	serial     uint64 // of the item being matched, so that a subscriber counts once
	marked     []*conn

	pass pass
}

// subscriber is what a connection that has subscribed owns besides.
type subscriber struct {
	entries   map[entryID]*entry // the first part of each
	selectors int                // their weight
	view      *protocol.Access   // what it may see; nil: everything
	due       []protocol.ItemID
	dueSet    map[protocol.ItemID]struct{} // of due, while it outlives a pass
	paced     map[protocol.ItemID]*pace
	held      int // of paced, how many hold a push back
	fills     []*fill

	dueAt     int64  // when the oldest of due was committed, by the loop's clock
	outAt     int64  // the same of what is in the outbox; 0: nothing
	conflated uint64 // states that were not pushed

	mark     uint64 // hub.serial when last matched
	interval int64  // the smallest of that match's entries

	cursorAt   int64
	cursorText string
}

// pace is the interval of one item for one subscriber. It lives as long as its
// timer runs.
type pace struct {
	every   int64
	pending bool
	before  protocol.Vector // the cursor before what is held back
}

func newHub(l *loop) hub {
	return hub{
		index: newIndex(), loop: l, made: make(map[string]uint64),
		ended: make(map[string]*protocol.ReservationChange), waiting: make(map[*conn]struct{}),
		pass: pass{index: make(map[protocol.ItemID]int)},
	}
}

// cursorMS is the least time between two cursor pushes of a connection.
const cursorMS = 1000

// changed deals with the rounds that were applied since the last pass, the first of
// them at that time.
func (h *hub) changed(list []*protocol.Changes, at int64) {
	h.changedAt = at
	h.before, h.cursor = h.cursor, list[len(list)-1].Cursor
	h.cursorText = ""
	for c := range h.waiting {
		h.loop.mark(c)
	}
	if !h.nobody() {
		h.pass.read(h.loop.config.Ledger, list)
		for i := range h.pass.items {
			h.match(i)
		}
	}
	for _, ch := range list {
		for i := range ch.Reservations {
			h.reservation(&ch.Reservations[i])
		}
	}
}

// match finds the subscribers of a changed item that may see it.
func (h *hub) match(i int) {
	it := &h.pass.items[i]
	h.serial++
	h.marked = h.marked[:0]
	h.visit(h.skus[it.SKU], it.Location)
	for _, n := range h.used {
		if n > len(it.SKU) {
			break
		}
		h.visit(h.prefixes[it.SKU[:n]], it.Location)
	}
	h.visit(h.places[it.Location], it.Location)
	h.visit(h.wide, it.Location)
	// Those that came with one token have one view: it is asked once for all of them.
	var asked *protocol.Access
	sees := false
	for _, c := range h.marked {
		if v := c.sub.view; v != nil {
			if v != asked {
				asked, sees = v, v.Sees(it.SKU, it.Location)
			}
			if !sees {
				continue
			}
		}
		h.due(c, h.pass.ids[i], c.sub.interval)
	}
}

func (h *hub) visit(list []*entry, location string) {
	for _, e := range list {
		if e.locations != nil && !slices.Contains(e.locations, location) {
			continue
		}
		s := e.conn.sub
		if s.mark != h.serial {
			s.mark, s.interval = h.serial, e.interval
			h.marked = append(h.marked, e.conn)
		}
		s.interval = min(s.interval, e.interval)
	}
}

// due has an item pushed to a subscriber: in this pass, or when its interval is
// over, or when its socket takes bytes again.
func (h *hub) due(c *conn, id protocol.ItemID, interval int64) {
	if interval > 0 && h.hold(c, id, interval) {
		return
	}
	s := c.sub
	if (c.blocked || h.isWaiting(c)) && s.dueSet == nil {
		s.dueSet = make(map[protocol.ItemID]struct{})
	}
	if s.dueSet != nil {
		if _, dup := s.dueSet[id]; dup {
			h.loop.tally.conflated++
			s.conflated++
			return
		}
		s.dueSet[id] = struct{}{}
	}
	if len(s.due) == 0 {
		s.dueAt = h.changedAt
	}
	s.due = append(s.due, id)
	if !c.blocked {
		h.loop.mark(c)
	}
}

// hold reports whether the item was pushed less than its interval ago; if so it
// is pushed when that is over.
func (h *hub) hold(c *conn, id protocol.ItemID, interval int64) bool {
	s := c.sub
	p := s.paced[id]
	switch {
	case p == nil:
		if s.paced == nil {
			s.paced = make(map[protocol.ItemID]*pace)
		}
		s.paced[id] = &pace{every: interval}
		h.loop.timers.add(h.loop.now+interval, c, id)
		return false
	case p.pending:
		h.loop.tally.conflated++
		s.conflated++
	default:
		p.pending, p.before = true, h.before
		s.held++
	}
	p.every = interval
	return true
}

// paceDue pushes what was held back for its interval, or ends the interval of an
// item that hasn't changed in it.
func (h *hub) paceDue(c *conn, id protocol.ItemID) {
	s := c.sub
	if s == nil || s.paced[id] == nil {
		return
	}
	p := s.paced[id]
	if !p.pending {
		delete(s.paced, id)
		return
	}
	p.pending, p.before = false, nil
	s.held--
	h.loop.timers.add(h.loop.now+p.every, c, id)
	h.changedAt = h.loop.now * 1000 // what its client asked to wait is no age
	h.due(c, id, 0)
}

// heldAt is the cursor before everything that is held back.
func (s *subscriber) heldAt() protocol.Vector {
	var first protocol.Vector
	found := false
	for _, p := range s.paced {
		if p.pending && (!found || first.AtLeast(p.before)) {
			first, found = p.before, true
		}
	}
	return first
}

// cursorDue tells a subscriber how far it is, about once a second and only where
// nothing before that is still to be sent to it.
func (h *hub) cursorDue(c *conn) {
	s, now := c.sub, h.loop.now
	if s == nil || c.blocked || len(s.entries) == 0 || len(s.fills) > 0 || now-s.cursorAt < cursorMS || len(h.cursor) == 0 {
		return
	}
	text := h.text()
	if s.held > 0 {
		text = s.heldAt().String()
	}
	if text == s.cursorText || text == "" {
		return
	}
	h.pushDue(c)
	s.cursorAt, s.cursorText = now, text
	h.loop.say(c, func(b []byte) []byte { return c.codec.AppendCursor(b, text) })
	h.loop.mark(c)
}

func (h *hub) text() string {
	if h.cursorText == "" {
		h.cursorText = h.cursor.String()
	}
	return h.cursorText
}

// madeReservation remembers who is to hear of a reservation's end, which may have
// come in the same pass.
func (h *hub) madeReservation(c *conn, r *protocol.Reservation) {
	if ended := h.ended[r.ID]; ended != nil {
		h.pushReservation(c, ended)
		return
	}
	if r.State != protocol.Held {
		return
	}
	own := c.own()
	if own.made == nil {
		own.made = make(map[string]struct{})
	}
	own.made[r.ID] = struct{}{}
	h.made[r.ID] = c.token()
}

// reservation pushes a reservation's change to whoever made it and to those subscribers
// of its user that may see all of it, but not to the session that caused it.
func (h *hub) reservation(ch *protocol.ReservationChange) {
	maker := h.loop.conn(h.made[ch.ID])
	if maker != nil {
		h.pushReservation(maker, ch)
	}
	if ch.User != "" {
		h.serial++
		for _, e := range h.users[ch.User] {
			if e.conn == maker || e.conn.sub.mark == h.serial {
				continue
			}
			e.conn.sub.mark = h.serial
			if e.conn.access().SeesReservation(&ch.Reservation) {
				h.pushReservation(e.conn, ch)
			}
		}
	}
	switch {
	case ch.State == protocol.Held:
	case maker != nil:
		delete(h.made, ch.ID)
		delete(maker.own().made, ch.ID)
	default:
		h.ended[ch.ID] = ch
	}
}

func (h *hub) pushReservation(c *conn, ch *protocol.ReservationChange) {
	if c.state != stateOpen || c.session == ch.By {
		return
	}
	h.pushDue(c)
	h.loop.say(c, func(b []byte) []byte { return c.codec.AppendReservationPush(b, &ch.Reservation) })
	h.loop.mark(c)
}

// forgetMade has a connection not told any more how the reservations end that it made.
func (h *hub) forgetMade(c *conn) {
	if c.rare == nil {
		return
	}
	for id := range c.rare.made {
		if h.made[id] == c.token() { // a retry elsewhere may have taken it over
			delete(h.made, id)
		}
	}
	c.rare.made = nil
}

// leave takes a connection out of the hub.
func (h *hub) leave(c *conn) {
	h.forgetMade(c)
	delete(h.waiting, c)
	if c.sub == nil {
		return
	}
	for _, e := range c.sub.entries {
		h.quit(e)
	}
	c.sub = nil
}

func (h *hub) subscribe(c *conn, call *protocol.Call) {
	cmd := &call.Command
	if c.sub == nil {
		c.sub = &subscriber{entries: make(map[entryID]*entry), view: c.view()}
	}
	ids := entries(cmd)
	more := c.sub.without(ids)
	if call.Err = h.room(c, more); call.Err != nil {
		h.loop.replyNow(c, call)
		return
	}
	var locations []string
	if len(cmd.Locations) > 0 {
		locations = slices.Clone(cmd.Locations)
	}
	before := c.sub.selectors
	for _, id := range ids {
		e := c.sub.entries[id]
		if e == nil {
			e = h.enter(c, id, locations, c.sub.view, cmd.IntervalMS)
			c.sub.entries[id] = e
			c.sub.selectors += id.weight()
		}
		e.often(min(e.interval, cmd.IntervalMS))
	}
	// A command may name a selector twice.
	c.unsubscribed(more - (c.sub.selectors - before))
	// From here on changes reach the connection; the cursor is read after that,
	// so nothing falls between the snapshot and the first push.
	c.sub.fills = append(c.sub.fills, newFill(call, h.loop.config.Ledger.Cursor()))
	h.loop.mark(c)
}

// room takes room for more selectors, or says why there is none.
func (h *hub) room(c *conn, more int) *protocol.Error {
	if n := c.sub.selectors + more; n > protocol.SelectorsMax {
		return protocol.NewError(protocol.CodeTooLarge, "%d selectors on this connection, the limit is %d", n, protocol.SelectorsMax)
	}
	if len(c.sub.fills) >= fillsMax {
		return protocol.RetryLater(protocol.CodeOverloaded, 100, "%d subscriptions of this connection are being filled", len(c.sub.fills))
	}
	if a := c.who.account; a != nil && more > 0 && !a.Subscribe(more) {
		return protocol.RetryLater(protocol.CodeRateLimited, 1000, "too many selectors of this user")
	}
	return nil
}

// without returns what those selectors weigh that a subscriber doesn't have.
func (s *subscriber) without(ids []entryID) (weight int) {
	for _, id := range ids {
		if s.entries[id] == nil {
			weight += id.weight()
		}
	}
	return weight
}

// selectors is what a connection's selectors weigh.
func (c *conn) selectors() int {
	if c.sub == nil {
		return 0
	}
	return c.sub.selectors
}

// unsubscribed gives selectors back to the account they were taken from.
func (c *conn) unsubscribed(n int) {
	if a := c.who.account; a != nil && n > 0 {
		a.Unsubscribe(n)
	}
}

func (h *hub) unsubscribe(c *conn, cmd *protocol.Command) {
	if c.sub == nil {
		return
	}
	ids := entries(cmd)
	if len(ids) == 0 {
		for id := range c.sub.entries {
			ids = append(ids, id)
		}
	}
	before := c.sub.selectors
	for _, id := range ids {
		if e := c.sub.entries[id]; e != nil {
			h.quit(e)
			delete(c.sub.entries, id)
			c.sub.selectors -= id.weight()
		}
	}
	c.unsubscribed(before - c.sub.selectors)
	if len(c.sub.entries) == 0 {
		c.sub.due, c.sub.dueSet, c.sub.paced, c.sub.held = nil, nil, nil, 0
	}
}
