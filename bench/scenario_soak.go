package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/bench/fault"
	"github.com/stockmesh/stockmesh/protocol"
)

// scenarioSoak is the scenario whose nodes and links fail all the time.
const scenarioSoak = "soak"

// soakTrial is a crowd that goes on trading in every region while a plan of faults is
// carried out.
type soakTrial struct {
	*cutTrial
	plan    []fault.Event
	wards   []*ward // by region
	gallery *gallery
	disks   disks

	held     *account // what is reserved, and never sold
	reserved int64    // units of it, by the answers

	awaiting []*awaited               // faults that are not over for the clients
	recovery map[fault.Kind][]float64 // ms from each to the next success
	pauses   map[fault.Kind][]float64 // ms: the longest time without one until each was over
	lastAcks []int64                  // of each region's clients
	gaps     []int64                  // the longest time without a success there
}

// awaited is a fault as the clients of its region see it. It is over for them when one
// gets a command answered with success that was not even due before it was undone.
type awaited struct {
	kind   fault.Kind
	region int
	since  int64 // ns
	struck int64 // from here on a success is one in spite of it
	undone int64 // 0: not yet

	recovered bool  // a command has succeeded that was due when it had struck
	last, gap int64 // the last success, and the longest time without one
}

// soak has a crowd sell, adjust and reserve in every region while nodes and links fail
// as a seed says. In the end everything is healed: all nodes have to be equal, to match
// every answer that was given, and to have shown it to whoever watched.
func soak(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	s := r.newSoak(gen)
	r.finish = func(err error) error {
		defer s.disks.close()
		if len(r.violations) > 0 || err != nil && ctx.Err() == nil {
			return s.keep()
		}
		return nil
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.layOut(); err != nil {
		return err
	}
	if err := s.startAll(ctx); err != nil {
		return err
	}
	return s.trade(ctx)
}

// trade is all that goes on while the nodes are there.
func (s *soakTrial) trade(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

func (s *soakTrial) close() error {
	s.crowd.close()
	s.gallery.close()
	return errors.Join(s.crowd.gen.close(), s.crowd.journal.close())
}

func (r *round) newSoak(gen *generator) *soakTrial {
	s := &soakTrial{cutTrial: r.newCutTrial(gen), recovery: make(map[fault.Kind][]float64), pauses: make(map[fault.Kind][]float64), lastAcks: make([]int64, r.regions), gaps: make([]int64, r.regions)}
	for range r.regions {
		s.wards = append(s.wards, newWard(r.target.each))
	}
	s.gallery = newGallery(s.crowd)
	s.crowd.patient, s.crowd.onAck, s.crowd.onRefusal = true, s.acked, s.refused
	s.marker = &account{sku: "bench-marker-" + r.id} // nobody writes it
	return s
}

const heldOpening = 500

// open enters the stock and connects all clients. To what is scarce and what there is
// plenty of comes an item that is reserved until nothing is left.
func (s *soakTrial) open(ctx context.Context) error {
	s.held = &account{sku: "bench-held-" + s.id, opening: heldOpening}
	if err := s.deliver(ctx, 0, s.held.sku, heldOpening); err != nil {
		return err
	}
	if err := s.stockUp(ctx); err != nil {
		return err
	}
	s.crowd.accounts = append(s.crowd.accounts, s.held)
	if err := s.awaitStock(ctx, s.accounted()); err != nil {
		return err
	}
	if err := s.crowd.open(ctx, s.target, s.connections, s.client); err != nil {
		return err
	}
	return s.gallery.open(ctx, s.target, s.watched())
}

func (s *soakTrial) watched() (skus []string) {
	for _, a := range s.crowd.accounts {
		skus = append(skus, a.sku)
	}
	return skus
}

// holdFor is as long as a reservation may last: longer than any run.
const holdFor = 4 * time.Hour

// client makes the i-th client. Each region has all kinds: of six clients two sell
// plenty, two sell what is scarce, one brings that in and one reserves.
func (s *soakTrial) client(i, errands int) *member {
	if i/len(s.target.endpoints)%6 != 4 {
		m := s.cutTrial.client(i, errands)
		m.does = [...]string{"sell", "adjust"}[max(m.delta, 0)]
		return m
	}
	reserve := fmt.Sprintf(`{"op":"reserve","id":#,"key":"%s-%d-#","ttl_ms":%d,"lines":[{"sku":"%s","quantity":1}]}`, s.id, i, holdFor.Milliseconds(), s.held.sku)
	m := newMember(s.crowd, i, errands, s.held, 0, reserve)
	m.does = "reserve"
	return m
}

func (s *soakTrial) acked(m *member, age int64) {
	if m.account == s.held {
		s.reserved++
	}
	now, region := s.crowd.gen.now, s.target.region(m.at)
	if last := s.lastAcks[region]; last > 0 {
		s.gaps[region] = max(s.gaps[region], now-last)
	}
	s.lastAcks[region] = now
	s.awaiting = slices.DeleteFunc(s.awaiting, func(a *awaited) bool {
		return a.region == region && s.over(a, now, now-age)
	})
}

// over takes a success of a command that was due then, and says whether a fault is over
// for the clients.
func (s *soakTrial) over(a *awaited, now, due int64) bool {
	a.gap, a.last = max(a.gap, now-a.last), now
	if !a.recovered && due >= a.struck {
		a.recovered = true
		s.recovery[a.kind] = append(s.recovery[a.kind], float64(now-a.since)/1e6)
	}
	if a.undone == 0 || due < a.undone {
		return false
	}
	s.pauses[a.kind] = append(s.pauses[a.kind], float64(a.gap)/1e6)
	return true
}

func (s *soakTrial) refused(m *member, _ bool) {
	if m.account != s.held && s.plain(m) {
		s.plainRefusals++
	}
}

// load keeps the crowd trading until the plan is carried out and everything is healed.
func (s *soakTrial) load(ctx context.Context) error {
	c := s.crowd
	c.set(float64(s.rate))
	s.begin("before the first fault", warmUp(s.duration))
	if err := c.during(ctx, func(ctx context.Context) error { return pause(ctx, warmUp(s.duration)) }); err != nil {
		return err
	}
	c.ages.h.Reset()
	c.late.h.Reset()
	acked, from := c.acked, time.Now()
	s.begin(fmt.Sprintf("%d faults, %s commands/s over %d connections", len(s.plan), readable(float64(s.rate)), s.connections), s.duration)
	if err := c.during(ctx, s.carryOut); err != nil {
		return err
	}
	s.begin("healed, and until all are there again", s.duration)
	if err := c.during(ctx, s.awaitHealed); err != nil {
		return err
	}
	s.numbers["acked_per_second"] = float64(c.acked-acked) / time.Since(from).Seconds()
	return nil
}

// begin announces a phase in which watchers may move.
func (s *soakTrial) begin(what string, length time.Duration) {
	s.announce(what, length)
	tell := s.crowd.step
	s.crowd.step = func() {
		tell()
		s.gallery.landAll()
	}
}

// awaitHealed mends what is left to be mended and waits, under load, until every node
// serves and every client has one.
func (s *soakTrial) awaitHealed(ctx context.Context) error {
	if s.target.wires != nil {
		s.target.wires.mend()
	}
	for _, n := range s.target.nodes {
		if err := n.awaitServing(ctx); err != nil {
			return err
		}
	}
	if s.meshed() {
		if err := s.target.awaitMesh(ctx); err != nil {
			return err
		}
	}
	for late := time.Now().Add(healTimeout); ; {
		lost := 0
		if err := s.crowd.call(ctx, func() { lost = s.homeless() }); err != nil || lost == 0 {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("%d clients have found no node within %v after the last fault", lost, healTimeout)
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return err
		}
	}
}

// homeless counts clients without a connection; on the crowd's goroutine.
func (s *soakTrial) homeless() (lost int) {
	for _, m := range s.crowd.members {
		if m.conn == nil {
			lost++
		}
	}
	for _, o := range s.gallery.onlookers {
		if !o.ready {
			lost++
		}
	}
	return lost
}

// settle holds the stock against the answers, the nodes against each other, and what
// was shown against that.
func (s *soakTrial) settle(ctx context.Context) error {
	if err := s.cutTrial.settle(ctx); err != nil {
		return err
	}
	s.putFaults()
	s.checkRefusals("in all", make([]account, len(s.crowd.accounts)))
	if s.plainRefusals > 0 {
		s.violate("%d sells of what the region had plenty of were refused", s.plainRefusals)
	}
	if err := s.awaitEqual(ctx); err != nil {
		return err
	}
	items, err := readItems(ctx, s.target.endpoint(0), s.watched())
	if err != nil {
		return err
	}
	s.checkHeld(items)
	return s.gallery.judge(ctx, s.round, items)
}

// checkHeld compares what is reserved with the answers.
func (s *soakTrial) checkHeld(items []protocol.Item) {
	for _, it := range items {
		if it.SKU != s.held.sku {
			continue
		}
		if it.Reserved != s.reserved {
			s.violate("%d units of %s are reserved after %d acknowledged reservations", it.Reserved, it.SKU, s.reserved)
		}
		if over := it.Reserved - it.OnHand; over > 0 {
			s.numbers["oversold_units"] += float64(over)
			s.violate("%d units of %s were reserved that were never there", over, it.SKU)
		}
	}
}

func (s *soakTrial) putFaults() {
	n := s.numbers
	n["faults"] = float64(len(s.plan))
	n["retried_commands"] = float64(s.crowd.retried)
	n["refused"] = float64(s.crowd.refused)
	n["watcher_moves"] = float64(s.gallery.moves)
	for _, k := range fault.Kinds() {
		took := s.recovery[k]
		if len(took) == 0 {
			continue
		}
		n[string(k)+"_faults"] = float64(len(took))
		n[string(k)+"_recovery_p50_ms"], n[string(k)+"_recovery_max_ms"] = quantile(took, 0.5), slices.Max(took)
		n[string(k)+"_pause_max_ms"] = slices.Max(append(s.pauses[k], 0))
	}
	if !s.meshed() {
		return
	}
	for i, gap := range s.gaps {
		n[regionNames[i]+"_longest_gap_ms"] = float64(gap) / 1e6
	}
}
