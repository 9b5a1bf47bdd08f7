package ledger

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// TestMachine runs random rounds in two regions that exchange rights, against the
// model, and checks every invariant after every step. For longer runs:
// go test -run Machine -rapid.checks=10000 -rapid.steps=100.
func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"commands": m.commands,
			"more":     m.commands,
			"commit":   func(t *rapid.T) { m.pick(t).commit(t) },
			"drop":     m.drop,
			"clock":    m.clock,
			"expire":   func(t *rapid.T) { m.pick(t).expire(t) },
			"rotate":   func(t *rapid.T) { m.pick(t).rotate(t) },
			"becomes":  func(t *rapid.T) { m.pick(t).begin().Becomes("n") },
			"grant":    m.grant,
			"accept":   m.accept,
			"snapshot": func(t *rapid.T) { m.pick(t).snapshot(t) },
		})
		m.heal(t)
	})
}

// machine is two regions and what they have told each other.
type machine struct {
	regions [2]*region
	offers  []offer
}

// offer is a granted total on its way; it may arrive late, twice or never.
type offer struct {
	from, to int
	key      protocol.ItemKey
	total    int64
}

// region is a shard's owner, a replica that follows its log, and its model.
type region struct {
	state, replica *State
	draft          *Draft
	log            [][]byte
	audit          *audit
	model          *model // the open round included
	settled        *model // without it
	open           bool
	now            protocol.Time
	calls          []*protocol.Call // of the open round
	answers        []string         // of calls, as first given
	sent           []protocol.Command
	ids            []string // reservations ever named
	nonce          uint64
}

func newMachine(t *rapid.T) *machine {
	m := &machine{}
	for i, name := range [...]string{"eu", "us"} {
		s := NewState(name, 3)
		m.regions[i] = &region{
			state: s, replica: NewState(name, 3), draft: NewDraft(s), audit: newAudit(),
			model: newModel(name), settled: newModel(name), now: 1_000_000, ids: []string{name + ".nobody"},
		}
	}
	eu := m.regions[0]
	for _, key := range allKeys[:4] {
		eu.decide(t, protocol.Command{Op: protocol.OpAdjust, Key: "stock " + key.SKU + key.Location, SKU: key.SKU, Location: key.Location, Delta: 20})
	}
	eu.commit(t)
	return m
}

func (m *machine) pick(t *rapid.T) *region { return rapid.SampledFrom(m.regions[:]).Draw(t, "region") }

func (m *machine) commands(t *rapid.T) {
	g := m.pick(t)
	for range rapid.IntRange(1, 8).Draw(t, "n") {
		g.decide(t, g.command(t))
	}
}

func (m *machine) drop(t *rapid.T) {
	g := m.pick(t)
	calls := g.calls
	g.open, g.model = false, g.settled.clone()
	if rapid.Bool().Draw(t, "again") {
		for _, c := range rapid.Permutation(calls).Draw(t, "order") {
			g.decideCall(t, c)
		}
	}
}

func (m *machine) clock(t *rapid.T) {
	g := m.pick(t)
	g.now += protocol.Time(rapid.SampledFrom([]int64{1, 500, 1000, 1000, 5000, 60_000, -1, -2000}).Draw(t, "ms"))
}

func (m *machine) grant(t *rapid.T) {
	from := rapid.IntRange(0, 1).Draw(t, "from")
	g, key, n := m.regions[from], drawKey(t), drawQuantity(t)
	got := g.begin().Grant(key, peerOf(g.state.region), n)
	if want := g.model.grant(key, n, g.at()); got != want {
		t.Fatalf("granted %d of %v, want %d", got, key, want)
	}
	// Only what is committed is told; that may be an older total.
	total := rowOf(g.state, key).Granted[peerOf(g.state.region)]
	m.offers = append(m.offers, offer{from, 1 - from, key, total})
}

func (m *machine) accept(t *rapid.T) {
	if len(m.offers) == 0 {
		t.Skip("nothing was offered")
	}
	m.take(t, rapid.SampledFrom(m.offers).Draw(t, "offer"))
}

