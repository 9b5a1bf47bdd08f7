package cluster

import (
	"flag"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

var (
	simDepth  = flag.Int("sim.depth", 0, "longest history of TestSimEvery..., in steps; 0: what some seconds allow")
	simFaulty = flag.Int("sim.faults", 1, "crashes, and messages lost or doubled, in each of them")
)

// simMove is one thing that may happen next in the small case.
type simMove struct {
	kind   simMoveKind
	region int // that does it, or that sent it
	n      int // which message
}

type simMoveKind uint8

const (
	simMoveRound simMoveKind = iota
	simMoveCrashBefore
	simMoveCrashAfter
	simMoveDeliver
	simMoveLose
	simMoveTwice
	simMoveRows
	simMovePass
)

func (m simMove) String() string {
	name := [...]string{"round", "round, crash before append", "round, crash after append", "deliver", "lose", "deliver twice", "rows", "pass"}[m.kind]
	return fmt.Sprintf("%s %s %d", name, simNames[m.region], m.n)
}

// simSmall is the small case: two regions, three units of one item in the first, and a
// command in each. Its histories are all that may happen within bounds.
type simSmall struct {
	figures  *metrics
	commands [2]protocol.Command
	depth    int
	faults   int
}

// simSmallWorld is one history of the small case.
type simSmallWorld struct {
	*simWorld
	faults, passes int // that may still happen
}

const simSmallUnits = 3

func (s *simSmall) begin() *simSmallWorld {
	w := newSimWorld(simSetup{regions: 2, clustered: true, window: 24 * time.Hour}, simMutant{}, s.figures)
	w.ask(0, 0, protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: simSmallUnits}, w.regions[0].current)
	for _, r := range w.regions {
		r.current.turn()
		r.flush(r.current)
	}
	w.mirror(0, 1, 1, 0)
	w.pass(time.Millisecond)
	for i := range s.commands {
		w.ask(i, 1, s.commands[i], w.regions[i].current)
	}
	return &simSmallWorld{simWorld: w, faults: s.faults, passes: 2}
}

// replay is the world after some moves.
func (s *simSmall) replay(moves []simMove) *simSmallWorld {
	w := s.begin()
	for _, m := range moves {
		w.move(m)
	}
	return w
}

// moves are those that may come next.
func (w *simSmallWorld) moves() (moves []simMove) {
	add := func(kind simMoveKind, region, n int) { moves = append(moves, simMove{kind, region, n}) }
	waiting := false
	for i, r := range w.regions {
		trade := r.current.owner.trade
		waiting = waiting || len(trade.order) > 0
		if r.current.queue.len() > 0 || !r.current.deciding || trade.due(r.current.config.elapsed()) || r.current.owner.expiryDue() {
			add(simMoveRound, i, 0)
			if w.faults > 0 {
				add(simMoveCrashBefore, i, 0)
				add(simMoveCrashAfter, i, 0)
			}
		}
		for n := range w.ways[i][1-i].messages {
			add(simMoveDeliver, i, n)
			if w.faults > 0 {
				add(simMoveLose, i, n)
				add(simMoveTwice, i, n)
			}
		}
		if w.hasRows(r) || w.regions[1-i].mirrors[i].next < len(r.stream) {
			add(simMoveRows, i, 0)
		}
	}
	if waiting && w.passes > 0 {
		add(simMovePass, 0, 0)
	}
	return moves
}

// hasRows tells whether a region has rows that are not in its bucket.
func (w *simSmallWorld) hasRows(r *simRegion) bool {
	s := r.current.replica.state
	return slices.ContainsFunc(s.Changed(0), func(id protocol.ItemID) bool { return s.Row(id).Version > r.flushed[s.Key(id)] })
}

