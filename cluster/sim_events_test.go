package cluster

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// simEvent is one thing that happens. What its numbers mean depends on what is there when
// it happens, so it also means something where events before it are left out; where
// nothing fits it does nothing.
type simEvent struct {
	kind    simKind
	region  uint32
	a, b, c uint32
}

type simKind uint8

const (
	simAsk simKind = iota
	simRetry
	simOutcome
	simRound
	simOldRound
	simDeliver
	simTwice
	simLose
	simFlush
	simMirrorOn
	simBreak
	simTrapSet
	simCrashNow
	simClose
	simRestart
	simSave
	simDepose
	simRise
	simLand
	simPass
	simClock
	simCut
	simHeal
	simGiveUp
	simKinds
)

var simKindNames = [...]string{
	"ask", "retry", "outcome", "round", "old round", "deliver", "twice", "lose", "flush", "mirror", "break",
	"trap", "crash", "close", "restart", "save", "depose", "rise", "land", "pass", "clock", "cut", "heal", "give up",
}

func (e simEvent) String() string {
	return fmt.Sprintf("{%s %d %d %d %d}", simKindNames[e.kind], e.region, e.a, e.b, e.c)
}

// apply lets an event happen, and tells whether there was anything to it.
func (w *simWorld) apply(e simEvent) (happened bool) {
	r := w.region(e.region)
	if w.telling {
		w.tell("%s %s %d %d %d", simKindNames[e.kind], r.name, e.a, e.b, e.c)
	}
	switch e.kind {
	case simAsk, simRetry, simOutcome, simGiveUp:
		return w.applyClient(e, r)
	case simRound, simOldRound, simCrashNow, simClose, simRestart, simDepose, simRise:
		return r.applyNode(e)
	case simDeliver, simTwice:
		return w.deliver(r.index, w.region(e.a).index, e.b, e.kind == simTwice, e.c%8 == 0)
	case simLose:
		return w.lose(r.index, w.region(e.a).index, e.b)
	case simFlush:
		if e.a%8 == 0 {
			return r.flush(r.old)
		}
		return r.flush(r.current)
	case simMirrorOn:
		if to := w.region(e.a); to != r {
			return w.mirror(r.index, to.index, e.b, e.c)
		}
	case simBreak, simTrapSet:
		return r.arm(e)
	case simSave:
		return r.save()
	case simLand:
		return r.land()
	case simPass:
		w.pass(simPauses[int(e.a)%len(simPauses)])
		return true
	case simClock:
		r.offset += int64(simJumps[int(e.a)%len(simJumps)])
		return true
	case simCut, simHeal:
		way := &w.ways[r.index][w.region(e.a).index]
		changed := way.cut != (e.kind == simCut)
		way.cut = e.kind == simCut
		return changed
	}
	return false
}

var (
	simPauses = [...]time.Duration{
		5 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond,
		350 * time.Millisecond, 1100 * time.Millisecond, 4 * time.Second,
	}
	simJumps = [...]time.Duration{
		-time.Hour, -20 * time.Second, -2 * time.Second, -300 * time.Millisecond, 300 * time.Millisecond,
		2 * time.Second, 20 * time.Second, 11 * time.Minute, 30 * time.Minute,
	}
)

func (r *simRegion) applyNode(e simEvent) bool {
	switch e.kind {
	case simRound:
		if r.current == nil {
			return false
		}
		r.current.turn()
	case simOldRound:
		if r.old == nil {
			return false
		}
		r.old.turn()
	case simCrashNow:
		return r.crash([...]*simNode{r.current, r.current, r.current, r.old, r.next}[e.a%5])
	case simClose:
		return r.close()
	case simRestart:
		return r.restart(e.a%2 == 0)
	case simDepose:
		return r.depose(e.a%2 == 0)
	case simRise:
		return r.rise(e.a%4 == 0, e.b%2 == 0)
	}
	return true
}

