package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// TestOrdersMachine runs orders over three shards by a coordinator that may die at
// any step. Messages are lost, repeated, delayed and reordered, rounds are dropped,
// each shard has a clock of its own. Whatever happens an order is all or nothing.
func TestOrdersMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"":         w.check,
			"order":    w.order,
			"orders":   func(t *rapid.T) { w.order(t); w.order(t); w.serve(t) },
			"retry":    w.retry,
			"follow":   w.followUp,
			"confirm":  w.followUp,
			"deliver":  w.deliver,
			"serve":    w.serve,
			"serve on": w.serve,
			"lose":     w.lose,
			"die":      w.die,
			"commit":   func(t *rapid.T) { w.pick(t).commit(t) },
			"drop":     w.drop,
			"clock":    w.clock,
			"expire":   func(t *rapid.T) { w.pick(t).begin().Expire(4) },
			"ask":      func(t *rapid.T) { w.ask(w.pick(t), 2) },
			"rotate":   w.rotate,
			"snapshot": func(t *rapid.T) { w.snapshot(t, w.pick(t)) },
		})
		w.quiet(t)
	})
}

// world is three shards and the messages between their coordinators.
type world struct {
	sites    []*site
	mail     []letter
	attempts []*attempt
	orders   []protocol.Command // as clients sent them
	ids      []string           // reservations of orders
	parts    []string           // parts ever named
	number   int                // of keys and orders
}

// letter is a command on its way; then gets its answer.
type letter struct {
	to   int
	call protocol.Call
	then func(*protocol.Call)
}

// site is a shard's owner and a replica that follows it.
type site struct {
	state, replica *State
	draft          *Draft
	log            [][]byte
	audit          *audit
	open, rotated  bool
	now            protocol.Time
	decided        []letter // of the open round
	world          *world
}

var siteSKUs = [][]string{{"A", "D"}, {"B"}, {"C"}}

const siteStock = 8 // of each SKU

func siteOf(sku string) int {
	return slices.IndexFunc(siteSKUs, func(skus []string) bool { return slices.Contains(skus, sku) })
}

func newWorld(t *rapid.T) *world {
	w := &world{}
	for n, skus := range siteSKUs {
		s := NewState("eu", n)
		g := &site{state: s, replica: NewState("eu", n), draft: NewDraft(s), audit: newAudit(), world: w}
		g.now = 1_000_000 + protocol.Time(rapid.IntRange(0, 2).Draw(t, "clock"))*100_000
		for _, sku := range skus {
			g.begin().Decide(&protocol.Call{Command: protocol.Command{
				Op: protocol.OpAdjust, Key: "stock " + sku, SKU: sku, Location: "main", Delta: siteStock,
			}})
		}
		g.commit(t)
		w.sites = append(w.sites, g)
	}
	return w
}

func (w *world) pick(t *rapid.T) *site { return rapid.SampledFrom(w.sites).Draw(t, "site") }

func (w *world) key() string {
	w.number++
	return fmt.Sprint("k", w.number)
}

func (w *world) send(to int, c protocol.Command, then func(*protocol.Call)) {
	w.mail = append(w.mail, letter{to, protocol.Call{Command: c}, then})
}

func nobody(*protocol.Call) {}

// attempt is a coordinator's try at one order.
type attempt struct {
	world    *world
	command  protocol.Command
	id       string
	home     int
	split    map[int][]protocol.Line
	parts    map[int]string // ids by shard, as far as answered
	deciding bool
	dead     bool
}

