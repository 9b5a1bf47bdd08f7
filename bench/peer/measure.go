package peer

import (
	"context"
	"errors"
	"fmt"
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
	// Edge says that it did best with the most connections that were tried, so that with
	// more it might do better.
	Edge bool
	// Faults are the ways in which its stock is not what it has answered.
	Faults []string
}

// Measure starts a peer, has it work for length with the number of connections that
// short trials show to be best, and holds its stock against its answers. tell
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
	result = &Result{Figures: make(map[string]float64)}
	if err := t.forms(ctx, result); err != nil {
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

// reached is what a form got done, and with how many connections.
type reached struct {
	done  *tally
	count int
	edge  bool // more were not tried, and fewer were worse
}

// forms measures all of them.
func (t *trial) forms(ctx context.Context, to *Result) error {
	forms, most := t.store.Forms(), -1.0
	for _, form := range forms {
		r, err := t.form(ctx, form)
		if err != nil {
			return err
		}
		if len(forms) > 1 {
			t.put(to.Figures, form+"_", r)
		}
		if r.done.rate() > most {
			most, to.Edge = r.done.rate(), r.edge
			t.put(to.Figures, "", r)
		}
	}
	return nil
}

func (t *trial) put(figures map[string]float64, prefix string, r reached) {
	rate := "acked_per_second"
	putAges(figures, prefix, r.done.ages)
	if t.work.Lines > 0 {
		rate = "orders_per_second"
		putAges(figures, prefix+"reserve_", r.done.ages)
		putAges(figures, prefix, r.done.whole)
	}
	figures[prefix+rate] = r.done.rate()
	figures[prefix+"connections"] = float64(r.count)
}

func putAges(figures map[string]float64, prefix string, ages *hdrhistogram.Histogram) {
	figures[prefix+"p50_ms"] = float64(ages.ValueAtQuantile(50)) / 1000
	figures[prefix+"p99_ms"] = float64(ages.ValueAtQuantile(99)) / 1000
}

// form measures one way to ask, with the best number of connections.
func (t *trial) form(ctx context.Context, form string) (r reached, err error) {
	c := &crew{trial: t, form: form}
	defer func() { err = errors.Join(err, c.close()) }()
	r.count, r.edge, err = c.calibrate(ctx)
	if err != nil {
		return r, err
	}
	if err := c.keep(r.count); err != nil {
		return r, err
	}
	t.tell(fmt.Sprintf("%s, %d connections", t.title(form), r.count), warmUp(t.length)+t.length)
	if _, err := t.loop(ctx, c.workers, warmUp(t.length)); err != nil {
		return r, err
	}
	r.done, err = t.loop(ctx, c.workers, t.length)
	return r, err
}

func (t *trial) title(form string) string {
	if form == "" {
		return t.kind.Name
	}
	return t.kind.Name + " by " + form
}

func warmUp(length time.Duration) time.Duration { return min(time.Second, length/4) }

// loop has workers work, and remembers what they got.
func (t *trial) loop(ctx context.Context, workers []*worker, length time.Duration) (*tally, error) {
	done, err := loop(ctx, t.work, workers, t.kind.batch, length)
	t.total.add(done)
	return done, err
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
