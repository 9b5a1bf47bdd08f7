package api

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/stockmesh/stockmesh/protocol"
)

// fakeLedger is a whole ledger of one region, eu, that decides at once. Its clock
// stands still.
type fakeLedger struct {
	mu           sync.Mutex
	items        []protocol.Item // by ItemID
	limits       []limits
	changedAt    []uint64
	ids          map[protocol.ItemKey]protocol.ItemID
	log          uint64
	kept         map[string]kept
	reservations map[string]*protocol.Reservation
	movements    []protocol.Movement
	watchers     map[int]func(*protocol.Changes)
	watched      int

	// intercept, if set, takes calls that it returns true for.
	intercept func(*protocol.Call) bool
	// scanMax, if set, is how many items a Scan looks at; scans counts them.
	scanMax, scans int
	// scanned, if set, runs after each Scan, before its answer is used.
	scanned func()
}

type limits struct{ safety, backorder, low int64 }

type kept struct {
	body   []byte
	result protocol.Result
}

const now = protocol.Time(1_700_000_000_000)

func newFakeLedger() *fakeLedger {
	return &fakeLedger{
		ids:          make(map[protocol.ItemKey]protocol.ItemID),
		kept:         make(map[string]kept),
		reservations: make(map[string]*protocol.Reservation),
		watchers:     make(map[int]func(*protocol.Changes)),
	}
}

func (l *fakeLedger) Submit(calls []*protocol.Call) {
	for _, c := range calls {
		if l.intercept != nil && l.intercept(c) {
			continue
		}
		l.mu.Lock()
		l.execute(c)
		l.mu.Unlock()
		c.Done(c)
	}
}

func (l *fakeLedger) execute(c *protocol.Call) {
	if !c.Command.Op.IsWrite() {
		c.Result, c.Err = l.readOp(&c.Command)
		return
	}
	body := c.Command.AppendBody(nil)
	if k, ok := l.kept[c.Command.Key]; ok {
		if !bytes.Equal(k.body, body) {
			c.Err = protocol.NewError(protocol.CodeKeyReused, "the key was used for another command")
			return
		}
		c.Result, c.Replayed = k.result, true
		return
	}
	changes, before := &protocol.Changes{}, len(l.movements)
	if c.Result, c.Err = l.writeOp(&c.Command, changes); c.Err != nil {
		return
	}
	for i := range l.movements[before:] {
		l.movements[before+i].Subject, l.movements[before+i].Address = c.Subject, c.Address
	}
	l.kept[c.Command.Key] = kept{body, c.Result}
	l.commit(changes)
}

func (l *fakeLedger) commit(ch *protocol.Changes) {
	slices.Sort(ch.Items)
	ch.Items = slices.Compact(ch.Items)
	ch.Cursor = l.cursor()
	for _, fn := range l.watchers {
		fn(ch)
	}
}

func (l *fakeLedger) readOp(c *protocol.Command) (protocol.Result, *protocol.Error) {
	switch c.Op {
	case protocol.OpGet:
		return l.get(c), nil
	case protocol.OpReservation:
		r, ok := l.reservations[c.Reservation]
		if !ok || !c.Within.Covers(r.User, r.Lines) {
			return protocol.Result{}, protocol.NewError(protocol.CodeNotFound, "no such reservation")
		}
		return reserved(r), nil
	case protocol.OpHistory:
		return l.history(c), nil
	case protocol.OpOutcome:
		k, ok := l.kept[c.Key]
		if !ok {
			return protocol.Result{Kind: protocol.KindOutcome}, nil
		}
		return protocol.Result{Kind: protocol.KindOutcome, Known: true, Outcome: &k.result}, nil
	}
	panic("not a command of the ledger: " + string(c.Op))
}

func (l *fakeLedger) get(c *protocol.Command) protocol.Result {
	res := protocol.Result{Kind: protocol.KindItems}
	atLeast, _ := protocol.ParseVector(c.AtLeast)
	for _, sku := range c.SKUs {
		locations := c.Locations
		if len(locations) == 0 {
			locations = l.locationsOf(sku)
		}
		for _, location := range locations {
			it := protocol.Item{SKU: sku, Location: location}
			if id, ok := l.ids[it.Key()]; ok {
				it = l.items[id]
			}
			v, _ := protocol.ParseVector(it.Version)
			res.Behind = res.Behind || !v.AtLeast(atLeast)
			res.Items = append(res.Items, it)
		}
	}
	return res
}

func (l *fakeLedger) locationsOf(sku string) []string {
	var out []string
	for k := range l.ids {
		if k.SKU == sku {
			out = append(out, k.Location)
		}
	}
	if out == nil {
		return []string{protocol.DefaultLocation}
	}
	slices.Sort(out)
	return out
}