func (w *world) order(t *rapid.T) {
	c := protocol.Command{Op: protocol.OpSell, Key: w.key()}
	if rapid.Bool().Draw(t, "reserve") {
		c.Op, c.User, c.TTLMS = protocol.OpReserve, "u", protocol.Ptr(rapid.Int64Range(1000, 9000).Draw(t, "ttl"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "lines") {
		sku := rapid.SampledFrom([]string{"A", "B", "C", "D"}).Draw(t, "sku")
		c.Lines = append(c.Lines, protocol.Line{SKU: sku, Location: "main", Quantity: rapid.Int64Range(1, 3).Draw(t, "quantity")})
	}
	w.orders = append(w.orders, c)
	w.try(c)
}

// retry sends an order again: another attempt of the same key.
func (w *world) retry(t *rapid.T) {
	if len(w.orders) == 0 {
		t.Skip("no order")
	}
	c := rapid.SampledFrom(w.orders).Draw(t, "order")
	if rapid.IntRange(0, 4).Draw(t, "other body") == 0 {
		c.Reason = "x"
	}
	w.try(c)
}

func (w *world) try(c protocol.Command) {
	w.number++
	a := &attempt{world: w, command: c, id: fmt.Sprint("o", w.number), home: homeOf(&c), split: map[int][]protocol.Line{}, parts: map[int]string{}}
	for _, l := range c.Lines {
		a.split[siteOf(l.SKU)] = append(a.split[siteOf(l.SKU)], l)
	}
	w.attempts = append(w.attempts, a)
	for n := range w.sites {
		if lines := a.split[n]; len(lines) > 0 && n != a.home {
			part := protocol.Command{Op: protocol.OpReserve, Key: fmt.Sprint(a.id, "/", n), Lines: lines, User: c.User}
			part.Order = &protocol.Order{ID: a.id, Home: a.home, Part: true}
			w.send(n, part, func(call *protocol.Call) { a.held(n, call) })
		}
	}
	a.decide()
}

func homeOf(c *protocol.Command) int {
	home := len(siteSKUs)
	for _, l := range c.Lines {
		home = min(home, siteOf(l.SKU))
	}
	return home
}

func (a *attempt) held(n int, call *protocol.Call) {
	if a.dead {
		return
	}
	if call.Err != nil {
		a.resolve()
		return
	}
	a.parts[n] = call.Result.Reservation.ID
	a.world.parts = append(a.world.parts, a.parts[n])
	a.decide()
}

// decide asks the home once all parts are held.
func (a *attempt) decide() {
	if a.deciding || len(a.parts) < len(a.split)-1 {
		return
	}
	a.deciding = true
	c := a.command
	if len(a.split) > 1 {
		c.Lines = a.split[a.home]
		c.Order = &protocol.Order{ID: a.id, Home: a.home, Lines: a.command.Lines}
		for n := range a.world.sites {
			if id, ok := a.parts[n]; ok {
				c.Order.Parts = append(c.Order.Parts, id)
			}
		}
	}
	a.world.send(a.home, c, a.decided)
}

// decided passes the decision on. A refusal does not yet mean that it was not taken
// another time it arrived, or will be: only Resolve can tell.
func (a *attempt) decided(call *protocol.Call) {
	if a.dead || len(a.split) == 1 {
		return
	}
	if r := call.Result.Reservation; call.Err == nil && r != nil {
		a.world.ids = append(a.world.ids, r.ID)
	}
	if call.Err != nil || call.Replayed {
		a.resolve()
	} else if call.Command.Op == protocol.OpSell {
		a.settle(OrderSold)
	}
}

func (a *attempt) resolve() {
	a.world.resolve(a.home, a.id, func(state OrderState) {
		if !a.dead {
			a.settle(state)
		}
	})
}

func (a *attempt) settle(state OrderState) {
	for n := range a.world.sites {
		if id, ok := a.parts[n]; ok {
			a.world.settle(id, state)
		}
	}
}

func (w *world) resolve(home int, order string, then func(OrderState)) {
	c := protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: order}}
	w.send(home, c, func(call *protocol.Call) { then(OrderState(call.Result.Count)) })
}

func (w *world) settle(part string, state OrderState) {
	c := protocol.Command{Op: protocol.OpSettle, Reservation: part}
	switch state {
	case OrderSold:
		c.Quantity = 1
	case OrderHeld:
		return
	}
	n, _ := ReservationShard(part)
	w.send(n, c, nobody)
}

// followUp confirms, releases or extends: an order's reservation, and what follows
// for its parts; or a part, which is not a client's to end.
func (w *world) followUp(t *rapid.T) {
	ids := w.ids
	if rapid.IntRange(0, 4).Draw(t, "a part") == 0 {
		ids = w.parts
	}
	if len(ids) == 0 {
		t.Skip("no reservation")
	}
	id := ids[max(0, len(ids)-1-rapid.IntRange(0, 3).Draw(t, "back"))]
	n, ok := ReservationShard(id)
	if !ok {
		t.Fatalf("%q names no shard", id)
	}
	c := protocol.Command{Key: w.key(), Reservation: id}
	c.Op = rapid.SampledFrom([]protocol.Op{protocol.OpConfirm, protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend}).Draw(t, "op")
	if c.Op == protocol.OpExtend {
		c.TTLMS = protocol.Ptr[int64](5000)
	}
	w.send(n, c, func(call *protocol.Call) {
		s := w.sites[n].state
		if r := w.sites[n].audit.reservations[id]; r != nil && r.order != nil && r.order.Part {
			if call.Err == nil || call.Err.Code != protocol.CodeNotFound {
				t.Fatalf("%s of a part: %v", c.Op, call.Err)
			}
		}
		if r, ok := s.Reservation(id); ok {
			for _, part := range s.PartsOf(id) {
				w.settle(part, orderStates[r.State])
			}
		}
	})
}

