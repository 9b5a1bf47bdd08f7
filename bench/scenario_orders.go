package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const ordersPrefix = "bench-order-"

// releaseEvery: one order of so many is given up.
const releaseEvery = 10

// orderMany sends orders of several lines over all connections as fast as they come to
// an end. Some SKUs are scarce, so that orders are refused; of those nothing may be
// taken, of the others every line.
func orderMany(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	c, err := r.openOrders(ctx, gen)
	if err != nil {
		return err
	}
	if err := r.awaitStock(ctx, c.shelf.onHand()); err != nil {
		return err
	}
	if err := r.measureOrders(ctx, c); err != nil {
		return err
	}
	if err := r.putCeiling(ctx, "orders_per_second", driveOrders); err != nil {
		return err
	}
	return r.checkOrders(ctx, c)
}

// driveOrders has the generator do what orderMany measures.
func driveOrders(ctx context.Context, r *round, gen *generator) error {
	c, err := r.openOrders(ctx, gen)
	if err != nil {
		return err
	}
	return r.measureOrders(ctx, c)
}

func (r *round) openOrders(ctx context.Context, gen *generator) (*checkout, error) {
	r.progress.counted(fmt.Sprintf("%s: opening stock of %s SKUs", r.name, readable(float64(r.assorted))), r.assorted)
	s := newShelf(assortment{ordersPrefix + r.id + "-", r.assorted}, r.lines, orderedOpening)
	if err := s.enter(ctx, r.target.endpoint(0), orderedOpening); err != nil {
		return nil, err
	}
	c := newCheckout(gen, s)
	c.releaseEvery = releaseEvery
	return c, r.dialOrders(ctx, c)
}

func (r *round) dialOrders(ctx context.Context, c *checkout) error {
	return dialAll(ctx, r.target, r.connections, func(i int, d *dialed) error {
		return c.add(d, slotsFor(d.hello, protocol.InFlightMax), fmt.Sprintf("%s-%d-", r.id, i))
	})
}

func (r *round) measureOrders(ctx context.Context, c *checkout) error {
	r.phase(fmt.Sprintf("%d connections, %d orders of %d lines each under way", r.connections, r.depth, r.lines), warmUp(r.duration)+r.duration)
	began := time.Now()
	step := func() { r.progress.since(began) }
	if err := c.saturate(ctx, r.depth, warmUp(r.duration), step); err != nil {
		return err
	}
	c.restart()
	from := r.times()
	err := r.profiled(r.duration, func() error { return c.saturate(ctx, r.depth, r.duration, step) })
	if err != nil {
		return err
	}
	r.putOrders(c, from)
	missing, err := c.drain(ctx)
	if missing > 0 && err == nil {
		r.violate("%d orders without an end after %v", missing, drainTimeout)
	}
	return err
}

// putOrders writes what was measured since from. An order that was refused is none.
func (r *round) putOrders(c *checkout, from processTimes) {
	took, n := time.Since(from.at).Seconds(), r.numbers
	ended := c.confirmed + c.released - c.since.confirmed - c.since.released
	n["orders_per_second"] = float64(ended) / took
	n["acked_per_second"] = float64(c.acked-c.since.acked) / took
	n["refused_percent"] = 100 * float64(c.refused-c.since.refused) / float64(max(c.begun-c.since.begun, 1))
	c.whole.put(n, "")
	c.reserves.put(n, "reserve_")
	r.putCPU(from, ended, "order")
}

// checkOrders holds the stock of every node against what became of each order.
func (r *round) checkOrders(ctx context.Context, c *checkout) error {
	r.judgeOrders(c)
	return r.checkStandings(ctx, c.shelf.want(), fmt.Sprintf("%d orders confirmed, %d released, %d refused", c.confirmed, c.released, c.refused))
}

// judgeOrders notes what the answers alone show to be wrong.
func (r *round) judgeOrders(c *checkout) {
	r.putFalseRefusals(c.begun-c.falselyRefused, c.falselyRefused)
	r.numbers["resent_commands"] = float64(c.again.count)
	r.numbers["oversold_units"] = float64(c.oversold)
	for _, fault := range c.faults {
		r.violate("%s", fault)
	}
	if c.oversold > 0 {
		r.violate("%d units were reserved that were not there", c.oversold)
	}
	if c.wronglyRefused > 0 {
		r.violate("%d orders were refused although there was stock", c.wronglyRefused)
	}
	// Rights may be late, but not for every order: one region has all of the stock.
	if c.acked == 0 && c.refusedPlenty >= refusalsTell {
		r.violate("not one order came through: %d were refused of what there was plenty of", c.refusedPlenty)
	}
}
