package rights

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	// few is the number of units that two regions no longer share: they gather where
	// more is sold, if that is clear (moreTimes as much).
	few       = 4
	moreTimes = 2
	// stepPart keeps regions from moving crumbs to and fro: what is less than this
	// part of both regions' units, and less than what was asked for, stays.
	stepPart = 16
)

// Give decides how many units to grant to a peer that asks: 0..own.Free.
func (b *Book) Give(from string, a Ask, own Own, now int64) int64 {
	own, a = own.bounded(), a.bounded()
	it := b.items[a.Key]
	n := b.giveNeed(from, a, own)
	if n == a.Need && a.Extra > 0 {
		n += b.giveExtra(it, from, a, own.spare()-n, now)
	}
	b.noteHunger(it, from, a, n, now)
	b.noteGiven(it, from, n, now)
	return n
}

// noteGiven remembers that a peer has units now, whatever it said before.
func (b *Book) noteGiven(it *item, from string, n, now int64) {
	if n == 0 || it == nil {
		return
	}
	if t := it.find(from); t != nil {
		t.newsAt, t.shortAt = now, never
	}
}

func (a Ask) bounded() Ask {
	a.Need, a.Extra, a.Free = bounded(a.Need), bounded(a.Extra), bounded(a.Free)
	a.Lacks = max(bounded(a.Lacks), a.Need)
	if !(a.Demand >= 0) { // also what is not a number
		a.Demand = 0
	}
	a.Demand = min(a.Demand, maxUnits)
	return a
}

// giveNeed is what the asker gets for its waiting commands.
func (b *Book) giveNeed(from string, a Ask, own Own) int64 {
	if a.Need > own.spare() && b.yields(from, a, own) {
		return min(a.Need, own.Free)
	}
	return min(a.Need, own.spare())
}

// yields tells that the asker's waiting commands go before the ones here, which want
// the same units. Both regions must come to the same answer, or they swap their units
// and neither can serve anybody.
//
// If units of one side would serve the other, but not the other way round, they go
// where they serve. Else the regions' rank at this location decides: the same for
// all items of a basket, or two baskets would block each other for ever.
func (b *Book) yields(from string, a Ask, own Own) bool {
	serves := own.Free >= a.Lacks
	if own.Missing == 0 && !serves {
		return false
	}
	if served := a.Free >= own.Missing; own.Missing > 0 && serves != served {
		return serves
	}
	return outranks(from, b.region, a.Key.Location)
}

// outranks is an order of regions that differs from location to location.
func outranks(x, y, location string) bool {
	if c := cmp.Compare(rank(x, location), rank(y, location)); c != 0 {
		return c > 0
	}
	return x > y
}

func rank(region, location string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(region))
	h.Write([]byte{0})
	h.Write([]byte(location))
	return h.Sum64()
}

// giveExtra is what the asker gets ahead of need: so much that both hold units in
// proportion to their demands. That leaves each its low-water mark if there is
// enough for both, and it is stable: what was given is not asked back until the
// demands change.
func (b *Book) giveExtra(it *item, from string, a Ask, rest, now int64) int64 {
	if rest <= 0 || it != nil && b.othersHungry(it, from, now) {
		return 0
	}
	var mine float64
	if it != nil {
		mine = it.demand.rate(now, &b.options)
	}
	both := rest + a.Free
	n := min(a.Extra, part(both, a.Demand, mine)-a.Free, rest)
	if n < a.Extra && n < both/stepPart {
		return 0
	}
	return max(0, n)
}

// part is the asker's fair part of units.
func part(units int64, theirs, mine float64) int64 {
	switch {
	case theirs+mine == 0:
		return units / 2
	case units <= few && theirs > moreTimes*mine:
		return units
	case units <= few && mine > moreTimes*theirs:
		return 0
	}
	return min(units, int64(float64(units)*(theirs/(theirs+mine))))
}

// noteHunger remembers what a peer still needs, for Offer.
func (b *Book) noteHunger(it *item, from string, a Ask, given, now int64) {
	if given >= a.Need {
		if it == nil {
			return
		}
		if t := it.find(from); t != nil {
			t.hunger = 0
		}
		return
	}
	if it == nil {
		it = b.item(a.Key, now)
	}
	t := it.talk(from)
	t.hunger, t.hungryAt, t.demand = a.Need-given, now, a.Demand
}

func (b *Book) hungry(t *talk, now int64) bool {
	return t.hunger > 0 && now-t.hungryAt < b.options.hungerTime()
}

func (b *Book) othersHungry(it *item, but string, now int64) bool {
	return slices.ContainsFunc(it.talks, func(t talk) bool { return t.peer != but && b.hungry(&t, now) })
}

// Offer decides what to send, unasked, to peers that lately asked for more than this
// region could give. Call it after a round that raised Free: a delivery, an expired
// reservation, units taken from a third region. Peers that were told "nothing left"
// refuse at once for a while and would not hear of these units in time.
//
// Units stay if more is sold here than there; then the gift has 0 units and only says
// that there are some. Send each gift with what is left in the end. The result is
// valid until the next call.
func (b *Book) Offer(key protocol.ItemKey, own Own, now int64) []Gift {
	it := b.items[key]
	if it == nil || len(it.talks) == 0 {
		return nil
	}
	b.gifts = b.gifts[:0]
	for rest := own.bounded().spare(); rest > 0; {
		t := b.hungriest(it, now)
		if t == nil {
			break
		}
		n := min(t.hunger, offered(rest, t.demand, it.demand.rate(now, &b.options)))
		t.hunger = 0
		rest -= n
		b.gifts = append(b.gifts, Gift{Peer: t.peer, Units: n})
	}
	return b.gifts
}

// offered is what of the units a hungry peer may have: few go where more is sold,
// many are shared.
func offered(units int64, theirs, mine float64) int64 {
	switch {
	case units > few:
		return part(units, theirs, mine)
	case theirs >= mine:
		return units
	}
	return 0
}

// hungriest is the peer with most demand of those that still need units.
func (b *Book) hungriest(it *item, now int64) (best *talk) {
	for i := range it.talks {
		t := &it.talks[i]
		if !b.hungry(t, now) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(t.demand, best.demand), strings.Compare(best.peer, t.peer)) > 0 {
			best = t
		}
	}
	return best
}