func (m *machine) take(t *rapid.T, o offer) {
	g := m.regions[o.to]
	got := g.begin().Accept(o.key, peerOf(g.state.region), o.total)
	if want := g.model.accept(o.key, o.total, g.at()); got != want {
		t.Fatalf("accepting %v: %v, want %v", o, got, want)
	}
}

// heal ends everything that is under way and tells everybody everything.
func (m *machine) heal(t *rapid.T) {
	for from, g := range m.regions {
		g.commit(t)
		for i := range g.state.items {
			it := &g.state.items[i]
			m.take(t, offer{from, 1 - from, it.key, it.row.Granted[peerOf(g.state.region)]})
		}
	}
	for i, g := range m.regions {
		g.commit(t)
		must(t, checkRights(m.regions[i].state, m.regions[1-i].state, true))
		must(t, checkReplay(g.state, NewState(g.state.region, 3), g.log, apply))
		must(t, checkHistory(g.state, g.log))
	}
	m.check(t)
}

func (m *machine) check(t *rapid.T) {
	a, b := m.regions[0], m.regions[1]
	for _, key := range allKeys {
		must(t, checkConservation(key, a.settled.item(key).units+b.settled.item(key).units, a.state, b.state))
	}
	must(t, checkRights(a.state, b.state, false))
	must(t, checkRights(b.state, a.state, false))
	for _, g := range m.regions {
		must(t, checkModel(g.state, g.settled))
	}
}

func must(t interface{ Fatal(...any) }, err error) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// begin returns the draft of the open round.
func (g *region) begin() *Draft {
	if !g.open {
		g.nonce++
		g.draft.Reset(g.now, g.nonce)
		g.open, g.calls, g.answers = true, nil, nil
	}
	return g.draft
}

func (g *region) at() protocol.Time { return g.draft.round.At }

func (g *region) decide(t *rapid.T, c protocol.Command) {
	if err := c.Check(); err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	g.sent = append(g.sent, c)
	g.decideCall(t, &protocol.Call{Command: c, Session: g.nonce, Subject: "someone", Address: "2001:db8::7"})
}

// decideCall gives one command to the draft and to the model.
func (g *region) decideCall(t *rapid.T, c *protocol.Call) {
	d := g.begin()
	g.calls = append(g.calls, c)
	before := traceOf(d)
	d.Decide(c)
	id := ""
	if r := c.Result.Reservation; c.Err == nil && r != nil {
		id = r.ID
		g.ids = append(g.ids, id)
	}
	answer, refusal, replayed := g.model.do(&c.Command, g.at(), id)
	if diff := gocmp.Diff(refusalOf(refusal), refusalOf(c.Err)); diff != "" {
		t.Fatalf("%+v: -want +got\n%s", c.Command, diff)
	}
	if c.Err != nil || c.Replayed {
		must(t, checkNoTrace(before, traceOf(d)))
	}
	g.answers = append(g.answers, answerOf(c))
	if c.Err != nil {
		return
	}
	if got := string(protocol.AppendOK(nil, &c.Result)); got != answer || c.Replayed != replayed {
		t.Fatalf("I4: %+v: answered %s (replayed %v), want %s (%v)", c.Command, got, c.Replayed, answer, replayed)
	}
}

// refusalOf is what a client acts on.
func refusalOf(e *protocol.Error) protocol.Error {
	if e == nil {
		return protocol.Error{}
	}
	return protocol.Error{Code: e.Code, Details: e.Details}
}

func (g *region) expire(t *rapid.T) {
	limit := rapid.IntRange(1, 3).Draw(t, "limit")
	if got, want := g.begin().Expire(limit), g.model.expire(g.at(), limit); got != want {
		t.Fatalf("%d reservations expired, want %d", got, want)
	}
}

func (g *region) rotate(t *rapid.T) {
	if g.model.generation != g.settled.generation {
		t.Skip("once a round")
	}
	const window = 20_000
	if got, want := g.begin().Rotate(window), g.model.rotate(g.at(), window); got != want {
		t.Fatalf("rotated: %v, want %v", got, want)
	}
}

