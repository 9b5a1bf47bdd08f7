package rights

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// sim is a mesh of regions that keep nothing but free units, driven by events. One
// seed is one history.
type sim struct {
	rng     *rand.Rand
	now     int64
	events  eventHeap
	serial  int
	sites   []*site
	keys    []protocol.ItemKey
	entered []int64 // units that came in, returns included, by item
	taken   []int64 // units sold or held, by item
	trips   [][]time.Duration
	loss    float64
	figures figures
	patient time.Duration // how long a command may wait
	noOffer bool
}

// figures are what a run measured.
type figures struct {
	commands, sold, refused, waited int
	possible                        int // commands that could be met by what was free anywhere when they came
	atOnce                          int // refusals without waiting
	falsely                         int // refused though enough was free, when it came and then
	timeouts                        int // of those: at the end of patience
	onTheWay                        int // refused though enough was free or under way and unclaimed, both times
	messages, asks, gifts           int
	unitsSold, moved                int64
	transfers, bounces              int // bounces: transfers that undo one of the last second
	waits                           []time.Duration
}

type event struct {
	at     int64
	serial int
	do     func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].serial < h[j].serial
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// site is one region: its Book and what its ledger would hold.
type site struct {
	sim     *sim
	index   int
	name    string
	book    *Book
	free    []int64
	flying  []int64            // units on their way here
	waiting map[int][]*command // by item
	wanted  map[int]int64      // units of waiting commands, by item
	rows    []seenRow          // of the site by others: what goes out next
	seen    [][]int64          // free units by peer and item, as the rows told
	version [][]int
	gave    map[int]gave
}

type seenRow struct {
	due     bool
	version int
}

type gave struct {
	to int
	at int64
}

type line struct {
	item  int
	units int64
}

type command struct {
	site     *site
	lines    []line
	came     int64
	possible bool // enough was free somewhere when it came
	coming   bool // or under way
	ended    bool
	after    func() // what happens once it is sold
}

func newSim(seed uint64, regions, items int, o Options) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 7)), entered: make([]int64, items), taken: make([]int64, items), loss: 0.002, patient: 300 * time.Millisecond}
	for i := range items {
		s.keys = append(s.keys, protocol.ItemKey{SKU: fmt.Sprintf("sku-%d", i), Location: fmt.Sprintf("l%d", i%3)})
	}
	for r := range regions {
		at := &site{sim: s, index: r, name: fmt.Sprintf("r%d", r), free: make([]int64, items), flying: make([]int64, items), waiting: map[int][]*command{},
			wanted: map[int]int64{}, rows: make([]seenRow, items), gave: map[int]gave{}}
		at.book = NewBook(at.name, o)
		for range regions {
			at.seen, at.version = append(at.seen, make([]int64, items)), append(at.version, make([]int, items))
		}
		s.sites = append(s.sites, at)
	}
	s.drawTrips()
	return s
}

// drawTrips gives each pair of regions a one-way delay of 5..80 ms.
func (s *sim) drawTrips() {
	n := len(s.sites)
	s.trips = make([][]time.Duration, n)
	for i := range s.trips {
		s.trips[i] = make([]time.Duration, n)
	}
	for i := range n {
		for j := range i {
			d := 5*time.Millisecond + time.Duration(s.rng.Int64N(int64(75*time.Millisecond)))
			s.trips[i][j], s.trips[j][i] = d, d
		}
	}
}

func (s *sim) after(d time.Duration, do func()) {
	s.serial++
	heap.Push(&s.events, event{s.now + int64(d), s.serial, do})
}

