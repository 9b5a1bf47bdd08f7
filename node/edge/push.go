package edge

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// frameItemsMax is how many items one push carries.
const frameItemsMax = 256

// pass is what one turn of the loop has read and encoded: each changed item once,
// however many subscribers get it.
type pass struct {
	ids     []protocol.ItemID
	items   []protocol.Item
	encoded [codecs][][]byte // as items; nil: not yet
	index   map[protocol.ItemID]int
	arena   []byte
	parts   [][]byte

	shared [forms]broadcast
}

// broadcast is the last push of a form, for the next connection to which the same
// is due.
type broadcast struct {
	due   []protocol.ItemID // empty: none
	frame []byte
}

// read gets the present state of everything that changed.
func (p *pass) read(ledger Ledger, list []*protocol.Changes) {
	for _, ch := range list {
		for _, id := range ch.Items {
			if _, dup := p.index[id]; !dup {
				p.index[id] = len(p.ids)
				p.ids = append(p.ids, id)
			}
		}
	}
	p.items = ledger.Items(p.items[:0], p.ids)
	for i := range p.encoded {
		p.encoded[i] = append(p.encoded[i][:0], make([][]byte, len(p.ids))...)
	}
}

func (p *pass) item(ledger Ledger, codec protocol.Codec, id protocol.ItemID) []byte {
	i, ok := p.index[id]
	if !ok {
		// Changed in an earlier pass, for a subscriber that could not be sent it.
		i = len(p.ids)
		p.index[id] = i
		p.ids = append(p.ids, id)
		p.items = ledger.Items(p.items, p.ids[i:])
		for codec := range p.encoded {
			p.encoded[codec] = append(p.encoded[codec], nil)
		}
	}
	encoded := &p.encoded[codec][i]
	if *encoded == nil {
		start := len(p.arena)
		p.arena = codec.AppendItem(p.arena, &p.items[i])
		*encoded = p.arena[start:len(p.arena):len(p.arena)]
	}
	return *encoded
}

// arenaBytesMax is what a pass may leave behind for the next.
const arenaBytesMax = 1 << 20

func (h *hub) forgetPass() {
	p := &h.pass
	if len(h.ended) > 0 {
		clear(h.ended)
	}
	clear(p.items)
	for i := range p.encoded {
		clear(p.encoded[i])
		p.encoded[i] = p.encoded[i][:0]
	}
	for i := range p.shared {
		p.shared[i].due = p.shared[i].due[:0]
	}
	clear(p.parts)
	clear(p.index)
	p.ids, p.items, p.parts = p.ids[:0], p.items[:0], p.parts[:0]
	if p.arena = p.arena[:0]; cap(p.arena) > arenaBytesMax {
		p.arena = nil
	}
}

// stock appends a frame that pushes items.
func (h *hub) stock(b []byte, f form, ids []protocol.ItemID) []byte {
	p := &h.pass
	p.parts = p.parts[:0]
	for _, id := range ids {
		p.parts = append(p.parts, p.item(h.loop.config.Ledger, f.codec, id))
	}
	h.loop.tally.items += len(ids)
	return h.loop.appendMessage(b, f, func(b []byte) []byte { return f.codec.AppendStock(b, false, p.parts...) })
}

// sharedStock returns the frame that pushes items: the one that the connection
// before got, where it is the same.
func (h *hub) sharedStock(f form, ids []protocol.ItemID) []byte {
	s := &h.pass.shared[f.index()]
	if len(s.due) > 0 && slices.Equal(s.due, ids) {
		h.loop.tally.items += len(ids)
		return s.frame
	}
	s.due = append(s.due[:0], ids...)
	s.frame = h.stock(s.frame[:0], f, ids)
	return s.frame
}

// pushDue appends what is due to a connection that can take it.
func (h *hub) pushDue(c *conn) {
	s := c.sub
	if s == nil || len(s.due) == 0 || c.blocked || h.mustWait(c) {
		return
	}
	b := h.loop.outs.get(c.out)
	for ids := range slices.Chunk(s.due, frameItemsMax) {
		if c.deflate { // compressing costs more than copying
			b = append(b, h.sharedStock(c.form, ids)...)
		} else {
			b = h.stock(b, c.form, ids)
		}
	}
	c.out = b
	s.sentDue()
}

func (s *subscriber) sentDue() {
	if s.outAt == 0 {
		s.outAt = s.dueAt
	}
	s.due, s.dueSet = s.due[:0], nil
	if cap(s.due) > frameItemsMax {
		s.due = nil
	}
}

// writeShared pushes what is due with the bytes that the connection before got,
// where it is the same, without copying them. It reports whether that was all
// there was to write.
func (h *hub) writeShared(c *conn) bool {
	s := c.sub
	if s == nil || len(s.due) == 0 || len(s.due) > frameItemsMax || len(s.fills) > 0 || c.blocked {
		return false
	}
	frame := h.sharedStock(c.form, s.due)
	s.sentDue()
	if !h.loop.writeNow(c, frame) {
		return false
	}
	h.loop.pushed(c.sub)
	return true
}

// pushed notes how old what the socket has taken was.
func (l *loop) pushed(s *subscriber) {
	if s != nil && s.outAt > 0 {
		l.gauged.pushAge.observe(l.clock() - s.outAt)
		s.outAt = 0
	}
}

// hasMore reports whether a connection that takes bytes still has some to come.
func (h *hub) hasMore(c *conn) bool {
	return c.sub != nil && len(c.sub.due)+len(c.sub.fills) > 0 && !h.isWaiting(c)
}
