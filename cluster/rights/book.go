package rights

import (
	"github.com/stockmesh/stockmesh/protocol"
)

// Own is what this region has of an item now.
type Own struct {
	Free    int64 // units it may sell now: share - safety + backorder, not below 0
	Missing int64 // units that waiting commands lack; 0 if none waits for this item
	// Kept is what of Free waiting commands count on while they wait for another
	// item of theirs. With Missing > 0 it is all of Free, whatever is given here.
	Kept int64
}

// spare is what the region's own waiting commands leave.
func (o Own) spare() int64 {
	if o.Missing > 0 {
		return 0
	}
	return max(0, o.Free-o.Kept)
}

func (o Own) bounded() Own {
	return Own{Free: bounded(o.Free), Missing: bounded(o.Missing), Kept: bounded(o.Kept)}
}

// maxUnits keeps sums over all regions from overflowing.
const maxUnits = 1 << 56

func bounded(units int64) int64 { return min(max(0, units), maxUnits) }

// Peer is what is known of another region's part of an item.
type Peer struct {
	Region    string
	Free      int64 // by its newest row or message here, which is tens of ms old
	Reachable bool
}

// Ask is the request one region sends another.
type Ask struct {
	Key    protocol.ItemKey
	Need   int64   // units wanted from this peer for waiting commands: urgent
	Lacks  int64   // units that its waiting commands lack in all, not less than Need
	Extra  int64   // units wanted ahead of need, on top of Need
	Demand float64 // the asker's demand, units per second
	Free   int64   // what the asker has
}

// Order is an ask to send to a peer.
type Order struct {
	Peer string
	Ask  Ask
}

// Gift is a number of units to grant to a peer that is not asking right now. With 0
// units it is only the word that there are some.
type Gift struct {
	Peer  string
	Units int64
}

// Book is what one shard of one region remembers to decide by. It belongs to one
// goroutine. Times are nanoseconds of any clock that doesn't run backward.
type Book struct {
	region  string
	options Options

	items map[protocol.ItemKey]*item
	ring  []*item // the same items in no order, for Sweep
	hand  int     // where Sweep goes on

	ways   []way // by peer, in order of first contact
	orders []Order
	gifts  []Gift
}

// way is what is known of the way to a peer and back.
type way struct {
	region string
	mean   int64 // of the round trip; 0 before the first answer
	spread int64 // mean deviation
	asked  int   // asks since the peer last answered anything
	last   int64 // when the newest of them went
	since  int64 // when the first of them was sent
}

// NewBook returns an empty book of a region.
func NewBook(region string, o Options) *Book {
	return &Book{region: region, options: o.withDefaults(), items: make(map[protocol.ItemKey]*item)}
}

// Len is the number of items remembered.
func (b *Book) Len() int { return len(b.ring) }

// Demand notes that customers here want units of an item, whether they get them,
// wait or are refused. Once per line of a command, when the command arrives.
func (b *Book) Demand(key protocol.ItemKey, units int64, now int64) {
	if units > 0 {
		b.item(key, now).demand.add(units, now, &b.options)
	}
}

// Rate is the item's demand here, in units per second.
func (b *Book) Rate(key protocol.ItemKey, now int64) float64 {
	it := b.items[key]
	if it == nil {
		return 0
	}
	return it.demand.rate(now, &b.options)
}

// Sweep forgets items that nobody wants any more. Call it once a second: it looks
// at a part of the items each time.
func (b *Book) Sweep(now int64) {
	const leastLooks, rounds = 256, 32
	for range min(len(b.ring), max(leastLooks, len(b.ring)/rounds)) {
		if b.hand >= len(b.ring) {
			b.hand = 0
		}
		if it := b.ring[b.hand]; it.idle(now, &b.options) {
			b.forget(it)
		} else {
			b.hand++
		}
	}
}

// item finds an item's notes, or begins them. Where the book is full, the item that
// Sweep would look at next goes: it costs a wrong guess later, and no search now.
func (b *Book) item(key protocol.ItemKey, now int64) *item {
	if it := b.items[key]; it != nil {
		return it
	}
	if len(b.ring) >= b.options.ItemsMax {
		b.hand %= len(b.ring)
		b.forget(b.ring[b.hand])
		b.hand++
	}
	it := &item{key: key, place: len(b.ring), demand: demand{at: now}}
	b.ring = append(b.ring, it)
	b.items[key] = it
	return it
}

func (b *Book) forget(it *item) {
	last := len(b.ring) - 1
	b.ring[it.place] = b.ring[last]
	b.ring[it.place].place = it.place
	b.ring[last] = nil
	b.ring = b.ring[:last]
	delete(b.items, it.key)
}

// way finds a peer's way, or begins one. Regions are few: a scan beats a map.
func (b *Book) way(region string) *way {
	for i := range b.ways {
		if b.ways[i].region == region {
			return &b.ways[i]
		}
	}
	b.ways = append(b.ways, way{region: region})
	return &b.ways[len(b.ways)-1]
}

// timeout is how long an ask to the peer may go unanswered.
func (b *Book) timeout(region string) int64 {
	w := b.way(region)
	if w.mean == 0 {
		return int64(b.options.Timeout)
	}
	// Spread alone is too tight where answers come like clockwork, until one doesn't.
	return min(max(w.mean+4*w.spread, w.mean*5/4, int64(timeoutMin)), int64(timeoutMax))
}

// asks notes that an ask goes out. Those that went unanswered long ago tell nothing of
// the peer now.
func (w *way) asks(now int64) {
	if w.asked == 0 || now-w.last > 2*int64(timeoutMax) {
		w.asked, w.since = 0, now
	}
	w.asked, w.last = w.asked+1, now
}

// mute tells that the peer answers nothing, whatever the caller thinks of its reach.
func (w *way) mute(now int64) bool {
	return w.asked >= muteAsks && now-w.since > int64(timeoutMax)
}

func (w *way) measured(trip int64) {
	trip = min(max(trip, 1), int64(timeoutMax))
	if w.mean == 0 {
		w.mean, w.spread = trip, trip/4
		return
	}
	w.spread += (max(trip-w.mean, w.mean-trip) - w.spread) / 4
	w.mean += (trip - w.mean) / 8
}
