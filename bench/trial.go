package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// trial is a crowd that goes on sending while the nodes of its region are ended and
// started again.
type trial struct {
	*round
	crowd *crowd
	ready []float64 // ms from a node's start until it was ready

	killedAt time.Time // the last time
}

// withstand runs a trial: a steady phase, what disturb does, another steady phase, and
// the account. All that is said and done on the way is measured against one promise:
// no client sees more of it than a pause.
func (r *round) withstand(ctx context.Context, disturb func(context.Context, *trial) error) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	t := r.newTrial(gen)
	t.crowd.alone = !r.meshed()
	defer func() {
		t.crowd.close()
		err = errors.Join(err, gen.close())
	}()
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := t.load(ctx, disturb); err != nil {
		return err
	}
	return t.settle(ctx)
}

func (r *round) newTrial(gen *generator) *trial {
	t := &trial{round: r, crowd: newCrowd(gen, r.target.endpoints)}
	t.crowd.each = r.target.each
	return t
}

// Stock of a trial. Half of the commands sell what only a quarter brings in, so that
// at any moment the last unit is asked for by many; another quarter is never refused.
const (
	scarceOpening = 100
	plainSKUs     = 8
)

func (t *trial) open(ctx context.Context) error {
	c := t.crowd
	scarce := &account{sku: "bench-scarce-" + t.id, opening: scarceOpening}
	c.accounts = append(c.accounts, scarce)
	for i := range plainSKUs {
		c.accounts = append(c.accounts, &account{sku: fmt.Sprintf("bench-plain-%s-%d", t.id, i)})
	}
	for _, a := range c.accounts {
		count := protocol.Command{Op: protocol.OpCount, Key: "opening-" + a.sku, SKU: a.sku, OnHand: &a.opening}
		if _, err := ask(ctx, t.target.endpoint(0), count); err != nil {
			return err
		}
	}
	return c.open(ctx, t.target, t.connections, func(i, errands int) *member {
		key := fmt.Sprintf("%s-%d-#", t.id, i)
		sell := fmt.Sprintf(`{"op":"sell","id":#,"key":"%s","lines":[{"sku":"%s","quantity":1}]}`, key, scarce.sku)
		add := func(a *account) string {
			return fmt.Sprintf(`{"op":"adjust","id":#,"key":"%s","sku":"%s","delta":1}`, key, a.sku)
		}
		switch plain := c.accounts[1+i/4%plainSKUs]; i % 4 {
		case 0:
			return newMember(c, i, errands, scarce, 1, add(scarce))
		case 1:
			return newMember(c, i, errands, plain, 1, add(plain))
		default:
			return newMember(c, i, errands, scarce, -1, sell)
		}
	})
}

// load keeps the crowd sending through all phases.
func (t *trial) load(ctx context.Context, disturb func(context.Context, *trial) error) error {
	c := t.crowd
	c.set(float64(t.rate))
	if err := c.during(ctx, func(ctx context.Context) error { return pause(ctx, warmUp(t.duration)) }); err != nil {
		return err
	}
	c.ages.h.Reset()
	c.late.h.Reset()
	acked, from := c.acked, time.Now()
	if err := t.steady(ctx, "before"); err != nil {
		return err
	}
	if err := c.during(ctx, func(ctx context.Context) error { return disturb(ctx, t) }); err != nil {
		return err
	}
	if err := t.steady(ctx, "after"); err != nil {
		return err
	}
	t.numbers["acked_per_second"] = float64(c.acked-acked) / time.Since(from).Seconds()
	return nil
}

// steady measures a phase in which nobody disturbs.
func (t *trial) steady(ctx context.Context, name string) error {
	t.announce(fmt.Sprintf("%s commands/s over %d connections, %s", readable(float64(t.rate)), t.connections, name), t.duration)
	acked, from := t.crowd.acked, time.Now()
	stood := t.crowd.standings()
	err := t.crowd.during(ctx, func(ctx context.Context) error { return pause(ctx, t.duration) })
	t.numbers[name+"_acked_per_second"] = float64(t.crowd.acked-acked) / time.Since(from).Seconds()
	t.checkRefusals(name, stood)
	return err
}

// announce begins a phase; on the crowd's goroutine.
func (t *trial) announce(what string, length time.Duration) {
	t.phase(what, length)
	t.crowd.phase = what
	began := time.Now()
	t.crowd.step = func() { t.progress.since(began) }
}

// restart starts a node again and waits until it is ready.
func (t *trial) restart(ctx context.Context, n *node) error {
	began := time.Now()
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("starting it again: %w", err)
	}
	t.ready = append(t.ready, milliseconds(time.Since(began)))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// settle waits for the last answers and holds the stock against all of them.
func (t *trial) settle(ctx context.Context) error {
	c := t.crowd
	t.announce("waiting for the last answers", drainTimeout)
	missing, err := c.drain(ctx)
	if err != nil {
		return err
	}
	if missing > 0 {
		t.violate("%d commands were never answered", missing)
	}
	for _, m := range c.members {
		if m.conn == nil {
			t.violate("%v has found no node to go to", m)
		}
	}
	if c.wronglyRefused > 0 {
		t.violate("%d commands were refused although there was stock", c.wronglyRefused)
	}
	if c.failed > 0 {
		t.violate("%d commands were answered with an error", c.failed)
	}
	for _, fault := range c.faults {
		t.violate("%s", fault)
	}
	lost, oversold, err := t.audit(ctx)
	t.put(lost+missing, oversold)
	return err
}

func (t *trial) put(lost, oversold int64) {
	c, n := t.crowd, t.numbers
	n["false_refusals"] = float64(c.falselyRefused)
	n["failed_commands"], n["lost_commands"], n["oversold_units"] = float64(c.failed), float64(lost), float64(oversold)
	n["resent_commands"], n["connection_moves"] = float64(c.resent), float64(c.moves)
	n["longest_gap_ms"] = float64(c.gap) / 1e6
	if len(t.ready) > 0 {
		n["ready_max_ms"] = slices.Max(t.ready)
	}
	c.ages.put(n, "")
	c.late.put(n, "generator_late_")
}

// audit compares each node's stock with the answers.
func (t *trial) audit(ctx context.Context) (lost, oversold int64, err error) {
	want := make(map[string]int64)
	for _, a := range t.crowd.accounts {
		want[a.sku] = a.onHand()
		oversold = max(oversold, a.sold-a.opening-a.added)
	}
	for i, n := range t.target.nodes {
		stock, err := t.settledStock(ctx, i, want)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", n.name, err)
		}
		here, below := t.compare(n, stock)
		lost, oversold = max(lost, here), max(oversold, below)
	}
	if oversold > 0 {
		t.violate("%d units were sold that were never there", oversold)
	}
	return lost, oversold, nil
}

// compare counts the acknowledged commands that a node's stock doesn't show, or shows
// twice, and the units that it has sold without having them.
func (t *trial) compare(n *node, stock map[string]int64) (lost, oversold int64) {
	for _, a := range t.crowd.accounts {
		onHand, want := stock[a.sku], a.onHand()
		oversold += max(0, -onHand)
		if onHand == want {
			continue
		}
		lost += max(onHand-want, want-onHand)
		t.violate("%s has %d of %s: want %d after %d acknowledged units in and %d out, from %d", n.name, onHand, a.sku, want, a.added, a.sold, a.opening)
	}
	return lost, oversold
}
