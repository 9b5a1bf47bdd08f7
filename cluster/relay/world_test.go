package relay

import (
	"fmt"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

const stallWait = 100

// world is some nodes, each with a sender and, for when it is the owner, a
// receiver; a network that does what it likes; and one log, that only the owner
// can write to.
type world struct {
	*rapid.T
	now   int64
	nodes []*node
	owner *node
	net   []message
	log   map[string]effect // by key
	seq   uint64

	// settled is a world whose owner stays, and refuses some: what was refused, and
	// told so, must never take effect after all. Under a new owner that is up to the
	// messenger, see DESIGN.md.
	settled bool
}

// effect is what is remembered of a key.
type effect struct {
	asked *asked // who was first
	seq   uint64
}

type message struct {
	to    *node
	batch bool
	data  []byte
}

type node struct {
	name     string
	sender   *Sender
	sessions uint64 // larger than any so far
	receiver *Receiver
	target   *node // whom it takes for the owner
	local    bool  // it is the owner and decides its own calls itself
	unaware  bool  // it is not the owner any more, and takes batches still
	calls    map[*protocol.Call]*asked
	added    int
	effects  int // number of the last call to take effect
	due      int64
}

// asked is what the model knows of a call.
type asked struct {
	n       int // in the order of Add
	call    *protocol.Call
	sent    bool
	refused bool // once, and perhaps nobody knows
	given   bool // up: expired, or its process died
	closed  bool // the caller has it back
}

func newWorld(t *rapid.T, settled bool) *world {
	w := &world{T: t, log: map[string]effect{}, settled: settled}
	for i := range 3 {
		n := &node{name: fmt.Sprintf("n%d", i), receiver: NewReceiver(), calls: map[*protocol.Call]*asked{}}
		w.nodes = append(w.nodes, n)
		w.boot(n)
	}
	w.owner = w.nodes[0]
	for _, n := range w.nodes {
		n.target = w.owner
	}
	return w
}

// boot starts a node's process.
func (w *world) boot(n *node) {
	n.sessions += 1000
	n.sender = NewSender(n.name, n.sessions, Options{
		BatchCalls: rapid.IntRange(1, 4).Draw(w.T, "batch"),
		BatchBytes: rapid.SampledFrom([]int{1, 100, 1 << 20}).Draw(w.T, "bytes"),
		Window:     rapid.IntRange(1, 4).Draw(w.T, "window"),
	})
	n.receiver.Reset()
	n.local, n.unaware = false, false
}

func (w *world) anyNode() *node { return rapid.SampledFrom(w.nodes).Draw(w.T, "node") }

func (w *world) add(n *node) {
	var calls []*protocol.Call
	for range rapid.IntRange(1, 5).Draw(w.T, "calls") {
		n.added++
		c := &protocol.Call{Session: uint64(n.added)}
		c.Command = protocol.Command{
			Op: rapid.SampledFrom([]protocol.Op{protocol.OpSell, protocol.OpReserve}).Draw(w.T, "op"),
			// The toy owner learns from the quantity who was first with a key.
			Key: w.key(n), Quantity: int64(n.added),
		}
		if rapid.Bool().Draw(w.T, "due") {
			n.due = max(n.due, w.now) + rapid.Int64Range(1, 300).Draw(w.T, "after")
			c.Due = n.due
		}
		n.calls[c] = &asked{n: n.added, call: c}
		calls = append(calls, c)
	}
	if n.local {
		w.decideHere(n, calls)
		return
	}
	n.sender.Add(calls...)
}

// key is a new one, or now and then one that was used before.
func (w *world) key(n *node) string {
	number := n.added
	if number > 1 && rapid.IntRange(0, 4).Draw(w.T, "again") == 0 {
		number = rapid.IntRange(max(1, number-3), number-1).Draw(w.T, "key")
	}
	return fmt.Sprintf("%s-%d", n.name, number)
}

// decideHere is what an owner does with its own calls.
func (w *world) decideHere(n *node, calls []*protocol.Call) {
	for _, c := range calls {
		w.apply(n.name, c)
		w.shown(n, c, w.seq)
	}
}

func (w *world) send(n *node) {
	data, ok := n.sender.Next(w.now)
	if !ok {
		return
	}
	batch, err := DecodeBatch(data)
	if err != nil {
		w.Fatal(err)
	}
	for _, c := range batch.Calls {
		n.asked(w, int(c.Command.Quantity)).sent = true
	}
	w.net = append(w.net, message{to: n.target, batch: true, data: slices.Clone(data)})
}

func (n *node) asked(w *world, number int) *asked {
	for _, a := range n.calls {
		if a.n == number {
			return a
		}
	}
	w.Fatalf("%s never asked %d", n.name, number)
	return nil
}

func (w *world) deliver(m message) {
	if m.batch {
		w.receive(m.to, m.data)
		return
	}
	n := m.to
	d, err := n.sender.Answer(m.data, w.now)
	if err != nil {
		w.Fatal(err)
	}
	last := 0
	for _, c := range d.Calls {
		w.shown(n, c, d.Seq)
		if a := n.calls[c]; a.n <= last {
			w.Fatalf("%s: answers out of order", n.name)
		} else {
			last = a.n
		}
	}
	if d.NotOwner {
		n.target = w.guess(d.Owner)
	}
}

// guess turns a hint into a node.
func (w *world) guess(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return w.anyNode()
}

// receive is an owner's part, and that of one who is not.
func (w *world) receive(at *node, data []byte) {
	batch, err := DecodeBatch(data)
	if err != nil {
		w.Fatal(err)
	}
	reply := func(b []byte) {
		w.net = append(w.net, message{to: w.guess(batch.From), data: b})
	}
	if at.unaware { // until it wants to write to the log
		at.receiver.Accept(batch.From, batch.Session, batch.Number)
		return
	}
	if at != w.owner {
		reply(AppendRefusal(nil, at.name, batch.Session, batch.Number, NotOwner, at.target.name))
		return
	}
	switch at.receiver.Accept(batch.From, batch.Session, batch.Number) {
	case Take:
		if w.settled && rapid.IntRange(0, 5).Draw(w.T, "unreadable") == 0 {
			for _, c := range batch.Calls {
				w.guess(batch.From).asked(w, int(c.Command.Quantity)).refused = true
			}
			reply(AppendRefusal(nil, at.name, batch.Session, batch.Number, Unreadable, ""))
			return
		}
		for _, c := range batch.Calls {
			w.apply(batch.From, c)
		}
		reply(AppendAnswers(nil, at.name, batch.Session, batch.Number, w.seq, batch.Calls))
	case Gap:
		reply(AppendRefusal(nil, at.name, batch.Session, batch.Number, Gap, ""))
	}
}

// apply decides a call as an owner does: once for each key, else as remembered.
func (w *world) apply(from string, c *protocol.Call) {
	key, n := c.Command.Key, w.guess(from)
	a := n.asked(w, int(c.Command.Quantity))
	if _, ok := w.log[key]; ok {
		c.Replayed = true
	} else {
		if w.settled && rapid.Bool().Draw(w.T, "refuse") {
			a.refused = true
			c.Err = protocol.BadRequest("%s", key)
			return
		}
		w.seq++
		w.log[key] = effect{asked: a, seq: w.seq}
		w.inOrder(n, a)
	}
	c.Result = protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{{SKU: key}}}
}