func (l *fakeLedger) history(c *protocol.Command) protocol.Result {
	res := protocol.Result{Kind: protocol.KindMovements}
	for _, m := range slices.Backward(l.movements) {
		if m.SKU != c.SKU || m.Location != c.Location || c.Before != "" && m.Sequence >= c.Before {
			continue
		}
		if len(res.Movements) == c.Limit {
			res.Next = res.Movements[c.Limit-1].Sequence
			break
		}
		res.Movements = append(res.Movements, m)
	}
	return res
}

func (l *fakeLedger) writeOp(c *protocol.Command, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	main := protocol.ItemKey{SKU: c.SKU, Location: c.Location}
	switch c.Op {
	case protocol.OpAdjust:
		return l.change(c, ch, main, c.Delta)
	case protocol.OpCount:
		return l.change(c, ch, main, *c.OnHand-l.state(main).OnHand)
	case protocol.OpConfigure:
		lim := &l.limits[l.id(main)]
		for _, f := range [...]struct{ to, from *int64 }{
			{&lim.safety, c.SafetyStock}, {&lim.backorder, c.BackorderLimit}, {&lim.low, c.LowStock}} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		return l.change(c, ch, main, 0)
	case protocol.OpSell:
		return l.take(c, ch)
	case protocol.OpMove:
		from, to := protocol.ItemKey{SKU: c.SKU, Location: c.From}, protocol.ItemKey{SKU: c.SKU, Location: c.To}
		if err := l.short([]protocol.Line{{SKU: c.SKU, Location: c.From, Quantity: c.Quantity}}); err != nil {
			return protocol.Result{}, err
		}
		x, y := l.bump(c, ch, from, -c.Quantity, 0), l.bump(c, ch, to, c.Quantity, 0)
		return protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{x, y}}, nil
	case protocol.OpReserve:
		return l.reserve(c, ch)
	}
	return l.endReservation(c, ch)
}

func (l *fakeLedger) change(c *protocol.Command, ch *protocol.Changes, k protocol.ItemKey, delta int64) (protocol.Result, *protocol.Error) {
	it := l.state(k)
	if c.IfVersion != nil && *c.IfVersion != it.Version {
		e := protocol.NewError(protocol.CodeVersionConflict, "the item has changed")
		e.Details = &protocol.Details{Item: &it}
		return protocol.Result{}, e
	}
	if it.OnHand+delta < it.Reserved {
		return protocol.Result{}, l.short([]protocol.Line{{SKU: k.SKU, Location: k.Location, Quantity: -delta}})
	}
	return protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{l.bump(c, ch, k, delta, 0)}}, nil
}

func (l *fakeLedger) take(c *protocol.Command, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	if err := l.short(c.Lines); err != nil {
		return protocol.Result{}, err
	}
	res := protocol.Result{Kind: protocol.KindItems}
	for _, line := range c.Lines {
		res.Items = append(res.Items, l.bump(c, ch, protocol.ItemKey{SKU: line.SKU, Location: line.Location}, -line.Quantity, 0))
	}
	return res, nil
}

func (l *fakeLedger) short(lines []protocol.Line) *protocol.Error {
	e := protocol.NewError(protocol.CodeInsufficientStock, "not enough stock")
	e.Details = &protocol.Details{}
	for _, line := range lines {
		it := l.state(protocol.ItemKey{SKU: line.SKU, Location: line.Location})
		if it.Available < line.Quantity {
			e.Details.Lines = append(e.Details.Lines, protocol.Shortage{
				SKU: line.SKU, Location: line.Location, Requested: line.Quantity, Available: it.Available})
		}
	}
	if len(e.Details.Lines) == 0 {
		return nil
	}
	return e
}

func (l *fakeLedger) reserve(c *protocol.Command, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	if err := l.short(c.Lines); err != nil {
		return protocol.Result{}, err
	}
	r := &protocol.Reservation{
		ID: fmt.Sprintf("eu.%d", len(l.reservations)+1), State: protocol.Held,
		ExpiresAt: now + protocol.Time(*c.TTLMS), Lines: c.Lines, User: c.User,
	}
	l.reservations[r.ID] = r
	for _, line := range c.Lines {
		l.bump(c, ch, protocol.ItemKey{SKU: line.SKU, Location: line.Location}, 0, line.Quantity)
	}
	return reserved(r), nil
}

