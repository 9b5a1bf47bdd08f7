package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// crew is the connections that a form is asked through. There are as many as were
// needed at once so far.
type crew struct {
	*trial
	form    string
	workers []*worker
}

// of returns the first n, and opens those that are not there yet.
func (c *crew) of(ctx context.Context, n int) ([]*worker, error) {
	for i := len(c.workers); i < n; i++ {
		client, err := c.store.Dial(ctx, c.form, c.work)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		prefix := c.work.ID + c.form + strconv.Itoa(c.work.Lines)
		c.workers = append(c.workers, &worker{client: client, work: c.work, prefix: prefix, number: i})
	}
	return c.workers[:n], nil
}

// keep closes all but the first n: what is only there costs some servers too.
func (c *crew) keep(n int) error {
	n = min(n, len(c.workers))
	var errs []error
	for _, w := range c.workers[n:] {
		errs = append(errs, w.client.Close())
	}
	c.workers = c.workers[:n]
	return errors.Join(errs...)
}

func (c *crew) close() error { return c.keep(0) }

// A trial of one number of connections is made more than once, and its best counts:
// what else goes on on the machine only ever slows one down.
const trials = 2

// worthwhile is how many times as much twice the connections have to get done: for less,
// each command would only wait longer.
const worthwhile = 1.05

// calibrate finds the number of connections with which most gets done. As long as that
// is the greatest that was tried, twice as many are tried. edge says that it still is.
func (c *crew) calibrate(ctx context.Context) (best int, edge bool, err error) {
	counts := c.kind.counts
	c.tell(fmt.Sprintf("%s, how many connections are best", c.title(c.form)), c.each()*time.Duration(trials*len(counts)))
	most := -1.0
	for i := range trials * len(counts) {
		n := counts[i%len(counts)]
		rate, err := c.try(ctx, n)
		if err != nil {
			return 0, false, err
		}
		if rate > most {
			most, best = rate, n
		}
	}
	if best < slices.Max(counts) {
		return best, false, nil
	}
	return c.double(ctx, best, most)
}

// double goes on from the greatest number, with which most got done.
func (c *crew) double(ctx context.Context, best int, most float64) (int, bool, error) {
	for n := 2 * best; n <= c.kind.most; n = 2 * best {
		if _, err := c.of(ctx, n); err != nil {
			return best, true, ctx.Err() // the machine has no room for so many
		}
		reached := 0.0
		for range trials {
			rate, err := c.try(ctx, n)
			if err != nil {
				return 0, false, err
			}
			reached = max(reached, rate)
		}
		if reached < worthwhile*most {
			return best, false, nil
		}
		best, most = n, reached
	}
	return best, true, nil
}

const trialMax = 400 * time.Millisecond

// each is how long one trial takes.
func (c *crew) each() time.Duration { return min(trialMax, c.length/8) }

// try returns what so many connections get done.
func (c *crew) try(ctx context.Context, n int) (rate float64, err error) {
	workers, err := c.of(ctx, n)
	if err != nil {
		return 0, err
	}
	done, err := c.loop(ctx, workers, c.each())
	if err != nil {
		return 0, fmt.Errorf("%d connections: %w", n, err)
	}
	return done.rate(), nil
}
