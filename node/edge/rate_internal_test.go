package edge

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const second = int64(time.Second)

func TestRate(t *testing.T) {
	r := newRate(10, 3)
	var b bucket
	for _, step := range []struct {
		at          int64 // ms
		n           int
		taken       int
		waitAtMost  int64 // ms
		waitAtLeast int64 // ms
	}{
		{0, 2, 2, 0, 0},
		{0, 2, 1, 100, 100},     // the burst is used up
		{99, 1, 0, 1, 1},        // not yet
		{100, 1, 1, 0, 0},       // one has come back
		{50, 1, 0, 150, 150},    // a clock that lags takes nothing that isn't there
		{5000, 9, 3, 100, 100},  // no more than a burst has gathered
		{5250, 9, 2, 50, 50},    // half of one is not lost
		{5300, 9, 1, 100, 100},  //
		{10000, 0, 0, 0, 0},     // nothing asked, nothing taken
		{10000, -1, 0, 0, 0},    //
		{10000, 3, 3, 0, 0},     //
		{10000, 1, 0, 100, 100}, //
	} {
		taken, wait := r.take(&b, step.at*1e6, max(0, step.n))
		if taken != step.taken || wait < step.waitAtLeast*1e6 || wait > step.waitAtMost*1e6 {
			t.Errorf("at %d ms: took %d of %d, wait %v", step.at, taken, step.n, time.Duration(wait))
		}
	}
	r.giveBack(&b, 1)
	if taken, _ := r.take(&b, 10000*1e6, 1); taken != 1 {
		t.Error("what was given back is not there")
	}
	if newRate(0, 5).on() || newRate(7, 0) != newRate(7, 7) {
		t.Error("0 is off, and a burst a second's worth")
	}
}

// Whoever takes from one bucket at once gets no more than it holds.
func TestRateIsShared(t *testing.T) {
	r := newRate(1, 1000)
	var b bucket
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				taken, _ := r.take(&b, 0, 1)
				total.Add(int64(taken))
			}
		})
	}
	wg.Wait()
	if total.Load() != 1000 {
		t.Errorf("took %d of 1000", total.Load())
	}
}

func TestBucketsForget(t *testing.T) {
	a, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	buckets := newBuckets[netip.Addr](newRate(1, 30)) // a bucket needs 30 s to fill
	if buckets.period != 30*second {
		t.Fatalf("a generation of %v forgets debts", time.Duration(buckets.period))
	}
	first, until := buckets.find(a, 0)
	if again, _ := buckets.find(a, until-1); again != first || !buckets.current(until, until-1) {
		t.Error("another bucket in the same generation")
	}
	if buckets.current(until, until) {
		t.Error("the generation has ended")
	}
	second, until2 := buckets.find(a, until)
	if second != first || until2 <= until {
		t.Error("it was asked for in the generation before, and forgotten")
	}
	// Nobody asks for two generations: forgotten, by the clock alone.
	if buckets.tidy(until2); len(buckets.young) != 0 || len(buckets.old) != 1 {
		t.Errorf("%d young, %d old", len(buckets.young), len(buckets.old))
	}
	if buckets.tidy(buckets.until.Load()); len(buckets.old) != 0 {
		t.Error("not forgotten")
	}
	if third, _ := buckets.find(a, 10*until2); third == first {
		t.Error("not forgotten")
	}
	if b, _ := buckets.find(other, 10*until2); b == nil {
		t.Error("no bucket")
	}
}

// A table holds no more than its bounds, whoever comes.
func TestBucketsAreBounded(t *testing.T) {
	buckets := newBuckets[int](newRate(1, 1))
	buckets.max = 100
	for i := range 10_000 {
		b, until := buckets.find(i, 0)
		if n := len(buckets.young) + len(buckets.old); n > 200 {
			t.Fatalf("holds %d", n)
		}
		if again, _ := buckets.find(i, 0); again != b || !buckets.current(until, 0) {
			t.Fatalf("key %d has two buckets", i)
		}
	}
}

func TestAddressKey(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := addressKey(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if addressKey(netip.Addr{}).IsValid() {
		t.Error("no address has become one")
	}
}

func BenchmarkRate(b *testing.B) {
	r := newRate(1_000_000, 1)
	b.Run("take", func(b *testing.B) {
		var bucket bucket
		b.ReportAllocs()
		for i := range b.N {
			r.take(&bucket, int64(i)*1000, 1)
		}
	})
	b.Run("find", func(b *testing.B) {
		t := newBuckets[netip.Addr](r)
		b.ReportAllocs()
		for i := range b.N {
			t.find(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 0)
		}
	})
	b.Run("spend", func(b *testing.B) {
		l := &loop{edge: &Edge{limits: newLimits(&Config{CommandsPerIP: rateForBench, CommandsPerConnection: rateForBench})}}
		c := &conn{address: netip.MustParseAddr("10.0.0.1").As16(), admitted: true}
		b.ReportAllocs()
		for i := range b.N {
			l.now = int64(i)
			if err := l.spend(c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

const rateForBench = 10_000_000
