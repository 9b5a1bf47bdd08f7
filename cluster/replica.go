package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// replica is the state of a shard as committed, read by everybody and changed by
// apply alone.
//
// Lock order: waitersMu, mu.
type replica struct {
	mu    sync.RWMutex
	state *ledger.State

	watchersMu sync.Mutex
	watchers   atomic.Pointer[[]*watcher]
	waitersMu  sync.Mutex
	waiters    map[*waiter]struct{} // gets that want a newer version
	bySKU      map[string]map[*waiter]struct{}
}

type watcher struct{ fn func(*protocol.Changes) }

func newReplica(s *ledger.State) *replica {
	r := &replica{state: s, waiters: make(map[*waiter]struct{}), bySKU: make(map[string]map[*waiter]struct{})}
	r.watchers.Store(new([]*watcher))
	return r
}

// apply makes a committed round part of the state and tells the watchers, in this
// order, so that whoever hears of a change can read it.
func (r *replica) apply(round *ledger.Round, seq uint64) (*protocol.Changes, error) {
	r.mu.Lock()
	changes, err := r.state.Apply(round, seq)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, w := range *r.watchers.Load() {
		w.fn(&changes)
	}
	r.wakeWaiters(changes.Items)
	return &changes, nil
}

// learn shows rows of another region, after forgetting all that was known of it where
// told to. It reports whether rights that were given are still to be taken.
func (r *replica) learn(region string, forget bool, rows []ledger.PeerRow, bad func(error)) (owed bool) {
	r.mu.Lock()
	var changes protocol.Changes
	if forget {
		changes.Items = r.state.Forget(region)
	}
	for i := range rows {
		id, changed, err := r.state.Learn(&rows[i])
		if err != nil {
			bad(err)
		} else if changed {
			changes.Items = append(changes.Items, id)
		}
	}
	changes.Cursor = protocol.Vector{{Region: r.state.Region()}} // of the own log it tells nothing
	owed = r.state.Owed()
	r.mu.Unlock()
	if len(changes.Items) == 0 {
		return owed
	}
	for _, w := range *r.watchers.Load() {
		w.fn(&changes)
	}
	r.wakeWaiters(changes.Items)
	return owed
}

// shows tells whether an item is shown at least as new.
func (r *replica) shows(key protocol.ItemKey, want protocol.Vector) bool {
	have, err := protocol.ParseVector(r.item(key).Version)
	return err == nil && have.AtLeast(want)
}

// watch adds a watcher; stop removes it, after which fn is called at most once
// more, by an apply under way.
func (r *replica) watch(fn func(*protocol.Changes)) (stop func()) {
	w := &watcher{fn}
	r.changeWatchers(func(list []*watcher) []*watcher { return append(list, w) })
	return func() {
		r.changeWatchers(func(list []*watcher) []*watcher {
			kept := list[:0]
			for _, x := range list {
				if x != w {
					kept = append(kept, x)
				}
			}
			return kept
		})
	}
}

func (r *replica) changeWatchers(change func([]*watcher) []*watcher) {
	r.watchersMu.Lock()
	defer r.watchersMu.Unlock()
	list := change(append([]*watcher(nil), *r.watchers.Load()...))
	r.watchers.Store(&list)
}

// seq is the log sequence that the replica shows.
func (r *replica) seq() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Seq()
}

// knows tells whether a key was applied and is remembered.
func (r *replica) knows(key string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, known := r.state.Outcome(key)
	return known
}

// snapshot writes the state through emit, slice by slice. The lock is given back while
// a slice is being written, so commits go on.
func (r *replica) snapshot(emit func(slice []byte) error) (seq uint64, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Snapshot(func(slice []byte) error {
		r.mu.RUnlock()
		defer r.mu.RLock()
		return emit(slice)
	})
}

// order tells what is known of an order that this shard decides.
func (r *replica) order(id string) ledger.OrderState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Order(id)
}

// parts lists parts of orders that other shards decide, the oldest first, from the one
// behind after on.
func (r *replica) parts(after ledger.Part, limit int) []ledger.Part {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.PartsAfter(nil, after, limit)
}

// partsOf lists the parts, in other shards, of a reservation of this one.
func (r *replica) partsOf(reservation string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.PartsOf(reservation)
}

func (r *replica) item(key protocol.ItemKey) protocol.Item {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.ItemAt(key)
}

func (r *replica) epoch() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Epoch()
}

func (r *replica) cursor() protocol.Vector {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return protocol.Vector{{Region: r.state.Region(), N: r.state.Seq()}}
}

// changedSince returns the items that changed after a round, how many items there are,
// and the round the replica shows.
func (r *replica) changedSince(seq uint64) (ids []protocol.ItemID, known int, now uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known, _, _ = r.state.Sizes()
	if r.state.Seq() > seq {
		ids = r.state.Changed(seq)
	}
	return ids, known, r.state.Seq()
}

func (r *replica) items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, id := range ids {
		dst = append(dst, r.state.Item(id))
	}
	return dst
}

// scan reads a page; see ledger.State.Scan.
func (r *replica) scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids, next, more := r.state.Scan(q)
	for _, id := range ids {
		items = append(items, r.state.Item(id))
	}
	return items, next, more
}

