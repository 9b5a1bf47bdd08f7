package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// trade plays the invoices in order, each on the next free connection.
func (r *replay) trade(ctx context.Context) error {
	return r.spread(ctx, r.players, len(r.plan.invoices), r.wait, func(ctx context.Context, p *player, i int) error {
		v := &r.plan.invoices[i]
		if err := r.play(ctx, p, v); err != nil {
			if ctx.Err() != nil || errors.Is(err, client.ErrClosed) {
				return err
			}
			r.book.failed("invoice %s: %v", v.id, err)
		}
		r.Progress.Add(1)
		return nil
	})
}

// wait returns when an invoice may be played.
func (r *replay) wait(ctx context.Context, i int) error {
	if r.Rate > 0 {
		if err := pause(ctx, time.Duration(float64(time.Second)/r.Rate)); err != nil {
			return err
		}
	}
	if r.Before == nil {
		return nil
	}
	return r.Before(ctx, i)
}

// spread does 0..n-1 in order, each on the next free connection; before, where there is
// one, comes before each.
func (r *replay) spread(ctx context.Context, players []*player, n int, before func(context.Context, int) error, do func(context.Context, *player, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range n {
			if before != nil {
				if err := before(ctx, i); err != nil {
					return err
				}
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for _, p := range players {
		g.Go(func() error {
			for i := range next {
				if err := do(ctx, p, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *replay) play(ctx context.Context, p *player, v *invoice) error {
	r.book.count(func(n *Counts) { n.Invoices++ })
	for i, l := range v.returns {
		if err := r.putBack(ctx, p, v, i, l); err != nil {
			return err
		}
	}
	if len(v.sales) == 0 {
		return nil
	}
	holds, err := r.reserve(ctx, p, v)
	if isCode(err, protocol.CodeInsufficientStock) {
		r.book.count(func(n *Counts) {
			n.Refused++
			if thereElsewhere(err) {
				n.RefusedElsewhere++
			}
		})
		return r.end(ctx, p, v, holds, toRelease, nil)
	}
	if err != nil {
		return err
	}
	return r.end(ctx, p, v, holds, v.fate, r.counter(v.fate))
}

// counter returns what to count when an invoice has met its fate.
func (r *replay) counter(f fate) func(*Counts) {
	return func(n *Counts) {
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

func (r *replay) putBack(ctx context.Context, p *player, v *invoice, i int, l protocol.Line) error {
	key := r.key(v.id, "return", i)
	sent := time.Now()
	it, err := p.Adjust(ctx, l.SKU, l.Location, l.Quantity, client.Key(key), client.Reference(v.id), client.Reason("return"))
	r.answered(p, protocol.OpAdjust, sent, err)
	if err != nil {
		return err
	}
	r.book.returned(l, key)
	r.measure(it, sent)
	return nil
}

// reserve holds all parts of the invoice. On a refusal it returns those that it
// had got before.
func (r *replay) reserve(ctx context.Context, p *player, v *invoice) (holds []hold, err error) {
	ttl := r.TTL
	if v.fate == toExpire {
		ttl = r.ShortTTL
	}
	for i, lines := range parts(v.sales) {
		key := r.key(v.id, "reserve", i)
		sent := time.Now()
		made, err := p.Reserve(ctx, lines, client.Key(key), client.Reference(v.id), client.TTL(ttl))
		r.answered(p, protocol.OpReserve, sent, err)
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
func (r *replay) end(ctx context.Context, p *player, v *invoice, holds []hold, f fate, count func(*Counts)) error {
	late := 0
	for i, h := range holds {
		expired, err := r.endOne(ctx, p, h, f, i)
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

func (r *replay) endOne(ctx context.Context, p *player, h hold, f fate, part int) (expired bool, err error) {
	var key string
	op, sent := protocol.OpConfirm, time.Now()
	switch f {
	case toExpire:
		r.book.expired(h)
		return true, nil
	case toSell:
		key = r.key(h.invoice, "confirm", part)
		_, err = p.Confirm(ctx, h.id, client.Key(key), client.Reference(h.invoice))
	case toRelease:
		key, op = r.key(h.invoice, "release", part), protocol.OpRelease
		_, err = p.Release(ctx, h.id, client.Key(key), client.Reference(h.invoice))
	}
	r.answered(p, op, sent, err)
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

func (r *replay) answered(p *player, op protocol.Op, sent time.Time, err error) {
	r.commands.Add(1)
	if r.Answered != nil {
		r.Answered(Answer{Op: op, At: p.at, Sent: sent, Took: time.Since(sent), Err: err})
	}
}

// measure starts the clock's comparison at every watcher.
func (r *replay) measure(it protocol.Item, sent time.Time) (version protocol.Vector, ok bool) {
	version, err := protocol.ParseVector(it.Version)
	if err != nil {
		r.book.failed("%s: version %v", it.SKU, err)
		return nil, false
	}
	for _, w := range r.watchers {
		w.freshness.acknowledged(it.SKU, version, sent)
	}
	return version, true
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

// thereElsewhere reports whether an invoice was refused though its units seemed to be
// there: counting what other regions may have.
func thereElsewhere(err error) bool {
	var refused *protocol.Error
	if !errors.As(err, &refused) || refused.Details == nil || len(refused.Details.Lines) == 0 {
		return false
	}
	return !slices.ContainsFunc(refused.Details.Lines, func(l protocol.Shortage) bool {
		return l.Available+l.Elsewhere < l.Requested
	})
}
