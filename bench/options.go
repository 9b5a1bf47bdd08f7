package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/protocol"
)

// options is what the command line asks for. The flags' texts say what each
// field means.
type options struct {
	scenario  string
	spawn     string
	regions   int // that spawn asks for
	each      int // nodes of a region
	endpoints []string
	dir       string

	duration time.Duration
	rounds   int
	short    bool
	json     string
	profile  string

	connections int
	depth       int
	noHalf      bool
	subscribers int
	burst       int
	count       int
	rate        int
	every       time.Duration
	kills       int
	cut         string

	tls    bool
	grants bool
	strict bool
	seed   uint64

	attacks []string

	watchers int
	over     time.Duration

	flags []string // of spawned nodes, besides
}

func (o *options) bind(f *pflag.FlagSet) {
	f.StringVar(&o.spawn, "spawn", "", "start `N|RxN` nodes for each round: N, a region of 1, 3 or 5, or RxN, a mesh of 2 to 5 such regions (default: 1; failover, drain: 3; cut, mesh: 3x1)")
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "measure the running nodes at these `URL,...` instead (ws://host:port/v1/ws; ws://:TOKEN@host:port/v1/ws where clients need a token)")
	f.StringVar(&o.dir, "dir", "", "`DIR` in which spawned nodes keep their data, removed at the end (default: the system's temporary directory)")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "time measured in each phase of a round (connections: 30s; abuse: 20s in all)")
	f.IntVar(&o.rounds, "rounds", 3, "`N` rounds; the median counts (failover, drain, cut, mesh, stalled, abuse: 1)")
	f.BoolVar(&o.short, "short", false, "one round with phases of 2s and 2 kills, where not set otherwise")
	f.StringVar(&o.json, "json", "", "write the result to `FILE`")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of spawned nodes and of the generator to `DIR`")

	f.BoolVar(&o.strict, "strict", false, "a mark that is missed fails the run, as a violation does")

	f.IntVar(&o.connections, "connections", 64, "hot-sku, failover, drain, cut, mesh, abuse: WebSocket connections")
	f.IntVar(&o.depth, "depth", 32, "hot-sku: unanswered commands of a connection")
	f.BoolVar(&o.noHalf, "no-half", false, "hot-sku: leave out the phase at half of the measured rate")
	f.IntVar(&o.subscribers, "subscribers", 1000, "fanout, stalled: WebSocket connections that hear of each change")
	f.IntVar(&o.burst, "burst", 16, "fanout, stalled: SKUs that a burst changes with one message")
	f.IntVar(&o.count, "count", 18000, "connections: idle WebSocket connections (with --tls 9000); storm: those that arrive at once (10000)")
	f.IntVar(&o.rate, "rate", 2000, "failover, drain, cut, mesh: commands sent per second (mesh: 20000); stalled: bursts per second (20); abuse: attacks per second (200)")
	f.DurationVar(&o.every, "every", 8*time.Second, "failover: time from one kill to the next, or more until the node is back")
	f.IntVar(&o.kills, "kills", 5, "failover: `N` times the region's owner is killed")
	f.IntVar(&o.watchers, "watchers", 10000, "drain: WebSocket connections on one node that all have to leave (0: leave this out; --short: 1000)")
	f.DurationVar(&o.over, "over", 10*time.Second, "drain: time over which those are sent elsewhere (--short: 2s)")
	f.BoolVar(&o.tls, "tls", false, "connections, storm, abuse: over TLS")
	f.BoolVar(&o.grants, "grants", false, "hot-sku: beside the node, in turn, one with tokens of restricted grants")
	f.Uint64Var(&o.seed, "seed", 0, "abuse: what the attacks are drawn from, to see the same again (default: another one each time)")
	f.StringSliceVar(&o.attacks, "attacks", nil, "abuse: only the attacks of these `KIND,...` (default: all)")
	f.StringVar(&o.cut, "cut", "", "cut: `NAME` of the region that loses its links, or all (default: the last one)")
}

const examples = `
Examples:
  go run ./bench hot-sku --spawn 1                     one node, 64 connections, one SKU
  go run ./bench hot-sku --spawn 3                     the same on a region of three nodes
  go run ./bench failover --kills 20 --json r.json     kill -9 the owner, again and again
  go run ./bench drain --spawn 5                       a rolling restart under load
  go run ./bench hot-sku --spawn 3x1                   on a mesh of three regions of one node
  go run ./bench cut --spawn 2x1 --duration 60s        a region loses its links for a minute, under sales
  go run ./bench mesh --rate 5000                      what linked regions cost, and how fresh they are
  go run ./bench fanout --short                        about half a minute
  go run ./bench fanout --subscribers 8000             what 8,000 watchers of one SKU cost
  go run ./bench connections --count 5000 --json r.json
  go run ./bench connections --tls                     the same over TLS
  go run ./bench storm --count 10000                   everybody comes at once
  go run ./bench stalled                               a tenth of the readers stops reading
  go run ./bench drain --watchers 10000 --over 10s     10,000 connections leave a node
  go run ./bench abuse --duration 1h --tls             an hour of broken and hostile clients
  go run ./bench hot-sku --grants                      what checking restricted grants costs
  go run ./bench hot-sku --endpoints ws://10.0.0.7:8080/v1/ws --depth 8
  go run ./bench hot-sku --rounds 1 --profile .        then: go tool pprof -top node.pprof
`

func usage(out io.Writer, f *pflag.FlagSet) {
	fmt.Fprint(out, "Usage: bench SCENARIO [flags]\n\nMeasures a node, a region of several or a mesh of regions, and checks that it stayed correct. Exits with 1 on any violation.\n\nScenarios:\n")
	for _, s := range scenarios {
		fmt.Fprintf(out, "  %-12s %s\n", s.name, s.about)
	}
	fmt.Fprintf(out, "\nFlags:\n%s%s", f.FlagUsages(), examples)
}

