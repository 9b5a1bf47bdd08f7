package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// simRegion is a region's log, its nodes, and its rows here and elsewhere.
type simRegion struct {
	world *simWorld
	index int
	name  string
	log   [][]byte
	audit *simAudit // of the log

	current *simNode // decides, or is about to; nil while nobody does
	terms   int      // that ended
	old     *simNode // believes to decide, though current took over
	next    *simNode // follows, and may take over

	late    *simLate // an append that was given up and may yet be stored
	lazy    []byte   // of the mutant that acknowledges too early
	offset  int64    // of the wall clock
	maxWall int64    // the latest that a wall clock has shown, in ms
	saved   []byte   // the newest snapshot

	flushed map[protocol.ItemKey]uint64 // versions in the bucket
	stream  []simPut                    // what was put into the bucket
	mirrors []simMirror                 // of other regions' buckets
}

type simLate struct {
	data []byte
	last uint64
}

type simPut struct {
	key protocol.ItemKey
	row []byte
}

// simMirror is how far another region's stream was followed, and the newest rows.
type simMirror struct {
	next int
	rows map[protocol.ItemKey][]byte
}

// restart begins with an empty node, from the log alone or from a snapshot.
func (r *simRegion) restart(fromSnapshot bool) bool {
	if r.current != nil {
		return false
	}
	r.current = r.build(fromSnapshot)
	return true
}

// build makes a node that has read the log and the mirrored rows.
func (r *simRegion) build(fromSnapshot bool) *simNode {
	state := ledger.NewState(r.name, 0)
	if fromSnapshot && r.saved != nil {
		loaded, err := ledger.Load(bytes.NewReader(r.saved))
		if err != nil {
			r.world.fail("I13", "snapshot of %s: %v", r.name, err)
		} else {
			state = loaded
		}
	}
	n := newSimNode(r, state)
	n.catchUp()
	for from := range r.mirrors {
		for _, key := range simKeys {
			if row := r.mirrors[from].rows[key]; row != nil {
				n.learn(from, []simPut{{key, row}})
			}
		}
	}
	return n
}

// save keeps a snapshot of the deciding node.
func (r *simRegion) save() bool {
	if r.current == nil {
		return false
	}
	var b []byte
	_, err := r.current.replica.snapshot(func(slice []byte) error {
		b = append(b, slice...)
		return nil
	})
	if err != nil {
		r.world.fail("I13", "snapshot of %s: %v", r.name, err)
	}
	r.saved = b
	return true
}

// crash ends a node: what it had in memory is gone, and nobody answers its calls.
func (r *simRegion) crash(n *simNode) bool {
	if n == nil {
		return false
	}
	n.dead = true
	r.terms++
	r.lazy = nil
	for _, c := range r.world.commands {
		c.abandoned(n)
	}
	switch n {
	case r.current:
		r.current = nil
	case r.old:
		r.old = nil
	case r.next:
		r.next = nil
	}
	return true
}

// depose makes another node that follows the log.
func (r *simRegion) depose(fromSnapshot bool) bool {
	if !r.world.setup.clustered || r.next != nil {
		return false
	}
	r.next = r.build(fromSnapshot)
	return true
}

// rise lets the follower take over. It may have missed the log's end.
func (r *simRegion) rise(stale, oldKnows bool) bool {
	n := r.next
	if n == nil {
		return false
	}
	if !stale {
		n.catchUp()
	}
	n.leads = true
	if !n.safely(n.takeOver) || n.dead || !n.deciding {
		return true
	}
	if r.old != nil {
		r.endTerm(r.old, nil)
	}
	r.old, r.current, r.next = r.current, n, nil
	if old := r.old; old != nil {
		old.leads = !oldKnows
		old.faults, old.trap = nil, simNoTrap // there is nothing left for it to store
		if !old.deciding {
			r.endTerm(old, nil) // it had lost its term already
		}
	}
	return true
}