// arm lets the next append, or what follows it, go wrong.
func (r *simRegion) arm(e simEvent) bool {
	n := r.current
	if e.b%6 == 0 && r.next != nil {
		n = r.next
	}
	if n == nil {
		return false
	}
	if e.kind == simTrapSet {
		n.trap = simTrap(e.a % uint32(simTraps))
		return true
	}
	n.faults = append(n.faults, simFault(e.a%uint32(simFaults)))
	switch e.c % 4 {
	case 0:
		n.faults = append(n.faults, simFaultBlind)
	case 1:
		n.faults = append(n.faults, simFault(e.c/4%uint32(simFaults)))
	}
	return true
}

func (w *simWorld) applyClient(e simEvent, r *simRegion) bool {
	node := r.current
	if r.old != nil && e.c%5 == 0 {
		node = r.old
	}
	if e.kind == simAsk {
		if node == nil {
			return false
		}
		c, home := w.draw(e, r)
		if home != r {
			node = home.current // reservations are seen to where they were made
		}
		w.ask(home.index, uint64(e.b>>8%3), c, node)
		return true
	}
	c := w.pick(r, e.a)
	if c == nil || c.gone {
		return false
	}
	switch e.kind {
	case simGiveUp:
		c.gone = true
	case simRetry, simOutcome:
		if node == nil {
			return false
		}
		w.try(c, node, e.kind == simOutcome)
	}
	return true
}

// pick finds a command of a region, rather one of unknown fate than another, and rather a
// late one.
func (w *simWorld) pick(r *simRegion, n uint32) *simCommand {
	var unsure, all []*simCommand
	for _, c := range w.commands {
		if c.region != r.index {
			continue
		}
		all = append(all, c)
		if c.verdict == simUnknown && !c.gone {
			unsure = append(unsure, c)
		}
	}
	if n%4 != 0 && len(unsure) > 0 {
		all = unsure
	}
	if len(all) == 0 {
		return nil
	}
	last := min(len(all), 8)
	return all[len(all)-1-int(n/4)%last]
}

// draw makes a command from an event's numbers, and tells where it belongs.
func (w *simWorld) draw(e simEvent, r *simRegion) (protocol.Command, *simRegion) {
	key := simKeys[[...]int{0, 0, 0, 1, 1, 2}[e.b%6]]
	quantity := int64(1 + (e.b/6)%5)
	item := protocol.Command{SKU: key.SKU, Location: key.Location}
	lines := []protocol.Line{{SKU: key.SKU, Location: key.Location, Quantity: quantity}}
	if e.b%16 < 3 {
		other := simKeys[(e.b/32)%3]
		lines = append(lines, protocol.Line{SKU: other.SKU, Location: other.Location, Quantity: 1 + quantity/2})
	}
	switch n := e.a % 100; {
	case n < 36:
		return protocol.Command{Op: protocol.OpSell, Lines: lines}, r
	case n < 56:
		ttl := [...]int64{1000, 1000, 3000, 20_000, 60_000}[e.c%5]
		return protocol.Command{Op: protocol.OpReserve, Lines: lines, TTLMS: &ttl}, r
	case n < 72:
		return w.drawEnd(e, r, n)
	case n < 82:
		item.Op, item.Delta = protocol.OpAdjust, quantity
		if e.c%7 == 0 && r.current != nil {
			item.IfVersion = protocol.Ptr(r.current.replica.item(key).Version)
		}
	case n < 89:
		item.Op, item.Delta = protocol.OpAdjust, -quantity
	case n < 91:
		item.Op, item.OnHand = protocol.OpCount, protocol.Ptr(quantity*2)
	case n < 95:
		return protocol.Command{Op: protocol.OpMove, SKU: "A", From: [...]string{"main", "shop"}[e.b%2], To: [...]string{"shop", "main"}[e.b%2], Quantity: quantity}, r
	default:
		item.Op = protocol.OpConfigure
		item.SafetyStock, item.BackorderLimit = protocol.Ptr(int64(e.b%3)), protocol.Ptr(int64(e.c%3))
	}
	return item, r
}

