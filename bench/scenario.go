package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// scenario is one thing that can be measured.
type scenario struct {
	name, about string
	run         func(context.Context, *round) error
	needs       needs
}

// needs is what a scenario takes; the zero value: any nodes, running ones too.
type needs struct {
	spawn         string // where nothing is said
	regions, each int    // the least, of its own
	why           string // continues the scenario's name
	once          bool   // one round, where nothing is said
	bare          bool   // it starts its nodes itself
	profile       bool   // of its own node, which runs all the time
	tls, grants   bool   // it knows how
	observed      bool   // too

	// Where nothing is said; 0: the flags' defaults.
	rate, count     int
	skus            int
	duration, short time.Duration
}

// own reports whether the scenario does something to its nodes that running ones must
// not suffer.
func (n needs) own() bool { return n.each > 0 }

var (
	ownRegion = needs{spawn: "3", regions: 1, each: 3, once: true, why: "ends nodes and starts them again, which takes a region of its own"}
	ownMesh   = needs{spawn: "3x1", regions: 2, each: 1, once: true, profile: true, why: "cuts the links between regions, which takes a mesh of its own"}
	ownDisks  = needs{spawn: "3", regions: 1, each: 1, once: true, bare: true, why: "cuts the power of nodes, which have to be its own"}
	ownFaults = needs{spawn: "3x1", regions: 1, each: 1, once: true, bare: true, duration: 2 * time.Minute, short: 20 * time.Second, why: "does everything to nodes and links that can go wrong, which takes its own"}
	fastMesh  = needs{spawn: "3x1", regions: 2, each: 1, once: true, profile: true, why: "compares a region that is linked with one that is not, both its own", rate: 20000}

	idleNode    = needs{tls: true, duration: 30 * time.Second} // longer than a heartbeat
	stormNode   = needs{spawn: "1", regions: 1, each: 1, tls: true, count: 10000, why: "fills a node, which has to be its own"}
	stalledNode = needs{spawn: "1", regions: 1, each: 1, once: true, profile: true, rate: 20, why: "lets connections to a node stall, which has to be its own"}
	abusedNode  = needs{spawn: "1", regions: 1, each: 1, once: true, profile: true, tls: true, rate: 200, duration: 20 * time.Second, short: 6 * time.Second, why: "abuses a node, which has to be its own"}
)

var scenarios = []scenario{
	{"hot-sku", "sells of one SKU over pipelined connections, as fast as they are answered and at half of that", hotSKU, needs{grants: true, observed: true}},
	{"many-skus", "sells spread over many SKUs, evenly and as customers buy", many, needs{}},
	{"orders", "orders of several lines, reserved and then confirmed or released: all of them or nothing", orderMany, needs{}},
	{"mixed", "a shop at a fixed rate: most of it looks at changing SKUs, some buys, a little takes stock", mixedShop, needs{rate: 5000, skus: 1000}},
	{"fanout", "one SKU (and bursts of SKUs) changing before many subscribers, next to a bare write loop", fanout, needs{}},
	{"replay", "recorded sales of a shop over all nodes: every unit and every movement accounted for", replayed, needs{once: true}},
	{"connections", "idle connections: memory and CPU of each, handshakes per second", connections, idleNode},
	{"storm", "many connections arrive at once: all are served or told when to come back", storm, stormNode},
	{"stalled", "a tenth of the readers stops reading: what the others notice, and what becomes of them", stalled, stalledNode},
	{"abuse", "broken and hostile clients beside honest ones: what those notice, and what it costs the node", abuse, abusedNode},
	{"failover", "the node that decides is killed under load: time until the others do, and what got lost", failover, ownRegion},
	{"drain", "a node full of watchers is left, then a rolling restart under load: nothing may fail", drain, ownRegion},
	{"cut", "a region loses its links under load: every region sells on, and nothing is sold twice", cut, ownMesh},
	{scenarioSoak, "nodes, disks, clocks and links fail as a seed says, under load: every answer holds, all nodes end equal", soak, ownFaults},
	{"mesh", "a linked region next to the same region alone, how soon a peer's watchers know, bytes on the links", mesh, fastMesh},
	{"power", "the power of all nodes fails at once, again and again, then a disk: nothing acknowledged is lost", power, ownDisks},
}

