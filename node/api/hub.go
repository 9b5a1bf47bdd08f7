package api

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// hub tells followers which items have changed. One goroutine does the matching,
// so that the ledger's goroutine only notes ids, however many streams are open.
//
// No lock is taken while another one is held.
type hub struct {
	ledger Ledger
	guests *guests
	crew   *crew
	quit   chan struct{} // closed by close
	wake   chan struct{} // holds one token while ids are pending
	stop   func()        // ends the ledger's Watch
	once   sync.Once

	running sync.WaitGroup

	count atomic.Int64 // of followers

	pendingMu sync.Mutex
	pending   map[protocol.ItemID]struct{}
	cursor    protocol.Vector

	// Held for writing by who joins or leaves, and while ids are handed out, for reading
	// by a follower's owner that takes its own.
	members sync.RWMutex
	bySKU   map[string]map[*follower]struct{}
	wide    map[*follower]struct{} // prefixes, all, or locations alone
	passed  protocol.Vector        // all changes up to here are with the followers; never changed, only replaced
}

func newHub(l Ledger, gs *guests, c *crew) *hub {
	h := &hub{
		ledger:  l,
		guests:  gs,
		crew:    c,
		quit:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		pending: make(map[protocol.ItemID]struct{}),
		bySKU:   make(map[string]map[*follower]struct{}),
		wide:    make(map[*follower]struct{}),
	}
	h.stop = l.Watch(h.note)
	h.running.Go(h.run)
	h.running.Go(h.keepTime)
	return h
}

func (h *hub) close() {
	h.once.Do(func() {
		h.stop()
		close(h.quit)
	})
	h.running.Wait()
	h.crew.close()
}

// note runs on the ledger's goroutine. Without followers it keeps nothing: one
// that joins later reads the state after this change anyway.
func (h *hub) note(ch *protocol.Changes) {
	if h.count.Load() == 0 {
		return
	}
	h.pendingMu.Lock()
	for _, id := range ch.Items {
		h.pending[id] = struct{}{}
	}
	h.cursor = append(h.cursor[:0], ch.Cursor...)
	h.pendingMu.Unlock()
	nudge(h.wake)
}

func (h *hub) run() {
	var ids []protocol.ItemID
	var items []protocol.Item
	var found []*follower
	for {
		select {
		case <-h.quit:
			return
		case <-h.guests.tick:
			h.guests.recheck()
			continue
		case now := <-h.crew.looks.C:
			h.look(now)
			continue
		case <-h.wake:
		}
		var cursor protocol.Vector
		ids, cursor = h.takePending(ids[:0])
		items = h.ledger.Items(items[:0], ids)
		found = h.hand(found[:0], ids, items, cursor)
		for _, f := range found {
			f.owner.wake()
		}
		clear(found)
	}
}

// keepTime sees to heartbeats, and to readers that hang up. With many of them either takes
// a while, in which changes have to be handed on.
func (h *hub) keepTime() {
	var listen []*stream
	for {
		select {
		case <-h.quit:
			return
		case now := <-h.crew.beats.C:
			listen = h.crew.beat(now, listen[:0])
			for _, s := range listen {
				if hangsUp(s.conn) {
					h.crew.try(s)
				}
			}
			clear(listen)
		}
	}
}

// look wakes the streams for which this node has caught up, or not in time.
func (h *hub) look(now time.Time) {
	cursor := h.ledger.Cursor()
	h.crew.look(func(s *stream) bool { return !now.Before(s.sinceBy) || protocol.Reaches(cursor, s.since) })
}

// takePending holds the lock for as long as it takes to change maps: the ledger's
// goroutine may be waiting for it.
func (h *hub) takePending(ids []protocol.ItemID) ([]protocol.ItemID, protocol.Vector) {
	h.pendingMu.Lock()
	pending, cursor := h.pending, slices.Clone(h.cursor)
	h.pending = make(map[protocol.ItemID]struct{})
	h.pendingMu.Unlock()
	for id := range pending {
		ids = append(ids, id)
	}
	return ids, cursor
}

// hand gives each id to the followers that picked its item. Only the item's name
// counts here: its state is read when the follower's reader is ready for it. It appends
// the followers that have ids now and had none. While a part is handed out nobody takes
// ids, or what is then sent would carry the cursor before, as it does where there are more
// parts than one: that one is right, too, and a heartbeat later it is the newest.
func (h *hub) hand(found []*follower, ids []protocol.ItemID, items []protocol.Item, upTo protocol.Vector) []*follower {
	for {
		n := min(len(ids), handMax)
		found = h.handPart(found, ids[:n], items[:n], n == len(ids), upTo)
		if ids, items = ids[n:], items[n:]; len(ids) == 0 {
			return found
		}
	}
}

// handMax is how many ids are handed out at a time.
const handMax = 64

func (h *hub) handPart(found []*follower, ids []protocol.ItemID, items []protocol.Item, last bool, upTo protocol.Vector) []*follower {
	h.members.Lock()
	defer h.members.Unlock()
	if last {
		h.passed = upTo
	}
	for i, id := range ids {
		k := items[i].Key()
		for _, set := range [...]map[*follower]struct{}{h.bySKU[k.SKU], h.wide} {
			for f := range set {
				if f.offer(k, id) {
					found = append(found, f)
				}
			}
		}
	}
	return found
}

// take returns what is pending for a follower, in order of id and each once, in the room
// given. When it has been sent, all has been that the vector covers. For the follower's
// owner alone.
func (h *hub) take(f *follower, room []protocol.ItemID) ([]protocol.ItemID, protocol.Vector) {
	h.members.RLock()
	ids := f.take(room[:0])
	upTo := h.passed
	h.members.RUnlock()
	slices.Sort(ids)
	return slices.Compact(ids), upTo
}

// follow begins to collect changes of what s picks and access sees for an owner, who
// must leave again.
func (h *hub) follow(o owner, s protocol.Selector, access *protocol.Access) *follower {
	f := &follower{owner: o, pick: s, access: access, seesAll: access.SeesAll()}
	h.members.Lock()
	defer h.members.Unlock()
	h.count.Add(1)
	if f.isWide() {
		h.wide[f] = struct{}{}
		return f
	}
	for _, sku := range s.SKUs {
		if h.bySKU[sku] == nil {
			h.bySKU[sku] = make(map[*follower]struct{})
		}
		h.bySKU[sku][f] = struct{}{}
	}
	return f
}

func (h *hub) leave(f *follower) {
	h.members.Lock()
	defer h.members.Unlock()
	h.count.Add(-1)
	delete(h.wide, f)
	for _, sku := range f.pick.SKUs {
		delete(h.bySKU[sku], f)
		if len(h.bySKU[sku]) == 0 {
			delete(h.bySKU, sku)
		}
	}
}

// nudge leaves a token for the receiver unless one is waiting already.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
