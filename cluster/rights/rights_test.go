package rights

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

var tea = protocol.ItemKey{SKU: "tea", Location: "shop"}

const ms = int64(time.Millisecond)

// asked is what Want orders, as "peer need+extra".
func asked(orders []Order) (all []string) {
	for _, o := range orders {
		all = append(all, fmt.Sprintf("%s %d+%d", o.Peer, o.Ask.Need, o.Ask.Extra))
	}
	return all
}

func check(t *testing.T, what string, got []Order, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, asked(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func up(region string, free int64) Peer { return Peer{Region: region, Free: free, Reachable: true} }

func TestWantAsksTheRichestFirst(t *testing.T) {
	for name, c := range map[string]struct {
		missing int64
		peers   []Peer
		want    []string
	}{
		"one has enough":         {3, []Peer{up("a", 2), up("b", 9)}, []string{"b 3+4"}},
		"equal: by name":         {3, []Peer{up("b", 9), up("a", 9)}, []string{"a 3+4"}},
		"several together":       {10, []Peer{up("a", 4), up("b", 7)}, []string{"b 7+4", "a 3+0"}},
		"not enough: the empty":  {10, []Peer{up("a", 4), up("b", 0)}, []string{"a 4+4", "b 6+0"}},
		"unreachable is useless": {3, []Peer{{Region: "a", Free: 100}, up("b", 9)}, []string{"b 3+4"}},
		"nobody":                 {3, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("me", Options{})
			b.Demand(tea, 1, 0)
			check(t, "asks", b.Want(tea, Own{Missing: c.missing}, c.peers, 0), c.want...)
		})
	}
}

func TestWantDoesNotAskTwiceBeforeTheAnswer(t *testing.T) {
	b := NewBook("me", Options{})
	peers := []Peer{up("a", 5)}
	check(t, "at once", b.Want(tea, Own{Missing: 1}, peers, 0), "a 1+0")
	check(t, "before the answer", b.Want(tea, Own{Missing: 2}, peers, 99*ms))
	check(t, "after the timeout", b.Want(tea, Own{Missing: 2}, peers, 100*ms), "a 2+0")
	b.Answered(tea, "a", 2, 3, 110*ms)
	check(t, "after the answer", b.Want(tea, Own{Missing: 1}, peers, 110*ms), "a 1+0")
}

func TestEmptyPeersAreProbedNowAndThen(t *testing.T) {
	b := NewBook("me", Options{})
	peers, own := []Peer{up("a", 0)}, Own{Missing: 1}
	if b.Hopeless(tea, own, peers, 0) {
		t.Error("hopeless before anybody was asked")
	}
	check(t, "first", b.Want(tea, own, peers, 0), "a 1+0")
	b.Answered(tea, "a", 0, 0, 20*ms)
	if !b.Hopeless(tea, own, peers, 20*ms) {
		t.Error("not hopeless though the only peer said that it has nothing")
	}
	check(t, "soon after", b.Want(tea, own, peers, 500*ms))
	check(t, "later", b.Want(tea, own, peers, 520*ms), "a 1+0")
	if !b.Hopeless(tea, own, peers, 530*ms) {
		t.Error("a probe under way makes commands wait")
	}
	b.Told(tea, "a", 0, 1, 540*ms)
	if b.Hopeless(tea, own, peers, 540*ms) {
		t.Error("hopeless though the peer told of units")
	}
}

func TestHopelessWithoutPeers(t *testing.T) {
	b := NewBook("me", Options{})
	if !b.Hopeless(tea, Own{Missing: 1}, []Peer{{Region: "a", Free: 5}}, 0) {
		t.Error("waiting for an unreachable peer")
	}
}

func TestMutePeerIsNotWaitedFor(t *testing.T) {
	b := NewBook("me", Options{})
	peers, own := []Peer{up("a", 5)}, Own{Missing: 1}
	for now := int64(0); now <= 1100*ms; now += 100 * ms {
		b.Want(tea, own, peers, now)
	}
	if !b.Hopeless(tea, own, peers, 1100*ms) {
		t.Error("still waiting for a peer that has not answered for a second")
	}
	asks := 0
	for now := 1200 * ms; now < 6200*ms; now += 10 * ms {
		asks += len(b.Want(tea, own, peers, now))
	}
	if asks < 8 || asks > 11 {
		t.Errorf("%d probes of a mute peer in 5 s, want about 10", asks)
	}
	b.Answered(tea, "a", 0, 5, 6200*ms)
	if b.Hopeless(tea, own, peers, 6200*ms) {
		t.Error("hopeless though the peer speaks again")
	}
}

func TestAheadOfNeed(t *testing.T) {
	b := NewBook("me", Options{})
	for i := range int64(600) { // 10 a second for a minute
		b.Demand(tea, 1, i*100*ms)
	}
	now := 60000 * ms
	peers := []Peer{up("a", 1000)}
	check(t, "above the low-water mark", b.Want(tea, Own{Free: 50}, peers, now))
	check(t, "a peer that has less", b.Want(tea, Own{Free: 5}, []Peer{up("a", 5)}, now))
	check(t, "no peer", b.Want(tea, Own{Free: 5}, nil, now))
	got := b.Want(tea, Own{Free: 5}, peers, now)
	if len(got) != 1 || got[0].Ask.Need != 0 || got[0].Ask.Extra < 200 || got[0].Ask.Extra > 320 {
		t.Fatalf("below the low-water mark: %+v, want about 30 s of demand", got)
	}
	b.Answered(tea, "a", 10, 990, now+50*ms)
	check(t, "the peer keeps its part: again", b.Want(tea, Own{Free: 6}, peers, now+60*ms))
	if len(b.Want(tea, Own{Free: 6}, peers, now+600*ms)) != 1 {
		t.Error("never asked again")
	}
}

// rush notes rate units a second for a minute before now.
func rush(b *Book, rate int64, now int64) {
	for i := int64(60); i > 0; i-- {
		b.Demand(tea, rate, now-i*int64(time.Second))
	}
}

func TestGive(t *testing.T) {
	const now = int64(time.Hour)
	for name, c := range map[string]struct {
		mine int64 // demand per second
		ask  Ask
		own  Own
		want int64
	}{
		"need in full":                     {10, Ask{Need: 5, Demand: 1}, Own{Free: 8}, 5},
		"need in part":                     {10, Ask{Need: 5, Demand: 1}, Own{Free: 3}, 3},
		"nothing there":                    {0, Ask{Need: 5, Extra: 5, Demand: 1}, Own{}, 0},
		"no demand here: all that's asked": {0, Ask{Extra: 70, Demand: 1}, Own{Free: 100}, 70},
		"by demands":                       {10, Ask{Extra: 1000, Demand: 30}, Own{Free: 100}, 75},
		"both counted":                     {10, Ask{Extra: 1000, Demand: 10, Free: 20}, Own{Free: 100}, 40},
		"has its part":                     {10, Ask{Extra: 1000, Demand: 10, Free: 100}, Own{Free: 100}, 0},
		"crumbs stay":                      {10, Ask{Extra: 1000, Demand: 10, Free: 98}, Own{Free: 102}, 0},
		"last units gather there":          {1, Ask{Extra: 4, Demand: 10}, Own{Free: 3}, 3},
		"last units gather here":           {10, Ask{Extra: 4, Demand: 1}, Own{Free: 3}, 0},
		"need, then extra":                 {10, Ask{Need: 20, Extra: 1000, Demand: 10}, Own{Free: 100}, 60},
		"basket's units stay":              {0, Ask{Need: 5}, Own{Free: 6, Kept: 3}, 3},
		"absurd asks":                      {10, Ask{Need: -5, Extra: -7, Free: -1, Demand: -1}, Own{Free: 9}, 0},
		"absurd sizes":                     {10, Ask{Need: 1 << 62, Extra: 1 << 62, Free: 1 << 62}, Own{Free: 9}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("me", Options{})
			if c.mine > 0 {
				rush(b, c.mine, now)
				b.ratesAre(t, float64(c.mine), now)
			}
			c.ask.Key = tea
			if got := b.Give("a", c.ask, c.own, now); got != c.want {
				t.Errorf("gave %d, want %d", got, c.want)
			}
		})
	}
}

