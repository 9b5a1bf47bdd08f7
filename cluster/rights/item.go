package rights

import (
	"math"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// item is what is remembered of one item.
type item struct {
	key    protocol.ItemKey
	place  int // in Book.ring
	demand demand
	talks  []talk // with the peers spoken to about this item
}

// demand is two exponentially decaying sums of units: over Horizon, and over rushTime.
type demand struct {
	at    int64 // what the sums are as of
	fresh int64 // units since then
	slow  float64
	fast  float64
}

// foldAfter keeps the two exponentials off the path of a hot item.
const foldAfter = int64(5 * time.Millisecond)

func (d *demand) add(units, now int64, o *Options) {
	d.fresh += min(units, 1<<32) // no overflow before the next fold
	if now-d.at >= foldAfter {
		d.fold(now, o)
	}
}

// fold brings the sums up to now.
func (d *demand) fold(now int64, o *Options) {
	past := float64(max(0, now-d.at))
	d.slow = d.slow*math.Exp(-past/float64(o.Horizon)) + float64(d.fresh)
	d.fast = d.fast*math.Exp(-past/float64(rushTime)) + float64(d.fresh)
	d.at, d.fresh = max(d.at, now), 0
}

// rate is by the slow sum alone: two regions' rates are compared, and the quick one
// is mostly noise.
func (d *demand) rate(now int64, o *Options) float64 {
	d.fold(now, o)
	return d.slow / o.Horizon.Seconds()
}

// low is the stock below which the region asks ahead of need, target what it then
// asks for. Somebody who sold at all lately likes to have one.
func (d *demand) low(now int64, o *Options) int64 {
	rate := d.rate(now, o)
	if d.slow < negligible {
		return 0
	}
	return units(max(1, rate*o.Low.Seconds(), d.fast*rushLow.Seconds()/rushTime.Seconds()))
}

func (d *demand) target(now int64, o *Options) int64 {
	d.fold(now, o)
	if d.slow < negligible {
		return 0
	}
	return units(max(batchMin, d.slow, d.fast*rushAhead.Seconds()/rushTime.Seconds()))
}

// negligible is the slow sum below which an item has no demand: one unit, three
// horizons ago.
const negligible = 0.05

func units(f float64) int64 { return int64(math.Ceil(min(f, math.MaxInt64/4))) }

// idle tells that forgetting the item changes nothing.
func (it *item) idle(now int64, o *Options) bool {
	for i := range it.talks {
		if now-it.talks[i].last() < int64(2*aheadPauseMax) {
			return false
		}
	}
	it.demand.fold(now, o)
	return it.demand.slow < negligible
}

// never is the time of what has not happened yet.
const never = math.MinInt64 / 2

// talk is what this region and a peer said to each other about an item.
type talk struct {
	peer string

	// What this region asked of the peer.
	waiting    bool  // for an answer
	need       int64 // of the last ask
	extra      int64
	firstAt    int64 // of the asks since the last answer
	askedAt    int64 // of the last ask
	answeredAt int64
	left       int64 // what the peer had after its last answer
	// shortAt is when the peer last answered that it has less than was needed. It will
	// tell when it has more, unless it told or gave since: then this is never.
	shortAt    int64
	newsAt     int64 // when the peer last gave units or told of some
	urgentFrom int64 // earliest time of the next urgent ask
	aheadFrom  int64 // earliest time of the next ask ahead of need
	aheadPause time.Duration

	// hunger is what the peer asked for and this region could not give.
	hunger   int64
	hungryAt int64
	demand   float64 // the peer's
}

func (t *talk) last() int64 { return max(t.askedAt, t.answeredAt, t.hungryAt) }

func (it *item) talk(peer string) *talk {
	if t := it.find(peer); t != nil {
		return t
	}
	it.talks = append(it.talks, talk{peer: peer, askedAt: never, answeredAt: never, newsAt: never, shortAt: never, hungryAt: never, urgentFrom: never, aheadFrom: never})
	return &it.talks[len(it.talks)-1]
}

// find is nil where nothing was said yet.
func (it *item) find(peer string) *talk {
	for i := range it.talks {
		if it.talks[i].peer == peer {
			return &it.talks[i]
		}
	}
	return nil
}
