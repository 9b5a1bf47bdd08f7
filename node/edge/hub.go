package edge

import (
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// hub is a loop's picture of who wants to hear of what. A change costs a look-up
// by SKU and one per length of prefix in use, however many others subscribe to
// something else.
type hub struct {
	loop     *loop
	skus     map[string][]*entry
	prefixes map[string][]*entry
	lengths  map[int]int // of prefixes, with how many prefixes have it
	wide     []*entry    // every SKU
	users    map[string][]*entry
	made     map[string]uint64                      // token of the connection that made a live reservation
	waiting  map[*conn]struct{}                     // whose first fill can't begin yet
	ended    map[string]*protocol.ReservationChange // in this pass, by a maker not known (yet)

	cursor     protocol.Vector // everything up to here has been handed out
	before     protocol.Vector // the cursor before this pass
	cursorText string
	changedAt  int64  // when the first change of this pass came, by the loop's clock
	serial     uint64 // of the item being matched, so that a subscriber counts once
	marked     []*conn

	pass pass
}

// entry is one selector of one subscriber.
type entry struct {
	conn      *conn
	place     int // in its list
	id        entryID
	locations []string // nil: all
	interval  int64    // ms
}

type entryID struct {
	kind      byte
	value     string
	locations string
}

// Kinds of entries.
const (
	kindSKU    = 's'
	kindPrefix = 'p'
	kindWide   = 'w'
	kindUser   = 'u'
)

// subscriber is what a connection that has subscribed owns besides.
type subscriber struct {
	entries map[entryID]*entry
	due     []protocol.ItemID
	dueSet  map[protocol.ItemID]struct{} // of due, while it outlives a pass
	paced   map[protocol.ItemID]*pace
	held    int // of paced, how many hold a push back
	fills   []*fill

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
		loop: l, skus: make(map[string][]*entry), prefixes: make(map[string][]*entry),
		lengths: make(map[int]int), users: make(map[string][]*entry), made: make(map[string]uint64),
		ended: make(map[string]*protocol.ReservationChange), waiting: make(map[*conn]struct{}),
		pass: pass{index: make(map[protocol.ItemID]int)},
	}
}

// cursorMS is the least time between two cursor pushes of a connection.
const cursorMS = 1000

func (h *hub) nobody() bool { return len(h.skus)+len(h.prefixes)+len(h.wide) == 0 }

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

