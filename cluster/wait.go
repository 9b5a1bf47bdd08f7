package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/rights"
	"github.com/stockmesh/stockmesh/protocol"
)

// open begins a round: rights that other regions gave are taken, and commands that
// waited for them are decided again, each by decide.
func (t *trader) open(d *ledger.Draft, closing bool, decide func(waitingCall)) {
	now := t.config.elapsed()
	t.closing = closing
	letters := t.take()
	if t.isFrozen() {
		t.asks, letters = nil, nil
	} else {
		for _, key := range d.AcceptOwed(acceptsMax) {
			t.stir(key)
		}
	}
	for _, l := range letters {
		for _, a := range l.deal.Answers {
			t.answered(d, l.from, a, now)
		}
		for _, a := range l.deal.Asks {
			if len(t.asks) < asksKept { // whoever lacks units asks again
				t.asks = append(t.asks, request{l.from, a})
			}
		}
	}
	t.retry(d, now, decide)
}

func (t *trader) isFrozen() bool { return t.frozen != nil && t.frozen() }

// request is another region's ask.
type request struct {
	from string
	ask  rightsAsk
}

func (t *trader) answered(d *ledger.Draft, from string, a rightsAnswer, now int64) {
	key := protocol.ItemKey{SKU: a.SKU, Location: a.Location}
	if ledger.CheckKey(key) != nil {
		return
	}
	if a.Total > 0 {
		d.Accept(key, from, a.Total)
	}
	if a.Unasked {
		t.book.Told(key, from, a.Granted, a.Left, now)
	} else {
		t.book.Answered(key, from, a.Granted, a.Left, now)
	}
	t.stir(key)
}

func (t *trader) stir(key protocol.ItemKey) {
	if l := t.lots[key]; l != nil {
		l.stirred = true
	}
}

// retry decides waiting commands again whose item changed or whose time is up. Those
// that go on waiting keep their order.
func (t *trader) retry(d *ledger.Draft, now int64, decide func(waitingCall)) {
	for _, l := range slices.Clone(t.order) {
		if !t.closing && !l.stirred && d.Row(l.key).Version == l.tried && !l.overdue(now) && now < l.lookAt {
			continue
		}
		calls := l.calls
		l.calls, l.stirred, l.lookAt = nil, false, now+int64(lotLook)
		for _, w := range calls {
			t.release(l, w.call)
			decide(w)
		}
		l.tried = d.Row(l.key).Version
		if len(l.calls) == 0 {
			t.drop(l)
		}
	}
}

// lotLook is the time between two looks whether an ask of a lot got lost.
const lotLook = 100 * time.Millisecond

func (l *lot) overdue(now int64) bool {
	return slices.ContainsFunc(l.calls, func(w waitingCall) bool { return w.until <= now })
}

// due tells whether commands that wait can be decided now.
func (t *trader) due(now int64) bool {
	for _, l := range t.order {
		if l.stirred || l.overdue(now) || l.lookAt <= now || t.version(l.key) != l.tried {
			return true
		}
	}
	return t.hasNews() || t.state.Owed() && !t.isFrozen()
}

// hasNews tells whether other regions have said something that is not dealt with.
func (t *trader) hasNews() bool { return len(t.asks) > 0 || t.hasMail() }

func (t *trader) version(key protocol.ItemKey) uint64 {
	if id, ok := t.state.ID(key); ok {
		return t.state.Row(id).Version
	}
	return 0
}

// next is when to look after commands that wait, false if none does.
func (t *trader) next() (until int64, ok bool) {
	for _, l := range t.order {
		at := l.lookAt
		for i := range l.calls {
			at = min(at, l.calls[i].until)
		}
		if !ok || at < until {
			until, ok = at, true
		}
	}
	return until, ok
}

// behind tells whether a call must wait because one before it does: its sender's, on the
// same items, or anybody's with the same key, for what becomes of that key is open. Then
// it waits.
func (t *trader) behind(w waitingCall) bool {
	c := w.call
	if t.waiting[c.Sender] == 0 && t.keys[c.Command.Key] == 0 {
		return false
	}
	for _, l := range slices.Backward(t.order) {
		for i := range slices.Backward(l.calls) {
			before := l.calls[i].call
			sameSender := c.Sender != 0 && before.Sender == c.Sender && touchesSame(&before.Command, &c.Command)
			sameKey := c.Command.Key != "" && before.Command.Key == c.Command.Key
			if before.Turn < c.Turn && (sameSender || sameKey) {
				w.need, w.until = 0, max(w.until, l.calls[i].until)
				t.hold(l, w)
				return true
			}
		}
	}
	return false
}

// touchesSame tells whether two commands may concern the same item. A command that
// names no item may concern any.
func touchesSame(a, b *protocol.Command) bool {
	if !namesItems(a) || !namesItems(b) {
		return true
	}
	for _, key := range itemsOf(a) {
		if slices.Contains(itemsOf(b), key) {
			return true
		}
	}
	return false
}

func namesItems(c *protocol.Command) bool { return c.Op.IsWrite() && c.Reservation == "" }

