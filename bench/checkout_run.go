package main

import (
	"context"
	"errors"
	"time"
)

// tally is how far orders have come.
type tally struct {
	begun, acked        int64 // orders; commands
	confirmed, released int64 // orders that ended so
	refused             int64 // those for lack of stock
}

// saturate fills every connection's depth and from then on begins an order for each one
// that ends, until length is over.
func (c *checkout) saturate(ctx context.Context, depth int, length time.Duration, step func()) error {
	c.closed = true
	c.gen.tick()
	for _, b := range c.buyers {
		for range min(depth, len(b.slots)) - (len(b.slots) - len(b.free)) {
			b.begin(c.gen.now)
		}
		if err := b.conn.flush(); err != nil {
			return err
		}
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		step()
		if err := errors.Join(ctx.Err(), c.again.sendDue(), c.gen.turn(time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// drain begins nothing more, waits until every order has ended and says how many have
// not.
func (c *checkout) drain(ctx context.Context) (missing int64, err error) {
	c.closed = false
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && c.waiting() > 0; {
		if err := errors.Join(ctx.Err(), c.again.sendDue(), c.gen.turn(10*time.Millisecond)); err != nil {
			return c.waiting(), err
		}
	}
	return c.waiting(), nil
}

// restart forgets what was measured, not what is on the shelf.
func (c *checkout) restart() {
	c.since = c.tally
	for _, ages := range []latencies{c.reserves, c.ends, c.whole, c.late} {
		ages.h.Reset()
	}
}