// commit ends the open round: into the log, the state, the replica and the audit.
func (g *region) commit(t *rapid.T) {
	if !g.open {
		return
	}
	g.open = false
	for i, c := range g.calls {
		if got := answerOf(c); got != g.answers[i] {
			t.Fatalf("an answer changed from %s to %s", g.answers[i], got)
		}
	}
	if g.draft.Empty() {
		g.model = g.settled.clone()
		return
	}
	b := g.draft.Round().AppendTo(nil)
	g.log = append(g.log, b)
	seq := uint64(len(g.log))
	changes, err := g.state.Apply(g.draft.Round(), seq)
	must(t, err)
	g.model.committed()
	g.settled = g.model.clone()
	must(t, checkChanges(changes, g.draft.Round()))

	r, err := Decode(b)
	must(t, err)
	if again := r.AppendTo(nil); !bytes.Equal(again, b) {
		t.Fatalf("a decoded round is %x, was %x", again, b)
	}
	must(t, g.audit.round(r, seq))
	must(t, checkReplay(g.state, g.replica, g.log, apply))
	if next, ok := g.state.NextExpiry(); ok != (next > 0) || next != g.model.nextExpiry() {
		t.Fatalf("next expiry %d, want %d", next, g.model.nextExpiry())
	}
}

func (m *model) nextExpiry() (next protocol.Time) {
	for _, r := range m.reservations {
		if r.State == protocol.Held && (next == 0 || r.ExpiresAt < next) {
			next = r.ExpiresAt
		}
	}
	return next
}

// checkChanges says that a round reports each of its items once, and each
// reservation as often as it changed.
func checkChanges(c protocol.Changes, r *Round) error {
	items, reservations := map[uint32]bool{}, 0
	for i := range r.Records {
		for j := range r.Records[i].Events {
			items[r.Records[i].Events[j].Item] = true
		}
		if rec := &r.Records[i]; rec.Reservation != "" && (rec.Order == nil || !rec.Order.Part) {
			reservations++
		}
	}
	sorted := slices.Clone(c.Items)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(items) || len(c.Items) != len(items) || len(c.Reservations) != reservations {
		return fmt.Errorf("changes name %d items and %d reservations, want %d and %d", len(c.Items), len(c.Reservations), len(items), reservations)
	}
	return nil
}

// snapshot writes a snapshot in slices, decides and applies rounds between them,
// and brings what was loaded forward by the log.
func (g *region) snapshot(t *rapid.T) {
	slice := rapid.SampledFrom([]int{1, 100, 400, 1 << 20}).Draw(t, "slice")
	generation, rounds := g.state.generation, 0
	var buf bytes.Buffer
	seq, err := g.state.snapshot(slice, func(p []byte) error {
		buf.Write(p)
		if rounds < 6 && rapid.IntRange(0, 2).Draw(t, "round") == 0 {
			rounds++
			g.between(t)
		}
		return nil
	})
	if g.state.generation != generation {
		if !errors.Is(err, ErrRotated) {
			t.Fatalf("a snapshot across a rotation: %v", err)
		}
		return
	}
	must(t, err)
	s, err := Load(&buf)
	must(t, err)
	if s.Seq() != seq || s.Settled() < seq || s.Settled() > g.state.Seq() {
		t.Fatalf("snapshot of %d settled at %d, now %d", seq, s.Settled(), g.state.Seq())
	}
	must(t, checkReplay(g.state, s, g.log, apply))
	must(t, checkModel(s, g.settled))
}

// between is a round between two slices.
func (g *region) between(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "n") {
		g.decide(t, g.command(t))
	}
	switch rapid.IntRange(0, 20).Draw(t, "also") {
	case 0:
		if g.model.generation == g.settled.generation {
			g.rotate(t)
		}
	case 1, 2, 3:
		g.now += 2000
		g.expire(t)
	}
	g.commit(t)
}

var (
	allSKUs      = []string{"A", "BANK CHARGES", "红色-XL"}
	allLocations = []string{"main", "shelf/7.*>"}
	allKeys      []protocol.ItemKey
)

func init() {
	for _, sku := range allSKUs {
		for _, location := range allLocations {
			allKeys = append(allKeys, protocol.ItemKey{SKU: sku, Location: location})
		}
	}
}

func drawKey(t *rapid.T) protocol.ItemKey { return rapid.SampledFrom(allKeys).Draw(t, "item") }

