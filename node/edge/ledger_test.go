package edge_test

import (
	"fmt"
	"slices"
	"sync"

	"github.com/stockmesh/stockmesh/protocol"
)

// ledger is a small ledger of one region that decides at once. As in a real one a
// round is first applied, then told to the watchers, then answered.
type ledger struct {
	round sync.Mutex // one at a time; taken before mu

	mu           sync.RWMutex
	items        []protocol.Item // by ItemID
	ids          map[protocol.ItemKey]protocol.ItemID
	changedAt    []uint64
	seq          uint64            // one change each
	log          []protocol.ItemID // of each change, where keepLog is set
	keepLog      bool
	reservations map[string]*protocol.Reservation
	watchers     map[int]func(*protocol.Changes)
	watched      int

	hold func(*protocol.Call) bool // takes calls that it returns true for; may be nil
}

func newLedger() *ledger {
	return &ledger{
		ids:          make(map[protocol.ItemKey]protocol.ItemID),
		reservations: make(map[string]*protocol.Reservation),
		watchers:     make(map[int]func(*protocol.Changes)),
	}
}

func (l *ledger) Submit(calls []*protocol.Call) {
	l.mu.RLock()
	hold := l.hold
	l.mu.RUnlock()
	for _, c := range calls {
		if hold == nil || !hold(c) {
			l.run(c)
		}
	}
}

func (l *ledger) setHold(hold func(*protocol.Call) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = hold
}

func (l *ledger) run(c *protocol.Call) {
	if !c.Command.Op.IsWrite() {
		l.read(c)
		c.Done(c)
		return
	}
	l.round.Lock()
	defer l.round.Unlock()
	ch := &protocol.Changes{}
	l.mu.Lock()
	c.Result, c.Err = l.write(&c.Command, ch)
	l.mu.Unlock()
	for i := range ch.Reservations {
		ch.Reservations[i].By = c.Session
	}
	l.tell(ch)
	c.Done(c)
}

// tell is called with round held.
func (l *ledger) tell(ch *protocol.Changes) {
	if len(ch.Items)+len(ch.Reservations) == 0 {
		return
	}
	ch.Cursor = l.Cursor()
	for _, fn := range l.watchers {
		fn(ch)
	}
}

// set commits new quantities, in one round.
func (l *ledger) set(onHand int64, skus ...string) {
	l.round.Lock()
	defer l.round.Unlock()
	ch := &protocol.Changes{}
	l.mu.Lock()
	for _, sku := range skus {
		l.bump(ch, protocol.ItemKey{SKU: sku, Location: "main"}, func(it *protocol.Item) { it.OnHand = onHand })
	}
	l.mu.Unlock()
	l.tell(ch)
}

// expire ends a reservation as time would.
func (l *ledger) expire(id string) {
	l.round.Lock()
	defer l.round.Unlock()
	l.mu.Lock()
	r := l.reservations[id]
	r.State = protocol.Expired
	ch := &protocol.Changes{Reservations: []protocol.ReservationChange{{Reservation: *r}}}
	l.mu.Unlock()
	l.tell(ch)
}

func (l *ledger) read(c *protocol.Call) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch c.Command.Op {
	case protocol.OpGet:
		c.Result = protocol.Result{Kind: protocol.KindItems}
		for _, sku := range c.Command.SKUs {
			c.Result.Items = append(c.Result.Items, l.item(protocol.ItemKey{SKU: sku, Location: "main"}))
		}
	default:
		c.Err = protocol.NewError(protocol.CodeNotFound, "not in this ledger")
	}
}

