package quota

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

func newBucket() *bucket {
	b := new(bucket)
	b.pace.Store(steady)
	return b
}

func TestRate(t *testing.T) {
	r, b := newRate(10, 20), newBucket()
	for _, step := range []struct {
		now       int64 // ms
		n, taken  int
		waitAbout int64 // ms
	}{
		{0, 25, 20, 100}, {0, 1, 0, 100}, {99, 1, 0, 1}, {100, 1, 1, 0}, {350, 5, 2, 50},
		{1e7, 1000, 20, 100}, {1e7 + 1000, 10, 10, 0},
	} {
		taken, wait := r.take(b, step.now*1e6, step.n)
		if taken != step.taken || wait != step.waitAbout*1e6 {
			t.Errorf("at %d ms took %d of %d, wait %d ns", step.now, taken, step.n, wait)
		}
	}
}

// A slower clock fills the bucket slower, and what is in it stays.
func TestPace(t *testing.T) {
	r, b := newRate(10, 20), newBucket()
	r.take(b, 0, 10)
	b.bend(secondNS, 0.25) // 20 in it
	if taken, wait := r.take(b, secondNS, 21); taken != 20 || wait != int64(4e8) {
		t.Errorf("took %d, wait %d", taken, wait)
	}
	if taken, _ := r.take(b, 3*secondNS, 20); taken != 5 {
		t.Errorf("took %d in 2 s at a quarter", taken)
	}
	b.bend(3*secondNS, 1)
	if taken, _ := r.take(b, 4*secondNS, 20); taken != 10 {
		t.Errorf("took %d in 1 s", taken)
	}
	if b.isFull(6*secondNS-1) || !b.isFull(6*secondNS) {
		t.Error("not full when it should be")
	}
}

func TestRateOfMany(t *testing.T) {
	r, b := newRate(1, 1000), newBucket()
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				taken, _ := r.take(b, 0, 1)
				total.Add(int64(taken))
			}
		})
	}
	wg.Wait()
	if total.Load() != 1000 {
		t.Errorf("took %d of 1000", total.Load())
	}
}

func TestExtremeRates(t *testing.T) {
	for _, r := range []rate{newRate(1, math.MaxInt), newRate(math.MaxInt, 1), newRate(math.MaxInt, math.MaxInt), newRate(1, -1)} {
		b := newBucket()
		if taken, _ := r.take(b, 0, 1); taken != 1 {
			t.Errorf("%+v took %d", r, taken)
		}
		if taken, wait := r.take(b, 0, math.MaxInt); taken < 0 || wait <= 0 || b.full.Load() < 0 {
			t.Errorf("%+v took %d, wait %d, full at %d", r, taken, wait, b.full.Load())
		}
	}
	if newRate(0, 5).on() || newRate(-1, 5).on() {
		t.Error("a limit where there is none")
	}
}

func TestFair(t *testing.T) {
	for _, c := range []struct {
		demands []float64
		want    float64
	}{
		{nil, 100}, {[]float64{30}, 70}, {[]float64{1e9}, 50}, {[]float64{50}, 50}, {[]float64{1e9, 10}, 45},
		{[]float64{10, 20, 30}, 40}, {[]float64{60, 60, 60}, 25}, {[]float64{0, 0, 99}, 50},
	} {
		if got := fair(100, c.demands); got != c.want {
			t.Errorf("beside %v: %v, want %v", c.demands, got, c.want)
		}
	}
}
