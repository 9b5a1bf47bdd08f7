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
	"github.com/stockmesh/stockmesh/bench/fault"
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
	html     string
	profile  string

	connections int
	depth       int
	noHalf      bool
	subscribers int
	burst       int
	assorted    int
	lines       int
	count       int
	rate        int
	every       time.Duration
	kills       int
	file        string
	cut         string

	losses   int
	founding int
	disk     string
	noSync   bool

	faults   []string
	planFile string
	previous string

	tls      bool
	grants   bool
	observed bool
	strict   bool
	seed     uint64

	attacks []string

	peers       []string
	peerModules string

	watchers int
	over     time.Duration

	flags []string // of spawned nodes, besides
	pick  picker   // their addresses; nil: none but this run's nodes take any

	command   string            // that does the same again
	effective map[string]string // all flags' values
}

func (o *options) bind(f *pflag.FlagSet) {
	f.StringVar(&o.spawn, "spawn", "", "start `N|RxN` nodes for each round: N, a region of 1, 3 or 5, or RxN, a mesh of 2 to 5 such regions (default: 1; failover, drain, power: 3; cut, mesh, soak: 3x1)")
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "measure the running nodes at these `URL,...` instead (ws://host:port/v1/ws; ws://:TOKEN@host:port/v1/ws where clients need a token)")
	f.StringVar(&o.dir, "dir", "", "`DIR` in which spawned nodes keep their data, removed at the end (default: the system's temporary directory)")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "time measured in each phase of a round (connections: 30s; abuse: 20s in all; soak: 2m in all)")
	f.IntVar(&o.rounds, "rounds", 3, "`N` rounds; the median counts (failover, drain, cut, mesh, stalled, abuse, power, soak: 1)")
	f.BoolVar(&o.short, "short", false, "one round with phases of 2s and 2 kills, where not set otherwise")
	f.StringVar(&o.json, "json", "", "write the result to `FILE` (all: an array)")
	f.StringVar(&o.html, "html", "", "draw the result on a page, `FILE`, that needs nothing else")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of spawned nodes and of the generator to `DIR`")

	f.BoolVar(&o.strict, "strict", false, "a mark that is missed fails the run, as a violation does")

	f.IntVar(&o.connections, "connections", 64, "WebSocket connections that commands are sent over (hot-sku, many-skus, orders, mixed, failover, drain, cut, mesh, soak, abuse, replay)")
	f.IntVar(&o.depth, "depth", 32, "hot-sku, many-skus: unanswered commands of a connection; orders: orders under way")
	f.BoolVar(&o.noHalf, "no-half", false, "hot-sku, many-skus: leave out the phase at half of the measured rate")
	f.IntVar(&o.subscribers, "subscribers", 1000, "fanout, stalled: WebSocket connections that hear of each change; mixed: those that look at SKUs")
	f.IntVar(&o.burst, "burst", 16, "fanout, stalled: SKUs that a burst changes with one message")
	f.IntVar(&o.assorted, "skus", 10000, "many-skus, orders, mixed: `N` SKUs that are sold (mixed: 1000)")
	f.IntVar(&o.lines, "lines", 3, "orders: `N` different SKUs of an order")
	f.IntVar(&o.count, "count", 18000, "connections: idle WebSocket connections (with --tls 9000); storm: those that arrive at once (10000)")
	f.IntVar(&o.rate, "rate", 2000, "failover, drain, cut, mesh, soak, mixed: commands sent per second (mesh: 20000; mixed: 5000); stalled: bursts per second (20); abuse: attacks per second (200); replay: invoices per second (0: as fast as they are answered)")
	f.DurationVar(&o.every, "every", 8*time.Second, "failover: time from one kill to the next, or more until the node is back")
	f.IntVar(&o.kills, "kills", 5, "failover, replay: `N` times the region's owner is killed (replay: 0)")
	f.StringVar(&o.file, "file", "", "replay: recorded sales, a CSV `FILE` that may be gzipped, with the columns invoiced_at, invoice, sku and quantity (default: the sample of the repository; --short: its first 300 invoices)")
	f.IntVar(&o.watchers, "watchers", 10000, "drain: WebSocket connections on one node that all have to leave (0: leave this out; --short: 1000)")
	f.DurationVar(&o.over, "over", 10*time.Second, "drain: time over which those are sent elsewhere (--short: 2s)")
	f.BoolVar(&o.tls, "tls", false, "connections, storm, abuse: over TLS")
	f.BoolVar(&o.grants, "grants", false, "hot-sku: beside the node, in turn, one with tokens of restricted grants")
	f.BoolVar(&o.observed, "observed", false, "hot-sku: beside the node, in turn, one whose figures are scraped each second and whose traces are collected")
	f.IntVar(&o.losses, "losses", 100, "power: `N` times the power of all nodes fails (--short: 3)")
	f.IntVar(&o.founding, "founding", 0, "power: `N` times it fails while the nodes start for the first time, before")
	f.StringVar(&o.disk, "disk", diskOrdered, "power: `MODEL` of the nodes' disks: ordered (names are durable in the order they were made, as in ext4) or posix (once their directory was synced)")
	f.BoolVar(&o.noSync, "no-sync", false, "power: disks that answer each sync and do nothing for up to a second; the run has to fail")
	f.Uint64Var(&o.seed, "seed", 0, "abuse, power, soak, many-skus, mixed: what is drawn at random, to see the same again (default: another one each time)")
	f.StringSliceVar(&o.attacks, "attacks", nil, "abuse: only the attacks of these `KIND,...` (default: all)")
	f.StringSliceVar(&o.faults, "faults", nil, "soak: only faults of these `KIND,...` ("+strings.Join(faultNames(), ", ")+"; default: all)")
	f.StringVar(&o.planFile, "plan", "", "soak: carry out the plan in `FILE`, such as a failed run has kept, instead of one drawn from --seed")
	f.StringVar(&o.previous, "previous", "", "soak: another build of bench, a `FILE` whose nodes take turns with this one's (upgrade)")
	f.StringSliceVar(&o.peers, "peers", nil, "beside the nodes, measure these `PEER,...` at the same work: postgres, redis, redis-pipelined, redis-replica, nats-kv, nats-kv-r3 (hot-sku, many-skus; the first two: orders), ws (hot-sku, fanout, connections), or all that are installed (default: none)")
	f.StringVar(&o.peerModules, "peer-modules", "", "`DIR` with the npm modules ws and redis, which --peers ws needs (npm install --prefix DIR ws redis)")
	f.StringVar(&o.cut, "cut", "", "cut: `NAME` of the region that loses its links, or all (default: the last one)")
}