// match finds the subscribers of a changed item.
func (h *hub) match(i int) {
	it := &h.pass.items[i]
	h.serial++
	h.marked = h.marked[:0]
	h.visit(h.skus[it.SKU], it.Location)
	for n := range h.lengths {
		if n <= len(it.SKU) {
			h.visit(h.prefixes[it.SKU[:n]], it.Location)
		}
	}
	h.visit(h.wide, it.Location)
	for _, c := range h.marked {
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
	if c.made == nil {
		c.made = make(map[string]struct{})
	}
	c.made[r.ID] = struct{}{}
	h.made[r.ID] = c.token()
}

// reservation pushes a reservation's change to whoever made it and to subscribers
// of its user, but not to the session that caused it.
func (h *hub) reservation(ch *protocol.ReservationChange) {
	maker := h.loop.conn(h.made[ch.ID])
	if maker != nil {
		h.pushReservation(maker, ch)
	}
	if ch.User != "" {
		h.serial++
		for _, e := range h.users[ch.User] {
			if e.conn != maker && e.conn.sub.mark != h.serial {
				e.conn.sub.mark = h.serial
				h.pushReservation(e.conn, ch)
			}
		}
	}
	switch {
	case ch.State == protocol.Held:
	case maker != nil:
		delete(h.made, ch.ID)
		delete(maker.made, ch.ID)
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

// leave takes a connection out of the hub.
func (h *hub) leave(c *conn) {
	for id := range c.made {
		if h.made[id] == c.token() { // a retry elsewhere may have taken it over
			delete(h.made, id)
		}
	}
	c.made = nil
	delete(h.waiting, c)
	if c.sub == nil {
		return
	}
	for _, e := range c.sub.entries {
		h.remove(e)
	}
	c.sub = nil
}

// list returns where an entry stands.
func (h *hub) list(e *entry) []*entry {
	switch e.id.kind {
	case kindSKU:
		return h.skus[e.id.value]
	case kindPrefix:
		return h.prefixes[e.id.value]
	case kindUser:
		return h.users[e.id.value]
	}
	return h.wide
}

func (h *hub) setList(id entryID, list []*entry) {
	set := func(m map[string][]*entry) {
		if len(list) == 0 {
			delete(m, id.value)
		} else {
			m[id.value] = list
		}
	}
	switch id.kind {
	case kindSKU:
		set(h.skus)
	case kindPrefix:
		set(h.prefixes)
	case kindUser:
		set(h.users)
	default:
		h.wide = list
	}
}

func (h *hub) insert(e *entry) {
	list := h.list(e)
	if e.id.kind == kindPrefix && len(list) == 0 {
		h.lengths[len(e.id.value)]++
	}
	e.place = len(list)
	h.setList(e.id, append(list, e))
}

// remove puts the list's last entry in the place of the one that goes.
func (h *hub) remove(e *entry) {
	list := h.list(e)
	last := len(list) - 1
	list[e.place] = list[last]
	list[e.place].place = e.place
	list[last] = nil
	h.setList(e.id, list[:last])
	if e.id.kind == kindPrefix && last == 0 {
		if h.lengths[len(e.id.value)]--; h.lengths[len(e.id.value)] == 0 {
			delete(h.lengths, len(e.id.value))
		}
	}
}

// entries lists what a subscribe or unsubscribe names.
func entries(cmd *protocol.Command) []entryID {
	locations := slices.Compact(slices.Sorted(slices.Values(cmd.Locations)))
	joined := strings.Join(locations, "\x00")
	var ids []entryID
	add := func(kind byte, values []string, locations string) {
		for _, v := range values {
			ids = append(ids, entryID{kind, v, locations})
		}
	}
	add(kindSKU, cmd.SKUs, joined)
	add(kindPrefix, cmd.Prefixes, joined)
	if wide(cmd) {
		ids = append(ids, entryID{kindWide, "", joined})
	}
	add(kindUser, cmd.Users, "")
	return ids
}

// wide reports whether a command names every SKU. Users alone name none.
func wide(cmd *protocol.Command) bool {
	return cmd.All || len(cmd.SKUs)+len(cmd.Prefixes) == 0 && len(cmd.Locations) > 0
}

func (h *hub) subscribe(c *conn, call *protocol.Call) {
	cmd := &call.Command
	if c.sub == nil {
		c.sub = &subscriber{entries: make(map[entryID]*entry)}
	}
	ids := entries(cmd)
	if n := c.sub.with(ids); n > protocol.SelectorsMax {
		call.Err = protocol.NewError(protocol.CodeTooLarge, "%d selectors on this connection, the limit is %d", n, protocol.SelectorsMax)
		h.loop.replyNow(c, call)
		return
	}
	if len(c.sub.fills) >= fillsMax {
		call.Err = protocol.RetryLater(protocol.CodeOverloaded, 100, "%d subscriptions of this connection are being filled", len(c.sub.fills))
		h.loop.replyNow(c, call)
		return
	}
	var locations []string
	if len(cmd.Locations) > 0 {
		locations = slices.Clone(cmd.Locations)
	}
	for _, id := range ids {
		e := c.sub.entries[id]
		if e == nil {
			e = &entry{conn: c, id: id}
			if id.kind != kindUser {
				e.locations = locations
			}
			e.interval = cmd.IntervalMS
			c.sub.entries[id] = e
			h.insert(e)
		}
		e.interval = min(e.interval, cmd.IntervalMS)
	}
	// From here on changes reach the connection; the cursor is read after that,
	// so nothing falls between the snapshot and the first push.
	c.sub.fills = append(c.sub.fills, newFill(call, h.loop.config.Ledger.Cursor()))
	h.loop.mark(c)
}

// with returns how many entries there would be with these.
func (s *subscriber) with(ids []entryID) int {
	n := len(s.entries)
	for _, id := range ids {
		if s.entries[id] == nil {
			n++
		}
	}
	return n
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
	for _, id := range ids {
		if e := c.sub.entries[id]; e != nil {
			h.remove(e)
			delete(c.sub.entries, id)
		}
	}
	if len(c.sub.entries) == 0 {
		c.sub.due, c.sub.dueSet, c.sub.paced, c.sub.held = nil, nil, nil, 0
	}
}