// run goes on until end, or until nothing happens any more.
func (s *sim) run(end time.Duration) {
	for len(s.events) > 0 && s.events[0].at <= int64(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = int64(end)
}

func (s *sim) site(name string) *site { return s.sites[int(name[1]-'0')] }

// total is what is free anywhere.
func (s *sim) total(item int) (sum int64) {
	for _, at := range s.sites {
		sum += at.free[item]
	}
	return sum
}

func (s *sim) enough(lines []line) bool {
	return !slices.ContainsFunc(lines, func(l line) bool { return s.total(l.item) < l.units })
}

// coming also counts what is under way to a region, but not what waiting commands
// there will take.
func (s *sim) coming(lines []line) bool {
	return !slices.ContainsFunc(lines, func(l line) bool {
		sum := int64(0)
		for _, at := range s.sites {
			sum += max(0, at.free[l.item]+at.flying[l.item]-at.wanted[l.item])
		}
		return sum < l.units
	})
}

// trip is how long a message takes now: the way, and now and then a little queue.
func (s *sim) trip(from, to int) time.Duration {
	return s.trips[from][to] + time.Duration(s.rng.ExpFloat64()*float64(3*time.Millisecond))
}

func (s *sim) lost() bool { return s.rng.Float64() < s.loss }

// arrive is a command of a customer.
func (at *site) arrive(lines []line, after func()) {
	s := at.sim
	c := &command{site: at, lines: lines, came: s.now, possible: s.enough(lines), coming: s.coming(lines), after: after}
	s.figures.commands++
	if c.possible {
		s.figures.possible++
	}
	for _, l := range lines {
		at.book.Demand(s.keys[l.item], l.units, s.now)
	}
	if at.serve(c) {
		return
	}
	at.wait(c)
	at.pursue(c)
	if c.ended {
		return
	}
	s.figures.waited++
	s.after(s.patient, func() {
		if !c.ended {
			at.refuse(c)
		}
	})
	s.after(s.patient/3+time.Millisecond, func() { at.pursue(c) })
	s.after(2*s.patient/3, func() { at.pursue(c) })
}

// serve sells if everything is there.
func (at *site) serve(c *command) bool {
	for _, l := range c.lines {
		if at.free[l.item] < l.units {
			return false
		}
	}
	s := at.sim
	s.figures.sold++
	s.figures.waits = append(s.figures.waits, time.Duration(s.now-c.came))
	for _, l := range c.lines {
		s.figures.unitsSold += l.units
		s.taken[l.item] += l.units
		at.change(l.item, -l.units)
	}
	if c.after != nil {
		c.after()
	}
	for _, l := range c.lines {
		at.want(l.item)
	}
	return true
}

func (at *site) wait(c *command) {
	for _, l := range c.lines {
		at.waiting[l.item] = append(at.waiting[l.item], c)
		at.wanted[l.item] += l.units
	}
}

func (at *site) leave(c *command) {
	c.ended = true
	for _, l := range c.lines {
		at.waiting[l.item] = slices.DeleteFunc(at.waiting[l.item], func(o *command) bool { return o == c })
		if at.wanted[l.item] -= l.units; at.wanted[l.item] == 0 {
			delete(at.waiting, l.item)
			delete(at.wanted, l.item)
		}
	}
}

// pursue asks for what a waiting command lacks, and gives up if that is hopeless.
func (at *site) pursue(c *command) {
	if c.ended {
		return
	}
	s := at.sim
	for _, l := range c.lines {
		lacks := l.units - at.free[l.item]
		if lacks <= 0 {
			continue
		}
		at.want(l.item)
		own := at.own(l.item)
		own.Missing = lacks
		if at.book.Hopeless(s.keys[l.item], own, at.peers(l.item), s.now) {
			at.refuse(c)
			return
		}
	}
}

func (at *site) refuse(c *command) {
	s := at.sim
	at.leave(c)
	s.figures.refused++
	if s.now == c.came {
		s.figures.atOnce++
	}
	if c.coming && s.coming(c.lines) {
		s.figures.onTheWay++
	}
	if c.possible && s.enough(c.lines) {
		s.figures.falsely++
		if s.now-c.came >= int64(s.patient) {
			s.figures.timeouts++
		}
	}
}

func (at *site) own(item int) Own {
	free, wanted := at.free[item], at.wanted[item]
	return Own{Free: free, Missing: max(0, wanted-free), Kept: min(wanted, free)}
}

func (at *site) peers(item int) (all []Peer) {
	for _, o := range at.sim.sites {
		if o != at {
			all = append(all, Peer{Region: o.name, Free: at.seen[o.index][item], Reachable: true})
		}
	}
	return all
}

// want sends what the book asks for.
func (at *site) want(item int) {
	s := at.sim
	for _, o := range slices.Clone(at.book.Want(s.keys[item], at.own(item), at.peers(item), s.now)) {
		to := s.site(o.Peer)
		s.figures.messages++
		s.figures.asks++
		if !s.lost() {
			s.after(s.trip(at.index, to.index), func() { to.asked(at, item, o.Ask) })
		}
	}
}

func (at *site) asked(from *site, item int, a Ask) {
	n := at.book.Give(from.name, a, at.own(item), at.sim.now)
	at.grant(from, item, n, (*Book).Answered)
}

// grant sends units to a peer. Where the message is lost, the row tells of them.
func (at *site) grant(to *site, item int, n int64, tell func(b *Book, key protocol.ItemKey, peer string, granted, left, now int64)) {
	s := at.sim
	if n < 0 || n > at.free[item] {
		panic(fmt.Sprintf("%s gives %d of %d", at.name, n, at.free[item]))
	}
	s.figures.messages++
	to.flying[item] += n
	if n > 0 {
		at.moved(to, item, n)
		at.change(item, -n)
	}
	left, trip := at.free[item], s.trip(at.index, to.index)
	if s.lost() {
		s.after(trip+150*time.Millisecond, func() { to.accept(item, n) })
		return
	}
	s.after(trip, func() {
		tell(to.book, s.keys[item], at.name, n, left, s.now)
		to.accept(item, n)
	})
}

func (at *site) moved(to *site, item int, n int64) {
	s := at.sim
	s.figures.transfers++
	s.figures.moved += n
	if back, ok := to.gave[item]; ok && back.to == at.index && s.now-back.at < int64(time.Second) {
		s.figures.bounces++
	}
	at.gave[item] = gave{to.index, s.now}
}

func (at *site) accept(item int, n int64) {
	at.flying[item] -= n
	at.raise(item, n)
}

// enter is a delivery, or a reservation that ran out.
func (at *site) enter(item int, n int64) {
	at.sim.entered[item] += n
	at.raise(item, n)
}

// checkUnits tells whether units were conserved.
func (s *sim) checkUnits(t *testing.T) {
	t.Helper()
	for item := range s.entered {
		have := s.total(item) + s.taken[item]
		for _, at := range s.sites {
			have += at.flying[item]
		}
		if have != s.entered[item] {
			t.Errorf("item %d: %d units entered, %d are accounted for", item, s.entered[item], have)
		}
	}
}

// raise adds units, serves who waits for them, and looks after the rest.
func (at *site) raise(item int, n int64) {
	s := at.sim
	if n > 0 {
		at.change(item, n)
	}
	for _, c := range slices.Clone(at.waiting[item]) {
		if !c.ended && at.ready(c) {
			at.leave(c)
			at.serve(c)
		}
	}
	for _, c := range slices.Clone(at.waiting[item]) {
		at.pursue(c)
	}
	if n == 0 || s.noOffer {
		return
	}
	for _, g := range slices.Clone(at.book.Offer(s.keys[item], at.own(item), s.now)) {
		s.figures.gifts++
		at.grant(s.site(g.Peer), item, g.Units, (*Book).Told)
	}
}

func (at *site) ready(c *command) bool {
	return !slices.ContainsFunc(c.lines, func(l line) bool { return at.free[l.item] < l.units })
}

// change sets free units and lets the row follow, at most every 20 ms, 50..150 ms late.
func (at *site) change(item int, n int64) {
	s := at.sim
	if at.free[item] += n; at.free[item] < 0 {
		panic("sold what isn't there")
	}
	if at.rows[item].due {
		return
	}
	at.rows[item].due = true
	s.after(20*time.Millisecond, func() { at.publish(item) })
}

func (at *site) publish(item int) {
	s := at.sim
	at.rows[item].due = false
	at.rows[item].version++
	version, free := at.rows[item].version, at.free[item]
	for _, o := range s.sites {
		if o == at {
			continue
		}
		s.after(30*time.Millisecond+time.Duration(s.rng.Int64N(int64(100*time.Millisecond))), func() {
			if version > o.version[at.index][item] {
				o.version[at.index][item], o.seen[at.index][item] = version, free
			}
		})
	}
}

func (f *figures) falseRate() float64 { return float64(f.falsely) / float64(max(1, f.commands)) }

func (f *figures) String() string {
	slices.Sort(f.waits)
	at := func(q float64) time.Duration {
		if len(f.waits) == 0 {
			return 0
		}
		return f.waits[int(q*float64(len(f.waits)-1))].Round(time.Millisecond)
	}
	per := func(a, b int) float64 { return float64(a) / float64(max(1, b)) }
	var w strings.Builder
	fmt.Fprintf(&w, "%d commands, %d sold, %d refused (%.1f %% at once), %d waited\n", f.commands, f.sold, f.refused, 100*per(f.atOnce, f.refused), f.waited)
	fmt.Fprintf(&w, "  falsely refused %d = %.4f %% of commands, %.4f %% of those that could be met (%d at the end of patience); %.4f %% with units under way\n",
		f.falsely, 100*f.falseRate(), 100*per(f.falsely, f.possible), f.timeouts, 100*per(f.onTheWay, f.commands))
	fmt.Fprintf(&w, "  messages per command %.3f (%d asks, %d gifts); units moved per unit sold %.3f; %d transfers, bounces %d\n",
		per(f.messages, f.commands), f.asks, f.gifts, float64(f.moved)/float64(max(1, f.unitsSold)), f.transfers, f.bounces)
	fmt.Fprintf(&w, "  wait of sales p90 %v p99 %v p99.9 %v", at(.9), at(.99), at(.999))
	return w.String()
}
