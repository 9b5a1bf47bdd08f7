package main

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// viewer is a client that looks at some SKUs and goes on to others. Of each it must be
// shown the newest state as long as it looks, and never an older one than before.
type viewer struct {
	asker
	party  *party
	looks  []int          // the SKUs that it looks at, the one for longest first
	sights map[int]*sight // of each SKU that it has ever looked at
	ready  bool           // the first subscription is confirmed
}

// sight is what a viewer knows of a SKU.
type sight struct {
	change  int64 // the one shown last
	looking bool
	filling bool // nothing was shown since it began to look
}

// viewerLooks is how many SKUs a viewer looks at: those of a page.
const viewerLooks = 8

// newViewer makes one that looks at SKUs as draw has it.
func newViewer(m *mixed, p *party) *viewer {
	v := &viewer{asker: newAsker(m), party: p, sights: make(map[int]*sight)}
	v.act = v.turnPage
	for range max(1, min(viewerLooks, m.stock.count/4)) {
		v.look()
	}
	return v
}

// look begins to look at a SKU that it doesn't look at.
func (v *viewer) look() (sku int) {
	const tries = 100 // some are drawn most of the time
	for range tries {
		if sku = v.mixed.draw(); !slices.Contains(v.looks, sku) {
			break
		}
	}
	s := v.sights[sku]
	if s == nil {
		s = &sight{}
		v.sights[sku] = s
	}
	s.filling, s.looking = true, true
	v.looks = append(v.looks, sku)
	return sku
}

// turnPage has it look at another SKU instead of the oldest.
func (v *viewer) turnPage(due int64) {
	m, old := v.mixed, v.looks[0]
	v.looks = v.looks[1:]
	v.sights[old].looking = slices.Contains(v.looks, old)
	v.ask(due, m.watches, protocol.OpUnsubscribe, selector(m.stock.sku(old)), nil)
	v.ask(due, m.watches, protocol.OpSubscribe, selector(m.stock.sku(v.look())), nil)
}

// selector selects a SKU whose name needs no escapes, where it is sold.
func selector(sku string) string {
	return `"skus":["` + sku + `"],"locations":["` + protocol.DefaultLocation + `"]`
}

// subscribe asks for what it looks at first.
func (v *viewer) subscribe() error {
	var skus []string
	for _, i := range v.looks {
		skus = append(skus, v.mixed.stock.sku(i))
	}
	return v.conn.subscribe(skus, "", 0)
}

// firstID is that of the first subscription.
const firstID = 1

// received implements receiver.
func (v *viewer) received(_ *conn, message []byte) {
	id, result := scanReply(message)
	switch {
	case result == push:
		if n := v.mixed.stock.read(message); n != nil {
			v.shownAll(n)
		}
	case result == acked && id == firstID && !v.ready:
		v.ready = true
	default:
		v.answered(id, result, message)
	}
}

func (v *viewer) shownAll(n *stockNote) {
	for _, s := range n.shown {
		v.shown(s, n.snapshot)
	}
}

// shown counts one item of a push. What it is shown first of a SKU tells nothing of how
// long that took.
func (v *viewer) shown(s shown, snapshot bool) {
	b := v.mixed.stock.board
	at := v.sights[s.sku]
	switch {
	case at == nil:
		b.fault("%s was pushed to one who never asked for it", b.skus[s.sku])
		return
	case s.change < at.change || s.change > int64(len(b.due[s.sku])):
		b.fault("%s was pushed at change %d after %d, of %d", b.skus[s.sku], s.change, at.change, len(b.due[s.sku]))
		return
	}
	before := at.change
	at.change = s.change
	first := at.filling
	at.filling = false
	if first || snapshot || !at.looking || s.change == before {
		return
	}
	v.party.delivered++
	v.party.conflated += s.change - before - 1
	v.party.ages.add(b.gen.now-b.due[s.sku][before], 1)
}

// current reports whether it was shown the newest state of all that it looks at.
func (v *viewer) current() bool {
	for _, sku := range v.looks {
		if at := v.sights[sku]; at.filling || at.change != int64(len(v.mixed.stock.due[sku])) {
			return false
		}
	}
	return true
}