// endTerm takes what a node leaves unanswered when its term is over: the deciding node
// gets it, or its clients are told that nobody knows.
func (r *simRegion) endTerm(n *simNode, left []*protocol.Call) {
	left = append(n.owner.trade.abandon(), left...)
	left = append(left, n.queue.take(nil)...)
	n.deciding = false
	r.terms++
	to := r.current
	if n == r.old {
		r.old = nil
	}
	for _, c := range left {
		if to == nil || to.dead {
			c.Fail(unknownOutcome("nobody decides"))
			continue
		}
		r.world.attempts(c).node = to
		to.queue.put(c)
	}
}

// flush puts changed rows into the bucket, by whoever believes to decide.
func (r *simRegion) flush(n *simNode) bool {
	if n == nil || !n.deciding {
		return false
	}
	some := false
	s := n.replica.state
	for _, id := range s.Changed(0) {
		key, row := s.Key(id), s.Row(id)
		if row.Version <= r.flushed[key] {
			continue
		}
		r.audit.checkRow("I10", key, &row)
		r.flushed[key] = row.Version
		r.stream = append(r.stream, simPut{key, protocol.AppendJSON(nil, row.Stored(r.name, 0, key))})
		some = true
	}
	return some
}

// learn shows another region's rows to every node here.
func (r *simRegion) learn(from int, puts []simPut) {
	m := &r.mirrors[from]
	for _, p := range puts {
		if before := m.rows[p.key]; before == nil || version(before) < version(p.row) {
			m.rows[p.key] = p.row
		}
	}
	for _, n := range r.nodes() {
		n.learn(from, puts)
	}
}

// nodes are those that are there.
func (r *simRegion) nodes() (nodes []*simNode) {
	for _, n := range [...]*simNode{r.current, r.old, r.next} {
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// simNode is a process of a region: an owner, if it decides, and what it stands on.
type simNode struct {
	region   *simRegion
	config   *Config
	replica  *replica
	owner    *owner
	queue    *queue
	born     int64
	leads    bool // as the engine tells it
	deciding bool
	dead     bool
	faults   []simFault
	trap     simTrap
	work     int // in this turn
	seen     map[protocol.ItemKey]protocol.Vector
}

func newSimNode(r *simRegion, state *ledger.State) *simNode {
	w := r.world
	n := &simNode{region: r, born: w.now, leads: true, seen: make(map[protocol.ItemKey]protocol.Vector)}
	c := Config{
		Region: r.name, Node: r.name + "-1", KeyWindow: w.setup.window, Patience: 2800 * time.Millisecond,
		Mesh:  &Mesh{RightsTimeout: 300 * time.Millisecond},
		Clock: n.wall, ticks: n.elapsed, Logger: slog.New(slog.DiscardHandler),
	}
	if w.setup.clustered {
		c.Members = &Members{Expect: 3}
	}
	n.config, n.replica, n.queue = &c, newReplica(state), newQueue(1<<16)
	n.owner = newOwner(&c, simJournal{n}, n.replica, n.queue, w.metrics)
	w.nonce += 1 << 20
	n.owner.nonce = w.nonce
	n.owner.trade = newTrader(&c, state, simExchange{n})
	n.owner.onRound = n.committed
	n.owner.read = func(c *protocol.Call) { c.Done(c) }
	return n
}

func (n *simNode) wall() time.Time {
	t := time.Unix(0, simEpoch+n.region.world.now+n.region.offset)
	n.region.maxWall = max(n.region.maxWall, t.UnixMilli())
	return t
}

// elapsed also guards against a turn that never ends.
func (n *simNode) elapsed() int64 {
	const workMax = 100_000
	if n.work++; n.work > workMax {
		n.region.world.fail("endless", "%s works without end", n.region.name)
		panic(simCrash{})
	}
	return n.region.world.now - n.born
}

// simCrash ends a node's code wherever it is.
type simCrash struct{}

// safely runs a node's code up to its end or the node's.
func (n *simNode) safely(do func()) (alive bool) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case simCrash:
			n.region.world.tell("  %s crashes", n.region.name)
			n.region.crash(n)
		default:
			n.region.world.fail("panic", "%v\n%s", e, debug.Stack())
			n.region.crash(n)
		}
	}()
	n.work = 0
	do()
	return true
}