// aboutOf says what a scenario does.
func aboutOf(name string) string {
	for _, s := range scenarios {
		if s.name == name {
			return s.about
		}
	}
	return ""
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// round is one run of a scenario against one set of nodes. The scenario fills in
// the numbers.
type round struct {
	*options
	name     string // "round 1/3"
	id       string // in names of SKUs and keys, so that runs never meet
	target   *target
	progress *progress

	chronicle *chronicle // for the charts; nil: nobody draws any
	usage     nodesUsage // as it was told last
	ceiling   *ceiling   // the generator's; nil: the round finds its own
	stage     string     // precedes the names of phases that the scenario has twice

	numbers    numbers
	peers      map[string]numbers
	durability map[string]string // what a peer's answer promises, in a sentence
	skipped    map[string]string // peers and parts that were left out: why
	marks      map[string]mark
	violations []string

	finish func(error) error // what a scenario does last, also with an error; nil: nothing
}

func newRound(o *options, n int, t *target, p *progress) *round {
	return &round{
		options: o, name: fmt.Sprintf("round %d/%d", n, o.rounds), id: strings.ToLower(rand.Text()[:10]),
		target: t, progress: p, chronicle: newChronicle(), numbers: numbers{}, peers: map[string]numbers{}, marks: map[string]mark{},
		durability: map[string]string{}, skipped: map[string]string{},
	}
}

// violate notes what must not happen; the run fails in the end.
func (r *round) violate(format string, args ...any) {
	r.violations = append(r.violations, r.name+": "+fmt.Sprintf(format, args...))
}

// phase announces what is measured next.
func (r *round) phase(what string, length time.Duration) {
	what = r.stage + what
	r.chronicle.phase(what)
	r.progress.phase(r.name+": "+what, length)
}

// leaveOut notes in the report what there was no part of, or too little.
func (r *round) leaveOut(part, why string) {
	r.skipped[part] = why
	r.progress.note("%s: %s: %s", r.name, part, why)
}

func (r *round) peer(name string) numbers {
	if r.peers[name] == nil {
		r.peers[name] = numbers{}
	}
	return r.peers[name]
}

// measure runs all rounds. A spawned node lives for one round, so that no round
// carries another's memory or log. It returns what it has found with an error too.
func measure(ctx context.Context, o *options, p *progress) (*report, error) {
	rep, top := newReport(o), &ceiling{}
	var failed error
	for n := 1; n <= o.rounds && failed == nil; n++ {
		failed = measureRound(ctx, o, n, p, top, rep)
	}
	if ctx.Err() != nil {
		failed = errInterrupted
	}
	rep.finish(failed)
	return rep, failed
}

func measureRound(ctx context.Context, o *options, n int, p *progress, top *ceiling, rep *report) error {
	t, err := &target{each: o.each}, error(nil)
	if !o.takes().bare {
		t, err = openTarget(ctx, o, p)
	}
	if err != nil {
		return err
	}
	r := newRound(o, n, t, p)
	r.ceiling = top
	p.follow(r.live)
	err = runRound(ctx, r)
	if r.finish != nil {
		err = errors.Join(err, r.finish(err))
	}
	p.follow(nil)
	if err := errors.Join(err, t.close()); err != nil {
		rep.addPart(r)
		return fmt.Errorf("%s: %w", r.name, err)
	}
	rep.add(r)
	return nil
}

func runRound(ctx context.Context, r *round) error {
	for _, s := range scenarios {
		if s.name == r.scenario {
			if err := s.run(ctx, r); err != nil {
				return err
			}
			if err := r.invariants(ctx); err != nil {
				return err
			}
			return r.beside(ctx)
		}
	}
	return fmt.Errorf("no scenario %q", r.scenario)
}

// profiled runs fn, which takes about length, while CPU profiles are written,
// where they are asked for.
func (r *round) profiled(length time.Duration, fn func() error) error {
	if r.profile == "" {
		return fn()
	}
	stop, err := startProfiles(r.target, filepath.Clean(r.profile), length)
	if err != nil {
		return err
	}
	return errors.Join(fn(), stop())
}
