package rights

import (
	"testing"
	"time"
)

// One unit lies somewhere, and customers in all regions want it within a moment:
// somebody gets it.
func TestSomebodyGetsTheLastUnit(t *testing.T) {
	for seed := range uint64(300) {
		s := newSim(seed, 3, 1, Options{})
		s.loss = 0
		s.sites[s.rng.IntN(3)].enter(0, 1)
		s.run(time.Second) // the rows have told
		for _, at := range s.sites {
			s.after(time.Duration(s.rng.Int64N(int64(50*time.Millisecond))), func() { at.arrive([]line{{0, 1}}, nil) })
		}
		s.run(5 * time.Second)
		if s.figures.sold != 1 || s.figures.refused != 2 {
			t.Fatalf("seed %d: %v", seed, &s.figures)
		}
	}
}

// One unit is left; only the two regions that don't have it have customers.
func TestTheBuyerNeedNotBeWhereTheUnitIs(t *testing.T) {
	for seed := range uint64(300) {
		s := newSim(seed, 3, 1, Options{})
		s.loss = 0
		s.sites[0].enter(0, 1)
		for _, at := range s.sites[1:] {
			s.after(time.Duration(s.rng.Int64N(int64(time.Second))), func() { at.arrive([]line{{0, 1}}, nil) })
		}
		s.run(5 * time.Second)
		if s.figures.sold != 1 {
			t.Fatalf("seed %d: %v", seed, &s.figures)
		}
	}
}

// A crowd hammers an item that is sold out: refused at once, few messages.
func TestSoldOutCrowdCostsLittle(t *testing.T) {
	const regions, perSecond, seconds = 3, 10_000, 4
	s := newSim(1, regions, 1, Options{})
	for _, at := range s.sites {
		for i := range perSecond * seconds {
			s.after(time.Duration(i)*time.Second/perSecond, func() { at.arrive([]line{{0, 1}}, nil) })
		}
	}
	s.run(seconds * time.Second)
	f := &s.figures
	each := float64(f.messages) / seconds / regions
	t.Logf("%.1f messages a second and region; %v", each, f)
	// Two peers, twice a second, ask and answer: 8.
	if each > 10 {
		t.Errorf("%.1f messages a second and region, want 8", each)
	}
	if float64(f.atOnce) < 0.95*float64(f.refused) {
		t.Errorf("%d of %d were refused at once", f.atOnce, f.refused)
	}
}

// A basket in each region wants all there is of several items that lie scattered.
func TestOneOfTheBasketsIsServed(t *testing.T) {
	served := 0
	const rounds = 300
	for seed := range uint64(rounds) {
		s := newSim(seed, 3, 9, Options{})
		s.loss = 0
		for r, at := range s.sites {
			at.enter(r*3, 2) // three items of one location
		}
		s.run(time.Second)
		for _, at := range s.sites {
			s.after(time.Duration(s.rng.Int64N(int64(20*time.Millisecond))), func() { at.arrive([]line{{0, 2}, {3, 2}, {6, 2}}, nil) })
		}
		s.run(5 * time.Second)
		served += s.figures.sold
	}
	t.Logf("%d of %d rounds served a basket", served, rounds)
	if served < rounds*8/10 {
		t.Errorf("only %d of %d rounds served a basket", served, rounds)
	}
}

// Demand moves from one region to another: so does the stock, and once it has, no
// messages are needed.
func TestStockFollowsDemand(t *testing.T) {
	s := newSim(3, 2, 1, Options{})
	s.sites[0].enter(0, 10_000)
	for i := range 3000 { // 50 a second for a minute, all in the other region
		s.after(time.Duration(i)*20*time.Millisecond, func() { s.sites[1].arrive([]line{{0, 1}}, nil) })
	}
	s.run(time.Minute)
	f := &s.figures
	t.Logf("%v", f)
	if f.sold != 3000 || f.waited > 50 || f.messages > 60 {
		t.Errorf("3000 sales of stock that lies elsewhere: %v", f)
	}
}

// A region whose messages get lost altogether must not make customers of the others
// wait for it again and again.
func TestLostPeerDoesNotHoldUpRefusals(t *testing.T) {
	s := newSim(4, 2, 1, Options{})
	s.loss = 1
	s.sites[0].enter(0, 10)
	for i := range 1000 {
		s.after(time.Duration(i)*10*time.Millisecond, func() { s.sites[1].arrive([]line{{0, 1}}, nil) })
	}
	s.run(15 * time.Second)
	if f := &s.figures; f.atOnce < 600 || f.asks > 60 {
		t.Errorf("a lost peer costs %v", f)
	}
}