// catchUp applies what others wrote.
func (n *simNode) catchUp() {
	for seq := n.replica.seq() + 1; seq <= uint64(len(n.region.log)); seq++ {
		round, err := ledger.Decode(n.region.log[seq-1])
		if err == nil {
			_, err = n.replica.apply(round, seq)
		}
		if err != nil {
			n.region.world.fail("I13", "%s reads round %d: %v", n.region.name, seq, err)
			return
		}
	}
}

func (n *simNode) takeOver() {
	err := n.owner.takeOver(context.Background())
	n.deciding = err == nil
	n.region.world.tell("  %s takes over: %v", n.region.name, err)
	if err == nil {
		n.checkState()
	}
}

// turn does what an owner's loop does once.
func (n *simNode) turn() {
	n.safely(func() {
		if !n.deciding {
			n.leads = true // again, as nobody else wants to
			n.catchUp()
			if n.takeOver(); !n.deciding {
				return
			}
		}
		var left []*protocol.Call
		err := errNotLeader
		if n.leads {
			left, err = n.owner.rounds(context.Background(), n.queue.take(nil))
		}
		if err != nil {
			n.region.world.tell("  %s ends its term: %v", n.region.name, err)
			n.checkError(err)
			n.region.endTerm(n, left)
		}
	})
}

// close ends a node in order: what it has taken in is answered.
func (r *simRegion) close() bool {
	n := r.current
	if n == nil || !n.deciding || r.next != nil {
		return false
	}
	n.queue.close()
	if n.turn(); n.dead || !n.deciding || n.owner.outage.health() != nil {
		r.crash(n)
		return true
	}
	for _, c := range r.world.commands {
		if slices.ContainsFunc(c.open, func(a *simAttempt) bool { return a.node == n }) {
			r.world.fail("unanswered", "%s was closed, and command %v still waits", r.name, c)
		}
	}
	r.crash(n)
	return true
}

func (n *simNode) committed(changes *protocol.Changes, _ []byte) {
	if n.trap == simTrapRound {
		panic(simCrash{})
	}
	for _, id := range changes.Items {
		key, row := n.replica.state.Key(id), n.replica.state.Row(id)
		n.region.audit.checkRow("I13", key, &row)
		n.checkSeen(id)
	}
}

func (n *simNode) learn(from int, puts []simPut) {
	w := n.region.world
	rows := make([]ledger.PeerRow, len(puts))
	for i := range puts {
		var stored ledger.StoredRow
		err := protocol.UnmarshalJSON(puts[i].row, &stored)
		if err == nil {
			rows[i], err = stored.Peer()
		}
		if err != nil {
			w.fail("wire", "row %s: %v", puts[i].row, err)
		}
	}
	n.shown(from, rows)
}

// shown makes rows of another region part of what the node shows.
func (n *simNode) shown(from int, rows []ledger.PeerRow) {
	w, name := n.region.world, n.region.world.regions[from].name
	n.replica.learn(name, false, rows, func(err error) { w.fail("I10", "%s learns of %s: %v", n.region.name, name, err) })
	for i := range rows {
		if id, ok := n.replica.state.ID(rows[i].Key); ok {
			n.checkSeen(id)
		}
	}
}

// simExchange is how a node's trader reaches the others.
type simExchange struct{ *simNode }

func (x simExchange) regions() (names []string) {
	for _, r := range x.region.world.regions {
		if r != x.region {
			names = append(names, r.name)
		}
	}
	slices.Sort(names)
	return names
}

func (x simExchange) reachable(region string) bool {
	w := x.region.world
	return w.now-w.ways[w.indexOf(region)][x.region.index].heard < simHeardFor
}

func (x simExchange) deal(region string, d *deal) {
	if x.trap == simTrapDeal {
		panic(simCrash{})
	}
	w := x.region.world
	to := w.indexOf(region)
	x.region.audit.checkTold(to, d)
	message := protocol.AppendJSON(nil, d)
	w.tell("  %s -> %s: %s", x.region.name, region, message)
	w.send(x.region.index, to, message)
}