// deliver gives a command to its shard, and keeps it at times to come again.
func (w *world) deliver(t *rapid.T) {
	if len(w.mail) == 0 {
		t.Skip("no mail")
	}
	i := rapid.IntRange(0, len(w.mail)-1).Draw(t, "letter")
	l := w.mail[i]
	if rapid.IntRange(0, 4).Draw(t, "again") > 0 {
		w.mail = slices.Delete(w.mail, i, i+1)
	}
	w.sites[l.to].decide(l)
}

// serve is a while in which nothing goes wrong but answers that are lost.
func (w *world) serve(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "rounds") {
		for _, l := range w.mail {
			w.sites[l.to].decide(l)
		}
		w.mail = nil
		for _, g := range w.sites {
			g.commit(t)
		}
	}
}

func (w *world) lose(t *rapid.T) {
	if len(w.mail) == 0 {
		t.Skip("no mail")
	}
	i := rapid.IntRange(0, len(w.mail)-1).Draw(t, "letter")
	w.mail = slices.Delete(w.mail, i, i+1)
}

func (w *world) die(t *rapid.T) {
	if len(w.attempts) == 0 {
		t.Skip("no coordinator")
	}
	rapid.SampledFrom(w.attempts).Draw(t, "attempt").dead = true
}

func (w *world) drop(t *rapid.T) {
	g := w.pick(t)
	if g.open && rapid.Bool().Draw(t, "again") {
		w.mail = append(w.mail, g.decided...)
	}
	g.open = false
}

func (w *world) clock(t *rapid.T) {
	w.pick(t).now += protocol.Time(rapid.SampledFrom([]int64{1, 1000, 5000, -2000}).Draw(t, "ms"))
}

// rotate happens once to a shard: then it forgets nothing of the run. Messages have
// no age here, but a real one does not outlast a key.
func (w *world) rotate(t *rapid.T) {
	g := w.pick(t)
	if g.rotated {
		t.Skip("rotated before")
	}
	g.rotated = g.begin().Rotate(0)
	g.commit(t)
}

// ask is what an owner does about parts that wait.
func (w *world) ask(g *site, limit int) {
	for _, p := range g.state.Parts(nil, limit) {
		w.resolve(p.Home, p.Order, func(state OrderState) { w.settle(p.ID, state) })
	}
}

func (g *site) begin() *Draft {
	if !g.open {
		g.draft.Reset(g.now, uint64(len(g.log)))
		g.open, g.decided = true, nil
	}
	return g.draft
}

func (g *site) decide(l letter) {
	d := g.begin()
	before := traceOf(d)
	d.Decide(&l.call)
	if l.call.Err != nil || l.call.Replayed {
		if err := checkNoTrace(before, traceOf(d)); err != nil {
			panic(err)
		}
	}
	g.decided = append(g.decided, l)
}

// commit ends the open round and tells most of the answers.
func (g *site) commit(t *rapid.T) {
	if !g.open {
		return
	}
	g.open = false
	if !g.draft.Empty() {
		g.append(t)
	}
	for i := range g.decided {
		if rapid.IntRange(0, 9).Draw(t, "lost") > 0 {
			g.decided[i].then(&g.decided[i].call)
		}
	}
}

func (g *site) append(t *rapid.T) {
	b := g.draft.Round().AppendTo(nil)
	g.log = append(g.log, b)
	r, err := Decode(b)
	must(t, err)
	if again := r.AppendTo(nil); !bytes.Equal(again, b) {
		t.Fatalf("a decoded round is %x, was %x", again, b)
	}
	must(t, g.audit.round(r, uint64(len(g.log))))
	_, err = g.state.Apply(g.draft.Round(), uint64(len(g.log)))
	must(t, err)
	must(t, checkReplay(g.state, g.replica, g.log, apply))
}

// snapshot takes rounds between its slices and brings what it gave forward.
func (w *world) snapshot(t *rapid.T, g *site) {
	generation := g.state.generation
	var buf bytes.Buffer
	_, err := g.state.snapshot(rapid.SampledFrom([]int{1, 200}).Draw(t, "slice"), func(p []byte) error {
		buf.Write(p)
		for i := range w.mail {
			if w.mail[i].to == g.state.shard && rapid.IntRange(0, 3).Draw(t, "between") == 0 {
				g.decide(w.mail[i])
				break
			}
		}
		if rapid.IntRange(0, 5).Draw(t, "expire") == 0 {
			g.now += 500
			g.begin().Expire(1)
		}
		g.commit(t)
		return nil
	})
	if g.state.generation != generation && errors.Is(err, ErrRotated) {
		return
	}
	must(t, err)
	s, err := Load(&buf)
	must(t, err)
	must(t, checkReplay(g.state, s, g.log, apply))
	must(t, checkParity(g.state, s))
}

