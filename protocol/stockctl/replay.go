package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol/client"
	"github.com/stockmesh/stockmesh/protocol/replay"
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
	replay.Counts
	Commands   int64   `json:"commands"`
	PerSecond  float64 `json:"commands_per_second"` // opening and invoices, without the check
	Seconds    float64 `json:"seconds"`
	Reconnects int     `json:"reconnects"`
	replay.Freshness
	Total       int      `json:"differences_total"`
	Differences []string `json:"differences"` // the first of them
}

func (a *app) replay(ctx context.Context, path string, o replayOptions) error {
	p, err := readPlan(path, o.opening)
	if err != nil {
		return err
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

func readPlan(path string, share float64) (*replay.Plan, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := replay.ReadPlan(f, replay.Shape{Share: share})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
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

// runReplay plays the plan over connections that all prefer the same endpoint, as every
// command does.
func (a *app) runReplay(ctx context.Context, p *replay.Plan, o replayOptions) (replaySummary, error) {
	config, err := a.tls()
	if err != nil {
		return replaySummary{}, err
	}
	a.warnOfPlainText(a.endpoints...)
	r, err := replay.Run(ctx, p, replay.Config{
		Run: o.run, Endpoints: [][]string{a.endpoints}, Token: a.source(), TLS: config,
		Clients: o.clients, Watchers: o.watchers, Rate: o.rate, TTL: o.ttl, ShortTTL: o.shortTTL, Settle: o.settle,
		Progress: &replayProgress{app: a},
	})
	if errors.Is(err, client.ErrUnreachable) {
		err = &unreachable{a.endpoints, err}
	}
	sum := replaySummary{
		Run: o.run, Counts: r.Counts, Commands: r.Commands, Seconds: (r.Opening + r.Trading).Seconds(), Reconnects: r.Reconnects,
		Freshness: r.Freshness, Total: len(r.Differences), Differences: firstOf(r.Differences),
	}
	sum.PerSecond = float64(sum.Commands) / sum.Seconds
	return sum, err
}

// replayProgress shows one phase after the other.
type replayProgress struct {
	app   *app
	phase *progress
}

func (p *replayProgress) Begin(phase string, total int) {
	p.phase = newProgress(p.app.errOut, phase, total)
}
func (p *replayProgress) Add(n int) { p.phase.add(n) }
func (p *replayProgress) End()      { p.phase.end() }

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
