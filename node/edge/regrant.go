package edge

import "github.com/stockmesh/stockmesh/protocol"

// regrant goes by a connection's new grants from here on: wide selectors are entered
// where they now belong, and what may no longer be seen is not pushed any more. Items
// that could not be seen before come with their next change; fills ask for the grants
// with every page.
func (h *hub) regrant(c *conn) {
	s := c.sub
	if s == nil {
		return
	}
	before := s.view
	if s.view = c.view(); s.view == before {
		return
	}
	for id, e := range s.entries {
		if id.kind == kindWide {
			interval := e.interval
			h.quit(e)
			s.entries[id] = h.enter(c, id, nil, s.view, interval)
		}
	}
	if s.view != nil {
		h.forgetHidden(s)
	}
}

// forgetHidden drops what is still to be pushed and may not be seen. Its names alone
// are known, so the items are read.
func (h *hub) forgetHidden(s *subscriber) {
	ledger := h.loop.config.Ledger
	sees := func(it *protocol.Item) bool { return s.view.Sees(it.SKU, it.Location) }
	items := ledger.Items(nil, s.due)
	due := s.due[:0]
	for i := range items {
		if id := s.due[i]; sees(&items[i]) {
			due = append(due, id)
		} else {
			delete(s.dueSet, id)
		}
	}
	s.due = due
	for id, p := range s.paced {
		if !p.pending {
			continue
		}
		if items = ledger.Items(items[:0], []protocol.ItemID{id}); !sees(&items[0]) {
			p.pending, p.before = false, nil
			s.held--
		}
	}
}