// get answers a get of what exists now; SKUs unknown at a named location, or
// anywhere, read as zero.
func (r *replica) get(c *protocol.Command) []protocol.Item {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var items []protocol.Item
	for _, sku := range c.SKUs {
		if len(c.Locations) > 0 {
			for _, loc := range c.Locations {
				items = append(items, r.state.ItemAt(protocol.ItemKey{SKU: sku, Location: loc}))
			}
			continue
		}
		q := protocol.Query{Selector: protocol.Selector{SKUs: []string{sku}}, Limit: protocol.PageMax}
		ids, _, _ := r.state.Scan(&q)
		for _, id := range ids {
			items = append(items, r.state.Item(id))
		}
		if len(ids) == 0 {
			items = append(items, r.state.ItemAt(protocol.ItemKey{SKU: sku, Location: protocol.DefaultLocation}))
		}
	}
	return items
}

// waitersMax and waiterItemsMax bound the work that waiting gets add to a commit. A
// get that asks for more items, or comes on top of so many, is answered at once with
// what there is.
const (
	waitersMax     = 1024
	waiterItemsMax = 64
)

// waiter is a get that waits until an item has reached a version.
type waiter struct {
	call  *protocol.Call
	want  protocol.Vector
	timer *time.Timer
}

// answerGet answers a get at once, or within the wait limit where the version it
// asks for has not arrived.
func (r *replica) answerGet(call *protocol.Call) {
	want, err := protocol.ParseVector(call.Command.AtLeast)
	if err != nil {
		call.Fail(protocol.BadRequest("at_least: %v", err))
		return
	}
	w := &waiter{call: call, want: want}
	if r.satisfy(w) {
		call.Done(call)
		return
	}
	items := len(call.Command.SKUs) * max(1, len(call.Command.Locations))
	r.waitersMu.Lock()
	if len(r.waiters) >= waitersMax || items > waiterItemsMax {
		r.waitersMu.Unlock()
		call.Result.Behind = true
		call.Done(call)
		return
	}
	w.timer = time.AfterFunc(protocol.AtLeastWaitMS*time.Millisecond, func() { r.giveUp(w) })
	r.enter(w)
	// The version may have come between the look and the entry.
	done := r.satisfy(w) && r.leave(w)
	r.waitersMu.Unlock()
	if done {
		call.Done(call)
	}
}

// enter and leave keep the index by SKU; waitersMu is held.
func (r *replica) enter(w *waiter) {
	r.waiters[w] = struct{}{}
	for _, sku := range w.call.Command.SKUs {
		if r.bySKU[sku] == nil {
			r.bySKU[sku] = make(map[*waiter]struct{})
		}
		r.bySKU[sku][w] = struct{}{}
	}
}

// leave reports whether the waiter was still waiting.
func (r *replica) leave(w *waiter) bool {
	if _, ok := r.waiters[w]; !ok {
		return false
	}
	delete(r.waiters, w)
	w.timer.Stop()
	for _, sku := range w.call.Command.SKUs {
		if delete(r.bySKU[sku], w); len(r.bySKU[sku]) == 0 {
			delete(r.bySKU, sku)
		}
	}
	return true
}

// satisfy fills in the answer and reports whether one of the items has reached
// the version: it names one item's state, the others have versions of their own.
func (r *replica) satisfy(w *waiter) bool {
	items := r.get(&w.call.Command)
	w.call.Result = protocol.Result{Kind: protocol.KindItems, Items: items}
	if len(w.want) == 0 {
		return true
	}
	for i := range items {
		if have, err := protocol.ParseVector(items[i].Version); err == nil && have.AtLeast(w.want) {
			return true
		}
	}
	return false
}

// wakeWaiters answers the gets that changed items have satisfied.
func (r *replica) wakeWaiters(changed []protocol.ItemID) {
	r.waitersMu.Lock()
	var done []*waiter
	if len(r.waiters) > 0 {
		for _, sku := range r.skus(changed) {
			for w := range r.bySKU[sku] {
				if r.satisfy(w) {
					r.leave(w)
					done = append(done, w)
				}
			}
		}
	}
	r.waitersMu.Unlock()
	for _, w := range done {
		w.call.Done(w.call)
	}
}

func (r *replica) skus(ids []protocol.ItemID) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	skus := make([]string, len(ids))
	for i, id := range ids {
		skus[i] = r.state.Key(id).SKU
	}
	return skus
}

func (r *replica) giveUp(w *waiter) {
	r.waitersMu.Lock()
	mine := r.leave(w)
	r.waitersMu.Unlock()
	if mine {
		w.call.Result.Behind = !r.satisfy(w)
		w.call.Done(w.call)
	}
}

// dismissWaiters answers every get that still waits.
func (r *replica) dismissWaiters() {
	r.waitersMu.Lock()
	waiting := make([]*waiter, 0, len(r.waiters))
	for w := range r.waiters {
		waiting = append(waiting, w)
	}
	r.waitersMu.Unlock()
	for _, w := range waiting {
		r.giveUp(w)
	}
}
