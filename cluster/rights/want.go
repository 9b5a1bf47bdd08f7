package rights

import "github.com/stockmesh/stockmesh/protocol"

// Want decides whom to ask for units now. Call it when a command lacks units, after
// an answer while commands still lack some, and after rounds that changed the item.
//
// With own.Missing > 0 it asks at once whoever may have units, several peers where
// one has not enough. Without, it asks one peer ahead of need if Free is below the
// low-water mark. It never asks a peer that has still to answer, so calling it often
// costs nothing. The result is valid until the next call.
func (b *Book) Want(key protocol.ItemKey, own Own, peers []Peer, now int64) []Order {
	own = own.bounded()
	it := b.items[key]
	if it == nil {
		if own.Missing == 0 {
			return nil
		}
		it = b.item(key, now)
	}
	b.orders = b.orders[:0]
	if own.Missing > 0 {
		b.wantNow(it, own, peers, now)
	} else {
		b.wantAhead(it, own, peers, now)
	}
	return b.orders
}

// wantNow asks the peers for what waiting commands lack: first those that seem to
// have most; then, if that isn't enough, those that seem to have nothing as well,
// whenever the last word from them is old.
func (b *Book) wantNow(it *item, own Own, peers []Peer, now int64) {
	open := own.Missing - b.coming(it, peers, now)
	extra := max(0, it.demand.target(now, &b.options)-own.Free)
	for open > 0 {
		p, has := b.richest(it, peers, now)
		if has == 0 {
			break
		}
		need := min(open, has)
		b.order(it, p, Ask{Need: need, Lacks: own.Missing, Extra: extra, Free: own.Free}, now)
		open -= need
		extra = 0
	}
	if open <= 0 {
		return
	}
	for _, p := range peers {
		if p.Reachable && b.mayProbe(it.find(p.Region), now) {
			b.order(it, p.Region, Ask{Need: open, Lacks: own.Missing, Extra: extra, Free: own.Free}, now)
		}
	}
}

// coming is what asks under way will probably bring.
func (b *Book) coming(it *item, peers []Peer, now int64) (sum int64) {
	for _, p := range peers {
		if t := it.find(p.Region); b.reached(p, now) && b.pending(t, now) {
			sum += min(t.need, believed(t, p.Free, now))
		}
	}
	return sum
}

// richest is the reachable peer that seems to have most, of those that may be asked
// now; by name among equals, so that the order of peers doesn't matter.
func (b *Book) richest(it *item, peers []Peer, now int64) (region string, has int64) {
	for _, p := range peers {
		t := it.find(p.Region)
		if !b.reached(p, now) || b.pending(t, now) || t != nil && now < t.urgentFrom {
			continue
		}
		free := believed(t, p.Free, now)
		if free > has || free == has && free > 0 && p.Region < region {
			region, has = p.Region, free
		}
	}
	return region, has
}

// mayProbe tells that a peer believed to be empty, or that answers nothing, may be
// asked again.
func (b *Book) mayProbe(t *talk, now int64) bool {
	if t == nil {
		return true
	}
	last := t.shortAt
	if b.way(t.peer).mute(now) {
		last = t.askedAt
	}
	return !b.pending(t, now) && now-last >= int64(b.options.Probe)
}

// reached tells that there is hope of an answer.
func (b *Book) reached(p Peer, now int64) bool { return p.Reachable && !b.way(p.Region).mute(now) }

// wantAhead asks the peer that has most, if it has more than this region.
func (b *Book) wantAhead(it *item, own Own, peers []Peer, now int64) {
	free := own.spare()
	if len(peers) == 0 || free >= it.demand.low(now, &b.options) {
		return
	}
	best, most := "", free
	for _, p := range peers {
		t := it.find(p.Region)
		if !b.reached(p, now) || b.pending(t, now) || t != nil && now < t.aheadFrom {
			continue
		}
		has := believed(t, p.Free, now)
		if has > most || has == most && best != "" && p.Region < best {
			best, most = p.Region, has
		}
	}
	if best != "" {
		b.order(it, best, Ask{Extra: it.demand.target(now, &b.options) - free, Free: free}, now)
	}
}

// order notes an ask and adds it to the result.
func (b *Book) order(it *item, peer string, a Ask, now int64) {
	t := it.talk(peer)
	if !t.waiting || now-t.askedAt > int64(timeoutMax) {
		t.firstAt = now
	}
	b.way(peer).asks(now)
	t.waiting, t.askedAt, t.need, t.extra = true, now, a.Need, a.Extra
	a.Key, a.Demand = it.key, it.demand.rate(now, &b.options)
	b.orders = append(b.orders, Order{Peer: peer, Ask: a})
}

// pending tells that an ask is under way.
func (b *Book) pending(t *talk, now int64) bool {
	return t != nil && t.waiting && now-t.askedAt < b.timeout(t.peer)
}

// believed is what a peer probably has: what it said last while that is newer than
// its row, then its row.
func believed(t *talk, row int64, now int64) int64 {
	if t != nil && now-t.answeredAt < int64(rowLag) {
		return t.left
	}
	return bounded(row)
}

// Answered tells of a peer's answer to an ask. granted may be 0; left is what the peer
// has after it. Call Want again if commands still wait.
func (b *Book) Answered(key protocol.ItemKey, peer string, granted, left int64, now int64) {
	b.Told(key, peer, granted, left, now)
	it := b.items[key]
	if it == nil {
		return
	}
	t := it.talk(peer)
	if !t.waiting {
		return // the peer was asked twice: this is its second answer
	}
	t.waiting = false
	b.way(peer).measured(now - t.firstAt)
	t.urgentFrom = now
	if granted < t.need {
		t.urgentFrom, t.shortAt = now+int64(askAgain), now
	}
	t.pauseAhead(granted, now)
}

// Told tells of a gift: units, or the word that there are some, which a peer sent
// unasked (see Offer).
func (b *Book) Told(key protocol.ItemKey, peer string, granted, left int64, now int64) {
	b.way(peer).asked = 0
	it := b.items[key]
	if it == nil {
		return
	}
	t := it.talk(peer)
	t.answeredAt, t.left, t.shortAt = now, bounded(left), never
	if granted > 0 || left > 0 {
		t.newsAt = now
	}
}

// pauseAhead keeps the region from asking again and again for what a peer keeps as
// its own part.
func (t *talk) pauseAhead(granted, now int64) {
	if t.extra == 0 {
		return
	}
	if granted >= t.need+t.extra {
		t.aheadPause, t.aheadFrom = 0, now
		return
	}
	t.aheadPause = min(max(2*t.aheadPause, aheadPauseMin), aheadPauseMax)
	t.aheadFrom = now + int64(t.aheadPause)
}

// Hopeless tells whether it makes no sense to wait for missing units: each reachable
// peer said lately that it has nothing and has not told of units since, or it answers
// nothing at all. The caller refuses at once.
//
// own.Missing may be what one command lacks. Ask Want first.
func (b *Book) Hopeless(key protocol.ItemKey, own Own, peers []Peer, now int64) bool {
	it := b.items[key]
	for _, p := range peers {
		if b.reached(p, now) && (it == nil || !b.empty(it.find(p.Region), p, now)) {
			return false
		}
	}
	return true
}

// empty tells that a peer surely has nothing, and that none is on its way. Units come
// in dribbles when reservations run out: where the peer had some a moment ago, a short
// wait is often worth it.
func (b *Book) empty(t *talk, p Peer, now int64) bool {
	if t == nil || believed(t, p.Free, now) > 0 || now-t.newsAt < int64(newsTime) {
		return false
	}
	return now-t.shortAt < b.options.trust()
}
