package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// model is the ledger as a reader of the contract would write it down without a
// thought for logs: plain maps, changed by differences, one command at a time.
type model struct {
	region       string
	items        map[protocol.ItemKey]modelItem
	reservations map[string]modelReservation
	keys         map[string]modelAnswer

	generation  int // of what is decided now
	remembered  int // the oldest generation still remembered
	rotatedAt   protocol.Time
	everRotated bool
}

type modelItem struct {
	units, held            int64
	given, taken           int64 // rights to and from the one peer
	safety, backorder, low int64
	version                uint64
	at                     protocol.Time
}

type modelReservation struct {
	protocol.Reservation
	ended int // generation in which it ended
}

type modelAnswer struct {
	body, answer string
	generation   int
}

func newModel(region string) *model {
	return &model{
		region: region, items: make(map[protocol.ItemKey]modelItem),
		reservations: make(map[string]modelReservation), keys: make(map[string]modelAnswer),
	}
}

func (m *model) clone() *model {
	c := *m
	c.items, c.reservations, c.keys = maps.Clone(m.items), maps.Clone(m.reservations), maps.Clone(m.keys)
	return &c
}

// committed forgets what the round's rotation, if it had one, made old.
func (m *model) committed() {
	m.remembered = m.generation - 1
	maps.DeleteFunc(m.keys, func(_ string, a modelAnswer) bool { return a.generation < m.remembered })
	maps.DeleteFunc(m.reservations, func(_ string, r modelReservation) bool {
		return r.State != protocol.Held && r.ended < m.remembered
	})
}

func (m *model) rotate(now protocol.Time, window int64) bool {
	if m.everRotated && int64(now-m.rotatedAt) < window {
		return false
	}
	m.generation++
	m.rotatedAt, m.everRotated = now, true
	return true
}

func (m *model) item(key protocol.ItemKey) modelItem {
	if it, ok := m.items[key]; ok {
		return it
	}
	return modelItem{low: -1}
}

func (it modelItem) share() int64 { return it.units - it.held + it.taken - it.given }
func (it modelItem) free() int64  { return max(0, it.share()-it.safety+it.backorder) }

// fits says whether the item, and what confirming all that is held would leave,
// stays within +-(2^53-1).
func (it modelItem) fits() bool {
	const limit = 9007199254740991
	after := it.units - it.held
	return it.units <= limit && it.held <= limit && -limit <= it.units && -limit <= after
}

func (m *model) view(key protocol.ItemKey) protocol.Item {
	it := m.item(key)
	v := protocol.Item{SKU: key.SKU, Location: key.Location, OnHand: it.units, Reserved: it.held, UpdatedAt: it.at}
	v.Available = max(0, it.units-it.held-it.safety+it.backorder)
	v.Available = min(v.Available, 9007199254740991)
	v.Low = it.low >= 0 && v.Available <= it.low
	if it.version > 0 {
		v.Version = fmt.Sprintf("%s:%d", m.region, it.version)
	}
	return v
}

func (m *model) set(key protocol.ItemKey, it modelItem, now protocol.Time) {
	it.version++
	it.at = now
	m.items[key] = it
}

// do answers a command. The name of a reservation is the ledger's to choose.
func (m *model) do(c *protocol.Command, now protocol.Time, id string) (answer string, refusal *protocol.Error, replayed bool) {
	body := string(c.AppendBody(nil))
	if before, ok := m.keys[c.Key]; ok {
		if before.body != body {
			return "", &protocol.Error{Code: protocol.CodeKeyReused}, false
		}
		return before.answer, nil, true
	}
	res, refusal := m.decide(c, now, id)
	if refusal != nil {
		return "", refusal, false
	}
	answer = string(protocol.AppendOK(nil, &res))
	m.keys[c.Key] = modelAnswer{body, answer, m.generation}
	return answer, nil, false
}

func (m *model) decide(c *protocol.Command, now protocol.Time, id string) (protocol.Result, *protocol.Error) {
	key := protocol.ItemKey{SKU: c.SKU, Location: c.Location}
	if have := m.view(key); c.IfVersion != nil && have.Version != *c.IfVersion {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeVersionConflict, Details: &protocol.Details{Item: &have}}
	}
	switch c.Op {
	case protocol.OpAdjust:
		return m.correct(key, c.Delta, now)
	case protocol.OpCount:
		return m.correct(key, *c.OnHand-m.item(key).units, now)
	case protocol.OpMove:
		return m.move(c, now)
	case protocol.OpConfigure:
		return m.configure(key, c, now)
	case protocol.OpSell, protocol.OpReserve:
		return m.take(c, now, id)
	}
	return m.change(c, now)
}

func modelShort(lines ...protocol.Shortage) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeInsufficientStock, Details: &protocol.Details{Lines: lines}}
}

func (m *model) correct(key protocol.ItemKey, delta int64, now protocol.Time) (protocol.Result, *protocol.Error) {
	it := m.item(key)
	if removable := max(0, it.share()); delta < 0 && removable < -delta {
		return protocol.Result{}, modelShort(protocol.Shortage{SKU: key.SKU, Location: key.Location, Requested: -delta, Available: removable})
	}
	if it.units += delta; !it.fits() {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeBadRequest}
	}
	m.set(key, it, now)
	return protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{m.view(key)}}, nil
}

