package peer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeStore is a store in memory, with one fault at most.
type fakeStore struct {
	mu      sync.Mutex
	stock   []Stock
	dialed  int // connections that are open
	busy    int // those at work
	closed  bool
	forgets bool  // says yes and does nothing
	leaks   bool  // an order that is released stays held
	refuses bool  // says no to every third
	breaks  error // answers with this
	asked   int
	room    int // so many at work don't hinder each other; 0: one
	seats   int // there are no more connections; 0: any number
}

func (f *fakeStore) kind(counts ...int) Kind {
	return Kind{Name: "fake", Orders: true, counts: counts, batch: 1, find: always, start: func(context.Context, Config) (Store, error) { return f, nil }}
}

func (f *fakeStore) Forms() []string { return []string{"slowly", "quickly"} }

func (f *fakeStore) Fill(_ context.Context, w Work) error {
	for range w.SKUs {
		f.stock = append(f.stock, Stock{OnHand: w.Opening})
	}
	return nil
}

func (f *fakeStore) Dial(_ context.Context, form string, _ Work) (Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dialed == f.seats && f.seats > 0 {
		return nil, errors.New("too many connections")
	}
	f.dialed++
	return &fakeClient{f, form}, nil
}

func (f *fakeStore) Read(context.Context, Work) ([]Stock, error) { return f.stock, nil }

func (f *fakeStore) Close() error {
	f.closed = true
	return nil
}

type fakeClient struct {
	*fakeStore
	form string
}

func (c *fakeClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed--
	return nil
}

// work takes no time for one alone, unless it asks slowly, and long for those who crowd.
func (c *fakeClient) work(ctx context.Context) error {
	c.mu.Lock()
	c.busy++
	length := time.Duration(0)
	switch {
	case c.busy > max(c.room, 1):
		length = 100 * time.Millisecond
	case c.form == "slowly" || c.room > 1:
		length = 5 * time.Millisecond
	}
	c.mu.Unlock()
	err := pause(ctx, length)
	c.mu.Lock()
	c.busy--
	c.asked++
	c.mu.Unlock()
	return err
}

func (c *fakeClient) change(o Order, onHand, reserved int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuses && c.asked%3 == 0 {
		return false
	}
	for _, l := range o.Lines {
		if !c.forgets {
			c.stock[l.SKU].OnHand += onHand * l.Quantity
			c.stock[l.SKU].Reserved += reserved * l.Quantity
		}
	}
	return true
}

func (c *fakeClient) Sell(ctx context.Context, orders []Order) ([]bool, error) {
	if err := errors.Join(c.breaks, c.work(ctx)); err != nil {
		return nil, err
	}
	return []bool{c.change(orders[0], -1, 0)}, nil
}

func (c *fakeClient) Reserve(ctx context.Context, o Order) (bool, error) {
	return c.change(o, 0, 1), c.work(ctx)
}

func (c *fakeClient) Settle(ctx context.Context, o Order, sold bool) error {
	switch {
	case sold:
		c.change(o, -1, -1)
	case !c.leaks:
		c.change(o, 0, -1)
	}
	return c.work(ctx)
}

func measureFake(t *testing.T, f *fakeStore, w Work, length time.Duration, counts ...int) (*Result, error) {
	t.Helper()
	if w.SKUs == 0 {
		w = Work{ID: "x", SKUs: 3, Opening: 1 << 40, Lines: w.Lines}
	}
	r, err := f.kind(counts...).Measure(t.Context(), Config{}, w, length, func(string, time.Duration) {})
	if !f.closed || f.dialed != 0 {
		t.Errorf("the store is still open, or %d connections", f.dialed)
	}
	return r, err
}

// TestBestCounts sees to it that a peer is shown at its best: with the number of
// connections and in the form in which it gets most done.
func TestBestCounts(t *testing.T) {
	r, err := measureFake(t, &fakeStore{}, Work{}, 100*time.Millisecond, 6, 1)
	if err != nil || len(r.Faults) > 0 {
		t.Fatal(r, err)
	}
	f := r.Figures
	if f["connections"] != 1 || f["acked_per_second"] != f["quickly_acked_per_second"] || f["slowly_acked_per_second"] >= f["quickly_acked_per_second"] || f["p99_ms"] < f["p50_ms"] {
		t.Errorf("%v", f)
	}
}

// TestTheMostConnectionsAreNotTheEnd: as long as more of them get more done, more are
// tried, and where the search ends too early that is said.
func TestTheMostConnectionsAreNotTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		store *fakeStore
		want  float64
		edge  bool
	}{
		"more are worse":    {&fakeStore{room: 4}, 4, false},
		"more are better":   {&fakeStore{room: 100}, 8, true},
		"there are no more": {&fakeStore{room: 100, seats: 5}, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := c.store.kind(1, 2)
			k.most = 8
			r, err := k.Measure(t.Context(), Config{}, Work{ID: "x", SKUs: 3, Opening: 1 << 40}, 160*time.Millisecond, func(string, time.Duration) {})
			if err != nil || len(r.Faults) > 0 {
				t.Fatal(r, err)
			}
			if r.Figures["connections"] != c.want || r.Edge != c.edge || c.store.dialed != 0 {
				t.Errorf("%v connections, at the edge %v, %d are open; want %v, %v", r.Figures["connections"], r.Edge, c.store.dialed, c.want, c.edge)
			}
		})
	}
}

func TestLyingPeersAreCaught(t *testing.T) {
	for want, c := range map[string]struct {
		store *fakeStore
		work  Work
	}{
		"":                {&fakeStore{}, Work{Lines: 2}},
		"acknowledged of": {&fakeStore{forgets: true}, Work{}},
		"reserved":        {&fakeStore{leaks: true}, Work{Lines: 2}},
		"were refused":    {&fakeStore{refuses: true}, Work{}},
	} {
		r, err := measureFake(t, c.store, c.work, 40*time.Millisecond, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Faults, "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("faults are %q, want %q", got, want)
		}
	}
}

func TestBrokenPeer(t *testing.T) {
	broken := errors.New("broken")
	if _, err := measureFake(t, &fakeStore{breaks: broken}, Work{}, 40*time.Millisecond, 2); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestPeerThatDoesNotStart(t *testing.T) {
	k := Kind{start: func(context.Context, Config) (Store, error) { return nil, errors.New("no port") }}
	_, err := k.Measure(t.Context(), Config{}, Work{}, time.Second, nil)
	if failed := (*StartError)(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), "no port") {
		t.Errorf("%v", err)
	}
}

// TestOrdersNameDifferentSKUs: no order names one twice, all SKUs are sold, and no two
// orders have the same key.
func TestOrdersNameDifferentSKUs(t *testing.T) {
	w := Work{ID: "x", SKUs: 10, Lines: 3}
	keys, sold := make(map[string]bool), make(map[int]bool)
	for connection := range 4 {
		for n := range uint64(50) {
			o := w.order("x", connection, n)
			keys[o.Key] = true
			seen := make(map[int]bool)
			for _, l := range o.Lines {
				seen[l.SKU], sold[l.SKU] = true, true
			}
			if len(seen) != 3 {
				t.Errorf("%+v", o)
			}
		}
	}
	if len(keys) != 200 || len(sold) != 10 {
		t.Errorf("%d keys, %d SKUs", len(keys), len(sold))
	}
}
