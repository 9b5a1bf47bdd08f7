package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/stockmesh/stockmesh/protocol/client"
)

// diffsMax bounds the differences that are printed.
const diffsMax = 50

// replayOptions are the flags of replay.
type replayOptions struct {
	run           string
	opening       float64
	clients       int
	watchers      int
	rate          float64
	ttl, shortTTL time.Duration
	settle        time.Duration
}

// gap is the pause before each invoice that the rate asks for.
func (o *replayOptions) gap() time.Duration {
	if o.rate <= 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / o.rate)
}

func (o *replayOptions) validate() error {
	switch {
	case o.clients < 1:
		return errors.New("--clients must be at least 1")
	case o.watchers < 0:
		return errors.New("--watchers must not be negative")
	case o.opening < 0:
		return errors.New("--opening must not be negative")
	case len(o.run) > 64:
		return errors.New("--run must be at most 64 bytes: it is part of every key")
	}
	return nil
}

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use: "replay FILE", Short: "Replay recorded sales and check that everything adds up", Args: cobra.ExactArgs(1),
		Long: `Replay the invoices of a CSV (invoiced_at, invoice, sku, quantity; may be gzipped) in order of
time over many connections, then check from the outside that everything adds up.

Opening stock is set by count to a share of what the file sells. Each invoice is one all-or-nothing
reserve and its confirm; every 20th is released instead, every 50th left to expire; returns are
adjusts. Keys are made from the run and the invoice, so a replay carries on over any failure of the
node, and a run repeated under its name within the key window does nothing twice.

The check: per SKU opening + returns - sold = on_hand, nothing negative, nothing left reserved, every
acknowledged change once in the history and no other, every watcher's last picture equal to the node's.
It exits with 1 on any difference. The SKUs must not be changed by anybody else meanwhile.`,
		Example: "  stockctl replay protocol/stockctl/testdata/online-retail-2011-11-21.csv.gz\n  stockctl replay sales.csv --clients 8 --rate 50 --run till-test",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return a.replay(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.run, "run", "", "name of this run, in all its keys (default: a new one)")
	f.Float64Var(&o.opening, "opening", 0.8, "opening stock of a SKU as a share of what the file sells of it")
	f.IntVar(&o.clients, "clients", 32, "connections that play invoices")
	f.IntVar(&o.watchers, "watchers", 4, "connections that follow all items")
	f.Float64Var(&o.rate, "rate", 0, "invoices per second; 0 = as fast as they are answered")
	f.DurationVar(&o.ttl, "ttl", 10*time.Minute, "how long reservations hold that are to be confirmed or released")
	f.DurationVar(&o.shortTTL, "short-ttl", 2*time.Second, "how long reservations hold that are to expire")
	f.DurationVar(&o.settle, "settle", time.Minute, "how long the check waits for expiries and watchers")
	return cmd
}

// replaySummary is the result, one JSON object with --json.
type replaySummary struct {
	Run string `json:"run"`
	replayCounts
	Commands   int64   `json:"commands"`
	PerSecond  float64 `json:"commands_per_second"` // opening and invoices, without the check
	Seconds    float64 `json:"seconds"`
	Reconnects int     `json:"reconnects"`
	pushTimes
	Total       int      `json:"differences_total"`
	Differences []string `json:"differences"` // the first of them
}

func (a *app) replay(ctx context.Context, path string, o replayOptions) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := readPlan(f, o.opening)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.run == "" {
		o.run = uuid.NewString()[:13]
	}
	if a.timeoutSet && a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	sum, err := a.runReplay(ctx, p, o)
	if err != nil {
		return fmt.Errorf("replay %s: %w", o.run, err)
	}
	if err := a.printReplay(sum); err != nil {
		return err
	}
	return foundDifferences(sum.Total)
}

// firstOf bounds a list of differences; it is never nil.
func firstOf(diffs []string) []string {
	return append([]string{}, diffs[:min(len(diffs), diffsMax)]...)
}

func foundDifferences(n int) error {
	if n > 0 {
		return fmt.Errorf("the check found %d differences", n)
	}
	return nil
}