const examples = `
Examples:
  go run ./bench hot-sku --spawn 1                     one node, 64 connections, one SKU
  go run ./bench hot-sku --spawn 3                     the same on a region of three nodes
  go run ./bench many-skus --skus 100000               sales spread over an assortment
  go run ./bench orders --lines 5 --spawn 3            reserve, then confirm or release, five lines each
  go run ./bench mixed --subscribers 5000 --rate 10000 a shop: most look, some buy, a few count
  go run ./bench failover --kills 20 --json r.json     kill -9 the owner, again and again
  go run ./bench drain --spawn 5                       a rolling restart under load
  go run ./bench hot-sku --spawn 3x1                   on a mesh of three regions of one node
  go run ./bench cut --spawn 2x1 --duration 60s        a region loses its links for a minute, under sales
  go run ./bench mesh --rate 5000                      what linked regions cost, and how fresh they are
  go run ./bench replay --spawn 3 --kills 10           real sales, the owner killed ten times meanwhile
  go run ./bench all --short --html page.html          everything, in some minutes, on one page
  go run ./bench fanout --short                        about half a minute
  go run ./bench fanout --subscribers 8000             what 8,000 watchers of one SKU cost
  go run ./bench connections --count 5000 --json r.json
  go run ./bench connections --tls                     the same over TLS
  go run ./bench storm --count 10000                   everybody comes at once
  go run ./bench stalled                               a tenth of the readers stops reading
  go run ./bench drain --watchers 10000 --over 10s     10,000 connections leave a node
  go run ./bench abuse --duration 1h --tls             an hour of broken and hostile clients
  go run ./bench power --losses 100                    pull the plug of all nodes, a hundred times
  go run ./bench power --spawn 1 --no-sync --short     the same on disks that lie, which has to fail
  go run ./bench soak --spawn 3x3 --duration 1h        every kind of fault, again and again, under sales
  go run ./bench soak --spawn 3 --faults kill,stop     only some, in one region
  go run ./bench hot-sku --peers all                   next to PostgreSQL, Redis, NATS and a WebSocket server
  go run ./bench hot-sku --grants                      what checking restricted grants costs
  go run ./bench hot-sku --observed                    what metrics and traces cost
  go run ./bench hot-sku --endpoints ws://10.0.0.7:8080/v1/ws --depth 8
  go run ./bench hot-sku --rounds 1 --profile .        then: go tool pprof -top node.pprof
  go run ./bench verify --endpoints ws://10.0.0.7:8080,ws://10.1.0.7:8080 --watch 1m
`

func usage(out io.Writer, f *pflag.FlagSet) {
	fmt.Fprint(out, "Usage: bench SCENARIO [flags]\n\nMeasures a node, a region of several or a mesh of regions, and checks that it stayed correct. Exits with 1 on any violation.\n\nScenarios:\n")
	for _, s := range scenarios {
		fmt.Fprintf(out, "  %-12s %s\n", s.name, s.about)
	}
	fmt.Fprintf(out, "  %-12s all of these, one after the other; on what each takes where it does not fit --spawn\n", scenarioAll)
	fmt.Fprintf(out, "\nbench %s holds running nodes against what they promise about stock and measures nothing: see bench %s --help.\n", commandVerify, commandVerify)
	fmt.Fprintf(out, "\nFlags:\n%s%s", f.FlagUsages(), examples)
}