// parseOptions returns pflag.ErrHelp after printing the help to out.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { usage(out, f) }
	o.bind(f)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w (--help lists the flags)", err)
	}
	if f.NArg() != 1 {
		return nil, fmt.Errorf("want one scenario of %s (--help tells more)", strings.Join(scenarioNames(), ", "))
	}
	o.scenario = f.Arg(0)
	o.applyDefaults(f)
	return o, errors.Join(o.parseSpawn(), o.validate())
}

func (o *options) applyDefaults(f *pflag.FlagSet) {
	takes := o.takes()
	if o.spawn == "" && len(o.endpoints) == 0 {
		o.spawn = cmp.Or(takes.spawn, "1")
	}
	if o.tls && !f.Changed("count") {
		o.count = 9000
	}
	where(f, "rounds", &o.rounds, o.short || takes.once, 1) // one round of theirs holds many samples
	where(f, "duration", &o.duration, takes.duration > 0, takes.duration)
	where(f, "duration", &o.duration, o.short, cmp.Or(takes.short, 2*time.Second))
	where(f, "rate", &o.rate, takes.rate > 0, takes.rate)
	where(f, "count", &o.count, takes.count > 0, takes.count)
	where(f, "kills", &o.kills, o.short, 2)
	where(f, "watchers", &o.watchers, o.short, 1000)
	where(f, "over", &o.over, o.short, drainOver)
	where(f, "seed", &o.seed, true, rand.Uint64())
}

// where sets a flag that was not given.
func where[T any](f *pflag.FlagSet, flag string, at *T, so bool, value T) {
	if so && !f.Changed(flag) {
		*at = value
	}
}

// takes is what the scenario needs.
func (o *options) takes() needs {
	for _, s := range scenarios {
		if s.name == o.scenario {
			return s.needs
		}
	}
	return needs{}
}

var errSpawn = errors.New("a region has 1, 3 or 5 nodes, a mesh 2 to 5 regions")

// parseSpawn reads N or RxN; 1xN is N.
func (o *options) parseSpawn() error {
	if o.spawn == "" {
		return nil
	}
	regions, each, ok := strings.Cut(o.spawn, "x")
	if !ok {
		regions, each = "1", o.spawn
	}
	if len(regions) != 1 || regions < "1" || regions > "5" || each != "1" && each != "3" && each != "5" {
		return fmt.Errorf("--spawn %s: %w", o.spawn, errSpawn)
	}
	o.regions, o.each = int(regions[0]-'0'), int(each[0]-'0')
	if o.spawn = each; o.regions > 1 {
		o.spawn = regions + "x" + each
	}
	return nil
}

// Bounds of the flags.
const (
	durationMin = 100 * time.Millisecond
	durationMax = 3 * time.Hour
	everyMin    = 500 * time.Millisecond
	roundsMax   = 100
)

func (o *options) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	within := func(flag string, v, low, high int) {
		check(v >= low && v <= high, "--%s %d: want %d to %d", flag, v, low, high)
	}
	check(slices.Contains(scenarioNames(), o.scenario), "no scenario %q: there are %s", o.scenario, strings.Join(scenarioNames(), ", "))
	check(o.spawn == "" || len(o.endpoints) == 0, "--spawn and --endpoints exclude each other")
	if takes := o.takes(); takes.own() {
		check(o.each >= takes.each && o.regions >= takes.regions, "%s %s: --spawn %s, for example", o.scenario, takes.why, takes.spawn)
		check(o.profile == "" || takes.profile, "--profile: %s has no node that runs all the time", o.scenario)
	}
	check(!o.tls || o.takes().tls, "--tls: %s knows no TLS", o.scenario)
	check(!o.grants || o.takes().grants, "--grants: %s knows no tokens", o.scenario)
	check(o.each == 1 && o.regions == 1 || !o.tls && !o.grants, "--tls and --grants take one node: --spawn 1")
	for _, a := range o.attacks {
		check(slices.Contains(attackNames(), a), "--attacks %q: there are %s", a, strings.Join(attackNames(), ", "))
	}
	check(o.cut == "" || o.cut == cutAll || slices.Contains(regionNames[:o.regions], o.cut), "--cut %s: the regions are %s", o.cut, strings.Join(regionNames[:o.regions], ", "))
	check(o.profile == "" || o.spawn != "", "--profile needs a spawned node")
	check(o.duration >= durationMin && o.duration <= durationMax, "--duration %v: want %v to %v", o.duration, durationMin, durationMax)
	within("rounds", o.rounds, 1, roundsMax)
	within("connections", o.connections, 1, 10000)
	within("depth", o.depth, 1, protocol.InFlightMax)
	within("subscribers", o.subscribers, 1, 1_000_000)
	within("burst", o.burst, 1, protocol.CommandsMax)
	within("count", o.count, 1, 1_000_000)
	within("rate", o.rate, 1, 1_000_000)
	within("watchers", o.watchers, 0, 1_000_000)
	check(o.over >= time.Second && o.over <= durationMax, "--over %v: want %v to %v", o.over, time.Second, durationMax)
	within("kills", o.kills, 1, 1000)
	check(o.every >= everyMin && o.every <= durationMax, "--every %v: want %v to %v", o.every, everyMin, durationMax)
	for i, e := range o.endpoints {
		u, err := url.Parse(e)
		check(err == nil && u.Scheme == "ws" && u.Host != "", "--endpoints %q: want ws://host:port", redacted(e))
		if err == nil && strings.Trim(u.Path, "/") == "" {
			o.endpoints[i] = u.JoinPath("/v1/ws").String()
		}
	}
	return errors.Join(errs...)
}
