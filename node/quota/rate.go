package quota

import "sync/atomic"

// rate is how fast commands may come, and how many at once. The zero rate lets
// everything through.
type rate struct {
	each  int64 // ns that one takes to come back
	burst int64 // ns that all which may come at once take
}

// countMax is more than anybody uses, and little enough to be added up.
const countMax = 1 << 30

func newRate(perSecond, burst int) rate {
	if perSecond <= 0 {
		return rate{}
	}
	each := max(1, int64(1e9)/int64(perSecond))
	return rate{each: each, burst: each * int64(min(max(burst, 1), countMax))}
}

func (r rate) on() bool { return r.each > 0 }

// pace is the clock that a bucket is filled by: it runs slower than real time while a
// node may use a part of the limit only. A clock that is changed, not the bucket,
// needs no lock, and no command is counted twice or not at all meanwhile.
type pace struct {
	since int64 // ns since the quota's start
	value int64 // ns that the clock shows then
	slope float64
}

// steady is real time.
var steady = &pace{slope: 1}

func (p *pace) read(now int64) int64 {
	if p.slope == 1 {
		return p.value + now - p.since
	}
	return p.value + int64(p.slope*float64(now-p.since))
}

// bucket is a token bucket written as one moment of its clock, the one at which it will
// be full again (GCRA), as in node/edge. Any goroutine takes from it with one
// compare-and-swap.
type bucket struct {
	full atomic.Int64
	pace atomic.Pointer[pace]
}

// bend has the clock of the bucket run at slope from now on.
func (b *bucket) bend(now int64, slope float64) {
	if p := b.pace.Load(); p.slope != slope {
		b.pace.Store(&pace{since: now, value: p.read(now), slope: slope})
	}
}

// isFull reports whether as many as ever may come at once.
func (b *bucket) isFull(now int64) bool { return b.full.Load() <= b.pace.Load().read(now) }

// take takes up to n, and says after how many ns one more would be there if it could
// not take all.
func (r rate) take(b *bucket, now int64, n int) (taken int, wait int64) {
	p := b.pace.Load()
	shown := p.read(now)
	for {
		full := b.full.Load()
		from := max(full, shown)
		taken = int(min(int64(n), max(0, shown+r.burst-from)/r.each))
		if taken < n {
			wait = int64(float64(from+int64(taken+1)*r.each-r.burst-shown) / p.slope)
		}
		if taken == 0 || b.full.CompareAndSwap(full, from+int64(taken)*r.each) {
			return taken, wait
		}
	}
}