// ratesAre sets the demand exactly, so that tests can compute parts in the head.
func (b *Book) ratesAre(t *testing.T, want float64, now int64) {
	t.Helper()
	if got := b.Rate(tea, now); got < 0.8*want || got > 1.2*want {
		t.Errorf("rate %.2f, want about %.2f", got, want)
	}
	b.items[tea].demand.slow = want * b.options.Horizon.Seconds()
}

// Whatever the regions are called, of two that wait for each other's units exactly
// one gives.
func TestOnlyOneOfTwoYields(t *testing.T) {
	for name, c := range map[string]struct{ x, y Own }{
		"both could be served": {Own{Free: 1, Missing: 1}, Own{Free: 1, Missing: 1}},
		"neither could":        {Own{Free: 1, Missing: 5}, Own{Free: 1, Missing: 5}},
		"one could":            {Own{Free: 1, Missing: 9}, Own{Free: 1, Missing: 1}},
	} {
		for i := range 50 {
			x, y := fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i)
			fromX := NewBook(x, Options{}).Give(y, Ask{Key: tea, Need: c.y.Missing, Free: c.y.Free}, c.x, 0)
			fromY := NewBook(y, Options{}).Give(x, Ask{Key: tea, Need: c.x.Missing, Free: c.x.Free}, c.y, 0)
			if (fromX == 0) == (fromY == 0) {
				t.Fatalf("%s: %s gives %d, %s gives %d", name, x, fromX, y, fromY)
			}
			if name == "one could" && fromX == 0 {
				t.Fatalf("%s: the unit goes where it serves nobody", name)
			}
		}
	}
}

