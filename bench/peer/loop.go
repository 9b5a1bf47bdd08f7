package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// commandTimeout is when a peer that doesn't answer is given up.
const commandTimeout = 30 * time.Second

// tally is what connections have got done. They share one: a histogram for each of
// hundreds would take more memory than the peer.
type tally struct {
	mu      sync.Mutex
	done    int64   // sells or whole orders that were acknowledged
	refused int64   // that there was not enough stock for
	sold    []int64 // of each SKU
	took    time.Duration
	ages    *hdrhistogram.Histogram // of sells or reservations, in microseconds
	whole   *hdrhistogram.Histogram // of orders
}

func newTally(w Work) *tally {
	return &tally{sold: make([]int64, w.SKUs), ages: newHistogram(), whole: newHistogram()}
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), 3)
}

func record(h *hdrhistogram.Histogram, age time.Duration, n int) {
	us := min(max(age.Microseconds(), 1), time.Minute.Microseconds())
	_ = h.RecordValues(us, int64(n)) // in range
}

func (t *tally) add(from *tally) {
	t.done += from.done
	t.refused += from.refused
	for i, n := range from.sold {
		t.sold[i] += n
	}
	t.ages.Merge(from.ages)
	t.whole.Merge(from.whole)
}

func (t *tally) rate() float64 { return float64(t.done) / max(t.took.Seconds(), 1e-9) }

// worker is one connection that asks again as soon as it is answered.
type worker struct {
	client Client
	work   Work
	prefix string // of its keys
	number int
	next   uint64
}

// loop keeps all workers busy for a while. Each waits for the answer to its last
// command, so that nothing is left open.
func loop(ctx context.Context, w Work, workers []*worker, batch int, length time.Duration) (*tally, error) {
	ctx, cancel := context.WithTimeout(ctx, length+commandTimeout)
	defer cancel()
	t, errs := newTally(w), make([]error, len(workers))
	began := time.Now()
	end := began.Add(length)
	var running sync.WaitGroup
	for i, one := range workers {
		running.Go(func() {
			if errs[i] = one.run(ctx, t, batch, end); errs[i] != nil {
				cancel()
			}
		})
	}
	running.Wait()
	t.took = time.Since(began)
	return t, firstCause(errs)
}

// firstCause is the error that made the others stop.
func firstCause(errs []error) error {
	var stopped error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		stopped = errors.Join(stopped, err)
	}
	return stopped
}

func (k *worker) run(ctx context.Context, t *tally, batch int, end time.Time) error {
	for time.Now().Before(end) {
		var err error
		if k.work.Lines > 0 {
			err = k.order(ctx, t)
		} else {
			err = k.sell(ctx, t, batch)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", k.number+1, err)
		}
	}
	return nil
}

func (k *worker) take() Order {
	k.next++
	return k.work.order(k.prefix, k.number, k.next)
}

func (k *worker) sell(ctx context.Context, t *tally, batch int) error {
	orders := make([]Order, batch)
	for i := range orders {
		orders[i] = k.take()
	}
	asked := time.Now()
	enough, err := k.client.Sell(ctx, orders)
	if err != nil {
		return err
	}
	age := time.Since(asked)
	t.mu.Lock()
	defer t.mu.Unlock()
	record(t.ages, age, batch)
	for i, o := range orders {
		t.count(o, enough[i], true)
	}
	return nil
}

func (t *tally) count(o Order, enough, sold bool) {
	if !enough {
		t.refused++
		return
	}
	t.done++
	for _, l := range o.Lines {
		if sold {
			t.sold[l.SKU] += l.Quantity
		}
	}
}

// order reserves and then confirms or releases.
func (k *worker) order(ctx context.Context, t *tally) error {
	client, ok := k.client.(Reserver)
	if !ok {
		return errors.New("it knows no reservations")
	}
	o := k.take()
	asked := time.Now()
	enough, err := client.Reserve(ctx, o)
	if err != nil {
		return err
	}
	reserved := time.Since(asked)
	sold := k.next%releaseEvery > 0
	if enough {
		if err := client.Settle(ctx, o, sold); err != nil {
			return err
		}
	}
	whole := time.Since(asked)
	t.mu.Lock()
	defer t.mu.Unlock()
	record(t.ages, reserved, 1)
	if enough {
		record(t.whole, whole, 1)
	}
	t.count(o, enough, sold)
	return nil
}
