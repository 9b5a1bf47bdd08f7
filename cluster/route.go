package cluster

import (
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// castagnoli spreads SKUs over shards; the spread is part of a region's data.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// place returns the number of the shard that holds a SKU at every location.
func place(sku string, shards int) int {
	if shards == 1 {
		return 0
	}
	return int(crc32.Checksum([]byte(sku), castagnoli) % uint32(shards))
}

func (c *Cluster) shardOf(sku string) *shard { return c.shards[place(sku, len(c.shards))] }

// Item ids of several shards are interleaved, so that each is still small.

func (c *Cluster) global(shard int, id protocol.ItemID) protocol.ItemID {
	return id*protocol.ItemID(len(c.shards)) + protocol.ItemID(shard)
}

func (c *Cluster) local(id protocol.ItemID) (*shard, protocol.ItemID) {
	n := protocol.ItemID(len(c.shards))
	return c.shards[id%n], id / n
}

// shardsOf returns the shards that a command concerns, in order, each once.
func (c *Cluster) shardsOf(cmd *protocol.Command) []*shard {
	var numbers []int
	add := func(sku string) { numbers = append(numbers, place(sku, len(c.shards))) }
	switch {
	case cmd.Op == protocol.OpOutcome:
		return c.shards // the key does not say where it was used
	case cmd.Reservation != "":
		n, ok := ledger.ReservationShard(cmd.Reservation)
		if !ok || n >= len(c.shards) {
			n = 0 // which does not know it either
		}
		numbers = append(numbers, n)
	case len(cmd.Lines) > 0:
		for i := range cmd.Lines {
			add(cmd.Lines[i].SKU)
		}
	case len(cmd.SKUs) > 0:
		for _, sku := range cmd.SKUs {
			add(sku)
		}
	default:
		add(cmd.SKU)
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	list := make([]*shard, len(numbers))
	for i, n := range numbers {
		list[i] = c.shards[n]
	}
	return list
}

// route hands calls to the shards they concern, in order.
func (c *Cluster) route(calls []*protocol.Call) {
	waiting := make([][]*protocol.Call, len(c.shards))
	later := func(s *shard, call *protocol.Call) { waiting[s.n] = append(waiting[s.n], call) }
	for _, call := range calls {
		if c.orders.wait(call) {
			continue
		}
		if c.concernsSeveral(call) {
			c.flush(waiting) // what was sent before must be in its queue before
		}
		c.dispatch(call, later)
	}
	c.flush(waiting)
}

func (c *Cluster) flush(waiting [][]*protocol.Call) {
	for n, calls := range waiting {
		if len(calls) > 0 {
			c.shards[n].desk.put(calls...)
			waiting[n] = nil
		}
	}
}

// concernsSeveral tells whether a call goes to several shards' owners.
func (c *Cluster) concernsSeveral(call *protocol.Call) bool {
	return toOwner(call) && !c.isAbroad(call) && (len(c.shardsOf(&call.Command)) > 1 || c.endsOrder(call))
}

// endsOrder tells whether a call ends a reservation that has parts in other shards.
func (c *Cluster) endsOrder(call *protocol.Call) bool {
	switch call.Command.Op {
	case protocol.OpConfirm, protocol.OpRelease:
		return len(c.shardsOf(&call.Command)[0].replica.partsOf(call.Command.Reservation)) > 0
	}
	return false
}

// dispatch does one call: put takes what a single shard's owner does. It reports whether
// the call is an order, which holds its session until it is done.
func (c *Cluster) dispatch(call *protocol.Call, put func(*shard, *protocol.Call)) (holds bool) {
	if c.leaves(call) {
		return false
	}
	if !toOwner(call) {
		c.read(call)
		return false
	}
	targets, write := c.shardsOf(&call.Command), call.Command.Op.IsWrite()
	switch {
	case write && c.keyElsewhere(call.Command.Key, targets[0]):
		call.Fail(protocol.NewError(protocol.CodeKeyReused, "key %q was used for another command", call.Command.Key))
	case c.endsOrder(call):
		c.endOrder(call, targets[0])
		return true
	case len(targets) == 1:
		put(targets[0], call)
	case write:
		c.order(call, targets)
		return true
	case call.Command.Op == protocol.OpOutcome:
		c.askAll(call, targets)
	default:
		c.barrier(call, targets)
	}
	return false
}

// keyElsewhere tells whether a key was applied in another shard than the one that would
// remember it for this command: then it was another command. It looks at what this node
// has applied, so of two that are sent at the same moment with one key both may pass.
func (c *Cluster) keyElsewhere(key string, home *shard) bool {
	for _, s := range c.shards {
		if s != home && s.replica.knows(key) {
			return true
		}
	}
	return false
}

// askAll asks every shard for a key's outcome; at most one knows it.
func (c *Cluster) askAll(call *protocol.Call, targets []*shard) {
	left := atomic.Int32{}
	left.Store(int32(len(targets)))
	var mu sync.Mutex
	done := func(part *protocol.Call) {
		mu.Lock()
		if part.Err != nil && call.Err == nil {
			call.Err = part.Err
		} else if part.Err == nil && (part.Result.Known || call.Result.Kind != protocol.KindOutcome) {
			call.Result = part.Result
		}
		mu.Unlock()
		if left.Add(-1) > 0 {
			return
		}
		if call.Result.Known {
			call.Err = nil
		}
		call.Done(call)
	}
	for _, s := range targets {
		s.desk.put(&protocol.Call{Command: call.Command, Session: call.Session, Subject: call.Subject, Due: call.Due, Done: done})
	}
}

// barrier reads once the sender's commands before it are done in every shard.
func (c *Cluster) barrier(call *protocol.Call, targets []*shard) {
	left := atomic.Int32{}
	left.Store(int32(len(targets)))
	var failed atomic.Pointer[protocol.Error]
	done := func(part *protocol.Call) {
		if part.Err != nil {
			failed.Store(part.Err)
		}
		if left.Add(-1) > 0 {
			return
		}
		if err := failed.Load(); err != nil {
			call.Fail(err)
			return
		}
		c.read(call)
	}
	for _, s := range targets {
		// An outcome of no key waits for what was sent before and reads nothing.
		wait := protocol.Command{Op: protocol.OpOutcome, Key: call.Command.Key}
		s.desk.put(&protocol.Call{Command: wait, Session: call.Session, Due: call.Due, Done: done})
	}
}

// getMany is a get of SKUs in several shards: each answers for its own, the first that
// has the version asked for ends the waiting. The call is its submitter's again from the
// first end on, so nothing of it is used later.
func (c *Cluster) getMany(call *protocol.Call, targets []*shard) {
	var once sync.Once
	cmd, left := call.Command, new(atomic.Int32)
	left.Store(int32(len(targets)))
	finish := func(behind bool) {
		once.Do(func() {
			call.Result = protocol.Result{Kind: protocol.KindItems, Items: c.get(&cmd), Behind: behind}
			call.Done(call)
		})
	}
	for _, s := range targets {
		part := &protocol.Call{Command: cmd, Done: func(part *protocol.Call) {
			last := left.Add(-1) == 0
			if !part.Result.Behind || last {
				finish(part.Result.Behind)
			}
		}}
		part.Command.SKUs = slices.DeleteFunc(slices.Clone(cmd.SKUs), func(sku string) bool { return c.shardOf(sku) != s })
		s.replica.answerGet(part)
	}
}

// get reads items of any shards, in the order asked for.
func (c *Cluster) get(cmd *protocol.Command) (items []protocol.Item) {
	one := *cmd
	for _, sku := range cmd.SKUs {
		one.SKUs = []string{sku}
		items = append(items, c.shardOf(sku).replica.get(&one)...)
	}
	return items
}

// scanAll merges the shards' pages.
func (c *Cluster) scanAll(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	for _, s := range c.shards {
		part, upTo, left := s.replica.scan(s.query(q))
		items = append(items, part...)
		if left && (!more || upTo.Compare(next) < 0) {
			next, more = upTo, true // beyond it, this shard has not been looked at
		}
	}
	slices.SortFunc(items, func(a, b protocol.Item) int { return a.Key().Compare(b.Key()) })
	if more {
		items = slices.DeleteFunc(items, func(it protocol.Item) bool { return it.Key().Compare(next) > 0 })
	}
	if len(items) > q.Limit {
		items = items[:q.Limit:q.Limit]
		next, more = q.After, true
		if q.Limit > 0 {
			next = items[q.Limit-1].Key()
		}
	}
	return items, next, more
}

// query is q as the shard's ledger sees it. A cursor that another node gave may be
// ahead of this one: what lies between is pushed as it comes.
func (s *shard) query(q *protocol.Query) *protocol.Query {
	if q.Since == nil {
		return q
	}
	since := q.Since.Get(ledger.Component(s.config.Region, s.n))
	if have := s.replica.seq(); since > have && since <= s.desk.target() {
		since = have
	}
	own := *q
	own.Since = q.Since.With(s.config.Region, since)
	if s.reached != nil {
		for i, c := range own.Since {
			if c.Region != s.config.Region && c.N > s.reached(c.Region) {
				own.Since[i].N = 0 // of a log that is not this one, as after the region was made anew
			}
		}
	}
	return &own
}

// watchAll makes one stream of changes of the shards': one at a time, each with a
// cursor over all of them.
func (c *Cluster) watchAll(fn func(*protocol.Changes)) (stop func()) {
	var mu sync.Mutex
	cursor := c.Cursor()
	stops := make([]func(), len(c.shards))
	for i, s := range c.shards {
		name := ledger.Component(c.config.Region, i)
		stops[i] = s.replica.watch(func(ch *protocol.Changes) {
			all := protocol.Changes{Items: make([]protocol.ItemID, len(ch.Items)), Reservations: ch.Reservations}
			for n, id := range ch.Items {
				all.Items[n] = c.global(i, id)
			}
			mu.Lock()
			defer mu.Unlock()
			if seq := ch.Cursor[0].N; seq > cursor.Get(name) {
				cursor = cursor.With(name, seq)
			}
			all.Cursor = cursor
			fn(&all)
		})
	}
	if c.mesh != nil {
		stops = append(stops, c.mesh.watch(func(component string, n uint64) {
			mu.Lock()
			defer mu.Unlock()
			if n > cursor.Get(component) {
				cursor = cursor.With(component, n)
				fn(&protocol.Changes{Cursor: cursor})
			}
		}))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}
