package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const mixedPrefix = "bench-mixed-"

// mixed is a shop: most of its commands come from people who look around, some from
// those who buy, a few from those who take stock.
type mixed struct {
	*round
	gen      *generator
	stock    *mixedStock
	viewers  []*viewer
	checkout *checkout
	keeper   *keeper
	party    *party // of the viewers
	cards    *deck
	popular  chooser    // of items: the first ones most
	random   *rand.Rand // that popular is asked with, for viewers

	acked   int64     // but for those of the checkout
	watches latencies // unsubscribe, subscribe
	counts  latencies // adjust, count
	late    latencies // how much later than due we were ourselves
}

// mixedShop has people look, buy and count at a rate. In the end everybody must be shown
// what the answers say, and every node must have that.
func mixedShop(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	m, err := r.openMixed(ctx, gen)
	if err != nil {
		return err
	}
	if err := m.measure(ctx); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	m.putAges()
	if err := r.putCeiling(ctx, "acked_per_second", driveMixed); err != nil {
		return err
	}
	return m.check(ctx)
}

// driveMixed has the generator send the same commands without any pause. It is spared
// the pushes: those are seen in generator_cores.
func driveMixed(ctx context.Context, r *round, gen *generator) error {
	m, err := r.openMixed(ctx, gen)
	if err != nil {
		return err
	}
	r.phase("the same commands as fast as they are answered", warmUp(r.duration)+r.duration)
	began := time.Now()
	step := func() { r.progress.since(began) }
	if err := m.flood(ctx, warmUp(r.duration), step); err != nil {
		return err
	}
	from, acked := time.Now(), m.ackedAll()
	if err := m.flood(ctx, r.duration, step); err != nil {
		return err
	}
	r.numbers["acked_per_second"] = float64(m.ackedAll()-acked) / time.Since(from).Seconds()
	return nil
}

func (r *round) openMixed(ctx context.Context, gen *generator) (*mixed, error) {
	r.progress.counted(fmt.Sprintf("%s: opening stock of %s SKUs", r.name, readable(float64(r.assorted))), r.assorted)
	a := assortment{mixedPrefix + r.id + "-", r.assorted}
	if err := a.enter(ctx, r.target.endpoint(0), mixedOpening); err != nil {
		return nil, err
	}
	m := r.newMixed(gen, a)
	if err := r.awaitStock(ctx, m.checkout.shelf.onHand()); err != nil {
		return nil, err
	}
	if err := r.dialOrders(ctx, m.checkout); err != nil {
		return nil, err
	}
	return m, errors.Join(m.openKeeper(ctx), m.openViewers(ctx))
}

func (r *round) newMixed(gen *generator, a assortment) *mixed {
	random := rand.New(rand.NewPCG(r.seed, 1))
	m := &mixed{
		watches: gen.newLatencies("commands"), counts: gen.newLatencies("commands"), late: newLatencies(), // the first to be drawn
		round: r, gen: gen, stock: newMixedStock(gen, a), checkout: newCheckout(gen, newShelf(a, 1, mixedOpening)),
		cards: newDeck(random), popular: zipf(r.seed, a.count), random: random,
	}
	m.party = m.stock.newParty()
	m.checkout.pick = func(bits uint64, line int) uint64 { return soldInstead(m.popular(bits, line)) }
	m.checkout.onSend = func(item uint64, due int64) { m.stock.changes(int(item), due) }
	m.checkout.onRefusal = func(item uint64, due int64) { m.stock.unchanged(int(item), due) }
	return m
}

// soldInstead is the neighbour of an item that is not for sale.
func soldInstead(item uint64) uint64 {
	if isCounted(int(item)) {
		return item - 1
	}
	return item
}

// draw chooses a SKU to look at.
func (m *mixed) draw() int { return int(m.popular(m.random.Uint64(), 0)) }

func (m *mixed) openKeeper(ctx context.Context) error {
	d, err := dial(ctx, m.target.endpoint(0))
	if err != nil {
		return err
	}
	m.keeper = newKeeper(m)
	m.keeper.conn, err = m.gen.add(d, m.keeper)
	return err
}

// openViewers connects those who look around and waits until all see something.
func (m *mixed) openViewers(ctx context.Context) error {
	m.progress.counted(fmt.Sprintf("%s: %d viewers", m.name, m.subscribers), m.subscribers)
	err := dialAll(ctx, m.target, m.subscribers, func(_ int, d *dialed) error {
		v := newViewer(m, m.party)
		var err error
		if v.conn, err = m.gen.add(d, v); err != nil {
			return err
		}
		m.viewers = append(m.viewers, v)
		m.progress.at(int64(len(m.viewers)))
		return v.subscribe()
	})
	if err != nil {
		return err
	}
	left := m.viewers
	err = m.await(ctx, m.gen, func() bool {
		for len(left) > 0 && left[0].ready {
			left = left[1:]
		}
		return len(left) == 0 || len(m.stock.faults) > 0
	})
	if err != nil {
		return fmt.Errorf("%d of %d viewers are not subscribed: %w", len(left), m.subscribers, err)
	}
	return nil
}

// ackedAll counts commands that have succeeded.
func (m *mixed) ackedAll() int64 { return m.acked + m.checkout.acked }

// waiting counts commands and orders that have found no end.
func (m *mixed) waiting() int64 {
	n := m.checkout.waiting() + m.keeper.waiting()
	for _, v := range m.viewers {
		n += v.waiting()
	}
	return n
}

// settle waits for the last answers, and until everybody was shown what they led to.
func (m *mixed) settle(ctx context.Context) error {
	m.phase("waiting for the last answers and pushes", drainTimeout)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && m.waiting() > 0; {
		if err := errors.Join(ctx.Err(), m.checkout.again.sendDue(), m.gen.turn(10*time.Millisecond)); err != nil {
			return err
		}
	}
	if n := m.waiting(); n > 0 {
		m.violate("%d commands or orders without an end after %v", n, drainTimeout)
	}
	patience := awaitTimeout
	if m.meshed() {
		patience = settleMeshMax
	}
	for end := time.Now().Add(patience); m.behind() > 0 && len(m.stock.faults) == 0 && time.Now().Before(end); {
		if err := errors.Join(ctx.Err(), m.gen.turn(flowPause)); err != nil {
			return err
		}
	}
	if n := m.behind(); n > 0 {
		m.violate("%d of %d viewers have not ended with the right state", n, len(m.viewers))
	}
	return nil
}

func (m *mixed) behind() (n int) {
	for _, v := range m.viewers {
		if !v.current() {
			n++
		}
	}
	return n
}

// check holds the stock of every node against the answers.
func (m *mixed) check(ctx context.Context) error {
	m.judgeOrders(m.checkout)
	if n := m.checkout.refused - m.checkout.falselyRefused - m.checkout.wronglyRefused; n > 0 {
		m.violate("%d orders were refused although there was stock", n)
	}
	for _, fault := range m.stock.faults {
		m.violate("%s", fault)
	}
	want := m.stock.want(func(sku int) int64 { return m.checkout.shelf.stands[sku].sold })
	return m.checkStandings(ctx, want, fmt.Sprintf("%d acknowledged commands", m.ackedAll()))
}

// parts names what a part of the commands is, by prefix of its metrics.
func (m *mixed) parts() map[string]latencies {
	return map[string]latencies{"watch_": m.watches, "count_": m.counts, string(protocol.OpReserve) + "_": m.checkout.reserves, string(protocol.OpConfirm) + "_": m.checkout.ends}
}
