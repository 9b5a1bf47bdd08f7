package quota

import "sync"

const (
	// beatNS is how often a node tells the others.
	beatNS = int64(500e6)
	// peersMax bounds the nodes that are listened to.
	peersMax = loudPart
	// accountsAtOnce is how many accounts a beat looks at before it lets others in.
	accountsAtOnce = 256
)

// table holds all accounts of a node and what it has heard. It has no goroutine, and
// its clock is given.
type table struct {
	node     string
	limits   Limits
	now      func() int64 // ns since the start
	refusals *refusals
	nobody   *Account

	mu        sync.Mutex
	accounts  map[string]*Account
	keys      map[key]*Account
	list      []*Account
	first     int // where the next beat begins
	header    header
	peers     map[string]*peer
	arrivals  uint64 // of peers, so far
	elsewhere elsewhere
}

func newTable(node string, incarnation uint64, limits Limits, now func() int64, refusals *refusals) *table {
	t := &table{
		node: node[:min(len(node), nameBytesMax)], limits: limits, now: now, refusals: refusals,
		accounts: make(map[string]*Account), keys: make(map[key]*Account), peers: make(map[string]*peer),
		elsewhere: newElsewhere(),
	}
	t.header = header{incarnation: incarnation, node: t.node}
	t.nobody = &Account{table: t}
	t.nobody.bucket.pace.Store(steady)
	return t
}