// checkParity compares what a digest does not cover: what is derived when loading.
func checkParity(a, b *State) error {
	if got, want := b.Parts(nil, 100), a.Parts(nil, 100); !slices.Equal(got, want) {
		return fmt.Errorf("I13: parts %v, want %v", got, want)
	}
	if !maps.Equal(a.now.orders, b.now.orders) || !maps.Equal(a.past.orders, b.past.orders) {
		return fmt.Errorf("I13: ended orders %v and %v, want %v and %v", b.now.orders, b.past.orders, a.now.orders, a.past.orders)
	}
	if len(a.orders) != len(b.orders) {
		return fmt.Errorf("I13: %d orders held, want %d", len(b.orders), len(a.orders))
	}
	for id, reservation := range a.orders {
		if b.orders[id] != reservation || !slices.Equal(a.PartsOf(reservation), b.PartsOf(reservation)) {
			return fmt.Errorf("I13: order %q is %q, want %q", id, b.orders[id], reservation)
		}
	}
	return nil
}

func (w *world) audits() (list []*audit) {
	for _, g := range w.sites {
		list = append(list, g.audit)
	}
	return list
}

func (w *world) check(t *rapid.T) {
	must(t, checkFollows(w.audits()...))
	for _, g := range w.sites {
		must(t, checkParity(g.state, g.replica))
		must(t, checkOpenParts(g))
		for id, o := range g.audit.orders {
			if got := g.state.Order(id); got != o.state {
				t.Fatalf("order %q is %d, want %d", id, got, o.state)
			}
		}
	}
}

// checkOpenParts says that Parts gives what the log left open, oldest first.
func checkOpenParts(g *site) error {
	open := 0
	for _, r := range g.audit.reservations {
		if r.order != nil && r.order.Part && !r.ended {
			open++
		}
	}
	parts := g.state.Parts(nil, 1000)
	if len(parts) != open || !slices.IsSortedFunc(parts, func(a, b Part) int { return int(a.Since - b.Since) }) {
		return fmt.Errorf("%d parts wait, Parts says %v", open, parts)
	}
	for _, p := range parts {
		if r := g.audit.reservations[p.ID]; r == nil || r.order.ID != p.Order || r.order.Home != p.Home {
			return fmt.Errorf("part %+v, the log says %+v", p, r)
		}
		if _, shown := g.state.Reservation(p.ID); shown {
			return fmt.Errorf("part %q is shown as a reservation", p.ID)
		}
	}
	return nil
}

// quiet kills the coordinators, or lets them end, delivers what is under way, lets
// time pass and has the owners ask until nothing waits.
func (w *world) quiet(t *rapid.T) {
	dead := rapid.Bool().Draw(t, "all dead")
	for _, a := range w.attempts {
		a.dead = a.dead || dead
	}
	for range 50 {
		w.serve(t)
		idle := true
		for _, g := range w.sites {
			g.now += 10_000
			g.begin().Expire(1000)
			g.commit(t)
			w.ask(g, 1000)
			idle = idle && len(g.state.live) == 0
		}
		if idle && len(w.mail) == 0 {
			w.settled(t)
			return
		}
	}
	t.Fatal("parts wait for ever")
}

// settled compares the units with what each key was answered.
func (w *world) settled(t *rapid.T) {
	w.check(t)
	must(t, checkAllOrNothing(w.audits()...))
	left := map[string]int64{"A": siteStock, "B": siteStock, "C": siteStock, "D": siteStock}
	for i := range w.orders {
		if w.sold(t, &w.orders[i]) {
			for _, l := range w.orders[i].Lines {
				left[l.SKU] -= l.Quantity
			}
		}
	}
	for sku, n := range left {
		g := w.sites[siteOf(sku)]
		row := rowOf(g.state, protocol.ItemKey{SKU: sku, Location: "main"})
		if row.OnHand() != n || row.Held != 0 || n < 0 {
			t.Fatalf("%d of %s and %d held, want %d and 0", row.OnHand(), sku, row.Held, n)
		}
	}
	for _, g := range w.sites {
		must(t, checkReplay(g.state, NewState("eu", g.state.shard), g.log, apply))
		must(t, checkHistory(g.state, g.log))
	}
}

// sold tells what became of a client's order by what its home answers.
func (w *world) sold(t *rapid.T, c *protocol.Command) bool {
	s := w.sites[homeOf(c)].state
	res, known := s.Outcome(c.Key)
	if !known || c.Op == protocol.OpSell {
		return known
	}
	r, ok := s.Reservation(res.Reservation.ID)
	if !ok || !slices.Equal(r.Lines, c.Lines) {
		t.Fatalf("%q is %v, ordered were %v", res.Reservation.ID, r, c.Lines)
	}
	return r.State == protocol.Confirmed
}