func (l *ledger) write(c *protocol.Command, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	item := func(change func(it *protocol.Item)) (protocol.Result, *protocol.Error) {
		it := l.bump(ch, protocol.ItemKey{SKU: c.SKU, Location: c.Location}, change)
		return protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{it}}, nil
	}
	switch c.Op {
	case protocol.OpAdjust:
		return item(func(it *protocol.Item) { it.OnHand += c.Delta })
	case protocol.OpCount:
		return item(func(it *protocol.Item) { it.OnHand = *c.OnHand })
	case protocol.OpReserve:
		r := &protocol.Reservation{ID: fmt.Sprintf("eu.%d", len(l.reservations)+1), State: protocol.Held, Lines: c.Lines, User: c.User}
		l.reservations[r.ID] = r
		return l.reservation(r, ch)
	case protocol.OpConfirm, protocol.OpRelease:
		r := l.reservations[c.Reservation]
		if r == nil {
			return protocol.Result{}, protocol.NewError(protocol.CodeNotFound, "no such reservation")
		}
		r.State = protocol.Confirmed
		return l.reservation(r, ch)
	}
	return protocol.Result{}, protocol.NewError(protocol.CodeNotFound, "not in this ledger")
}

func (l *ledger) reservation(r *protocol.Reservation, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	now := *r
	ch.Reservations = append(ch.Reservations, protocol.ReservationChange{Reservation: now})
	return protocol.Result{Kind: protocol.KindReservation, Reservation: &now}, nil
}

func (l *ledger) item(k protocol.ItemKey) protocol.Item {
	if id, ok := l.ids[k]; ok {
		return l.items[id]
	}
	return protocol.Item{SKU: k.SKU, Location: k.Location}
}

// bump changes one item, giving it its next version.
func (l *ledger) bump(ch *protocol.Changes, k protocol.ItemKey, change func(*protocol.Item)) protocol.Item {
	id, ok := l.ids[k]
	if !ok {
		id = protocol.ItemID(len(l.items))
		l.ids[k] = id
		l.items = append(l.items, protocol.Item{SKU: k.SKU, Location: k.Location})
		l.changedAt = append(l.changedAt, 0)
	}
	if l.keepLog {
		l.log = append(l.log, id)
	}
	l.seq++
	l.changedAt[id] = l.seq
	it := &l.items[id]
	change(it)
	it.Available = max(0, it.OnHand)
	it.Version = fmt.Sprintf("eu:%d", version(it.Version)+1)
	if !slices.Contains(ch.Items, id) {
		ch.Items = append(ch.Items, id)
	}
	return *it
}

// version is a version's or cursor's part of region eu.
func version(s string) uint64 {
	v, err := protocol.ParseVector(s)
	if err != nil {
		panic(err)
	}
	return v.Get("eu")
}

// looksMax is how many items a Scan looks at.
const looksMax = 300

func (l *ledger) Scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var after []int
	for id := range l.items {
		if key(&l.items[id]).Compare(q.After) > 0 {
			after = append(after, id)
		}
	}
	slices.SortFunc(after, func(x, y int) int { return key(&l.items[x]).Compare(key(&l.items[y])) })
	next = q.After
	for i, id := range after {
		k := key(&l.items[id])
		picked := q.Match(k) && l.changedAt[id] > q.Since.Get("eu")
		if i == looksMax || picked && len(items) == q.Limit {
			return items, next, true
		}
		if next = k; picked {
			items = append(items, l.items[id])
		}
	}
	return items, next, false
}

func key(it *protocol.Item) protocol.ItemKey {
	return protocol.ItemKey{SKU: it.SKU, Location: it.Location}
}

func (l *ledger) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, id := range ids {
		dst = append(dst, l.items[id])
	}
	return dst
}

func (l *ledger) all() map[string]protocol.Item {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := make(map[string]protocol.Item)
	for _, it := range l.items {
		m[it.SKU+"@"+it.Location] = it
	}
	return m
}

func (l *ledger) Watch(fn func(*protocol.Changes)) (stop func()) {
	l.round.Lock()
	defer l.round.Unlock()
	l.watched++
	n := l.watched
	l.watchers[n] = fn
	return func() {
		l.round.Lock()
		defer l.round.Unlock()
		delete(l.watchers, n)
	}
}

func (l *ledger) Cursor() protocol.Vector {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.seq == 0 {
		return nil
	}
	return protocol.Vector{{Region: "eu", N: l.seq}}
}