func (t *table) account(subject string) *Account {
	if subject == "" {
		return t.nobody
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[subject]
	if a == nil {
		a = t.open(subject)
	}
	a.holders++
	return a
}

// open is called with mu held.
func (t *table) open(subject string) *Account {
	a := &Account{table: t, subject: subject, key: keyOf(subject), place: len(t.list)}
	a.rate = newRate(t.limits.Commands, t.limits.Burst)
	a.connections.limit, a.subscriptions.limit = int64(max(0, t.limits.Connections)), int64(max(0, t.limits.Subscriptions))
	a.bucket.pace.Store(steady)
	now := t.now()
	a.others = t.elsewhere.take(a.key)
	all, _ := a.others.sum(now, t.node)
	a.connections.others.Store(all.connections)
	a.subscriptions.others.Store(all.subscriptions)
	a.share.join(now, &t.limits, a.others.demands(nil, now))
	a.bucket.bend(now, a.share.part(float64(t.limits.Commands), a.others.demands(nil, now)))
	t.accounts[subject], t.keys[a.key] = a, a
	t.list = append(t.list, a)
	return a
}

func (t *table) release(a *Account) {
	if a == t.nobody {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a.holders = max(0, a.holders-1)
	if a.holders == 0 && len(t.list) > subjectsMax && t.accounts[a.subject] == a {
		t.drop(a)
	}
}

// drop is called with mu held. What others use stays known.
func (t *table) drop(a *Account) {
	last := t.list[len(t.list)-1]
	t.list[a.place], last.place = last, a.place
	t.list[len(t.list)-1] = nil
	t.list = t.list[:len(t.list)-1]
	delete(t.accounts, a.subject)
	delete(t.keys, a.key)
	t.elsewhere.put(a.key, a.others)
}

// eviction is an order to close connections.
type eviction struct {
	subject     string
	connections int
}

// beat takes stock: it decides what each account may use until the next one, and
// returns what the others are to be told and what is to be closed.
func (t *table) beat() (messages [][]byte, evictions []eviction) {
	now := t.now()
	w := t.beginBeat(now)
	for done, more := 0, true; more; done += accountsAtOnce {
		evictions, more = t.beatSome(now, w, done, evictions)
	}
	t.endBeat(w)
	return w.messages, evictions
}

func (t *table) beginBeat(now int64) *writer {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, p := range t.peers {
		if now-p.at > figuresNS {
			p.gone = true
			delete(t.peers, name)
		}
	}
	t.elsewhere.turn(now)
	return &writer{header: t.header}
}

func (t *table) endBeat(w *writer) {
	w.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header.sequence = w.header.sequence
	t.first = w.left // whoever found no room is the first next time
}

// beatSome looks at some accounts, done being how many were before, and reports whether
// there are more. Others may open and drop accounts in between; one that is missed, or
// met twice, by that is none the worse for it.
func (t *table) beatSome(now int64, w *writer, done int, evictions []eviction) ([]eviction, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var idle []*Account
	end := min(done+accountsAtOnce, len(t.list))
	for i := done; i < end; i++ {
		at := (t.first + i) % len(t.list)
		a := t.list[at]
		if n := a.evict(now, t.node); n > 0 {
			evictions = append(evictions, eviction{a.subject, n})
		}
		a.beat(now, w, at)
		if a.idle(now) {
			idle = append(idle, a)
		}
	}
	for _, a := range idle {
		t.drop(a)
	}
	return evictions, end < len(t.list)
}

// beat is called with the table's mu held.
func (a *Account) beat(now int64, w *writer, at int) {
	t := a.table
	a.others.forget(now)
	is := figures{connections: a.connections.own.Load(), subscriptions: a.subscriptions.own.Load()}
	if a.rate.on() {
		used := a.used.Load()
		is.used, is.recent = uint32(used), uint32(used-a.share.used)
		demands := a.others.demands(nil, now)
		a.bucket.bend(now, a.share.beat(now, &t.limits, used, a.refused.Load(), demands))
		is.demand = a.share.demand
	}
	matters := is.loud(&t.limits) || a.others.loud(now, &t.limits)
	if a.told.due(now, is, matters, t.arrivals) && w.add(&record{key: a.key, figures: is}, at) {
		a.told.done(now, is)
	}
}

// idle reports whether nobody holds the account and nothing is lost with it.
func (a *Account) idle(now int64) bool {
	return a.holders == 0 && a.told.quiet(now) && a.connections.own.Load() == 0 && a.subscriptions.own.Load() == 0 &&
		a.bucket.isFull(now) && (!a.rate.on() || a.share.idle(&a.table.limits))
}

// heard takes another node's message.
func (t *table) heard(message []byte) {
	h, records, err := decode(message)
	if err != nil || h.node == t.node {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	p := t.peer(&h, now)
	if p == nil || h.kind == kindEnd {
		return
	}
	for i := range records {
		t.hear(p, now, &records[i])
	}
}

// peer returns who sent a message, nil where it is old or there are too many. It is
// called with mu held.
func (t *table) peer(h *header, now int64) *peer {
	p := t.peers[h.node]
	if p != nil && (h.incarnation < p.incarnation || h.incarnation == p.incarnation && h.sequence <= p.sequence) {
		return nil
	}
	if p == nil && len(t.peers) >= peersMax {
		return nil
	}
	if p == nil || p.incarnation != h.incarnation || p.gone {
		if p != nil {
			p.gone = true // and all that it used
		}
		p = &peer{name: h.node, incarnation: h.incarnation}
		t.peers[h.node] = p
		t.arrivals++
	}
	p.sequence, p.at, p.gone = h.sequence, now, h.kind == kindEnd
	return p
}

// hear is called with mu held.
func (t *table) hear(p *peer, now int64, r *record) {
	a := t.keys[r.key]
	if a == nil {
		t.elsewhere.hear(p, now, r)
		return
	}
	a.share.heard += float64(a.others.hear(p, now, r.figures))
	all, _ := a.others.sum(now, t.node)
	a.connections.others.Store(all.connections)
	a.subscriptions.others.Store(all.subscriptions)
}

// end returns the message that this node uses nothing any more.
func (t *table) end() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header.sequence++
	h := t.header
	h.kind = kindEnd
	return h.append(nil)
}

// subjects is how many are known.
func (t *table) subjects() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.list) + t.elsewhere.len()
}

// isFull reports whether subjects of other nodes are not remembered for want of room.
func (t *table) isFull() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.elsewhere.len() >= subjectsMax
}
