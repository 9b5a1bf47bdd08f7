// Package replay plays recorded sales against running nodes and checks from the outside
// that everything adds up.
//
// Opening stock is set by count to a share of what the recording sells. Each invoice is
// one all-or-nothing reserve and its confirm; every 20th is released instead, every 50th
// left to expire; returns are adjusts. Keys are made from the run and the invoice, so a
// replay carries on over any failure of a node, and a run repeated under its name within
// the key window does nothing twice.
//
// The check: per SKU opening + returned - sold = on hand, nothing negative, nothing left
// reserved, every acknowledged change once in the history and no other, all nodes and
// every watcher's last picture equal.
package replay

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stockmesh/stockmesh/protocol"
)

// Config says where and how a plan is played. Endpoints, Clients, TTL, ShortTTL and
// Settle have no default.
type Config struct {
	Run string // name of this run: part of every key, at most 64 bytes

	// Endpoints are the places to play at. Each is a node's endpoint, followed by those
	// that stand in for it when it is away: they should be of its region, which alone
	// knows what it was sent. Connections are spread over the places; the opening stock
	// is counted by those of the first place's region only, so that other regions sell
	// what they are given rights to.
	Endpoints [][]string
	Token     func(context.Context) (string, error) // to be sent; nil: none
	TLS       *tls.Config                           // nil: the system's roots

	Clients  int     // connections that play invoices, each one command at a time
	Watchers int     // connections that follow all items of the plan
	Rate     float64 // invoices per second; 0: as fast as they are answered

	TTL      time.Duration // of reservations that are to be confirmed or released
	ShortTTL time.Duration // of those that are to expire
	Settle   time.Duration // how long the check waits for what is still on its way

	Progress Progress // nil: nobody wants to know
	// Before is called before an invoice is played, in order from 0; while it waits, no
	// further one is begun. nil: nothing is to be done.
	Before func(ctx context.Context, invoice int) error
	// Answered is told each answer, by many goroutines. nil: nobody wants to know.
	Answered func(Answer)
}

// Progress is told how far a replay is: opening stock, invoices, check. Add is called by
// many goroutines.
type Progress interface {
	Begin(phase string, total int)
	Add(n int)
	End()
}

// Answer is the last answer to a command, after all tries.
type Answer struct {
	Op   protocol.Op
	At   int       // which of Endpoints its connection prefers
	Sent time.Time // the first time
	Took time.Duration
	Err  error // nil, a refusal, or why there is no answer
}

// Counts are invoices by what became of them, and returned lines.
type Counts struct {
	Invoices int `json:"invoices"`
	Sold     int `json:"sold"`
	Refused  int `json:"refused"` // for lack of stock
	Released int `json:"released"`
	Expired  int `json:"expired"`
	Returns  int `json:"returns"` // lines
	// RefusedElsewhere are those of Refused whose units seemed to be there: in other
	// regions, whose rights did not come in time.
	RefusedElsewhere int `json:"refused_elsewhere"`
}

// Result is what a replay came to.
type Result struct {
	Counts
	Commands    int64         // answered, those of the opening too
	Opening     time.Duration // the opening stock
	Trading     time.Duration // the invoices
	Failures    int           // invoices with an answer that the contract doesn't explain
	Oversold    int64         // units confirmed that were never there
	Reconnects  int
	Freshness   Freshness
	Differences []string // what doesn't add up, Failures among them
}

// replay runs a plan over several connections.
type replay struct {
	Config
	plan     *Plan
	book     *book
	players  []*player
	watchers []*watcher
	opening  opening
	commands atomic.Int64 // answered
}

// Run plays the plan and checks it. It fails where the replay or the check could not be
// carried through; what doesn't add up is no error but in the result, which holds what was
// found until then with an error too.
func Run(ctx context.Context, p *Plan, c Config) (Result, error) {
	if len(c.Endpoints) == 0 || c.Clients < 1 {
		return Result{}, errors.New("nowhere to play, or nobody to do it")
	}
	if c.Progress == nil {
		c.Progress = silent{}
	}
	r := &replay{Config: c, plan: p, book: newBook("replay:" + c.Run + ":")}
	r.opening.versions = map[string]protocol.Vector{}
	defer r.close()
	if err := r.connect(ctx); err != nil {
		return Result{}, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range r.watchers {
		g.Go(func() error { return w.run(ctx) })
	}
	var result Result
	g.Go(func() (err error) {
		defer r.closeWatchers()
		result, err = r.playAndCheck(ctx)
		return err
	})
	err := g.Wait()
	return result, err
}

func (r *replay) playAndCheck(ctx context.Context) (result Result, err error) {
	phase := func(name string, total int, do func(context.Context) error) (time.Duration, error) {
		r.Progress.Begin(name, total)
		defer r.Progress.End()
		began := time.Now()
		err := do(ctx)
		return time.Since(began), err
	}
	if result.Opening, err = phase("opening stock", len(r.plan.skus), r.open); err != nil {
		return result, err
	}
	if err := r.awaitOpening(ctx); err != nil {
		return result, err
	}
	if result.Trading, err = phase("invoices", len(r.plan.invoices), r.trade); err != nil {
		result.Differences = slices.Clone(r.book.failures)
		r.finish(&result)
		return result, err
	}
	_, err = phase("check", len(r.plan.skus), func(ctx context.Context) (err error) {
		result.Differences, err = r.check(ctx)
		return err
	})
	r.finish(&result)
	return result, err
}

func (r *replay) finish(result *Result) {
	result.Counts, result.Commands = r.book.counts, r.commands.Load()
	result.Failures, result.Oversold = len(r.book.failures), r.book.oversold()
	for _, p := range r.players {
		result.Reconnects += p.Reconnects()
	}
	var all []*freshness
	for _, w := range r.watchers {
		result.Reconnects += w.client.Reconnects()
		all = append(all, w.freshness)
	}
	result.Freshness = summarize(all)
}

// silent is the progress that nobody looks at.
type silent struct{}

func (silent) Begin(string, int) {}
func (silent) Add(int)           {}
func (silent) End()              {}

// pause waits for d unless ctx ends first.
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