// inOrder wants effects in the order of Add. Those that nobody waits for any more,
// or whose refusal was lost, may come late.
func (w *world) inOrder(n *node, a *asked) {
	if a.given {
		if !a.sent {
			w.Fatalf("%s: call %d takes effect and was never sent", n.name, a.n)
		}
		return
	}
	if a.closed {
		w.Fatalf("%s: call %d takes effect after it was refused", n.name, a.n)
	}
	if a.refused {
		return
	}
	if a.n <= n.effects {
		w.Fatalf("%s: call %d takes effect after call %d", n.name, a.n, n.effects)
	}
	n.effects = a.n
}

// shown is told each call that a caller gets back with its answer.
func (w *world) shown(n *node, c *protocol.Call, seq uint64) {
	w.close(n, c)
	if w.settled && c.Err != nil && c.Err.Message == c.Command.Key && n.calls[c].refused {
		return
	}
	e, ok := w.log[c.Command.Key]
	if w.settled && c.Err != nil && c.Err.Code == protocol.CodeUnavailable && n.calls[c].refused {
		if ok && e.asked.call == c && c.Err.Details == nil {
			w.Fatalf("%s: %q took effect, and is said not to have", n.name, c.Command.Key)
		}
		return
	}
	if !ok || c.Err != nil || len(c.Result.Items) != 1 || c.Result.Items[0].SKU != c.Command.Key {
		w.Fatalf("%s: the answer to %q is %+v, %v", n.name, c.Command.Key, c.Result, c.Err)
	}
	if first := e.asked.call == c; !first && !c.Replayed {
		w.Fatalf("%s: the effect of %q was another call's", n.name, c.Command.Key)
	}
	if seq < e.seq {
		w.Fatalf("%s: sequence %d for an effect at %d", n.name, seq, e.seq)
	}
}