// drawEnd makes a command about a reservation, of any region, or of none.
func (w *simWorld) drawEnd(e simEvent, r *simRegion, n uint32) (protocol.Command, *simRegion) {
	c := protocol.Command{Op: protocol.OpConfirm, Reservation: r.name + ".nobody"}
	if last := min(len(w.reservations), 6); last > 0 {
		hold := w.reservations[len(w.reservations)-1-int(e.b)%last]
		c.Reservation, r = hold.id, w.regions[hold.region]
	}
	switch {
	case n < 62:
	case n < 67:
		c.Op = protocol.OpRelease
	default:
		c.Op, c.TTLMS = protocol.OpExtend, protocol.Ptr([...]int64{1000, 5000, 30_000}[e.c%3])
	}
	return c, r
}

// simSchedule is a history that can be run again.
type simSchedule struct {
	seed   uint64
	setup  simSetup
	events []simEvent
}

// newSimSchedule draws a history. Which faults it has, and how often, differs from one to
// the next: where everything fails all the time nothing deep ever happens.
func newSimSchedule(seed uint64) simSchedule {
	rng := rand.New(rand.NewPCG(seed, 0x73746f636b))
	s := simSchedule{seed: seed, setup: simSetup{
		regions: 2 + []int{0, 0, 0, 1, 1, 1, 2, 3}[rng.IntN(8)], clustered: rng.IntN(4) > 0,
		window: []time.Duration{10 * time.Minute, 24 * time.Hour}[rng.IntN(2)],
	}}
	weights := simWeights(rng, s.setup.regions)
	total := 0
	for _, n := range weights {
		total += n
	}
	s.events = simOpening(rng, s.setup.regions)
	for range 40 + rng.IntN(160) {
		n, kind := rng.IntN(total), simKind(0)
		for ; n >= weights[kind]; kind++ {
			n -= weights[kind]
		}
		s.events = append(s.events, simEvent{kind, rng.Uint32() % uint32(s.setup.regions), rng.Uint32() >> 8, rng.Uint32() >> 8, rng.Uint32() >> 8})
	}
	return s
}

func simWeights(rng *rand.Rand, regions int) (weights [simKinds]int) {
	for kind, n := range map[simKind]int{
		simAsk: 24, simRetry: 4, simOutcome: 1, simRound: 26, simDeliver: 12 * regions, simFlush: 6, simMirrorOn: 8 * regions, simPass: 10,
	} {
		weights[kind] = n
	}
	sometimes := func(n int, kinds ...simKind) {
		if rng.IntN(2) == 0 {
			for _, kind := range kinds {
				weights[kind] = n * (1 + rng.IntN(3))
			}
		}
	}
	sometimes(3, simTwice)
	sometimes(3, simLose)
	sometimes(2, simBreak)
	sometimes(1, simBreak, simLand)
	sometimes(1, simTrapSet)
	sometimes(1, simCrashNow, simSave, simClose)
	sometimes(2, simDepose, simRise, simOldRound)
	sometimes(1, simClock)
	sometimes(1, simCut)
	sometimes(1, simGiveUp)
	weights[simRestart] = 4
	weights[simHeal] = 3 * weights[simCut]
	return weights
}

// simOpening brings in what is to be sold, all in one region or some in each.
func simOpening(rng *rand.Rand, regions int) (events []simEvent) {
	const adjustUp = 72 // of draw
	everywhere := rng.IntN(2) == 0
	for r := range uint32(regions) {
		if !everywhere && r > 0 {
			break
		}
		for _, item := range []uint32{0, 3, 5} {
			for range 1 + rng.IntN(4) {
				events = append(events, simEvent{simAsk, r, adjustUp, item + 6*uint32(rng.IntN(5)), 1})
			}
		}
		events = append(events, simEvent{kind: simRound, region: r}, simEvent{kind: simFlush, region: r, a: 1})
		for to := range uint32(regions) {
			events = append(events, simEvent{simMirrorOn, r, to, 1, 0})
		}
	}
	return append(events, simEvent{kind: simPass})
}
