package rights

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// anyUnits draws small numbers, and now and then absurd ones.
func anyUnits(t *rapid.T, name string) int64 {
	if rapid.IntRange(0, 9).Draw(t, name+" absurd") == 0 {
		return rapid.Int64().Draw(t, name)
	}
	return rapid.Int64Range(0, 20).Draw(t, name)
}

func anyOwn(t *rapid.T) Own {
	return Own{Free: max(0, anyUnits(t, "free")), Missing: anyUnits(t, "missing"), Kept: anyUnits(t, "kept")}
}

func anyAsk(t *rapid.T, key protocol.ItemKey) Ask {
	return Ask{
		Key: key, Need: anyUnits(t, "need"), Extra: anyUnits(t, "extra"), Free: anyUnits(t, "its free"),
		Demand: rapid.OneOf(rapid.Float64Range(0, 10), rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1))).Draw(t, "demand"),
	}
}

func anyPeers(t *rapid.T) (all []Peer) {
	for _, name := range []string{"a", "b", "c"}[:rapid.IntRange(0, 3).Draw(t, "peers")] {
		all = append(all, Peer{Region: name, Free: anyUnits(t, "row"), Reachable: rapid.Bool().Draw(t, "reachable")})
	}
	return all
}

// Whatever a Book is told: what it decides makes sense.
func TestDecisionsMakeSense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBook("me", Options{ItemsMax: 3})
		now := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")
			key := protocol.ItemKey{SKU: rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(t, "item")}
			peer := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "peer")
			own := anyOwn(t)
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				b.Demand(key, anyUnits(t, "units"), now)
			case 1:
				checkOrders(t, key, own, b, anyPeers(t), now)
			case 2:
				if n := b.Give(peer, anyAsk(t, key), own, now); n < 0 || n > own.Free {
					t.Fatalf("gives %d of %+v", n, own)
				}
			case 3:
				checkGifts(t, own, b.Offer(key, own, now))
			case 4:
				b.Answered(key, peer, anyUnits(t, "granted"), anyUnits(t, "left"), now)
			case 5:
				b.Told(key, peer, anyUnits(t, "granted"), anyUnits(t, "left"), now)
			case 6:
				b.Hopeless(key, own, anyPeers(t), now)
			default:
				b.Sweep(now)
			}
			if r := b.Rate(key, now); r < 0 || math.IsNaN(r) || b.Len() > 3 {
				t.Fatalf("rate %v, %d items", r, b.Len())
			}
		}
	})
}

func checkOrders(t *rapid.T, key protocol.ItemKey, own Own, b *Book, peers []Peer, now int64) {
	var seen []string
	for _, o := range b.Want(key, own, peers, now) {
		a := o.Ask
		if a.Key != key || a.Need < 0 || a.Extra < 0 || a.Need+a.Extra <= 0 || a.Free < 0 || own.Missing <= 0 && a.Need > 0 {
			t.Fatalf("senseless ask %+v for %+v", o, own)
		}
		if slices.Contains(seen, o.Peer) || !slices.ContainsFunc(peers, func(p Peer) bool { return p.Region == o.Peer && p.Reachable }) {
			t.Fatalf("asks %s twice or out of reach: %+v", o.Peer, peers)
		}
		seen = append(seen, o.Peer)
	}
	if again := b.Want(key, own, peers, now); len(again) > len(peers)-len(seen) {
		t.Fatalf("asks again at once: %+v", again)
	}
}

func checkGifts(t *rapid.T, own Own, gifts []Gift) {
	sum := int64(0)
	for _, g := range gifts {
		if g.Units < 0 {
			t.Fatalf("gift of %d", g.Units)
		}
		sum += g.Units
	}
	if sum > own.Free {
		t.Fatalf("gifts of %d from %+v", sum, own)
	}
}

// The order in which peers are listed decides nothing.
func TestOrderOfPeersDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		own := Own{Missing: rapid.Int64Range(0, 20).Draw(t, "missing")}
		peers := anyPeers(t)
		x, y := NewBook("me", Options{}), NewBook("me", Options{})
		for _, b := range []*Book{x, y} {
			b.Demand(tea, 5, 0)
		}
		one := asked(x.Want(tea, own, peers, 1))
		slices.Reverse(peers)
		other := asked(y.Want(tea, own, peers, 1))
		slices.Sort(one)
		slices.Sort(other)
		if d := cmp.Diff(one, other); d != "" {
			t.Fatalf("(-in order +reversed):\n%s", d)
		}
	})
}

// still is a mesh in which nothing is sold any more, though commands wait for ever.
type still struct {
	books     []*Book
	free      []int64
	wanted    []int64
	now       int64
	transfers int
}

func anyStill(t *rapid.T) *still {
	s := &still{}
	for r := range rapid.IntRange(2, 5).Draw(t, "regions") {
		b := NewBook(fmt.Sprintf("r%d", r), Options{})
		for i, n := int64(0), rapid.Int64Range(0, 50).Draw(t, "sales"); i < n; i++ {
			b.Demand(tea, 1, i*100*ms)
		}
		s.books = append(s.books, b)
		s.free = append(s.free, rapid.Int64Range(0, 30).Draw(t, "free"))
		s.wanted = append(s.wanted, rapid.SampledFrom([]int64{0, 0, 0, 1, 2, 5, 20}).Draw(t, "wanted"))
	}
	s.now = 5000 * ms
	return s
}

func (s *still) own(r int) Own {
	return Own{Free: s.free[r], Missing: max(0, s.wanted[r]-s.free[r]), Kept: min(s.wanted[r], s.free[r])}
}

// step lets one region ask and all it asked answer.
func (s *still) step(r int) {
	var peers []Peer
	for p, b := range s.books {
		if p != r {
			peers = append(peers, up(b.region, s.free[p]))
		}
	}
	for _, o := range slices.Clone(s.books[r].Want(tea, s.own(r), peers, s.now)) {
		p := int(o.Peer[1] - '0')
		n := s.books[p].Give(s.books[r].region, o.Ask, s.own(p), s.now)
		s.move(p, r, n)
		s.books[r].Answered(tea, o.Peer, n, s.free[p], s.now)
	}
}

func (s *still) move(from, to int, n int64) {
	if n > 0 {
		s.transfers++
	}
	s.free[from] -= n
	s.free[to] += n
	if n == 0 {
		return
	}
	for _, g := range slices.Clone(s.books[to].Offer(tea, s.own(to), s.now)) {
		s.move(to, int(g.Peer[1]-'0'), g.Units)
	}
}

// Without sales, units come to rest, though commands that lack units wait for ever.
func TestUnitsComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyStill(t)
		regions := len(s.books)
		for second := range 60 {
			if second == 20 {
				s.transfers = 0
			}
			for range 20 {
				s.now += 50 * ms
				for r := range regions {
					s.step(r)
				}
			}
			if second < 20 && s.transfers > 10*regions*regions {
				t.Fatalf("%d transfers in %d s without a sale", s.transfers, second+1)
			}
		}
		if s.transfers > regions {
			t.Fatalf("%d transfers from the 20th to the 60th second: %+v wanted %+v", s.transfers, s.free, s.wanted)
		}
	})
}
