package main

import (
	"math/bits"
	"sync"
	"time"
)

// timeline is latency over time: of each interval how many events there were and how
// old they were. A nil one takes nothing. It may be used by several goroutines.
type timeline struct {
	began time.Time // of the round

	mu       sync.Mutex
	width    time.Duration // of an interval
	present  int           // the interval that counts holds
	counts   [ageBuckets]int64
	max      int64 // of counts, in ns
	any      bool
	finished []interval // those before
}

// interval is what was counted in one; only buckets that hold anything are kept.
type interval struct {
	counts []bucketCount
	max    int64 // ns
}

type bucketCount struct {
	bucket int
	n      int64
}

const (
	widthMin     = 100 * time.Millisecond
	intervalsMax = 600 // of a timeline: then neighbours become one, of twice the width

	ageShift   = 5 // 32 buckets for each power of two: 3 % wide
	ageBuckets = (27 - ageShift) << ageShift
)

func newTimeline(began time.Time) *timeline { return &timeline{began: began, width: widthMin} }

// add counts n events that happen now and are of the same age, in nanoseconds.
func (t *timeline) add(ageNS, n int64) {
	if t != nil {
		t.addAt(time.Since(t.began), ageNS, n)
	}
}

// addAt is add for those who know how long ago the round began.
func (t *timeline) addAt(at time.Duration, ageNS, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Of several clocks one may be late: what it counts belongs to the present.
	if i := int(at / t.width); i > t.present {
		t.roll(at)
	}
	t.counts[ageBucket(ageNS)] += n
	t.max = max(t.max, ageNS)
	t.any = true
}

// roll begins the interval of a moment.
func (t *timeline) roll(at time.Duration) {
	t.keep()
	for int(at/t.width) >= intervalsMax {
		t.halve()
	}
	t.present = int(at / t.width)
}

// keep ends the present interval.
func (t *timeline) keep() {
	if !t.any {
		return
	}
	done := interval{counts: filled(&t.counts), max: t.max}
	for len(t.finished) <= t.present {
		t.finished = append(t.finished, interval{})
	}
	t.finished[t.present] = t.finished[t.present].plus(done)
	clear(t.counts[:])
	t.max, t.any = 0, false
}

// filled is what buckets hold, of those that hold anything.
func filled(counts *[ageBuckets]int64) (some []bucketCount) {
	for b, n := range counts {
		if n > 0 {
			some = append(some, bucketCount{b, n})
		}
	}
	return some
}

// halve makes neighbours one.
func (t *timeline) halve() {
	for i := range (len(t.finished) + 1) / 2 {
		both := t.finished[2*i]
		if 2*i+1 < len(t.finished) {
			both = both.plus(t.finished[2*i+1])
		}
		t.finished[i] = both
	}
	t.finished = t.finished[:(len(t.finished)+1)/2]
	t.present /= 2
	t.width *= 2
}

// plus is both together. Their buckets are in order.
func (a interval) plus(b interval) interval {
	if len(a.counts) == 0 {
		return b
	}
	sum := interval{max: max(a.max, b.max)}
	for len(a.counts) > 0 && len(b.counts) > 0 {
		x, y := a.counts[0], b.counts[0]
		if x.bucket <= y.bucket {
			a.counts = a.counts[1:]
		}
		if y.bucket <= x.bucket {
			b.counts = b.counts[1:]
		}
		switch {
		case x.bucket == y.bucket:
			x.n += y.n
		case y.bucket < x.bucket:
			x = y
		}
		sum.counts = append(sum.counts, x)
	}
	sum.counts = append(append(sum.counts, a.counts...), b.counts...)
	return sum
}

// total is how many were counted.
func (a interval) total() (n int64) {
	for _, b := range a.counts {
		n += b.n
	}
	return n
}

// quantile is the age in nanoseconds that the share q of all is at most, to 3 %.
func (a interval) quantile(q float64) int64 {
	left := int64(q * float64(a.total()))
	for _, b := range a.counts {
		if left -= b.n; left < 0 {
			return min(ageOf(b.bucket), a.max)
		}
	}
	return a.max
}

// intervals returns how long each is and all up to now, the present one included.
func (t *timeline) intervals() (width time.Duration, all []interval) {
	if t == nil {
		return widthMin, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep()
	return t.width, append(all, t.finished...)
}

// last is what was counted in the latest whole intervals of about length, and how
// long those are.
func (t *timeline) last(length time.Duration) (sum interval, over time.Duration) {
	if t == nil {
		return interval{}, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := int(time.Since(t.began) / t.width)
	if now > t.present {
		t.roll(time.Since(t.began))
		now = t.present
	}
	count := max(1, int(length/t.width))
	for i := max(0, now-count); i < min(now, len(t.finished)); i++ {
		sum = sum.plus(t.finished[i])
	}
	return sum, time.Duration(min(count, now)) * t.width
}

// ageBucket is the bucket of an age: exact up to 64 us, then 3 % wide, up to a minute.
func ageBucket(ns int64) int {
	us := uint64(min(max(ns/1000, 0), time.Minute.Microseconds()))
	shift := max(bits.Len64(us)-ageShift-1, 0)
	return shift<<ageShift + int(us>>shift)
}

// ageOf is the middle of a bucket in nanoseconds.
func ageOf(bucket int) int64 {
	shift := max(bucket>>ageShift-1, 0)
	low := int64(bucket-shift<<ageShift) << shift
	return (low*1000 + (low+1<<shift)*1000) / 2
}
