package edge

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// rate is how fast something may come, and how much of it at once. The zero rate
// lets everything through.
type rate struct {
	each  int64 // ns that one takes to come back
	burst int64 // ns that all which may come at once take
}

// newRate takes what may come per second and at once; a burst of 0 is a second's
// worth.
func newRate(perSecond, burst int) rate {
	if perSecond <= 0 {
		return rate{}
	}
	if burst <= 0 {
		burst = perSecond
	}
	each := int64(1e9) / int64(perSecond)
	return rate{each: each, burst: each * int64(burst)}
}

func (r rate) on() bool { return r.each > 0 }

// bucket is a token bucket written as one moment, the one at which it will be full
// again (GCRA). So it is filled by the clock alone, and any goroutine takes from it
// with one compare-and-swap.
type bucket struct {
	full atomic.Int64 // ns since the edge's start
}

// take takes up to n, and says after how many ns one more would be there if it
// could not take all.
func (r rate) take(b *bucket, now int64, n int) (taken int, wait int64) {
	for {
		full := b.full.Load()
		from := max(full, now)
		taken = int(min(int64(n), max(0, now+r.burst-from)/r.each))
		if taken < n {
			wait = from + int64(taken+1)*r.each - r.burst - now
		}
		if taken == 0 || b.full.CompareAndSwap(full, from+int64(taken)*r.each) {
			return taken, wait
		}
	}
}

// giveBack undoes a take.
func (r rate) giveBack(b *bucket, n int) { b.full.Add(-int64(n) * r.each) }

const (
	// bucketsMax bounds one generation of a table: some 4 MB.
	bucketsMax = 1 << 15
	// generationNS is the least age of a generation.
	generationNS = int64(10e9)
)

// buckets are the buckets of all keys that came lately, in two generations. What
// nobody asked for during a whole one, in which any bucket fills, is forgotten with
// it: nothing is searched, whatever the number of keys. Where more keys come than a
// generation holds, it ends early, and who is forgotten by that starts with a full
// bucket: an attacker with so many addresses gains a burst, and nobody else loses.
type buckets[K comparable] struct {
	rate   rate
	max    int
	period int64 // ns
	// until is when the present generation ends, and its name: a bucket looked up in
	// it is the key's one until then.
	until atomic.Int64

	mu         sync.Mutex
	young, old map[K]*bucket
}

func newBuckets[K comparable](r rate) *buckets[K] {
	t := &buckets[K]{rate: r, max: bucketsMax, period: max(generationNS, r.burst), young: make(map[K]*bucket)}
	t.until.Store(t.period)
	return t
}

// find returns the bucket of a key and until when it may be used without asking
// again.
func (t *buckets[K]) find(key K, now int64) (b *bucket, until int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
	b = t.young[key]
	if b != nil {
		return b, t.until.Load()
	}
	if b = t.old[key]; b == nil {
		b = new(bucket)
	}
	if len(t.young) >= t.max {
		t.end(now)
	}
	t.young[key] = b
	return b, t.until.Load()
}

// current reports whether a bucket found in the generation until is still the key's.
func (t *buckets[K]) current(until, now int64) bool { return now < until && until == t.until.Load() }

// tidy forgets by time, where nobody asks for anything.
func (t *buckets[K]) tidy(now int64) {
	if now < t.until.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now)
}

// turn is called with mu held.
func (t *buckets[K]) turn(now int64) {
	if until := t.until.Load(); now >= until {
		t.end(now)
		if now >= until+t.period {
			t.old = nil // two have ended
		}
	}
}

// end begins a generation. It is called with mu held.
func (t *buckets[K]) end(now int64) {
	t.old, t.young = t.young, make(map[K]*bucket)
	// Above the one before even if that began in the same moment: it is a name.
	t.until.Store(max(now+t.period, t.until.Load()+1))
}

// addressKey is what an address is counted by: whoever has an IPv6 address has its
// whole /64.
func addressKey(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if ip.Is6() {
		prefix, _ := ip.WithZone("").Prefix(64) // fails for IPv4 only
		return prefix.Addr()
	}
	return ip
}
