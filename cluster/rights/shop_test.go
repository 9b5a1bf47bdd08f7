package rights

import (
	"flag"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// shop drives a sim with customers: Zipf demand that moves round the globe, baskets,
// reservations that return, deliveries, and a flash sale of item 0.
type shop struct {
	*sim
	zipf *rand.Zipf
	day  time.Duration
	end  time.Duration
	rate float64 // commands per second
	home []int   // the region where an item sells best
}

func newShop(seed uint64, regions int, o Options) *shop {
	const items = 3000
	s := newSim(seed, regions, items, o)
	sh := &shop{sim: s, zipf: rand.NewZipf(s.rng, 1.1, 20, items-1), day: 40 * time.Second, end: 80 * time.Second, rate: 2000}
	for item := range items {
		sh.home = append(sh.home, s.rng.IntN(regions))
		// Everything is entered in one region; half of it sells out, half doesn't.
		lasts := 0.2 + 1.4*s.rng.Float64()
		s.sites[0].enter(item, int64(sh.units300k(item)*lasts))
	}
	s.after(0, sh.customer)
	s.after(0, sh.delivery)
	s.after(sh.end/2, func() { s.sites[0].enter(0, 3000); sh.flash(sh.end/2 + 8*time.Second) })
	s.after(time.Second, sh.sweep)
	return sh
}

// units300k is what customers want of an item until the end, 300,000 units in all.
func (sh *shop) units300k(item int) float64 {
	const sum = 2.93 // of (item+20)^-1.1 over 3,000 items
	return 300_000 / sum * math.Pow(float64(item+20), -1.1)
}

func (sh *shop) sweep() {
	for _, at := range sh.sites {
		at.book.Sweep(sh.now)
	}
	sh.after(time.Second, sh.sweep)
}

func (sh *shop) pause(perSecond float64) time.Duration {
	return time.Duration(sh.rng.ExpFloat64() / perSecond * float64(time.Second))
}

// region draws where a customer is: by the time of day, and by what is bought.
func (sh *shop) region(item int) *site {
	if sh.rng.Float64() < 0.3 {
		return sh.sites[sh.home[item]]
	}
	n := len(sh.sites)
	for {
		r := sh.rng.IntN(n)
		hour := 2 * math.Pi * (float64(sh.now)/float64(sh.day) + float64(r)/float64(n))
		if sh.rng.Float64() < (1+0.95*math.Sin(hour))/2 {
			return sh.sites[r]
		}
	}
}

func (sh *shop) customer() {
	first := int(sh.zipf.Uint64())
	lines := []line{{first, sh.units()}}
	for len(lines) < 4 && sh.rng.Float64() < 0.2 {
		if item := int(sh.zipf.Uint64()); item != first && item != lines[len(lines)-1].item {
			lines = append(lines, line{item, sh.units()})
		}
	}
	if len(lines) == 4 && lines[3].item == lines[1].item {
		lines = lines[:3]
	}
	at := sh.region(first)
	at.arrive(lines, sh.returns(at, lines))
	sh.after(sh.pause(sh.rate), sh.customer)
}

// returns lets a part of the sales be reservations that run out.
func (sh *shop) returns(at *site, lines []line) func() {
	if sh.rng.Float64() >= 0.12 {
		return nil
	}
	return func() {
		sh.after(time.Second+sh.pause(0.2), func() {
			for _, l := range lines {
				at.enter(l.item, l.units)
			}
		})
	}
}

func (sh *shop) units() int64 {
	if sh.rng.Float64() < 0.85 {
		return 1
	}
	return 2 + sh.rng.Int64N(4)
}

// delivery brings what runs short, to some region.
func (sh *shop) delivery() {
	item := int(sh.zipf.Uint64())
	sh.sites[sh.rng.IntN(len(sh.sites))].enter(item, 1+sh.rng.Int64N(60))
	sh.after(sh.pause(10), sh.delivery)
}

func (sh *shop) flash(until time.Duration) {
	if sh.now > int64(until) {
		return
	}
	lines := []line{{0, 1}}
	at := sh.sites[sh.rng.IntN(len(sh.sites))]
	at.arrive(lines, sh.returns(at, lines))
	sh.after(sh.pause(1500), func() { sh.flash(until) })
}

// The long run: go test -run FalseRefusals -v -shop.seeds 12. The other two show what
// a lossy network costs, and what gifts are good for.
var (
	shopSeeds   = flag.Uint64("shop.seeds", 2, "histories of the shop for each number of regions")
	shopLoss    = flag.Float64("shop.loss", 0.002, "part of the messages that get lost")
	shopNoOffer = flag.Bool("shop.no-offer", false, "never send gifts")
)

func TestFalseRefusalsInTheShop(t *testing.T) {
	for _, regions := range []int{2, 3, 5} {
		var sum figures
		worst := 0.0
		for seed := range *shopSeeds {
			sh := newShop(seed, regions, Options{})
			sh.loss, sh.noOffer = *shopLoss, *shopNoOffer
			sh.run(sh.end)
			t.Logf("%d regions, seed %d: %v", regions, seed, &sh.figures)
			sh.checkUnits(t)
			sum.commands, sum.falsely = sum.commands+sh.figures.commands, sum.falsely+sh.figures.falsely
			sum.onTheWay += sh.figures.onTheWay
			worst = max(worst, sh.figures.falseRate())
		}
		t.Logf("%d regions: %d of %d commands refused falsely, %.4f %%, worst seed %.4f %%; %.4f %% with units under way",
			regions, sum.falsely, sum.commands, 100*sum.falseRate(), 100*worst, 100*float64(sum.onTheWay)/float64(sum.commands))
		if sum.falseRate() >= 0.001 {
			t.Errorf("%d regions: %.4f %% of commands refused falsely, want less than 0.1 %%", regions, 100*sum.falseRate())
		}
	}
}