func (w *simSmallWorld) move(m simMove) {
	r := w.regions[m.region]
	w.tell("%v", m)
	switch m.kind {
	case simMoveRound:
		r.current.turn()
	case simMoveCrashBefore, simMoveCrashAfter:
		w.faults--
		w.now -= int64(simAppendTakes) // here nothing takes time but passing it
		r.current.faults = []simFault{map[simMoveKind]simFault{simMoveCrashBefore: simFaultCrashBefore, simMoveCrashAfter: simFaultCrashAfter}[m.kind]}
		r.current.turn()
		if r.current != nil { // it had nothing to append
			r.current.faults = nil
			w.now += int64(simAppendTakes)
		}
		r.restart(false)
	case simMoveDeliver:
		w.deliver(m.region, 1-m.region, uint32(m.n), false, false)
	case simMoveTwice:
		w.faults--
		w.deliver(m.region, 1-m.region, uint32(m.n), true, false)
	case simMoveLose:
		w.faults--
		w.lose(m.region, 1-m.region, uint32(m.n))
	case simMoveRows:
		r.flush(r.current)
		w.mirror(m.region, 1-m.region, 1, 0)
	case simMovePass:
		w.passes--
		w.pass(160 * time.Millisecond)
	}
	w.again()
}

// again is the clients: who does not know what became of a command sends it once more.
func (w *simSmallWorld) again() {
	const triesMax = 2
	for _, c := range w.commands {
		if c.verdict == simUnknown && len(c.open) == 0 && c.tries < triesMax {
			w.try(c, w.regions[c.region].current, false)
		}
	}
}

// state sums up all that decides what may happen from here on.
func (w *simSmallWorld) state() uint64 {
	h := fnv.New64a()
	put := func(args ...any) { fmt.Fprintln(h, args...) }
	put(w.now, w.faults, w.passes)
	for i, r := range w.regions {
		n := r.current
		state, trade := n.replica.state, n.owner.trade
		put(state.Digest(), n.deciding, len(r.log), r.mirrors[1-i].next, len(r.stream), state.Owed(), n.born)
		put(string(r.view(simKeys[0])), state.Holdings(nil, simKeys[0]))
		for _, c := range n.queue.calls {
			put(c.Subject)
		}
		for _, l := range trade.order {
			put(l.key, l.tried, l.stirred)
			for _, c := range l.calls {
				put(c.call.Subject, c.need, c.until)
			}
		}
		for _, l := range trade.inbox {
			put(string(protocol.AppendJSON(nil, l.deal)))
		}
		put(trade.asks, trade.swept, simDigest(reflect.ValueOf(trade.book)))
		messages := slices.Clone(w.ways[i][1-i].messages)
		slices.SortFunc(messages, slices.Compare)
		put(messages)
	}
	for _, c := range w.commands {
		put(c.verdict, c.tries, len(c.open), c.answer)
	}
	return h.Sum64()
}

// simDigest sums up a value with all that it points to.
func simDigest(v reflect.Value) uint64 {
	h := fnv.New64a()
	put := func(n ...any) { fmt.Fprint(h, n...) }
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return simDigest(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "orders" && name != "gifts" { // results of the last call
				put(name, simDigest(v.Field(i)))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			put(simDigest(v.Index(i)), ",")
		}
	case reflect.Map:
		var sum uint64
		for it := v.MapRange(); it.Next(); {
			sum += simDigest(it.Key())*31 + simDigest(it.Value())
		}
		return sum
	case reflect.Float64:
		put(v.Float())
	case reflect.Bool:
		put(v.Bool())
	case reflect.String:
		put(v.String())
	case reflect.Uint64, reflect.Uint:
		put(v.Uint())
	default:
		put(v.Int())
	}
	return h.Sum64()
}

// simToTheEnd is a depth that no history reaches.
const simToTheEnd = 1000

// simCount is what an exhaustive search has seen.
type simCount struct{ states, steps, ends, cut int }

