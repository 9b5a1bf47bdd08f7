package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// hold is a reservation the replay made: one part of an invoice.
type hold struct {
	id, key, invoice string
	lines            []protocol.Line
}

// replay runs a plan over several connections.
type replay struct {
	plan     *plan
	options  replayOptions
	book     *book
	clients  []*client.Client
	watched  []*client.Client
	watchers []*watcher
	commands atomic.Int64 // answered
}

// key makes an idempotency key of this run.
func (r *replay) key(parts ...any) string {
	key := r.book.prefix
	for i, p := range parts {
		if i > 0 {
			key += ":"
		}
		key += fmt.Sprint(p)
	}
	return key
}

// open counts every SKU to its opening stock.
func (r *replay) open(ctx context.Context, p *progress) error {
	return r.spread(ctx, 0, len(r.plan.skus), func(ctx context.Context, c *client.Client, i int) error {
		sku := r.plan.skus[i]
		if err := r.openOne(ctx, c, sku, r.key("open", i)); err != nil {
			return fmt.Errorf("opening stock of %s: %w", sku, err)
		}
		p.add(1)
		return nil
	})
}

// openOne counts one SKU. A refusal means that reservations of an earlier run
// still hold more than the opening; they expire.
func (r *replay) openOne(ctx context.Context, c *client.Client, sku, key string) error {
	n := r.plan.opening[sku]
	refusedUntil := time.Now().Add(r.options.settle)
	for {
		sent := time.Now()
		it, err := c.Count(ctx, sku, "", n, client.Key(key), client.Reason("replay"))
		r.commands.Add(1)
		if err == nil {
			r.book.opened(sku, n)
			r.measure(it, sent)
			return nil
		}
		if !isCode(err, protocol.CodeInsufficientStock) || time.Now().After(refusedUntil) {
			return err
		}
		if err := pause(ctx, settleEvery); err != nil {
			return err
		}
	}
}

// trade plays the invoices in order, each on the next free connection.
func (r *replay) trade(ctx context.Context, p *progress) error {
	return r.spread(ctx, r.options.gap(), len(r.plan.invoices), func(ctx context.Context, c *client.Client, i int) error {
		v := &r.plan.invoices[i]
		if err := r.play(ctx, c, v); err != nil {
			if ctx.Err() != nil || errors.Is(err, client.ErrClosed) {
				return err
			}
			r.book.failed("invoice %s: %v", v.id, err)
		}
		p.add(1)
		return nil
	})
}

// spread does 0..n-1 in order on all connections, with a gap before each.
func (r *replay) spread(ctx context.Context, gap time.Duration, n int, do func(context.Context, *client.Client, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range n {
			if err := pause(ctx, gap); err != nil {
				return err
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for _, c := range r.clients {
		g.Go(func() error {
			for i := range next {
				if err := do(ctx, c, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *replay) play(ctx context.Context, c *client.Client, v *invoice) error {
	r.book.count(func(n *replayCounts) { n.Invoices++ })
	for i, l := range v.returns {
		if err := r.putBack(ctx, c, v, i, l); err != nil {
			return err
		}
	}
	if len(v.sales) == 0 {
		return nil
	}
	holds, err := r.reserve(ctx, c, v)
	if isCode(err, protocol.CodeInsufficientStock) {
		r.book.count(func(n *replayCounts) { n.Refused++ })
		return r.end(ctx, c, v, holds, toRelease, nil)
	}
	if err != nil {
		return err
	}
	return r.end(ctx, c, v, holds, v.fate, r.counter(v.fate))
}

// counter returns what to count when an invoice has met its fate.
func (r *replay) counter(f fate) func(*replayCounts) {
	return func(n *replayCounts) {
		switch f {
		case toSell:
			n.Sold++
		case toRelease:
			n.Released++
		case toExpire:
			n.Expired++
		}
	}
}

func (r *replay) putBack(ctx context.Context, c *client.Client, v *invoice, i int, l protocol.Line) error {
	key := r.key(v.id, "return", i)
	sent := time.Now()
	it, err := c.Adjust(ctx, l.SKU, l.Location, l.Quantity, client.Key(key), client.Reference(v.id), client.Reason("return"))
	r.commands.Add(1)
	if err != nil {
		return err
	}
	r.book.returned(l, key)
	r.measure(it, sent)
	return nil
}

// reserve holds all parts of the invoice. On a refusal it returns those that it
// had got before.
func (r *replay) reserve(ctx context.Context, c *client.Client, v *invoice) (holds []hold, err error) {
	ttl := r.options.ttl
	if v.fate == toExpire {
		ttl = r.options.shortTTL
	}
	for i, lines := range parts(v.sales) {
		key := r.key(v.id, "reserve", i)
		made, err := c.Reserve(ctx, lines, client.Key(key), client.Reference(v.id), client.TTL(ttl))
		r.commands.Add(1)
		if err != nil {
			return holds, err
		}
		h := hold{id: made.ID, key: key, invoice: v.id, lines: lines}
		r.book.held(h)
		holds = append(holds, h)
	}
	return holds, nil
}

// end brings the holds to their fate and counts the invoice. All parts must
// come to the same end: anything else is a torn invoice.
func (r *replay) end(ctx context.Context, c *client.Client, v *invoice, holds []hold, f fate, count func(*replayCounts)) error {
	late := 0
	for i, h := range holds {
		expired, err := r.endOne(ctx, c, h, f, i)
		if err != nil {
			return err
		}
		if expired {
			late++
		}
	}
	if f == toSell && late > 0 {
		if late < len(holds) {
			r.book.failed("invoice %s is torn: %d of %d parts expired before they were confirmed", v.id, late, len(holds))
		}
		count = r.counter(toExpire)
	}
	if count != nil {
		r.book.count(count)
	}
	return nil
}

func (r *replay) endOne(ctx context.Context, c *client.Client, h hold, f fate, part int) (expired bool, err error) {
	var key string
	switch f {
	case toExpire:
		r.book.expired(h)
		return true, nil
	case toSell:
		key = r.key(h.invoice, "confirm", part)
		_, err = c.Confirm(ctx, h.id, client.Key(key), client.Reference(h.invoice))
	case toRelease:
		key = r.key(h.invoice, "release", part)
		_, err = c.Release(ctx, h.id, client.Key(key), client.Reference(h.invoice))
	}
	r.commands.Add(1)
	switch {
	case endedAs(err) == protocol.Expired:
		r.book.expired(h)
		return true, nil
	case err != nil:
		return false, err
	case f == toSell:
		r.book.confirmed(h, key)
	default:
		r.book.released(h, key)
	}
	return false, nil
}

// measure starts the clock's comparison at every watcher.
func (r *replay) measure(it protocol.Item, sent time.Time) {
	version, err := protocol.ParseVector(it.Version)
	if err != nil {
		r.book.failed("%s: version %v", it.SKU, err)
		return
	}
	for _, w := range r.watchers {
		w.latency.acknowledged(it.SKU, version, sent)
	}
}

func isCode(err error, code protocol.Code) bool {
	return errors.Is(err, &protocol.Error{Code: code})
}

// endedAs returns the state named by a reservation_ended answer.
func endedAs(err error) protocol.State {
	var refused *protocol.Error
	if !errors.As(err, &refused) || refused.Code != protocol.CodeReservationEnded || refused.Details == nil {
		return ""
	}
	return refused.Details.State
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
