package clustertest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// Account compares what the clients were told with what the nodes hold: every
// acknowledged command took effect exactly once, no other did, every reservation ended
// at most once and none before its time, and each node shows the sums of that. All
// nodes must be up and nobody else may have written to the shop's items.
func (r *Report) Account() {
	r.t.Helper()
	if r.Unknown > 0 {
		r.t.Errorf("the fate of %d commands is unknown", r.Unknown)
	}
	b := newBook(r)
	for i, sku := range r.shop.skus {
		node := r.shop.region.Running()[i%len(r.shop.region.Running())]
		movements, err := r.movements(node, sku)
		if err != nil {
			r.t.Errorf("history of %s on %s: %v", sku, node, err)
			continue
		}
		b.walk(sku, movements)
	}
	b.missing()
	for _, n := range r.shop.region.Running() {
		b.compare(n)
	}
}

// movements reads an item's history, oldest first.
func (r *Report) movements(n *Node, sku string) (list []protocol.Movement, err error) {
	c, err := r.shop.region.dial([]*Node{n}, false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // it has answered
	ctx, cancel := context.WithTimeout(context.Background(), Slow*convergeWait)
	defer cancel()
	for before := ""; ; {
		page, next, err := c.History(ctx, sku, "", client.Before(before), client.Limit(500))
		if err != nil {
			return nil, err
		}
		list = append(list, page...)
		if before = next; before == "" {
			slices.Reverse(list)
			return list, nil
		}
	}
}

// effect is what a command did to one item.
type effect struct{ onHand, reserved int64 }

func (e effect) plus(o effect) effect { return effect{e.onHand + o.onHand, e.reserved + o.reserved} }

// place is a command's effect on one item.
type place struct{ key, sku string }

// book is the account of a shop: what should be there, and what was found.
type book struct {
	r       *Report
	due     map[place]effect // of applied commands; taken out as they are found
	refused map[string]*Entry
	sums    map[string]effect               // by SKU, as the history has it
	holds   map[string]protocol.Reservation // as reserve answered, by id
	ends    map[place]string                // type of the movement that ended a reservation, by id and SKU
	homes   map[string]string               // of a mesh: the region that decides, by key
	wrong   int
}

func newBook(r *Report) *book {
	b := &book{
		r: r, due: make(map[place]effect), refused: make(map[string]*Entry), sums: make(map[string]effect),
		holds: make(map[string]protocol.Reservation), ends: make(map[place]string),
	}
	for _, e := range r.Entries {
		if !e.Command.Op.IsWrite() || e.Unknown {
			continue
		}
		if e.Err != nil {
			b.refused[e.Command.Key] = e
			continue
		}
		for sku, change := range effects(e) {
			b.due[place{e.Command.Key, sku}] = change
		}
		if e.Command.Op == protocol.OpReserve {
			b.holds[e.Reply.Reservation.ID] = *e.Reply.Reservation
		}
	}
	return b
}

// effects are what an applied command should have done, by SKU.
func effects(e *Entry) map[string]effect {
	changes := make(map[string]effect)
	add := func(lines []protocol.Line, each effect) {
		for _, l := range lines {
			changes[l.SKU] = changes[l.SKU].plus(effect{each.onHand * l.Quantity, each.reserved * l.Quantity})
		}
	}
	switch e.Command.Op {
	case protocol.OpAdjust:
		changes[e.Command.SKU] = effect{onHand: e.Command.Delta}
	case protocol.OpSell:
		add(e.Command.Lines, effect{onHand: -1})
	case protocol.OpReserve:
		add(e.Command.Lines, effect{reserved: 1})
	case protocol.OpConfirm:
		add(e.Reply.Reservation.Lines, effect{-1, -1})
	case protocol.OpRelease:
		add(e.Reply.Reservation.Lines, effect{reserved: -1})
	}
	return changes
}

// errorf tells what is wrong, up to a number that can still be read.
func (b *book) errorf(format string, args ...any) {
	b.r.t.Helper()
	if b.wrong++; b.wrong <= 20 {
		b.r.t.Errorf(format, args...)
	}
}

// walk goes through an item's history.
func (b *book) walk(sku string, movements []protocol.Movement) {
	b.r.t.Helper()
	var sum effect
	for i := range movements {
		m := &movements[i]
		change := effect{m.OnHandDelta, m.ReservedDelta}
		sum = sum.plus(change)
		if (effect{m.OnHand, m.Reserved}) != sum {
			b.errorf("%s: after %s there are %d/%d, the movements up to it make %v", sku, m.Sequence, m.OnHand, m.Reserved, sum)
			sum = effect{m.OnHand, m.Reserved}
		}
		if sum.reserved < 0 || sum.onHand < sum.reserved {
			b.errorf("%s: oversold by %s: %v", sku, m.Sequence, sum)
		}
		if m.Type == "expire" {
			b.expired(m)
		} else {
			b.applied(m, change)
		}
		b.ended(m)
	}
	b.sums[sku] = sum
}

// applied crosses a command's effect off.
func (b *book) applied(m *protocol.Movement, change effect) {
	b.r.t.Helper()
	p := place{m.Key, m.SKU}
	want, ok := b.due[p]
	switch e := b.refused[m.Key]; {
	case e != nil:
		b.errorf("%s: %s by key %s, which was refused: %v", m.SKU, m.Type, m.Key, e.Err)
	case !ok:
		b.errorf("%s: %s by key %s at %s: twice, or nobody sent it", m.SKU, m.Type, m.Key, m.Sequence)
	case want != change:
		b.errorf("%s: %s by key %s did %v, not %v", m.SKU, m.Type, m.Key, change, want)
	}
	delete(b.due, p)
}

func (b *book) expired(m *protocol.Movement) {
	b.r.t.Helper()
	hold, ok := b.holds[m.Reservation]
	if !ok {
		b.errorf("%s: %s expired, which nobody was told of", m.SKU, m.Reservation)
	} else if m.At < hold.ExpiresAt {
		b.errorf("%s: %s expired at %v, before its time %v", m.SKU, m.Reservation, m.At.Std(), hold.ExpiresAt.Std())
	}
}

func (b *book) ended(m *protocol.Movement) {
	b.r.t.Helper()
	switch m.Type {
	case "confirm", "release", "expire":
	default:
		return
	}
	p := place{m.Reservation, m.SKU}
	if before := b.ends[p]; before != "" {
		b.errorf("%s: %s ended twice: by %s and by %s", m.SKU, m.Reservation, before, m.Type)
	}
	b.ends[p] = m.Type
}

// missing tells of acknowledged commands that the history does not have.
func (b *book) missing() {
	b.r.t.Helper()
	for p, change := range b.due {
		if _, walked := b.sums[p.sku]; !walked {
			continue // its history could not be read, which was told already
		}
		b.errorf("%s: key %s was acknowledged and is lost (%v)", p.sku, p.key, change)
	}
}

// compare checks a node's items against the sums.
func (b *book) compare(n *Node) {
	b.r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lookWait*time.Duration(Slow))
	defer cancel()
	items, err := n.Stock(ctx)
	if err != nil {
		b.errorf("%s: %v", n, err)
		return
	}
	found := 0
	for _, it := range items {
		sum, ours := b.sums[it.SKU]
		if !ours {
			continue
		}
		found++
		if have := (effect{it.OnHand, it.Reserved}); have != sum {
			b.errorf("%s has %v of %s, the account says %v", n, have, it.SKU, sum)
		}
	}
	if found != len(b.sums) {
		b.errorf("%s has %d of %d items", n, found, len(b.sums))
	}
}

func (e effect) String() string { return fmt.Sprintf("%d on hand, %d reserved", e.onHand, e.reserved) }
