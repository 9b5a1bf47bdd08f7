package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a peer has reached.
type Result struct {
	// Figures, by metric: acked_per_second, p50_ms, p99_ms and connections of the form
	// that did best, and with its name before them those of each form where there are
	// several. For orders: orders_per_second, the ages of whole orders, and with reserve_
	// before them those of the reservations.
	Figures map[string]float64
	// Faults are the ways in which its stock is not what it has answered.
	Faults []string
}

// Measure starts a peer, has it work for length with the number of connections that a
// short trial of several shows to be best, and holds its stock against its answers. tell
// hears what is done next and how long that takes.
func (k Kind) Measure(ctx context.Context, c Config, w Work, length time.Duration, tell func(what string, length time.Duration)) (result *Result, err error) {
	s, err := k.start(ctx, c)
	if err != nil {
		return nil, &StartError{err}
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Fill(ctx, w); err != nil {
		return nil, fmt.Errorf("opening stock: %w", err)
	}
	t := &trial{kind: k, store: s, work: w, total: newTally(w), length: length, tell: tell}
	result = &Result{}
	if result.Figures, err = t.forms(ctx); err != nil {
		return nil, err
	}
	result.Faults, err = t.check(ctx)
	return result, err
}

// StartError says that a peer did not come up.
type StartError struct{ error }

func (e *StartError) Unwrap() error { return e.error }

// trial is a peer at work.
type trial struct {
	kind   Kind
	store  Store
	work   Work
	total  *tally // of all that was ever asked
	length time.Duration
	tell   func(string, time.Duration)
}

func (t *trial) forms(ctx context.Context) (map[string]float64, error) {
	forms := t.store.Forms()
	figures, best := make(map[string]float64), -1.0
	for _, form := range forms {
		done, count, err := t.form(ctx, form)
		if err != nil {
			return nil, err
		}
		if len(forms) > 1 {
			t.put(figures, form+"_", done, count)
		}
		if done.rate() > best {
			best = done.rate()
			t.put(figures, "", done, count)
		}
	}
	return figures, nil
}

func (t *trial) put(figures map[string]float64, prefix string, done *tally, count int) {
	rate := "acked_per_second"
	putAges(figures, prefix, done.ages)
	if t.work.Lines > 0 {
		rate = "orders_per_second"
		putAges(figures, prefix+"reserve_", done.ages)
		putAges(figures, prefix, done.whole)
	}
	figures[prefix+rate] = done.rate()
	figures[prefix+"connections"] = float64(count)
}

func putAges(figures map[string]float64, prefix string, ages *hdrhistogram.Histogram) {
	figures[prefix+"p50_ms"] = float64(ages.ValueAtQuantile(50)) / 1000
	figures[prefix+"p99_ms"] = float64(ages.ValueAtQuantile(99)) / 1000
}

// form measures one way to ask, with the best number of connections.
func (t *trial) form(ctx context.Context, form string) (done *tally, count int, err error) {
	workers, err := t.dial(ctx, form)
	defer func() {
		for _, k := range workers {
			err = errors.Join(err, k.client.Close())
		}
	}()
	if err != nil {
		return nil, 0, err
	}
	count, err = t.calibrate(ctx, form, workers)
	if err != nil {
		return nil, 0, err
	}
	t.tell(fmt.Sprintf("%s, %d connections", t.title(form), count), warmUp(t.length)+t.length)
	if _, err := t.loop(ctx, workers[:count], warmUp(t.length)); err != nil {
		return nil, 0, err
	}
	done, err = t.loop(ctx, workers[:count], t.length)
	return done, count, err
}

func (t *trial) title(form string) string {
	if form == "" {
		return t.kind.Name
	}
	return t.kind.Name + " by " + form
}

func warmUp(length time.Duration) time.Duration { return min(time.Second, length/4) }

// A trial of one number of connections is made more than once, and its best counts:
// what else goes on on the machine only ever slows one down.
const (
	trialMax = 400 * time.Millisecond
	trials   = 2
)

// calibrate finds the number of connections with which most gets done.
func (t *trial) calibrate(ctx context.Context, form string, workers []*worker) (best int, err error) {
	each := min(trialMax, t.length/8)
	t.tell(fmt.Sprintf("%s, how many connections are best", t.title(form)), each*time.Duration(trials*len(t.kind.counts)))
	most := -1.0
	for i := range trials * len(t.kind.counts) {
		n := t.kind.counts[i%len(t.kind.counts)]
		done, err := t.loop(ctx, workers[:n], each)
		if err != nil {
			return 0, fmt.Errorf("%d connections: %w", n, err)
		}
		if done.rate() > most {
			most, best = done.rate(), n
		}
	}
	return best, nil
}

// loop has workers work, and remembers what they got.
func (t *trial) loop(ctx context.Context, workers []*worker, length time.Duration) (*tally, error) {
	done, err := loop(ctx, t.work, workers, t.kind.batch, length)
	t.total.add(done)
	return done, err
}

func (t *trial) dial(ctx context.Context, form string) (workers []*worker, err error) {
	for i := range slices.Max(t.kind.counts) {
		c, err := t.store.Dial(ctx, form, t.work)
		if err != nil {
			return workers, fmt.Errorf("connection %d: %w", i+1, err)
		}
		prefix := t.work.ID + form + strconv.Itoa(t.work.Lines)
		workers = append(workers, &worker{client: c, work: t.work, prefix: prefix, number: i})
	}
	return workers, nil
}

const faultsMax = 5

// check holds the stock against the answers.
func (t *trial) check(ctx context.Context) (faults []string, err error) {
	stock, err := t.store.Read(ctx, t.work)
	if err != nil {
		return nil, fmt.Errorf("reading the stock: %w", err)
	}
	if t.total.refused > 0 {
		faults = append(faults, fmt.Sprintf("%d were refused although there was stock", t.total.refused))
	}
	for i, s := range stock {
		want := t.work.Opening - t.total.sold[i]
		if s.OnHand != want || s.Reserved != 0 {
			faults = append(faults, fmt.Sprintf("%s: on hand %d, reserved %d after %d acknowledged of %d: want %d and 0",
				t.work.SKU(i), s.OnHand, s.Reserved, t.total.sold[i], t.work.Opening, want))
		}
	}
	return faults[:min(len(faults), faultsMax)], nil
}