func (w *world) close(n *node, c *protocol.Call) {
	a := n.calls[c]
	if a == nil || a.closed {
		w.Fatalf("%s: a call came back twice, or out of nowhere", n.name)
	}
	a.closed = true
}

// pass lets time go by.
func (w *world) pass() {
	w.now += rapid.Int64Range(1, 2*stallWait).Draw(w.T, "time")
	for _, n := range w.nodes {
		w.tick(n)
	}
}

// hear tells a node who the owner is.
func (w *world) hear(n *node) { n.target, n.unaware = w.owner, false }

// tick is what a node does now and then.
func (w *world) tick(n *node) {
	if n.sender.Stalled(w.now, stallWait) {
		n.sender.Restart()
	}
	never, maybe := n.sender.Expire(w.now)
	for i, c := range append(slices.Clone(never), maybe...) {
		a := n.calls[c]
		if sent := i >= len(never); a.sent != sent {
			w.Fatalf("%s: call %d, sent: %v, expired as sent: %v", n.name, a.n, a.sent, sent)
		}
		if c.Due == 0 || c.Due > w.now {
			w.Fatalf("%s: call %d expired before its time", n.name, a.n)
		}
		a.given = true
		w.close(n, c)
	}
	for _, a := range n.open() {
		if a.call.Due != 0 && a.call.Due <= w.now {
			w.Fatalf("%s: call %d, sent: %v, did not expire", n.name, a.n, a.sent)
		}
	}
}

// open lists the calls that the sender must have, in order.
func (n *node) open() []*asked {
	var open []*asked
	for _, a := range n.calls {
		if !a.closed {
			open = append(open, a)
		}
	}
	slices.SortFunc(open, func(a, b *asked) int { return a.n - b.n })
	return open
}

// crash ends a node's process, seldom: its callers never hear.
func (w *world) crash(n *node) {
	if w.settled && n == w.owner || rapid.IntRange(0, 3).Draw(w.T, "crash") > 0 {
		return
	}
	for _, a := range n.open() {
		a.given, a.closed = true, true
	}
	w.boot(n)
}

// elect makes a node the owner.
func (w *world) elect(n *node) {
	if n != w.owner {
		w.owner.local, w.owner.unaware = false, rapid.Bool().Draw(w.T, "unaware")
	}
	w.owner = n
	n.target, n.unaware, n.local = n, false, false
	n.receiver.Reset()
	if rapid.Bool().Draw(w.T, "local") {
		open := n.open()
		calls := n.sender.TakeAll()
		for i, c := range calls {
			if i >= len(open) || open[i].call != c {
				w.Fatalf("%s: taken back out of order", n.name)
			}
		}
		n.local = true
		w.decideHere(n, calls)
	}
}

// check compares the sender with the model.
func (w *world) check() {
	for _, n := range w.nodes {
		open := n.open()
		if got := n.sender.Len(); got != len(open) {
			w.Fatalf("%s: the sender has %d calls, not %d", n.name, got, len(open))
		}
		want := map[string]uint64{}
		for _, a := range open {
			c := a.call
			if _, ok := want[c.Command.Key]; !ok && a.sent && c.Command.Op == protocol.OpReserve {
				want[c.Command.Key] = c.Session
			}
		}
		if len(n.sender.changes) != len(want) {
			w.Fatalf("%s: %d keys are looked for, not %d", n.name, len(n.sender.changes), len(want))
		}
		for key, session := range want {
			if got, ok := n.sender.SessionOf(key); !ok || got != session {
				w.Fatalf("%s: %q is of session %d, %v, not %d", n.name, key, got, ok, session)
			}
		}
	}
}

// heal ends the trouble: from now on everything arrives, and everybody knows who
// the owner is once told.
func (w *world) heal() {
	for _, n := range w.nodes {
		n.unaware = false
	}
	for round := 0; ; round++ {
		for len(w.net) > 0 {
			m := w.net[0]
			w.net = w.net[1:]
			m.to.target = w.owner
			w.deliver(m)
		}
		left := 0
		for _, n := range w.nodes {
			n.target = w.owner
			w.tick(n)
			w.send(n)
			left += n.sender.Len()
		}
		if left == 0 {
			return
		}
		if round > 2000 {
			w.Fatalf("%d calls are never answered", left)
		}
		w.now += 10
	}
}

// astray brings a batch to somebody else.
func (w *world) astray(i int) {
	if m := w.net[i]; m.batch {
		w.receive(w.anyNode(), m.data)
	}
}
