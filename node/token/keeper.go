package token

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	tickEvery   = 2 * time.Second  // looks at a file, and at what is due
	readTimeout = 10 * time.Second // of one reading
	askWait     = 2 * time.Second  // how long a token waits for a reading
	waitersMax  = 256              // tokens that wait for one: far fewer than are checked at a time
)

// keeper holds a source's keys and keeps them fresh. At most one reading is under way;
// whoever needs one joins it.
type keeper struct {
	source                 source
	every, least, staleMax time.Duration
	now                    func() time.Time
	logger                 *slog.Logger
	refreshes              *prometheus.CounterVec

	current atomic.Pointer[reading] // nil: never read well

	ctx    context.Context // of readings; ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	flight   chan struct{} // closed when the reading under way has ended; nil: there is none
	waiting  int           // tokens that wait for it
	asks     *asks         // when a token may begin one
	due      time.Time     // when the next is to begin by itself
	failures int           // in a row
	failed   error         // of the last one; nil: it was good
	closed   bool
}

// reading is what a good reading found.
type reading struct {
	text []byte
	set  *keySet
	at   time.Time
}

func newKeeper(ctx context.Context, s source, c Config) (*keeper, error) {
	k := &keeper{
		source: s, every: c.RefreshEvery, least: c.RefreshLeast, staleMax: c.StaleMax,
		now: c.Now, logger: c.Logger, refreshes: newRefreshes(),
	}
	var err error
	if k.asks, err = newAsks(k.least); err != nil {
		return nil, err
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.mu.Lock()
	flight := k.begin()
	k.mu.Unlock()
	if s.local() {
		<-flight
		if err := k.lastFailure(); err != nil {
			k.close()
			return nil, fmt.Errorf("token keys: %w", err)
		}
	} else {
		wait(ctx, flight)
	}
	k.wg.Go(k.run)
	return k, nil
}

// run begins readings as they become due.
func (k *keeper) run() {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-ticker.C:
		}
		k.mu.Lock()
		if k.flight == nil && !k.now().Before(k.due) {
			k.begin()
		}
		k.mu.Unlock()
	}
}

// usable returns the keys, nil while there are none or they are too old.
func (k *keeper) usable() *keySet {
	r := k.current.Load()
	if r == nil || k.now().Sub(r.at) > k.staleMax {
		return nil
	}
	return r.set
}

// ask has the keys read again for a token that those at hand don't do for, and waits for
// it. retryMS is 0 if a reading said that the token's key doesn't exist, or else when
// asking again may help.
func (k *keeper) ask(ctx context.Context, kid string) (retryMS int64) {
	flight, settles, after := k.join(kid)
	if flight == nil {
		return milliseconds(after)
	}
	ended := wait(ctx, flight)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting--
	switch {
	case !ended || k.closed:
		return milliseconds(k.least)
	case k.failed != nil || !settles:
		return milliseconds(k.asks.after(kid, k.now()))
	}
	if !k.current.Load().set.has(kid) {
		k.asks.missed(kid)
	}
	return 0
}

// join returns the reading under way, or begins one; nil: the token may ask again only
// after some time. A reading that was under way settles nothing for a key id that is new:
// the source may have been asked before it had the key.
func (k *keeper) join(kid string) (flight chan struct{}, settles bool, after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, false, k.least
	case k.waiting >= waitersMax:
		return nil, false, k.asks.gap() // so that tokens with known keys find room in what calls us
	case k.flight != nil:
		k.waiting++
		return k.flight, k.asks.unknowns.Contains(kid), 0
	}
	now := k.now()
	if after := k.asks.after(kid, now); after > 0 {
		return nil, false, after
	}
	k.asks.take(now)
	k.waiting++
	return k.begin(), true, 0
}

// wait reports whether a reading ended in time.
func wait(ctx context.Context, flight <-chan struct{}) bool {
	timer := time.NewTimer(askWait)
	defer timer.Stop()
	select {
	case <-flight:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func milliseconds(d time.Duration) int64 { return max(1, d.Milliseconds()) }

// begin is called with mu held, and no reading under way.
func (k *keeper) begin() chan struct{} {
	flight := make(chan struct{})
	k.flight = flight
	k.wg.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, readTimeout)
		defer cancel()
		r, result, err := k.read(ctx)
		if k.ctx.Err() == nil {
			k.end(r, result, err)
		}
		close(flight)
	})
	return flight
}

// read returns what the source has now.
func (k *keeper) read(ctx context.Context) (r *reading, result string, err error) {
	text, err := k.source.read(ctx)
	if err != nil {
		return nil, "failed", err
	}
	at := k.now()
	if old := k.current.Load(); old != nil && bytes.Equal(old.text, text) {
		return &reading{text: old.text, set: old.set, at: at}, "unchanged", nil
	}
	set, err := parseKeys(text)
	if err != nil {
		return nil, "failed", err
	}
	return &reading{text: text, set: set, at: at}, "ok", nil
}

// end takes what a reading found.
func (k *keeper) end(r *reading, result string, err error) {
	k.refreshes.WithLabelValues(result).Inc()
	if r != nil {
		k.current.Store(r)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report(r, result, err)
	k.flight, k.failed = nil, err
	k.schedule()
}

// report logs what is new. It is called with mu held.
func (k *keeper) report(r *reading, result string, err error) {
	switch {
	case err != nil && (k.failed == nil || k.failed.Error() != err.Error()):
		k.logger.Warn("the keys that check tokens can't be read; earlier ones stay in use", "error", err)
	case err != nil || result != "ok" && k.failed == nil: // nothing new
	case len(r.set.all) == 0:
		k.logger.Warn("the set of keys that check tokens is empty: no token is taken until it holds a key")
	default:
		k.logger.Info("keys that check tokens read", "keys", len(r.set.all), "ignored", r.set.ignored)
	}
}

// schedule says when the next reading is due. It is called with mu held.
func (k *keeper) schedule() {
	now := k.now()
	if k.source.local() {
		k.due = now
		return
	}
	next := k.every
	k.failures++
	if k.failed == nil {
		k.failures = 0
	} else if k.failures < 16 {
		next = min(next, k.least<<(k.failures-1))
	}
	// Nodes that started together shall not stay together.
	k.due = now.Add(next - next/10 + rand.N(next/5+1))
}

func (k *keeper) lastFailure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}

var (
	errNotYet = errors.New("they are being read for the first time")
	errAgain  = errors.New("they are being read again")
	errEmpty  = errors.New("the set of keys is empty")
)

func (k *keeper) health() error {
	err := k.lastFailure()
	r := k.current.Load()
	if r == nil {
		err = cmp.Or(err, errNotYet)
		return fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	age := k.now().Sub(r.at)
	switch {
	case age > k.staleMax:
		return fmt.Errorf("%w: they were last read %s ago, more than %s: %w", ErrNoKeys, age.Round(time.Second), k.staleMax, cmp.Or(err, errAgain))
	case len(r.set.all) == 0:
		return fmt.Errorf("%w: %w", ErrNoKeys, errEmpty)
	case err != nil && (k.source.local() || age > 2*k.every):
		return fmt.Errorf("token keys can't be read, those of %s ago are in use: %w", age.Round(time.Second), err)
	}
	return nil
}

func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.wg.Wait()
}
