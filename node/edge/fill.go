package edge

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	fillsMax  = 64       // of one connection
	fillBytes = 64 << 10 // in an outbox at a time
	fillItems = 128      // read at a time
	fillSKUs  = 64       // looked up at a time
	fillPages = 32       // read in one turn: of what may be seen there may be little in each
)

// fill sends the state that a new subscription starts with, as fast as its
// connection takes it.
type fill struct {
	call   *protocol.Call // the subscribe, to be answered at the end
	cursor protocol.Vector
	since  protocol.Vector
	fresh  bool // no since: unknown SKUs are sent as zero
	have   map[protocol.ItemKey]string

	named []string // SKUs still to be sent
	known map[string]struct{}
	seen  map[protocol.ItemKey]struct{} // of the named ones being sent
	wide  *protocol.Selector            // what is sent after them; nil: nothing
	after protocol.ItemKey
	count int

	until int64 // ms: how long it waits for what the client has seen elsewhere; 0: it hasn't begun
	ready bool
}

// waits tells whether a fill can't begin yet: this node has not what its client has seen
// on another one, perhaps of another region. After a while the client is told what there
// is: the region where it was may be cut off.
func (h *hub) waits(c *conn, f *fill) bool {
	if f.ready || f.since == nil {
		return false
	}
	cursor := h.loop.config.Ledger.Cursor()
	if f.until == 0 {
		f.until = h.loop.now + h.loop.config.SinceWait.Milliseconds()
	}
	if !protocol.Reaches(cursor, f.since) && h.loop.now < f.until {
		h.waiting[c] = struct{}{}
		return true
	}
	delete(h.waiting, c)
	f.ready, f.cursor = true, cursor
	return false
}

// mustWait looks whether a connection's first fill can begin.
func (h *hub) mustWait(c *conn) bool {
	return c.sub != nil && len(c.sub.fills) > 0 && h.waits(c, c.sub.fills[0])
}

// isWaiting tells whether a connection gets nothing for now, as a fill of it waits.
func (h *hub) isWaiting(c *conn) bool {
	_, ok := h.waiting[c]
	return ok
}

func newFill(call *protocol.Call, cursor protocol.Vector) *fill {
	cmd := &call.Command
	f := &fill{call: call, cursor: cursor, fresh: cmd.Since == nil}
	if cmd.Since != nil {
		f.since, _ = protocol.ParseVector(*cmd.Since) // Check has read it before
	}
	if cmd.Have != nil {
		f.have = make(map[protocol.ItemKey]string, len(cmd.Have))
		for _, h := range cmd.Have {
			f.have[protocol.ItemKey{SKU: h.SKU, Location: h.Location}] = h.Version
		}
	}
	f.known = make(map[string]struct{}, len(cmd.SKUs))
	for _, sku := range cmd.SKUs {
		if _, dup := f.known[sku]; !dup {
			f.known[sku] = struct{}{}
			f.named = append(f.named, sku)
		}
	}
	if len(cmd.Prefixes) > 0 || wide(cmd) {
		f.wide = &protocol.Selector{Prefixes: cmd.Prefixes, All: wide(cmd), Locations: cmd.Locations}
	}
	return f
}

// next returns the next items of those that may be seen, and whether they were the
// last. A nil view sees everything.
func (f *fill) next(ledger Ledger, view *protocol.Access) (items []protocol.Item, last bool) {
	if len(f.named) > 0 {
		items = f.nextNamed(ledger, view)
	} else if f.wide != nil {
		items = f.nextWide(ledger, view)
	}
	items = slices.DeleteFunc(items, f.has)
	f.count += len(items)
	return items, len(f.named) == 0 && f.wide == nil
}

// scan reads a page. What it passes over is as far as it was read, not as far as it may
// be seen: so no page is lost or repeated, also where the view changes between two.
func (f *fill) scan(ledger Ledger, sel protocol.Selector, view *protocol.Access) (items []protocol.Item, more bool) {
	if view != nil {
		var ok bool
		if sel, ok = view.Narrow(sel); !ok {
			f.after = protocol.ItemKey{}
			return nil, false
		}
	}
	items, next, more := ledger.Scan(&protocol.Query{Selector: sel, Since: f.since, After: f.after, Limit: fillItems})
	if f.after = next; !more {
		f.after = protocol.ItemKey{}
	}
	if view != nil {
		items = view.Visible(items)
	}
	return items, more
}

