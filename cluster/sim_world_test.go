package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// The simulator runs the real ledger, owners and traders of a mesh in one goroutine. Its
// schedule is a list of events: commands, rounds, messages that arrive, get lost, come
// twice or out of order, rows on their way, crashes around every effect, second owners,
// clocks that jump. One list is one history, so a part of a list can be run again.

// simWorld is a mesh of regions, and the network and the clocks between them.
type simWorld struct {
	setup   simSetup
	mutant  simMutant
	metrics *metrics
	now     int64 // ns since the beginning
	nonce   uint64
	regions []*simRegion
	ways    [][]simWay // by sender and receiver

	commands     []*simCommand
	reservations []simHold // as clients were told
	units        map[protocol.ItemKey]int64

	err     error
	telling bool
	story   []string // what the events did, where it is told
}

// simSetup is what holds for a whole history.
type simSetup struct {
	regions   int
	clustered bool // other nodes of a region may decide
	window    time.Duration
}

// simWay is messages about rights from one region to another, the oldest first.
type simWay struct {
	messages [][]byte
	news     [][]byte // of rows, as told so far
	cut      bool
	heard    int64 // when the receiver last heard of the sender
}

// simHold is a reservation that a client knows.
type simHold struct {
	id     string
	region int
}

var simNames = [...]string{"asia", "eu", "oz", "uk", "us"}

// simKeys are the items of every history.
var simKeys = [...]protocol.ItemKey{
	{SKU: "A", Location: "main"}, {SKU: "B", Location: "main"}, {SKU: "A", Location: "shop"},
}

// simEpoch is the wall clock at the beginning of every history, in ns.
const simEpoch = int64(1_800_000_000) * int64(time.Second)

func newSimWorld(s simSetup, m simMutant, figures *metrics) *simWorld {
	w := &simWorld{setup: s, mutant: m, metrics: figures, units: make(map[protocol.ItemKey]int64)}
	for i := range s.regions {
		r := &simRegion{
			world: w, index: i, name: simNames[i], audit: newSimAudit(w, i),
			flushed: make(map[protocol.ItemKey]uint64), mirrors: make([]simMirror, s.regions),
		}
		for from := range r.mirrors {
			r.mirrors[from].rows = make(map[protocol.ItemKey][]byte)
		}
		w.regions = append(w.regions, r)
		w.ways = append(w.ways, make([]simWay, s.regions))
	}
	for from := range w.ways {
		for to := range w.ways[from] {
			w.ways[from][to].heard = -int64(time.Hour)
		}
	}
	for _, r := range w.regions {
		r.restart(false)
	}
	return w
}

// simViolation is a broken invariant.
type simViolation struct{ name, what string }

func (v *simViolation) Error() string { return v.name + ": " + v.what }

// fail notes the first broken invariant; the history ends with the event that broke it.
func (w *simWorld) fail(name, format string, args ...any) {
	if w.err == nil {
		w.err = &simViolation{name, fmt.Sprintf(format, args...)}
		w.tell("VIOLATION %v", w.err)
	}
}

func (w *simWorld) tell(format string, args ...any) {
	if w.telling {
		w.story = append(w.story, fmt.Sprintf(format, args...))
	}
}

func (w *simWorld) region(n uint32) *simRegion { return w.regions[int(n)%len(w.regions)] }

func (w *simWorld) indexOf(name string) int {
	return slices.IndexFunc(w.regions, func(r *simRegion) bool { return r.name == name })
}

// simHeardFor is how long a region counts as reachable after its last sign of life.
const simHeardFor = int64(2 * time.Second)

// send puts a message on its way, unless the way is cut.
func (w *simWorld) send(from, to int, message []byte) {
	if way := &w.ways[from][to]; !way.cut {
		way.messages = append(way.messages, message)
	}
}

// deliver hands a message over; one that comes twice stays on its way.
func (w *simWorld) deliver(from, to int, n uint32, twice, toOld bool) bool {
	way := &w.ways[from][to]
	if len(way.messages) == 0 || way.cut {
		return false
	}
	i := int(n) % len(way.messages)
	message := way.messages[i]
	if !twice {
		way.messages = slices.Delete(way.messages, i, i+1)
	}
	r := w.regions[to]
	node := r.current
	if toOld && r.old != nil {
		node = r.old
	}
	w.tell("  %s", message)
	if node == nil {
		return true // nobody there to hear it
	}
	way.heard = w.now
	var d deal
	if err := protocol.UnmarshalJSON(message, &d); err != nil {
		w.fail("wire", "message %s: %v", message, err)
		return true
	}
	if w.mutant.tell != nil {
		w.mutant.tell(node, w.regions[from].name, &d)
	}
	node.owner.trade.tell(w.regions[from].name, d)
	return true
}

func (w *simWorld) lose(from, to int, n uint32) bool {
	way := &w.ways[from][to]
	if len(way.messages) == 0 {
		return false
	}
	i := int(n) % len(way.messages)
	way.messages = slices.Delete(way.messages, i, i+1)
	return true
}

// pass lets time go by. Regions that reach each other give signs of life.
func (w *simWorld) pass(d time.Duration) {
	w.now += int64(d)
	for from := range w.ways {
		for to := range w.ways[from] {
			if way := &w.ways[from][to]; !way.cut && w.regions[from].current != nil {
				way.heard = w.now
			}
		}
	}
}

// mirror brings rows of one region to another: the next one, all, those that the owner
// tells of itself, or an old one again.
func (w *simWorld) mirror(from, to int, mode, n uint32) bool {
	source, r := w.regions[from], w.regions[to]
	m := &r.mirrors[from]
	if w.ways[from][to].cut || w.ways[to][from].cut {
		return false
	}
	switch mode % 4 {
	case 0:
		if m.next == len(source.stream) {
			return false
		}
		r.learn(from, source.stream[m.next:m.next+1])
		m.next++
	case 1:
		if m.next == len(source.stream) {
			return false
		}
		r.learn(from, source.stream[m.next:])
		m.next = len(source.stream)
	case 2:
		return w.news(from, to, n)
	case 3:
		if m.next == 0 {
			return false
		}
		i := int(n) % m.next
		r.learn(from, source.stream[i:i+1])
	}
	return true
}

// news is rows that an owner tells of beside the bucket: what it has now, or what it told
// before and was late or came twice.
func (w *simWorld) news(from, to int, n uint32) bool {
	source, way := w.regions[from].current, &w.ways[from][to]
	if source == nil || !source.deciding {
		return false
	}
	s := source.replica.state
	ids := s.Changed(0)
	head := ledger.News{Epoch: s.Epoch(), N: uint64(len(way.news) + 1), To: s.Seq()}
	message := head.AppendHead(nil, len(ids))
	for _, id := range ids {
		message = s.AppendRow(message, id)
	}
	way.news = append(way.news, message)
	if n%3 > 0 {
		message = way.news[len(way.news)-1-int(n/3)%min(len(way.news), 5)]
	}
	heard, err := ledger.DecodeNews(w.regions[from].name, message)
	if err != nil {
		w.fail("wire", "news of %s: %v", w.regions[from].name, err)
		return true
	}
	for _, node := range w.regions[to].nodes() {
		node.shown(from, heard.Rows)
	}
	return true
}