// runReplay plays the plan and checks it. Watchers live around both.
func (a *app) runReplay(ctx context.Context, p *plan, o replayOptions) (replaySummary, error) {
	r := &replay{plan: p, options: o, book: newBook("replay:" + o.run + ":")}
	defer r.close()
	if err := a.connect(ctx, r); err != nil {
		return replaySummary{}, err
	}
	g, watching := errgroup.WithContext(ctx)
	for _, w := range r.watchers {
		g.Go(func() error { return w.run(watching) })
	}
	var sum replaySummary
	g.Go(func() (err error) {
		defer r.closeWatchers()
		sum, err = a.playAndCheck(watching, r)
		return err
	})
	err := g.Wait()
	return sum, err
}

func (a *app) playAndCheck(ctx context.Context, r *replay) (sum replaySummary, err error) {
	start := time.Now()
	for _, phase := range []struct {
		name  string
		total int
		do    func(context.Context, *progress) error
	}{
		{"opening stock", len(r.plan.skus), r.open},
		{"invoices", len(r.plan.invoices), r.trade},
	} {
		p := newProgress(a.errOut, phase.name, phase.total)
		err := phase.do(ctx, p)
		p.end()
		if err != nil {
			return sum, err
		}
	}
	took := time.Since(start)
	p := newProgress(a.errOut, "check", len(r.plan.skus))
	diffs, err := r.check(ctx, p)
	p.end()
	sum = replaySummary{Run: r.options.run, replayCounts: r.book.counts, Commands: r.commands.Load(), Seconds: took.Seconds(),
		Total: len(diffs), Differences: firstOf(diffs)}
	sum.PerSecond = float64(sum.Commands) / sum.Seconds
	r.finish(&sum)
	return sum, err
}

func (r *replay) finish(sum *replaySummary) {
	for _, c := range append(r.clients, r.watched...) {
		sum.Reconnects += c.Reconnects()
	}
	var all []*latency
	for _, w := range r.watchers {
		all = append(all, w.latency)
	}
	sum.pushTimes = summarize(all)
}

// connect opens all connections. Only the first fails at once when there is no
// node: later the node may be away for a while.
func (a *app) connect(ctx context.Context, r *replay) error {
	for i := range r.options.clients {
		c, err := a.dial(ctx, i > 0)
		if err != nil {
			return err
		}
		r.clients = append(r.clients, c)
	}
	for i := range r.options.watchers {
		c, err := a.dial(ctx, true)
		if err != nil {
			return err
		}
		r.watched = append(r.watched, c)
		w, err := newWatcher(ctx, fmt.Sprintf("watcher %d", i+1), c)
		if err != nil {
			return err
		}
		r.watchers = append(r.watchers, w)
	}
	return nil
}

func (r *replay) closeWatchers() {
	for _, w := range r.watchers {
		w.sub.Close()
	}
}

func (r *replay) close() {
	for _, list := range [][]*client.Client{r.clients, r.watched} {
		for _, c := range list {
			c.Close()
		}
	}
}

func (a *app) printReplay(s replaySummary) error {
	if a.json {
		return printJSON(a.out, s)
	}
	fmt.Fprintf(a.out, `run         %s
invoices    %d: %d sold, %d refused, %d released, %d expired; %d lines returned
commands    %d answered in %.1f s, %.0f/s, %d reconnects
push        p50 %.1f ms, p99 %.1f ms (count or return sent until a watcher saw it, %d samples)
`, s.Run, s.Invoices, s.Sold, s.Refused, s.Released, s.Expired, s.Returns,
		s.Commands, s.Seconds, s.PerSecond, s.Reconnects, s.P50, s.P99, s.Samples)
	return a.printDifferences(s.Total, s.Differences)
}

func (a *app) printDifferences(total int, first []string) error {
	if total == 0 {
		_, err := fmt.Fprintln(a.out, "check       everything adds up")
		return err
	}
	fmt.Fprintf(a.out, "check       %d differences\n", total)
	for _, d := range first {
		fmt.Fprintln(a.out, " ", d)
	}
	if more := total - len(first); more > 0 {
		fmt.Fprintf(a.out, "  and %d more\n", more)
	}
	return nil
}