// search visits every state that can be reached, breadth first, each once.
func (s *simSmall) search(t *testing.T) (count simCount) {
	seen := map[uint64]bool{s.begin().state(): true}
	frontier := [][]simMove{nil}
	for depth := 0; len(frontier) > 0; depth++ {
		var next [][]simMove
		for _, path := range frontier {
			count.states++
			moves := s.replay(path).moves()
			if len(moves) == 0 || depth == s.depth {
				s.end(t, path)
				count.ends++
				if len(moves) > 0 {
					count.cut++
				}
				continue
			}
			for _, m := range moves {
				longer := append(slices.Clip(path), m)
				w := s.replay(longer)
				count.steps++
				if s.check(t, w, longer); t.Failed() {
					return count
				}
				if state := w.state(); !seen[state] {
					seen[state] = true
					next = append(next, longer)
				}
			}
		}
		frontier = next
	}
	return count
}

// end heals the world at the end of a history and checks what must hold then.
func (s *simSmall) end(t *testing.T, path []simMove) {
	w := s.replay(path)
	w.heal()
	w.askAgain()
	if w.settle(); w.err == nil {
		w.checkQuiet()
	}
	for _, r := range w.regions {
		r.checkReplay()
	}
	s.check(t, w, path)
}

// check is every step's: no invariant broke, and no more was sold than there was.
func (s *simSmall) check(t *testing.T, w *simSmallWorld, path []simMove) {
	t.Helper()
	var taken int64
	for _, r := range w.regions {
		row := r.audit.row(simKeys[0])
		taken += row.Sold + row.Held
	}
	if taken < 0 || taken > simSmallUnits {
		w.fail("oversold", "%d of %d units", taken, simSmallUnits)
	}
	if w.err == nil {
		return
	}
	story := s.begin()
	story.telling = true
	for _, m := range path {
		story.move(m)
	}
	t.Errorf("%v after %v:\n%v", w.err, path, story.story)
}

// TestSimEveryHistoryOfTwoRegions searches the small case: everything that may happen, in
// every order, up to a number of steps; without crashes and losses up to the end. A deeper
// search:
//
//	go test ./cluster -run TestSimEvery -timeout 0 -sim.depth=16 -sim.faults=2
func TestSimEveryHistoryOfTwoRegions(t *testing.T) {
	lines := func(n int64) []protocol.Line { return []protocol.Line{{SKU: "A", Location: "main", Quantity: n}} }
	sell := func(n int64) protocol.Command { return protocol.Command{Op: protocol.OpSell, Lines: lines(n)} }
	reserve := func(n int64) protocol.Command {
		return protocol.Command{Op: protocol.OpReserve, Lines: lines(n), TTLMS: protocol.Ptr[int64](60_000)}
	}
	remove := protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: -2}
	figures := newMetrics(prometheus.NewRegistry())
	for _, tt := range []struct {
		name          string
		a, b          protocol.Command
		depth, faults int
	}{
		{"sell 2, sell 2, no faults", sell(2), sell(2), simDepthFaultless, 0},
		{"sell 2, sell 2", sell(2), sell(2), simDepthPlain, 1},
		{"reserve 2, sell 2", reserve(2), sell(2), simDepthPlain, 1},
		{"sell 1, reserve 3", sell(1), reserve(3), simDepthPlain, 1},
		{"remove 2, sell 2", remove, sell(2), simDepthPlain, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &simSmall{figures: figures, commands: [2]protocol.Command{tt.a, tt.b}, depth: tt.depth, faults: tt.faults}
			if *simDepth > 0 && s.faults > 0 {
				s.depth, s.faults = *simDepth, *simFaulty
			}
			begin := time.Now()
			var count simCount
			inSimTime(t, func(t *testing.T) { count = s.search(t) })
			t.Logf("%d states, %d steps, %d ends (%d of them cut off at depth %d) in %v", count.states, count.steps, count.ends, count.cut, s.depth, time.Since(begin).Round(time.Millisecond))
			if s.depth == simToTheEnd && count.cut > 0 {
				t.Error("not every history came to its end")
			}
		})
	}
}
