package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const hotPrefix = "bench-hot-"

// opening is more than any run can sell.
const opening = 1 << 40

// warmUp precedes what is measured.
func warmUp(length time.Duration) time.Duration { return min(time.Second, length/4) }

// hotSKU sells one SKU over all connections, first as fast as answers come, then
// at half of that rate, and compares the stock with the answers. In a mesh, the
// clients are everywhere and the stock is entered in one region.
func hotSKU(ctx context.Context, r *round) (err error) {
	sku := hotPrefix + r.id
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	switch {
	case r.grants:
		return r.compareGrants(ctx, gen)
	case r.observed:
		return r.compareObserved(ctx, gen)
	}
	l := newLoad(gen)
	if err := r.openLoad(ctx, l, sku); err != nil {
		return err
	}
	if err := r.measureMaximum(ctx, l); err != nil {
		return err
	}
	if !r.noHalf {
		if err := r.measureHalf(ctx, l); err != nil {
			return err
		}
	}
	if err := r.putCeiling(ctx, "acked_per_second", driveHotSKU); err != nil {
		return err
	}
	return r.checkSales(ctx, l, sku)
}

// driveHotSKU has the generator do what hotSKU measures first.
func driveHotSKU(ctx context.Context, r *round, gen *generator) error {
	l := newLoad(gen)
	if err := r.openLoad(ctx, l, hotPrefix+r.id); err != nil {
		return err
	}
	return r.measureMaximum(ctx, l)
}

// openLoad sets the opening stock and opens the connections.
func (r *round) openLoad(ctx context.Context, l *load, sku string) error {
	count := protocol.Command{Op: protocol.OpCount, Key: "opening-" + r.id, SKU: sku, OnHand: protocol.Ptr(int64(opening))}
	if _, err := ask(ctx, r.target.endpoint(0), count); err != nil {
		return err
	}
	if err := r.awaitStock(ctx, map[string]int64{sku: opening}); err != nil {
		return err
	}
	return dialAll(ctx, r.target, r.connections, func(i int, d *dialed) error {
		sell := fmt.Sprintf(`{"op":"sell","id":#,"key":"%s-%d-#","lines":[{"sku":"%s","quantity":1}]}`, r.id, i, sku)
		return l.add(d, slotsFor(d.hello, protocol.InFlightMax), sell, 1)
	})
}

// awaitStock waits until every region has heard of what one of them was given.
func (r *round) awaitStock(ctx context.Context, want map[string]int64) error {
	if !r.meshed() {
		return nil
	}
	for i, n := range r.target.nodes {
		stock, err := r.settledStock(ctx, i, want)
		if err != nil {
			return err
		}
		if !maps.Equal(stock, want) {
			return fmt.Errorf("%s has not heard of the opening stock within %v", n.name, settleMeshMax)
		}
	}
	return nil
}

func (r *round) measureMaximum(ctx context.Context, l *load) error {
	r.phase(fmt.Sprintf("%d connections, %d commands each under way", r.connections, r.depth), warmUp(r.duration)+r.duration)
	begin := time.Now()
	step := func() { r.progress.since(begin) }
	if err := l.saturate(ctx, r.depth, warmUp(r.duration), step); err != nil {
		return err
	}
	l.ages.h.Reset()
	from, acked := r.times(), l.acked
	err := r.profiled(r.duration, func() error { return l.saturate(ctx, r.depth, r.duration, step) })
	if err != nil {
		return err
	}
	n := l.acked - acked
	r.numbers["acked_per_second"] = float64(n) / time.Since(from.at).Seconds()
	l.ages.put(r.numbers, "")
	r.putCPU(from, n, "command")
	return r.settle(ctx, l)
}

func (r *round) measureHalf(ctx context.Context, l *load) error {
	rate := r.numbers["acked_per_second"] / 2
	r.phase(fmt.Sprintf("open loop at %s/s", readable(rate)), warmUp(r.duration)+r.duration)
	begin := time.Now()
	step := func() { r.progress.since(begin) }
	if err := l.offer(ctx, rate, warmUp(r.duration), step); err != nil {
		return err
	}
	l.ages.h.Reset()
	l.late.h.Reset()
	acked, from := l.acked, time.Now()
	if err := l.offer(ctx, rate, r.duration, step); err != nil {
		return err
	}
	r.numbers["half_acked_per_second"] = float64(l.acked-acked) / time.Since(from).Seconds()
	if err := r.settle(ctx, l); err != nil {
		return err
	}
	l.ages.put(r.numbers, "half_") // with those answered after the phase
	l.late.put(r.numbers, "half_generator_late_")
	return nil
}

// settle waits until every command has its answer.
func (r *round) settle(ctx context.Context, l *load) error {
	missing, err := l.drain(ctx)
	if missing > 0 && err == nil {
		r.violate("%d commands without an answer after %v", missing, drainTimeout)
	}
	return err
}

// checkSales holds the stock against the answers.
func (r *round) checkSales(ctx context.Context, l *load, sku string) error {
	for _, fault := range l.faults {
		r.violate("%s", fault)
	}
	if r.meshed() || l.falselyRefused > 0 {
		r.numbers["false_refusals"] = float64(l.falselyRefused)
		r.numbers["false_refusals_percent"] = 100 * float64(l.falselyRefused) / float64(max(l.acked+l.falselyRefused, 1))
	}
	if l.refused > 0 {
		r.violate("%d sells were refused although there was stock", l.refused)
	}
	want := opening - l.acked
	for i := range r.target.endpoints {
		stock, err := r.settledStock(ctx, i, map[string]int64{sku: want})
		if err != nil {
			return err
		}
		onHand, known := stock[sku]
		switch {
		case !known:
			r.violate("get answers %d items for one SKU", len(stock))
		case onHand != want:
			r.violate("on_hand is %d after %d acknowledged sells of %d: want %d", onHand, l.acked, int64(opening), want)
		}
	}
	return nil
}