// drawQuantity is mostly small, sometimes as large as the contract allows.
func drawQuantity(t *rapid.T) int64 {
	if rapid.IntRange(0, 19).Draw(t, "size") > 0 {
		return rapid.Int64Range(1, 6).Draw(t, "quantity")
	}
	return rapid.SampledFrom([]int64{protocol.QuantityMax, protocol.QuantityMax - 3, 1 << 52}).Draw(t, "quantity")
}

func drawSetting(t *rapid.T) *int64 {
	if rapid.Bool().Draw(t, "omitted") {
		return nil
	}
	return protocol.Ptr(drawQuantity(t) - 1)
}

var writes = []protocol.Op{
	protocol.OpAdjust, protocol.OpAdjust, protocol.OpCount, protocol.OpReserve, protocol.OpReserve, protocol.OpReserve,
	protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend, protocol.OpSell, protocol.OpSell, protocol.OpMove, protocol.OpConfigure,
}

// command draws a write: a new one, or one sent before, changed or not.
func (g *region) command(t *rapid.T) protocol.Command {
	if len(g.sent) > 0 && rapid.IntRange(0, 4).Draw(t, "retry") == 0 {
		c := rapid.SampledFrom(g.sent).Draw(t, "sent")
		if rapid.IntRange(0, 4).Draw(t, "other body") == 0 {
			c.Reason += "x"
		}
		return c
	}
	key := drawKey(t)
	c := protocol.Command{Op: rapid.SampledFrom(writes).Draw(t, "op"), Key: fmt.Sprint("k", len(g.sent)), Home: g.state.region}
	switch c.Op {
	case protocol.OpAdjust, protocol.OpCount, protocol.OpConfigure:
		c.SKU, c.Location = key.SKU, key.Location
		g.drawItemFields(t, &c)
	case protocol.OpReserve, protocol.OpSell:
		c.Lines = drawLines(t)
		if c.Op == protocol.OpReserve {
			c.TTLMS = protocol.Ptr(rapid.Int64Range(1000, 9000).Draw(t, "ttl"))
			c.User = "u"
		}
	case protocol.OpMove:
		c.SKU, c.From, c.To, c.Quantity = key.SKU, allLocations[0], allLocations[1], drawQuantity(t)
		if key.Location == c.To {
			c.From, c.To = c.To, c.From
		}
	default:
		// The newest reservations are the most likely to be held.
		i := rapid.IntRange(0, min(5, len(g.ids)-1)).Draw(t, "reservation")
		c.Reservation = g.ids[len(g.ids)-1-i]
		if c.Op == protocol.OpExtend {
			c.TTLMS = protocol.Ptr(rapid.Int64Range(1000, 8000).Draw(t, "ttl"))
		}
	}
	return c
}

func (g *region) drawItemFields(t *rapid.T, c *protocol.Command) {
	switch c.Op {
	case protocol.OpAdjust:
		c.Delta = drawQuantity(t)
		if rapid.IntRange(0, 2).Draw(t, "out") == 0 {
			c.Delta = -c.Delta
		}
	case protocol.OpCount:
		c.OnHand = protocol.Ptr(drawQuantity(t) - 1)
	case protocol.OpConfigure:
		c.SafetyStock, c.BackorderLimit, c.LowStock = drawSetting(t), drawSetting(t), drawSetting(t)
		c.LowStock = cmp.Or(c.LowStock, protocol.Ptr[int64](0))
		return
	}
	if rapid.IntRange(0, 3).Draw(t, "conditional") == 0 {
		version := g.state.ItemAt(protocol.ItemKey{SKU: c.SKU, Location: c.Location}).Version
		c.IfVersion = protocol.Ptr(rapid.SampledFrom([]string{"", version, "eu:3"}).Draw(t, "version"))
	}
}

func drawLines(t *rapid.T) []protocol.Line {
	lines := make([]protocol.Line, rapid.IntRange(1, 4).Draw(t, "lines"))
	for i := range lines {
		key := drawKey(t)
		lines[i] = protocol.Line{SKU: key.SKU, Location: key.Location, Quantity: drawQuantity(t)}
	}
	return lines
}
