package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at is a timeline that is told what happened when.
func at(t *timeline, ms int, age time.Duration, n int64) {
	t.addAt(time.Duration(ms)*time.Millisecond, int64(age), n)
}

func totals(t *timeline) (width time.Duration, counts []int64) {
	width, all := t.intervals()
	for _, in := range all {
		counts = append(counts, in.total())
	}
	return width, counts
}

func TestTimelineCountsByInterval(t *testing.T) {
	line := newTimeline(time.Now())
	at(line, 10, time.Millisecond, 3)
	at(line, 90, 2*time.Millisecond, 1)
	at(line, 350, 5*time.Millisecond, 7)
	at(line, 320, 5*time.Millisecond, 1) // a clock that is late
	width, counts := totals(line)
	if width != widthMin || !slices.Equal(counts, []int64{4, 0, 0, 8}) {
		t.Errorf("%v of %v", counts, width)
	}
	at(line, 380, 40*time.Millisecond, 1) // after it was looked at
	_, all := line.intervals()
	if last := all[3]; last.total() != 9 || last.max != int64(40*time.Millisecond) {
		t.Errorf("%+v", last)
	}
}

func TestNoTimelineTakesNothing(t *testing.T) {
	var c *chronicle
	c.timeline("x").add(1, 1)
	c.note("x")
	c.phase("x")
	if _, all := c.timeline("x").intervals(); all != nil {
		t.Errorf("%v", all)
	}
	if sum, _ := c.timeline("x").last(time.Second); sum.total() != 0 {
		t.Errorf("%v", sum)
	}
}

// However long it takes, it keeps few intervals and loses nothing.
func TestTimelineStaysSmall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := newTimeline(time.Now())
		now, sum, oldest := 0, int64(0), time.Duration(0)
		for range rapid.IntRange(1, 300).Draw(t, "adds") {
			now += rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 600_000)).Draw(t, "ms later")
			age := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "age"))
			n := rapid.Int64Range(1, 100).Draw(t, "n")
			at(line, now, age, n)
			sum, oldest = sum+n, max(oldest, age)
		}
		width, all := line.intervals()
		var total interval
		for _, in := range all {
			total = total.plus(in)
		}
		if len(all) > intervalsMax || total.total() != sum || total.max != int64(oldest) {
			t.Fatalf("%d intervals of %v with %d of %d, max %d of %d", len(all), width, total.total(), sum, total.max, oldest)
		}
		if whole := time.Duration(len(all)) * width; whole < time.Duration(now)*time.Millisecond || whole > time.Duration(now)*time.Millisecond+width {
			t.Fatalf("%d intervals of %v for %d ms", len(all), width, now)
		}
		if !slices.IsSortedFunc(total.counts, func(a, b bucketCount) int { return a.bucket - b.bucket }) {
			t.Fatalf("not in order: %v", total.counts)
		}
	})
}

func TestAgeBuckets(t *testing.T) {
	for ns := int64(0); ns < int64(time.Minute); ns = ns*101/100 + 500 {
		b := ageBucket(ns)
		if b < 0 || b >= ageBuckets {
			t.Fatalf("%v: bucket %d of %d", time.Duration(ns), b, ageBuckets)
		}
		if off := math.Abs(float64(ageOf(b) - ns)); off > max(0.02*float64(ns), 1000) {
			t.Errorf("%v is shown as %v", time.Duration(ns), time.Duration(ageOf(b)))
		}
	}
	for _, beyond := range []int64{-1, math.MaxInt64, int64(time.Minute)} {
		if b := ageBucket(beyond); b < 0 || b >= ageBuckets {
			t.Errorf("%d: bucket %d of %d", beyond, b, ageBuckets)
		}
	}
}

func TestQuantilesOfAnInterval(t *testing.T) {
	line := newTimeline(time.Now())
	var ages []float64
	for range 10_000 {
		age := time.Duration(rand.ExpFloat64() * float64(3*time.Millisecond))
		at(line, 5, age, 1)
		ages = append(ages, float64(age))
	}
	_, all := line.intervals()
	for _, q := range []float64{0.5, 0.9, 0.99} {
		if got, want := float64(all[0].quantile(q)), quantile(ages, q); math.Abs(got-want) > 0.05*want {
			t.Errorf("%v: %v, want %v", q, time.Duration(got), time.Duration(want))
		}
	}
}

func TestLastSecond(t *testing.T) {
	line := newTimeline(time.Now().Add(-10 * time.Second))
	at(line, 5000, time.Millisecond, 100) // long ago
	at(line, 9850, 2*time.Millisecond, 10)
	if sum, over := line.last(time.Second); sum.total() != 10 || over != time.Second {
		t.Errorf("%d in %v", sum.total(), over)
	}
}

// A generator's clients feed the timeline, at the time of the generator's clock.
func TestLatenciesFeedATimeline(t *testing.T) {
	c := newChronicle()
	g := &generator{start: c.began.Add(200 * time.Millisecond), chronicle: c}
	l := g.newLatencies("commands")
	g.now = int64(120 * time.Millisecond)
	l.add(int64(3*time.Millisecond), 5)
	l.put(numbers{}, "half_")
	another := l.another()
	another.add(int64(9*time.Millisecond), 1)
	another.put(numbers{}, "half_")
	_, counts := totals(c.timeline("commands"))
	if !slices.Equal(counts, []int64{0, 0, 0, 6}) {
		t.Errorf("%v", counts)
	}
	if len(c.spreads) != 1 || c.spreads[0].prefix != "half_" || c.spreads[0].total() != 6 || c.spreads[0].max < int64(9*time.Millisecond) {
		t.Errorf("%+v", c.spreads)
	}
	if l := (&generator{}).newLatencies("commands"); l.feed != nil {
		t.Error("a feed without a chronicle")
	}
}

// What a timeline adds to counting an age, which a generator does for every answer.
func BenchmarkLatencies(b *testing.B) {
	c := newChronicle()
	g := &generator{start: c.began, chronicle: c}
	for name, l := range map[string]latencies{"alone": newLatencies(), "drawn": g.newLatencies("commands")} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				g.now += 3000
				l.add(int64(i%5000)*1000, 1)
			}
		})
	}
}