func (l *fakeLedger) endReservation(c *protocol.Command, ch *protocol.Changes) (protocol.Result, *protocol.Error) {
	r, ok := l.reservations[c.Reservation]
	if !ok || !c.Within.Covers(r.User, r.Lines) {
		return protocol.Result{}, protocol.NewError(protocol.CodeNotFound, "no such reservation")
	}
	if r.State != protocol.Held {
		e := protocol.NewError(protocol.CodeReservationEnded, "the reservation is %s", r.State)
		e.Details = &protocol.Details{State: r.State}
		return protocol.Result{}, e
	}
	if c.Op == protocol.OpExtend {
		r.ExpiresAt = max(r.ExpiresAt, now+protocol.Time(*c.TTLMS))
		return reserved(r), nil
	}
	sold := int64(0)
	r.State = protocol.Released
	if c.Op == protocol.OpConfirm {
		r.State, sold = protocol.Confirmed, 1
	}
	for _, line := range r.Lines {
		l.bump(c, ch, protocol.ItemKey{SKU: line.SKU, Location: line.Location}, -sold*line.Quantity, -line.Quantity)
	}
	return reserved(r), nil
}

func reserved(r *protocol.Reservation) protocol.Result {
	c := *r
	return protocol.Result{Kind: protocol.KindReservation, Reservation: &c}
}

func (l *fakeLedger) state(k protocol.ItemKey) protocol.Item {
	if id, ok := l.ids[k]; ok {
		return l.items[id]
	}
	return protocol.Item{SKU: k.SKU, Location: k.Location}
}

func (l *fakeLedger) id(k protocol.ItemKey) protocol.ItemID {
	id, ok := l.ids[k]
	if !ok {
		id = protocol.ItemID(len(l.items))
		l.ids[k] = id
		l.items = append(l.items, protocol.Item{SKU: k.SKU, Location: k.Location})
		l.limits = append(l.limits, limits{low: -1})
		l.changedAt = append(l.changedAt, 0)
	}
	return id
}

// bump changes one item, giving it its next version.
func (l *fakeLedger) bump(c *protocol.Command, ch *protocol.Changes, k protocol.ItemKey, onHand, held int64) protocol.Item {
	id := l.id(k)
	it, lim := &l.items[id], &l.limits[id]
	l.log++
	l.changedAt[id] = l.log
	it.OnHand += onHand
	it.Reserved += held
	it.Available = max(0, it.OnHand-it.Reserved-lim.safety+lim.backorder)
	it.Low = it.Available <= lim.low
	v, _ := protocol.ParseVector(it.Version)
	it.Version = v.With("eu", v.Get("eu")+1).String()
	it.UpdatedAt = now
	l.movements = append(l.movements, protocol.Movement{
		Sequence: fmt.Sprintf("eu.0.%06d.0", l.log), At: now, Region: "eu", Type: string(c.Op), SKU: k.SKU, Location: k.Location,
		OnHandDelta: onHand, ReservedDelta: held, OnHand: it.OnHand, Reserved: it.Reserved,
		Key: c.Key, Reservation: c.Reservation, Reason: c.Reason, Reference: c.Reference,
	})
	ch.Items = append(ch.Items, id)
	return *it
}

// looksMax is how many items a Scan looks at where nothing is set.
const looksMax = 1500

func (l *fakeLedger) Scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	items, next, more = l.look(q)
	if l.scanned != nil {
		l.scanned()
	}
	return items, next, more
}

func (l *fakeLedger) look(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scans++
	looks := cmp.Or(l.scanMax, looksMax)
	var after []int
	for id, it := range l.items {
		if it.Key().Compare(q.After) > 0 {
			after = append(after, id)
		}
	}
	slices.SortFunc(after, func(x, y int) int { return l.items[x].Key().Compare(l.items[y].Key()) })
	next = q.After
	for i, id := range after {
		it := l.items[id]
		picked := q.Match(it.Key()) && l.changedAt[id] > q.Since.Get("eu")
		if i == looks || picked && len(items) == q.Limit {
			return items, next, true
		}
		if next = it.Key(); picked {
			items = append(items, it)
		}
	}
	return items, next, false
}

func (l *fakeLedger) Watch(fn func(*protocol.Changes)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched++
	n := l.watched
	l.watchers[n] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, n)
	}
}

func (l *fakeLedger) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		dst = append(dst, l.items[id])
	}
	return dst
}

func (l *fakeLedger) Cursor() protocol.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor()
}

func (l *fakeLedger) cursor() protocol.Vector {
	if l.log == 0 {
		return nil
	}
	return protocol.Vector{{Region: "eu", N: l.log}}
}

func (l *fakeLedger) Mesh() protocol.Mesh {
	return protocol.Mesh{Region: "eu", Node: "eu-1", Regions: []protocol.MeshRegion{{
		Name: "eu", State: "serving", HeardAt: now, Nodes: []protocol.MeshNode{{
			Name: "eu-1", Endpoint: "ws://127.0.0.1:8080/v1/ws", State: "serving", OwnerOf: []int{0}, Connections: 12}}}}}
}
