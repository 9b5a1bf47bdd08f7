package main

import (
	"bytes"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// checkout is a load of orders on many connections. Each is a reserve of several lines
// and, with the id that its answer brings, a confirm or a release.
type checkout struct {
	gen    *generator
	shelf  *shelf
	pick   chooser // of items
	buyers []*buyer
	closed bool // each order is followed by the next
	again  resends

	releaseEvery int64           // one of so many is released; 0: none
	regions      map[string]bool // that the clients are connected to

	reserves, ends latencies // of the commands
	whole          latencies // from when an order was due until it was confirmed or released
	late           latencies // open loop: how much later than due we were ourselves

	tally
	since          tally // when measuring began
	falselyRefused int64 // of these, for lack of stock that other regions may have
	wronglyRefused int64 // of these, for lack of stock that was there
	refusedPlenty  int64 // orders of which no SKU was scarce
	oversold       int64 // units
	faults         []string

	// What mixed wants to know: a command that may change a SKU is sent, or was refused.
	onSend, onRefusal func(item uint64, due int64)
}

// buyer is one connection of a checkout. A command's number names the order's slot: number
// modulo slots.
type buyer struct {
	checkout *checkout
	conn     *conn
	reserve  *template
	key      string // begins those of its commands
	slots    []order
	free     []int
	next     uint64
	backlog  []int64 // open loop: when orders were due that found no slot
	text     []byte  // of the command that is being written
}

// order is one under way.
type order struct {
	number  uint64 // of the command that waits for its answer; 0: the slot is free
	reserve uint64 // the number of the first one, which its items follow from
	op      protocol.Op
	due     int64   // ns: when the order was
	sent    int64   // ns: when the command at hand was, or was due
	before  []int64 // of each line: units that had ended
	id      []byte  // of its reservation
}

func newCheckout(gen *generator, s *shelf) *checkout {
	return &checkout{
		gen: gen, again: resends{gen: gen}, shelf: s, pick: s.pick, regions: make(map[string]bool),
		whole: gen.newLatencies("orders"), reserves: gen.newLatencies("commands"), ends: gen.newLatencies("commands"), late: newLatencies(),
	}
}

// add gives the load a connection; key begins those of its commands.
func (c *checkout) add(d *dialed, slots int, key string) error {
	b := &buyer{checkout: c, key: key, slots: make([]order, slots)}
	var err error
	if b.conn, err = c.gen.add(d, b); err != nil {
		return err
	}
	lines := make([][]byte, c.shelf.lines)
	for i := range lines {
		lines[i] = fmt.Appendf(nil, `{"sku":"%s~","quantity":1}`, c.shelf.prefix)
	}
	b.reserve = newTemplate(b.conn.mask, fmt.Sprintf(`{"op":"reserve","id":#,"key":"%s#","lines":[%s]}`, key, bytes.Join(lines, []byte(","))))
	b.reserve.pick = c.pick
	b.next = numberMin + uint64(slots) - numberMin%uint64(slots) // a multiple of slots
	for i := range slots {
		b.slots[i].before = make([]int64, len(lines))
		b.free = append(b.free, i)
	}
	c.regions[d.hello.Region] = true
	c.buyers = append(c.buyers, b)
	return nil
}

// number is that of the next command of a slot.
func (b *buyer) number(slot int) uint64 {
	n := b.next + uint64(slot)
	b.next += uint64(len(b.slots))
	return n
}

// due begins an order that should begin now, or remembers it.
func (b *buyer) due(at int64) {
	if len(b.free) == 0 {
		b.backlog = append(b.backlog, at)
		return
	}
	b.begin(at)
}

// begin puts an order's reserve on its way.
func (b *buyer) begin(due int64) {
	c := b.checkout
	slot := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	o := &b.slots[slot]
	o.number, o.op, o.due, o.sent = b.number(slot), protocol.OpReserve, due, due
	o.reserve = o.number
	b.write(o)
	for line := range o.before {
		o.before[line] = c.shelf.ask(b.reserve.item(o.reserve, line))
	}
	c.begun++
	b.tell(o, c.onSend)
}

// write writes an order's command, for the first time or again.
func (b *buyer) write(o *order) {
	if o.op == protocol.OpReserve {
		b.conn.out = b.reserve.append(b.conn.out, o.number)
		return
	}
	b.text = fmt.Appendf(b.text[:0], `{"op":"%s","id":%d,"key":"%s%d","reservation":"%s"}`, o.op, o.number, b.key, o.number, o.id)
	b.conn.out = appendClientFrame(b.conn.out, opText, b.conn.mask, b.text)
}

// tell tells of each item of an order.
func (b *buyer) tell(o *order, whom func(item uint64, due int64)) {
	if whom == nil {
		return
	}
	for line := range o.before {
		whom(b.reserve.item(o.reserve, line), o.sent)
	}
}

// received implements receiver.
func (b *buyer) received(_ *conn, message []byte) {
	id, result := scanReply(message)
	if result == push {
		return
	}
	slot := int(id % uint64(len(b.slots)))
	o := &b.slots[slot]
	switch {
	case result == malformed || o.number != id || id == 0:
		b.checkout.fault("an answer to nothing that was asked", message)
		return
	case result == refused:
		if b.refused(o, message) {
			return
		}
	case o.op == protocol.OpReserve:
		if b.reserved(o, slot, message) {
			return // it goes on
		}
	default:
		b.ended(o, message)
	}
	o.number = 0
	b.free = append(b.free, slot)
	b.follow()
}

// follow begins what the free slot was waited for.
func (b *buyer) follow() {
	switch {
	case b.checkout.closed:
		b.begin(b.checkout.gen.now)
	case len(b.backlog) > 0:
		due := b.backlog[0]
		b.backlog = b.backlog[1:]
		b.begin(due)
	}
}

// reserved books a success and ends the order, one way or the other. It says whether
// that is possible.
func (b *buyer) reserved(o *order, slot int, message []byte) bool {
	c := b.checkout
	c.acked++
	c.reserves.add(c.gen.now-o.sent, 1)
	id, state := scanReservation(message)
	if len(id) == 0 || string(state) != string(protocol.Held) {
		c.fault("no reservation that is held", message)
		return false
	}
	o.op = protocol.OpConfirm
	if c.releaseEvery > 0 && c.begun%c.releaseEvery == 0 {
		o.op = protocol.OpRelease
	}
	for line := range o.before {
		item := b.reserve.item(o.reserve, line)
		if !c.shelf.take(item) {
			c.oversold++
		}
		if o.op == protocol.OpRelease {
			c.shelf.giveBack(item)
		}
	}
	o.number, o.sent, o.id = b.number(slot), c.gen.now, append(o.id[:0], id...)
	b.write(o)
	b.tell(o, c.onSend)
	return true
}

// ended books an order that has found its end.
func (b *buyer) ended(o *order, message []byte) {
	c := b.checkout
	c.acked++
	c.ends.add(c.gen.now-o.sent, 1)
	c.whole.add(c.gen.now-o.due, 1)
	book, want := c.shelf.sell, protocol.Confirmed
	if o.op == protocol.OpRelease {
		book, want = c.shelf.end, protocol.Released
		c.released++
	} else {
		c.confirmed++
	}
	if _, state := scanReservation(message); string(state) != string(want) {
		c.fault("no reservation that is "+string(want), message)
	}
	for line := range o.before {
		book(b.reserve.item(o.reserve, line))
	}
}

// refused looks for the reason of a refusal and books it where there is one. It says
// whether the command is sent again.
func (b *buyer) refused(o *order, message []byte) bool {
	c := b.checkout
	refusal := readError(message)
	if refusal.Retryable {
		c.again.add(refusal, func() error { b.write(o); return b.conn.flush() })
		return true
	}
	b.tell(o, c.onRefusal)
	if o.op != protocol.OpReserve || refusal.Code != protocol.CodeInsufficientStock {
		c.fault("refused", message)
		return false
	}
	c.refused++
	if b.plenty(o) {
		c.refusedPlenty++
	}
	switch {
	case lacksRights(refusal):
		c.falselyRefused++
	case len(c.regions) == 1 && !b.lacked(o, refusal):
		c.wronglyRefused++
		c.fault("refused although there was stock", message)
	}
	for line := range o.before {
		c.shelf.end(b.reserve.item(o.reserve, line))
	}
	return false
}

// plenty reports whether there was more of all that an order is of than all can take.
func (b *buyer) plenty(o *order) bool {
	for line := range o.before {
		if b.checkout.shelf.stands[b.reserve.item(o.reserve, line)].opening < opening {
			return false
		}
	}
	return true
}

// lacked reports whether every line that a refusal names may have been short.
func (b *buyer) lacked(o *order, refusal *protocol.Error) bool {
	if refusal.Details == nil || len(refusal.Details.Lines) == 0 {
		return false
	}
	for _, short := range refusal.Details.Lines {
		line, ours := b.line(o, short.SKU)
		if !ours || short.Available >= short.Requested || b.checkout.shelf.wasThere(b.reserve.item(o.reserve, line), o.before[line]) {
			return false
		}
	}
	return true
}

// line finds the line of an order that is of a SKU.
func (b *buyer) line(o *order, sku string) (line int, ours bool) {
	i, known := b.checkout.shelf.indexOf(sku)
	for line := range o.before {
		if known && b.reserve.item(o.reserve, line) == uint64(i) {
			return line, true
		}
	}
	return 0, false
}

func (c *checkout) fault(what string, message []byte) {
	if len(c.faults) < faultsMax {
		c.faults = append(c.faults, fmt.Sprintf("%s: %.300s", what, message))
	}
}

// waiting counts orders that have not ended, and those not even begun.
func (c *checkout) waiting() (n int64) {
	for _, b := range c.buyers {
		n += int64(len(b.slots) - len(b.free) + len(b.backlog))
	}
	return n
}
