package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/replay"
)

// scenarioReplay is the scenario that may be left to its own pace.
const scenarioReplay = "replay"

// How recorded sales are played.
const (
	salesShare    = 0.8 // of what a SKU sells is there at the opening, so that some is refused
	salesTTL      = 10 * time.Minute
	salesShortTTL = 2 * time.Second // of reservations that are left to expire
	salesSettle   = time.Minute
	salesShort    = 300 // invoices with --short
	salesWatchers = 4   // at least, and one at each node
)

// replayed plays recorded sales over all nodes and holds every node and watcher against
// the answers.
func replayed(ctx context.Context, r *round) error {
	s, err := r.newSales()
	if err != nil {
		return err
	}
	ctx, s.giveUp = context.WithCancel(ctx)
	defer s.giveUp()
	var result replay.Result
	err = r.profiled(r.duration, func() (err error) {
		result, err = replay.Run(ctx, s.plan, s.config(ctx))
		return err
	})
	err = errors.Join(err, s.wait())
	if result.Trading > 0 { // what was found counts, even where the check was broken off
		s.put(&result)
	}
	return err
}

// newSales reads what is to be played. Its SKUs are the round's own.
func (r *round) newSales() (*sales, error) {
	name, err := r.salesFile()
	if err != nil {
		return nil, err
	}
	token, err := onlyToken(r.target.endpoints)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	defer f.Close()
	shape := replay.Shape{Share: salesShare, Prefix: "bench-" + r.id + "-"}
	if r.short {
		shape.Invoices = salesShort
	}
	plan, err := replay.ReadPlan(f, shape)
	if err != nil {
		return nil, fmt.Errorf("--file %s: %w", name, err)
	}
	r.timeline(string(protocol.OpReserve)) // the first is what is shown while it goes on
	return &sales{
		round: r, plan: plan, token: token, all: newLatencies(),
		ages: map[protocol.Op]latencies{protocol.OpReserve: newLatencies(), protocol.OpConfirm: newLatencies()},
	}, nil
}

// The sample of real sales that lies in the repository.
const (
	sampleModule = "module github.com/stockmesh/stockmesh"
	sampleFile   = "protocol/stockctl/testdata/online-retail-2011-11-21.csv.gz"
)

// salesFile is what --file says, or the repository's sample where this runs in a
// checkout.
func (o *options) salesFile() (string, error) {
	if o.file != "" {
		if _, err := os.Stat(o.file); err != nil {
			return "", fmt.Errorf("--file: %w", err)
		}
		return o.file, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(mod), "\n"); err == nil && strings.TrimSpace(line) == sampleModule {
			return filepath.Join(dir, filepath.FromSlash(sampleFile)), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("--file: the sample is %s of the repository, which this is no checkout of; name a CSV with the columns invoiced_at, invoice, sku and quantity", sampleFile)
		}
	}
}

// onlyToken is the token that all endpoints carry.
func onlyToken(endpoints []string) (string, error) {
	var tokens []string
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			return "", err
		}
		token, _ := u.User.Password()
		tokens = append(tokens, token)
	}
	if len(slices.Compact(tokens)) > 1 {
		return "", errors.New("--endpoints: a replay shows the same token to all")
	}
	return tokens[0], nil
}

// config is how the sales are played on the target.
func (s *sales) config(ctx context.Context) replay.Config {
	c := replay.Config{
		Run: s.id, Endpoints: s.places(), Clients: s.connections, Watchers: max(salesWatchers, len(s.target.endpoints)), Rate: float64(s.rate),
		TTL: salesTTL, ShortTTL: salesShortTTL, Settle: salesSettle,
		Progress: &salesProgress{round: s.round}, Answered: s.answered,
		Before: func(_ context.Context, invoice int) error { return s.before(ctx, invoice) },
	}
	if s.token != "" {
		c.Token = func(context.Context) (string, error) { return s.token, nil }
	}
	return c
}

// places are the nodes, each with the others of its region to stand in for it.
func (s *sales) places() (places [][]string) {
	t := s.target
	for i := range t.endpoints {
		first := i - i%t.each
		region := t.endpoints[first : first+t.each]
		places = append(places, slices.Concat(region[i-first:], region[:i-first]))
	}
	return places
}

// differencesMax bounds what is told of a replay that doesn't add up.
const differencesMax = 20

// put writes what the replay came to.
func (s *sales) put(result *replay.Result) {
	n, seconds := s.numbers, result.Trading.Seconds()
	n["invoices_per_second"], n["lines_per_second"] = float64(result.Invoices)/seconds, float64(s.plan.Lines())/seconds
	n["acked_per_second"] = float64(s.acked) / seconds
	n["sold"], n["released"], n["expired"], n["returned_lines"] = float64(result.Sold), float64(result.Released), float64(result.Expired), float64(result.Returns)
	n["refused"], n["false_refusals"] = float64(result.Refused), float64(result.RefusedElsewhere)
	n["failed_commands"], n["oversold_units"], n["differences"] = float64(result.Failures), float64(result.Oversold), float64(len(result.Differences))
	n["connection_moves"] = float64(result.Reconnects)
	n["push_p50_ms"], n["push_p99_ms"] = result.Freshness.P50, result.Freshness.P99
	s.putAges()
	if s.kills > 0 {
		s.putKills()
	} else {
		s.putCPU(s.from, s.acked, "command")
	}
	for _, d := range result.Differences[:min(len(result.Differences), differencesMax)] {
		s.violate("%s", d)
	}
	if more := len(result.Differences) - differencesMax; more > 0 {
		s.violate("and %d more differences", more)
	}
	if result.Oversold > 0 {
		s.violate("%d units were sold that were never there", result.Oversold)
	}
}