func (f *fill) nextNamed(ledger Ledger, view *protocol.Access) []protocol.Item {
	skus := f.named[:min(fillSKUs, len(f.named))]
	locations := f.call.Command.Locations
	items, more := f.scan(ledger, protocol.Selector{SKUs: skus, Locations: locations}, view)
	if f.fresh {
		f.note(items)
		if !more {
			items = f.addUnknown(items, skus, locations)
			if view != nil { // what exists unseen and what doesn't exist look the same
				items = view.Visible(items)
			}
			f.seen = nil
		}
	}
	if !more {
		f.named = f.named[len(skus):]
	}
	return items
}

func (f *fill) note(items []protocol.Item) {
	if f.seen == nil {
		f.seen = make(map[protocol.ItemKey]struct{})
	}
	for i := range items {
		f.seen[protocol.ItemKey{SKU: items[i].SKU, Location: items[i].Location}] = struct{}{}
		f.seen[protocol.ItemKey{SKU: items[i].SKU}] = struct{}{} // somewhere
	}
}

// addUnknown appends named SKUs that don't exist, at the locations named or at
// the default one.
func (f *fill) addUnknown(items []protocol.Item, skus, locations []string) []protocol.Item {
	for _, sku := range skus {
		if len(locations) == 0 {
			if _, ok := f.seen[protocol.ItemKey{SKU: sku}]; !ok {
				items = append(items, protocol.Item{SKU: sku, Location: protocol.DefaultLocation})
			}
			continue
		}
		for _, loc := range locations {
			if _, ok := f.seen[protocol.ItemKey{SKU: sku, Location: loc}]; !ok {
				items = append(items, protocol.Item{SKU: sku, Location: loc})
			}
		}
	}
	return items
}

func (f *fill) nextWide(ledger Ledger, view *protocol.Access) []protocol.Item {
	items, more := f.scan(ledger, *f.wide, view)
	if !more {
		f.wide = nil
	}
	return slices.DeleteFunc(items, func(it protocol.Item) bool {
		_, sent := f.known[it.SKU]
		return sent
	})
}

// has reports whether the client holds the item's version, or a newer one.
func (f *fill) has(it protocol.Item) bool {
	v, ok := f.have[protocol.ItemKey{SKU: it.SKU, Location: it.Location}]
	if !ok {
		return false
	}
	have, err1 := protocol.ParseVector(v)
	now, err2 := protocol.ParseVector(it.Version)
	return err1 == nil && err2 == nil && have.AtLeast(now)
}

// fill appends snapshot items to a connection's outbox until it holds enough, and
// the subscription's answer after the last.
func (h *hub) fill(c *conn) {
	for range fillPages {
		if c.sub == nil || len(c.sub.fills) == 0 || len(c.out)-c.sent >= fillBytes {
			return
		}
		f := c.sub.fills[0]
		if h.waits(c, f) {
			return
		}
		items, last := f.next(h.loop.config.Ledger, c.sub.view)
		if len(items) > 0 {
			h.loop.tally.items += len(items)
			h.loop.say(c, func(b []byte) []byte { return appendSnapshot(b, c.codec, items) })
		}
		if last {
			c.sub.fills = c.sub.fills[1:]
			h.filled(c, f)
		}
	}
}

func appendSnapshot(b []byte, codec protocol.Codec, items []protocol.Item) []byte {
	parts := make([][]byte, len(items))
	var arena []byte
	for i := range items {
		start := len(arena)
		arena = codec.AppendItem(arena, &items[i])
		parts[i] = arena[start:len(arena):len(arena)]
	}
	return codec.AppendStock(b, true, parts...)
}

// reached is how far a connection is when a snapshot that began at a cursor is out:
// not beyond what its other subscriptions have been sent.
func (h *hub) reached(c *conn, cursor protocol.Vector) protocol.Vector {
	if c.sub.held > 0 {
		return c.sub.heldAt()
	}
	if len(h.cursor) > 0 && cursor.AtLeast(h.cursor) {
		return h.cursor
	}
	return cursor
}

func (h *hub) filled(c *conn, f *fill) {
	text := h.reached(c, f.cursor).String()
	c.sub.cursorAt, c.sub.cursorText = h.loop.now, text
	call := f.call
	call.Result = protocol.Result{Kind: protocol.KindSubscribed, Count: f.count, Cursor: text}
	h.loop.say(c, func(b []byte) []byte { return c.codec.AppendReply(b, call) })
	h.loop.recycle(call)
}
