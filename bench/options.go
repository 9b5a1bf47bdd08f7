package main

import (
	"errors"
	"fmt"
	"io"
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
}

func (o *options) bind(f *pflag.FlagSet) {
	f.StringVar(&o.spawn, "spawn", "", "start `N` nodes for each round (this version: 1, the default)")
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "measure the running nodes at these `URL,...` (ws://host:port/v1/ws) instead")
	f.StringVar(&o.dir, "dir", "", "`DIR` in which a spawned node keeps its data, removed at the end (default: the system's temporary directory)")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "time measured in each phase of a round")
	f.IntVar(&o.rounds, "rounds", 3, "`N` rounds; the median counts")
	f.BoolVar(&o.short, "short", false, "one round with phases of 2s, where not set otherwise")
	f.StringVar(&o.json, "json", "", "write the result to `FILE`")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of a spawned node and of the generator to `DIR`")

	f.IntVar(&o.connections, "connections", 64, "hot-sku: WebSocket connections")
	f.IntVar(&o.depth, "depth", 32, "hot-sku: unanswered commands of a connection")
	f.BoolVar(&o.noHalf, "no-half", false, "hot-sku: leave out the phase at half of the measured rate")
	f.IntVar(&o.subscribers, "subscribers", 1000, "fanout: WebSocket connections that hear of each change")
	f.IntVar(&o.burst, "burst", 16, "fanout: SKUs that a burst changes with one message")
	f.IntVar(&o.count, "count", 18000, "connections: idle WebSocket connections")
}

const examples = `
Examples:
  go run ./bench hot-sku --spawn 1                     one node, 64 connections, one SKU
  go run ./bench fanout --short                        about ten seconds
  go run ./bench connections --count 5000 --json r.json
  go run ./bench hot-sku --endpoints ws://10.0.0.7:8080/v1/ws --depth 8
  go run ./bench hot-sku --rounds 1 --profile .        then: go tool pprof -top node.pprof
`

func usage(out io.Writer, f *pflag.FlagSet) {
	fmt.Fprint(out, "Usage: bench SCENARIO [flags]\n\nMeasures a node and checks that it stayed correct. Exits with 1 on any violation.\n\nScenarios:\n")
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
	return o, o.validate()
}

func (o *options) applyDefaults(f *pflag.FlagSet) {
	if o.spawn == "" && len(o.endpoints) == 0 {
		o.spawn = "1"
	}
	if !o.short {
		return
	}
	if !f.Changed("rounds") {
		o.rounds = 1
	}
	if !f.Changed("duration") {
		o.duration = 2 * time.Second
	}
}

// Bounds of the flags.
const (
	durationMin = 100 * time.Millisecond
	durationMax = 10 * time.Minute
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
	check(o.spawn == "" || o.spawn == "1", "--spawn %s: this version starts one node", o.spawn)
	check(o.profile == "" || o.spawn != "", "--profile needs a spawned node")
	check(o.duration >= durationMin && o.duration <= durationMax, "--duration %v: want %v to %v", o.duration, durationMin, durationMax)
	within("rounds", o.rounds, 1, roundsMax)
	within("connections", o.connections, 1, 10000)
	within("depth", o.depth, 1, protocol.InFlightMax)
	within("subscribers", o.subscribers, 1, 1_000_000)
	within("burst", o.burst, 1, protocol.CommandsMax)
	within("count", o.count, 1, 1_000_000)
	for i, e := range o.endpoints {
		u, err := url.Parse(e)
		check(err == nil && u.Scheme == "ws" && u.Host != "", "--endpoints %q: want ws://host:port", e)
		if err == nil && strings.Trim(u.Path, "/") == "" {
			o.endpoints[i] = u.JoinPath("/v1/ws").String()
		}
	}
	return errors.Join(errs...)
}