// parseOptions returns pflag.ErrHelp after printing the help to out. For all scenarios,
// the flags are looked at for each of them: see everything.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o, f, err := parseFlags(args, out)
	if err != nil || o.scenario == scenarioAll {
		return o, err
	}
	return o, o.complete(f)
}

func parseFlags(args []string, out io.Writer) (*options, *pflag.FlagSet, error) {
	o := &options{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { usage(out, f) }
	o.bind(f)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("%w (--help lists the flags)", err)
	}
	if f.NArg() != 1 {
		return nil, nil, fmt.Errorf("want one scenario of %s, or %s (--help tells more)", strings.Join(scenarioNames(), ", "), scenarioAll)
	}
	o.scenario = f.Arg(0)
	where(f, "seed", &o.seed, true, rand.Uint64())
	return o, f, nil
}

// complete sets what was not given.
func (o *options) complete(f *pflag.FlagSet) error {
	o.applyDefaults(f)
	err := errors.Join(o.parseSpawn(), o.validate())
	o.remember(f)
	return err
}

// remember keeps how the scenario can be run again.
func (o *options) remember(f *pflag.FlagSet) {
	o.effective = make(map[string]string)
	o.command = "go run ./bench " + o.scenario
	f.VisitAll(func(flag *pflag.Flag) {
		value := flag.Value.String()
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		switch flag.Name {
		case "endpoints":
			value = strings.Join(redactedAll(o.endpoints), ",")
		case "json", "html": // not part of what is measured
			return
		}
		o.effective[flag.Name] = value
		switch {
		case value == "" || !flag.Changed && flag.Name != "seed":
		case value == "true" && flag.NoOptDefVal == "true":
			o.command += " --" + flag.Name
		default:
			o.command += " --" + flag.Name + "=" + value
		}
	})
}

func redactedAll(endpoints []string) []string {
	var shown []string
	for _, e := range endpoints {
		shown = append(shown, redacted(e))
	}
	return shown
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
	where(f, "skus", &o.assorted, takes.skus > 0, takes.skus)
	where(f, "kills", &o.kills, o.short, 2)
	where(f, "kills", &o.kills, o.scenario == scenarioReplay, 0)
	where(f, "rate", &o.rate, o.scenario == scenarioReplay, 0)
	where(f, "watchers", &o.watchers, o.short, 1000)
	where(f, "over", &o.over, o.short, drainOver)
	where(f, "losses", &o.losses, o.short, 3)
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
	assortedMax = 1_000_000
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
	check(!o.observed || o.takes().observed, "--observed: %s knows no other node beside", o.scenario)
	check(!o.observed || o.spawn != "" && !o.grants, "--observed takes a node of its own, and no --grants")
	check(o.each == 1 && o.regions == 1 || !o.tls && !o.grants && !o.observed, "--tls, --grants and --observed take one node: --spawn 1")
	if _, err := fault.ParseKinds(o.faults); err != nil {
		check(false, "--faults: %v", err)
	}
	for _, a := range o.attacks {
		check(slices.Contains(attackNames(), a), "--attacks %q: there are %s", a, strings.Join(attackNames(), ", "))
	}
	o.checkPeers(check)
	check(o.cut == "" || o.cut == cutAll || slices.Contains(regionNames[:o.regions], o.cut), "--cut %s: the regions are %s", o.cut, strings.Join(regionNames[:o.regions], ", "))
	check(o.profile == "" || o.spawn != "", "--profile needs a spawned node")
	check(o.duration >= durationMin && o.duration <= durationMax, "--duration %v: want %v to %v", o.duration, durationMin, durationMax)
	within("rounds", o.rounds, 1, roundsMax)
	within("connections", o.connections, 1, 10000)
	within("depth", o.depth, 1, protocol.InFlightMax)
	within("subscribers", o.subscribers, 1, 1_000_000)
	within("burst", o.burst, 1, protocol.CommandsMax)
	within("count", o.count, 1, 1_000_000)
	within("skus", o.assorted, 1, assortedMax)
	within("lines", o.lines, 1, protocol.LinesMax)
	check(o.scenario != "orders" || o.lines <= o.assorted, "--lines %d: want --skus %d or more", o.lines, o.lines)
	least := 1
	if o.scenario == scenarioReplay {
		least = 0
		check(o.kills == 0 || o.each >= 3, "--kills %d: others of the region have to go on: --spawn 3, for example", o.kills)
		_, err := o.salesFile()
		errs = append(errs, err)
	}
	within("rate", o.rate, least, 1_000_000)
	within("watchers", o.watchers, 0, 1_000_000)
	check(o.over >= time.Second && o.over <= durationMax, "--over %v: want %v to %v", o.over, time.Second, durationMax)
	within("losses", o.losses, 1, 100_000)
	within("founding", o.founding, 0, 1000)
	check(o.disk == diskOrdered || o.disk == diskPOSIX, "--disk %q: want %s or %s", o.disk, diskOrdered, diskPOSIX)
	within("kills", o.kills, least, 1000)
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
