package main

import (
	"bytes"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// board is a set of SKUs that change by one unit at a time. So the stock in a push
// tells which change it shows, and how many before it were passed over.
type board struct {
	gen     *generator
	skus    []string
	index   map[string]int
	opening []int64   // of each SKU: what was on hand before the first change
	due     [][]int64 // of each SKU: when its n-th change should have been sent (ns)
	parties []*party
	faults  []string

	// Which change a state shows; nil: the one of that number, counted in units.
	decode func(sku int, onHand, reserved int64) int64

	// The pushes read last: most of what is heard has been heard by somebody before.
	notes    [notesKept]note
	lastNote int
}

const notesKept = 16

// note is a push that was read.
type note struct {
	message []byte
	stockNote
}

// stockNote is what a reader looks at in a message.
type stockNote struct {
	op       string
	snapshot bool
	done     bool // it confirms a subscription
	refusal  *protocol.Error
	cursor   string
	shown    []shown
}

// shown is one item of a push: the number of its SKU and that of the change.
type shown struct {
	sku    int
	change int64
}

// party is readers that are judged together.
type party struct {
	members   int
	owed      int64 // items: of each change one for each member
	delivered int64
	conflated int64 // passed over for a newer state
	ages      latencies
}

// reader is one client of a board. It outlives its connections.
type reader struct {
	board  *board
	party  *party
	conn   *conn
	seen   []int64 // of each SKU, the change shown last
	fresh  []int64 // the same, of what this connection was pushed
	cursor string
	ready  bool // the subscription is confirmed
	away   bool // the node has said that it will leave

	backsteps int                  // shown by another node than the last, which knew less
	onLost    func(*reader, error) // nil: its connection must stay
}

func newBoard(gen *generator, skus []string) *board {
	b := &board{gen: gen, skus: skus, index: make(map[string]int), opening: make([]int64, len(skus)), due: make([][]int64, len(skus))}
	for i, sku := range skus {
		b.index[sku] = i
	}
	return b
}

func (b *board) newParty() *party {
	p := &party{ages: b.gen.newLatencies("pushes")}
	b.parties = append(b.parties, p)
	return p
}

func (b *board) newReader(p *party) *reader {
	p.members++
	return &reader{board: b, party: p, seen: make([]int64, len(b.skus)), fresh: make([]int64, len(b.skus))}
}

// note enters one change of each of the first n SKUs.
func (b *board) note(n int, due int64) {
	for i := range n {
		b.due[i] = append(b.due[i], due)
	}
	for _, p := range b.parties {
		p.owed += int64(n * p.members)
	}
}

// waiting counts items that the party has not been shown.
func (p *party) waiting() int64 { return p.owed - p.delivered - p.conflated }

// restart forgets what was measured, not what was shown.
func (p *party) restart() {
	p.owed, p.delivered, p.conflated = p.waiting(), 0, 0
	p.ages.h.Reset()
}

// land gives a reader a connection, its first or the next one.
func (r *reader) land(d *dialed) error {
	c, err := r.board.gen.add(d, r)
	if err != nil {
		return err
	}
	r.conn, r.ready, r.away = c, false, false
	clear(r.fresh)
	return nil
}

// lost implements mover.
func (r *reader) lost(c *conn, err error) {
	if c != r.conn {
		return
	}
	r.conn = nil
	if r.onLost == nil {
		r.board.fault("a reader's connection ended: %v", err)
		return
	}
	r.onLost(r, err)
}

// received implements receiver.
func (r *reader) received(_ *conn, message []byte) {
	n := r.board.read(message)
	switch {
	case n == nil:
	case n.refusal != nil:
		r.board.fault("subscribe: %s: %s", n.refusal.Code, n.refusal.Message)
	case n.op == "goaway":
		r.away = true
	default:
		r.showAll(n)
		if n.cursor != "" {
			r.cursor = n.cursor
		}
		r.ready = r.ready || n.done
	}
}

// showAll counts the changes that a push tells of. Those of a burst are of one age.
func (r *reader) showAll(n *stockNote) {
	age, same := int64(0), int64(0)
	for _, s := range n.shown {
		of := r.show(s)
		if of < 0 || n.snapshot {
			continue
		}
		if of != age && same > 0 {
			r.party.ages.add(age, same)
			same = 0
		}
		age = of
		same++
	}
	if same > 0 {
		r.party.ages.add(age, same)
	}
}

// show counts one item of a push and returns the age of the oldest change that it is
// the first to show, negative if there is none.
func (r *reader) show(s shown) int64 {
	b := r.board
	if s.change < r.fresh[s.sku] || s.change > int64(len(b.due[s.sku])) {
		b.fault("%s was pushed at change %d after %d, of %d", b.skus[s.sku], s.change, r.fresh[s.sku], len(b.due[s.sku]))
		return -1
	}
	r.fresh[s.sku] = s.change
	before := r.seen[s.sku]
	if s.change < before {
		r.backsteps++ // by another node than the last
	}
	if s.change <= before {
		return -1
	}
	r.seen[s.sku] = s.change
	r.party.delivered++
	r.party.conflated += s.change - before - 1
	return b.gen.now - b.due[s.sku][before]
}

// current reports whether a reader was shown the last change of everything.
func (r *reader) current() bool {
	for i, due := range r.board.due {
		if r.seen[i] != int64(len(due)) {
			return false
		}
	}
	return true
}

// read returns what a message says, nil if nobody needs to know.
func (b *board) read(message []byte) *stockNote {
	for i := range b.notes {
		n := &b.notes[(b.lastNote+notesKept-i)%notesKept]
		if bytes.Equal(n.message, message) {
			return &n.stockNote
		}
	}
	var m boardMessage
	if err := protocol.UnmarshalJSON(message, &m); err != nil {
		b.fault("unreadable: %v: %.200s", err, message)
		return nil
	}
	b.lastNote = (b.lastNote + 1) % notesKept
	n := &b.notes[b.lastNote]
	n.message = append(n.message[:0], message...)
	n.stockNote = stockNote{op: m.Op, snapshot: m.Snapshot, done: m.OK != nil, refusal: m.Error, cursor: m.Cursor, shown: n.shown[:0]}
	if m.OK != nil {
		n.cursor = m.OK.Cursor
	}
	for _, it := range m.Items {
		i, ok := b.index[it.SKU]
		if !ok {
			b.fault("%q was pushed to those who did not ask for it", it.SKU)
			continue
		}
		n.shown = append(n.shown, shown{i, b.changeOf(i, it.OnHand, it.Reserved)})
	}
	return &n.stockNote
}

func (b *board) changeOf(sku int, onHand, reserved int64) int64 {
	if b.decode != nil {
		return b.decode(sku, onHand, reserved)
	}
	return onHand - b.opening[sku]
}

type boardMessage struct {
	Op       string `json:"op"`
	Snapshot bool   `json:"snapshot"`
	Cursor   string `json:"cursor"`
	Items    []struct {
		SKU      string `json:"sku"`
		OnHand   int64  `json:"on_hand"`
		Reserved int64  `json:"reserved"`
	} `json:"items"`
	OK *struct {
		Cursor string `json:"cursor"`
	} `json:"ok"`
	Error *protocol.Error `json:"error"`
}

func (b *board) fault(format string, args ...any) {
	if len(b.faults) < faultsMax {
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
}