func (m *model) move(c *protocol.Command, now protocol.Time) (protocol.Result, *protocol.Error) {
	from, to := protocol.ItemKey{SKU: c.SKU, Location: c.From}, protocol.ItemKey{SKU: c.SKU, Location: c.To}
	target := m.item(to)
	target.units += c.Quantity
	if source := m.item(from); source.share() >= c.Quantity && !target.fits() {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeBadRequest}
	}
	if _, err := m.correct(from, -c.Quantity, now); err != nil {
		return protocol.Result{}, err
	}
	m.set(to, target, now)
	return protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{m.view(from), m.view(to)}}, nil
}

func (m *model) configure(key protocol.ItemKey, c *protocol.Command, now protocol.Time) (protocol.Result, *protocol.Error) {
	it := m.item(key)
	if c.SafetyStock != nil {
		it.safety = *c.SafetyStock
	}
	if c.BackorderLimit != nil {
		it.backorder = *c.BackorderLimit
	}
	if c.LowStock != nil {
		it.low = *c.LowStock
	}
	m.set(key, it, now)
	return protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{m.view(key)}}, nil
}

// summed adds up lines per item, in order of first mention.
func summed(lines []protocol.Line) (keys []protocol.ItemKey, sums map[protocol.ItemKey]int64) {
	sums = make(map[protocol.ItemKey]int64)
	for _, l := range lines {
		key := protocol.ItemKey{SKU: l.SKU, Location: l.Location}
		if _, ok := sums[key]; !ok {
			keys = append(keys, key)
		}
		sums[key] += l.Quantity
	}
	return keys, sums
}

func (m *model) take(c *protocol.Command, now protocol.Time, id string) (protocol.Result, *protocol.Error) {
	keys, sums := summed(c.Lines)
	after := make(map[protocol.ItemKey]modelItem)
	var missing []protocol.Shortage
	fits := true
	for _, key := range keys {
		it, n := m.item(key), sums[key]
		if it.free() < n {
			missing = append(missing, protocol.Shortage{SKU: key.SKU, Location: key.Location, Requested: n, Available: it.free()})
		}
		if c.Op == protocol.OpSell {
			it.units -= n
		} else {
			it.held += n
		}
		fits = fits && it.fits()
		after[key] = it
	}
	if missing != nil {
		return protocol.Result{}, modelShort(missing...)
	}
	if !fits {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeBadRequest}
	}
	res := protocol.Result{Kind: protocol.KindItems}
	for _, key := range keys {
		m.set(key, after[key], now)
		res.Items = append(res.Items, m.view(key))
	}
	if c.Op == protocol.OpSell {
		return res, nil
	}
	r := protocol.Reservation{ID: id, State: protocol.Held, ExpiresAt: now + protocol.Time(*c.TTLMS), Lines: c.Lines, User: c.User}
	m.reservations[id] = modelReservation{Reservation: r}
	return protocol.Result{Kind: protocol.KindReservation, Reservation: &r}, nil
}

func (m *model) change(c *protocol.Command, now protocol.Time) (protocol.Result, *protocol.Error) {
	r, ok := m.reservations[c.Reservation]
	if !ok {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeNotFound}
	}
	if r.State != protocol.Held {
		return protocol.Result{}, &protocol.Error{Code: protocol.CodeReservationEnded, Details: &protocol.Details{State: r.State}}
	}
	switch c.Op {
	case protocol.OpConfirm:
		m.end(r, protocol.Confirmed, now)
	case protocol.OpRelease:
		m.end(r, protocol.Released, now)
	case protocol.OpExtend:
		r.ExpiresAt = max(r.ExpiresAt, now+protocol.Time(*c.TTLMS))
		keys, _ := summed(r.Lines)
		for _, key := range keys {
			m.set(key, m.item(key), now)
		}
		m.reservations[r.ID] = r
	}
	v := m.reservations[r.ID].Reservation
	return protocol.Result{Kind: protocol.KindReservation, Reservation: &v}, nil
}

func (m *model) end(r modelReservation, state protocol.State, now protocol.Time) {
	keys, sums := summed(r.Lines)
	for _, key := range keys {
		it := m.item(key)
		it.held -= sums[key]
		if state == protocol.Confirmed {
			it.units -= sums[key]
		}
		m.set(key, it, now)
	}
	r.State, r.ended = state, m.generation
	m.reservations[r.ID] = r
}

func (m *model) expire(now protocol.Time, limit int) int {
	var due []modelReservation
	for _, r := range m.reservations {
		if r.State == protocol.Held && r.ExpiresAt <= now {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b modelReservation) int {
		return cmp.Or(cmp.Compare(a.ExpiresAt, b.ExpiresAt), cmp.Compare(a.ID, b.ID))
	})
	due = due[:min(limit, len(due))]
	for _, r := range due {
		m.end(r, protocol.Expired, now)
	}
	return len(due)
}

func (m *model) grant(key protocol.ItemKey, n int64, now protocol.Time) int64 {
	it := m.item(key)
	if n = min(n, it.free(), protocol.QuantityMax-it.given); n <= 0 {
		return 0
	}
	it.given += n
	m.set(key, it, now)
	return n
}

func (m *model) accept(key protocol.ItemKey, total int64, now protocol.Time) bool {
	it := m.item(key)
	if total <= it.taken {
		return false
	}
	it.taken = total
	m.set(key, it, now)
	return true
}