func itemsOf(c *protocol.Command) (keys []protocol.ItemKey) {
	if c.Op == protocol.OpMove {
		return []protocol.ItemKey{{SKU: c.SKU, Location: c.From}, {SKU: c.SKU, Location: c.To}}
	}
	if len(c.Lines) == 0 {
		return []protocol.ItemKey{{SKU: c.SKU, Location: c.Location}}
	}
	for i := range c.Lines {
		keys = append(keys, protocol.ItemKey{SKU: c.Lines[i].SKU, Location: c.Lines[i].Location})
	}
	return keys
}

// lacks takes a call that was just refused for lack of units here: it waits if other
// regions may give some in time. Otherwise its refusal stands.
func (t *trader) lacks(w waitingCall) (waits bool) {
	c := w.call
	if c.Err == nil || c.Err.Code != protocol.CodeInsufficientStock || c.Err.Details == nil {
		return false
	}
	now := t.config.elapsed()
	lines := c.Err.Details.Lines
	if w.until == 0 {
		w.until = now + int64(t.config.Mesh.RightsTimeout)
		for i := range lines {
			t.book.Demand(keyOf(&lines[i]), lines[i].Requested, now)
		}
	}
	if now >= w.until || t.closing {
		return false
	}
	if t.hopeless(lines, now) {
		return false
	}
	w.need = lines[0].Requested
	forget(c)
	t.hold(t.lot(keyOf(&lines[0])), w)
	return true
}

func keyOf(s *protocol.Shortage) protocol.ItemKey {
	return protocol.ItemKey{SKU: s.SKU, Location: s.Location}
}

// hopeless asks for what lines lack, and tells whether some line will not get it.
func (t *trader) hopeless(lines []protocol.Shortage, now int64) bool {
	hopeless := false
	for i := range lines {
		s, key := &lines[i], keyOf(&lines[i])
		own := rights.Own{Free: s.Available, Missing: s.Requested - s.Available}
		all := own
		all.Missing += t.own(key, s.Available).Missing // of those that wait already
		t.want(key, all, now)
		hopeless = hopeless || t.book.Hopeless(key, own, t.peersOf(key), now)
	}
	return hopeless
}

func (t *trader) lot(key protocol.ItemKey) *lot {
	l := t.lots[key]
	if l == nil {
		l = &lot{key: key, tried: t.version(key), lookAt: t.config.elapsed() + int64(lotLook)}
		t.lots[key] = l
		t.order = append(t.order, l)
	}
	return l
}

func (t *trader) drop(l *lot) {
	delete(t.lots, l.key)
	t.order = slices.DeleteFunc(t.order, func(x *lot) bool { return x == l })
}

func (t *trader) hold(l *lot, w waitingCall) {
	l.calls = append(l.calls, w)
	if w.call.Sender != 0 {
		t.waiting[w.call.Sender]++
	}
	if w.call.Command.Key != "" {
		t.keys[w.call.Command.Key]++
	}
	t.keep(l, w.call, 1)
}

// keep notes what a command that waits for a lot's item counts on of other items.
func (t *trader) keep(l *lot, c *protocol.Call, sign int64) {
	for i := range c.Command.Lines {
		line := &c.Command.Lines[i]
		key := protocol.ItemKey{SKU: line.SKU, Location: line.Location}
		if key == l.key {
			continue
		}
		if t.kept[key] += sign * line.Quantity; t.kept[key] <= 0 {
			delete(t.kept, key)
		}
	}
}

// release takes a call out of the count of those that wait.
func (t *trader) release(l *lot, c *protocol.Call) {
	t.keep(l, c, -1)
	less(t.waiting, c.Sender)
	less(t.keys, c.Command.Key)
}

func less[K comparable](count map[K]int, k K) {
	if n := count[k]; n > 1 {
		count[k] = n - 1
	} else {
		delete(count, k)
	}
}

// own is what this region has of an item, and what its waiting commands lack.
func (t *trader) own(key protocol.ItemKey, free int64) rights.Own {
	own := rights.Own{Free: free, Kept: min(free, t.kept[key])}
	if l := t.lots[key]; l != nil {
		for i := range l.calls {
			own.Missing += l.calls[i].need
		}
		own.Missing = max(0, own.Missing-free)
	}
	return own
}

// abandon returns every call that waits: the term is over.
func (t *trader) abandon() (calls []*protocol.Call) {
	for _, l := range t.order {
		for i := range l.calls {
			calls = append(calls, l.calls[i].call)
		}
	}
	t.empty()
	slices.SortFunc(calls, byTurn)
	return calls
}

func byTurn(a, b *protocol.Call) int { return cmp.Compare(a.Turn, b.Turn) }

// takeDue removes waiting calls that must be answered by now, whatever becomes of the
// round.
func (t *trader) takeDue(now int64) (due []*protocol.Call) {
	for _, l := range t.order {
		l.calls = slices.DeleteFunc(l.calls, func(w waitingCall) bool {
			late := w.call.Due != 0 && w.call.Due <= now
			if late {
				due = append(due, w.call)
				t.release(l, w.call)
			}
			return late
		})
	}
	return due
}