// Two baskets want tea and milk; each region has one of them. Both items must go the
// same way.
func TestBasketsDoNotBlockEachOther(t *testing.T) {
	milk := protocol.ItemKey{SKU: "milk", Location: tea.Location}
	for i := range 50 {
		x, y := fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i)
		teaToY := NewBook(x, Options{}).Give(y, Ask{Key: tea, Need: 1}, Own{Free: 1, Kept: 1}, 0)
		milkToX := NewBook(y, Options{}).Give(x, Ask{Key: milk, Need: 1}, Own{Free: 1, Kept: 1}, 0)
		if teaToY+milkToX != 1 {
			t.Fatalf("%s gives %d tea, %s gives %d milk", x, teaToY, y, milkToX)
		}
	}
}

func TestOffer(t *testing.T) {
	const now = int64(time.Hour)
	for name, c := range map[string]struct {
		mine   int64
		theirs float64
		free   int64
		want   []Gift
	}{
		"one unit goes to more demand":  {1, 5, 1, []Gift{{"a", 1}}},
		"or stays, but is told of":      {5, 1, 1, []Gift{{"a", 0}}},
		"many are shared":               {10, 10, 20, []Gift{{"a", 10}}},
		"no more than was asked":        {0, 10, 500, []Gift{{"a", 50}}},
		"nothing to offer":              {0, 10, 0, nil},
		"what commands here wait for":   {0, 10, -1, nil},
		"few, to who sells as much":     {5, 5, 4, []Gift{{"a", 4}}},
		"sold by neither: needed there": {0, 0, 2, []Gift{{"a", 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("me", Options{})
			if c.mine > 0 {
				rush(b, c.mine, now)
				b.ratesAre(t, float64(c.mine), now)
			}
			b.Give("a", Ask{Key: tea, Need: 50, Demand: c.theirs}, Own{}, now)
			own := Own{Free: max(0, c.free), Missing: max(0, -c.free)}
			if d := cmp.Diff(c.want, append([]Gift(nil), b.Offer(tea, own, now)...)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if c.want != nil && len(b.Offer(tea, own, now)) != 0 {
				t.Error("offered twice")
			}
		})
	}
}

func TestOfferForgets(t *testing.T) {
	b := NewBook("me", Options{})
	b.Give("a", Ask{Key: tea, Need: 5, Demand: 1}, Own{}, 0)
	if got := b.Offer(tea, Own{Free: 9}, b.options.hungerTime()); len(got) != 0 {
		t.Errorf("offered %v to a peer that no longer waits", got)
	}
}

func TestSweepForgetsWhatNobodyWants(t *testing.T) {
	b := NewBook("me", Options{})
	for i := range 5000 {
		b.Demand(protocol.ItemKey{SKU: fmt.Sprint(i)}, 1, 0)
	}
	now := int64(0)
	for range 300 {
		now += int64(time.Second)
		b.Demand(tea, 1, now)
		b.Sweep(now)
	}
	if b.Len() != 1 || len(b.items) != 1 || b.Rate(tea, now) == 0 {
		t.Errorf("%d items remembered, want tea alone", b.Len())
	}
}

func TestBookIsBounded(t *testing.T) {
	b := NewBook("me", Options{ItemsMax: 100})
	for i := range 1000 {
		b.Demand(protocol.ItemKey{SKU: fmt.Sprint(i)}, 1, int64(i))
	}
	if b.Len() != 100 || len(b.items) != 100 {
		t.Errorf("%d items, %d in the map, want 100", b.Len(), len(b.items))
	}
	for place, it := range b.ring {
		if it.place != place || b.items[it.key] != it {
			t.Fatalf("item %v has lost its place", it.key)
		}
	}
}
