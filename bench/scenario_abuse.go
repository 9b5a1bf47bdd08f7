package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// scenarioAbuse is the scenario whose node soon forgets keys.
const scenarioAbuse = "abuse"

const (
	honestRate    = 1000 // commands per second of the honest clients
	honestReaders = 50
	honestSKUs    = 8
	honestPulse   = 100 * time.Millisecond // between two changes before the readers
	calmMax       = 15 * time.Second       // of a slice without attacks
	calmMin       = 300 * time.Millisecond
	attackSlices  = 3 // how much longer the attacks are
	calmShare     = 8 // a calm slice is so small a part of the whole, where that is less
	noteEvery     = 10 * time.Second
	rssEvery      = 500 * time.Millisecond

	abuseP99Max = 1.2
	abuseRSSMax = 64 << 20
)

// abuseTrial is honest clients beside attackers.
type abuseTrial struct {
	*round
	gen   *generator
	load  *load
	hall  *hall
	flow  *flow
	thugs *thugs

	began, notedAt, sizedAt time.Time
	pulseAt                 int64        // ns: the next change
	slices                  [2][]numbers // calm, under attack
	rssStart, rssMax        int64
	fault                   error // of a step
	told                    int   // faults of the attackers' that were shown
}

// abuse attacks a node by turns and compares what honest clients see with and without.
func abuse(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	t := &abuseTrial{round: r, gen: gen}
	if err := t.open(ctx); err != nil {
		return err
	}
	r.progress.note("seed %d", r.seed)
	o := orders{Node: r.target.nodes[0].Public, TLS: r.tls, Rate: r.rate, Seed: r.seed, Kinds: r.attacks}
	if t.thugs, err = startThugs(ctx, o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.thugs.close()) }()
	if err := t.profiled(r.duration, func() error { return t.alternate(ctx) }); err != nil {
		return errors.Join(err, t.readLog())
	}
	return t.conclude(ctx)
}

func (t *abuseTrial) open(ctx context.Context) error {
	var skus []string
	for i := range honestSKUs {
		skus = append(skus, fmt.Sprintf("bench-honest-%s-%d", t.id, i))
	}
	var err error
	if t.hall, err = t.openHall(ctx, t.gen, skus); err != nil {
		return err
	}
	p := t.hall.board.newParty()
	t.flow = t.hall.flow(p, honestSKUs)
	if _, err := t.hall.seat(ctx, p, honestReaders, t.target.endpoint, nil, 0); err != nil {
		return err
	}
	t.load = newLoad(t.gen)
	return dialAll(ctx, t.target, t.connections, func(i int, d *dialed) error {
		get := fmt.Sprintf(`{"op":"get","id":#,"skus":["%s"]}`, skus[i%honestSKUs])
		return t.load.add(d, slotsFor(d.hello, protocol.InFlightMax), get, 1)
	})
}

// alternate lets calm and attacks take turns until the time is over.
func (t *abuseTrial) alternate(ctx context.Context) error {
	calm := max(min(t.duration/calmShare, calmMax), calmMin)
	t.began = time.Now()
	if err := t.slice(ctx, calm); err != nil { // so that what follows has been warmed up for
		return err
	}
	var err error
	if t.rssStart, err = t.residentBytes(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	t.phase(fmt.Sprintf("%d attacks a second beside %d honest clients", t.rate, t.connections+honestReaders), t.duration)
	for t.began, t.notedAt = time.Now(), time.Now(); time.Since(t.began) < t.duration; {
		if err := t.measure(ctx, 0, calm); err != nil {
			return err
		}
		if err := t.thugs.attack(); err != nil {
			return err
		}
		if err := t.measure(ctx, 1, attackSlices*calm); err != nil {
			return err
		}
		if _, err := t.thugs.pause(); err != nil {
			return err
		}
	}
	return nil
}

// measure takes down what honest clients see for a while.
func (t *abuseTrial) measure(ctx context.Context, which int, length time.Duration) error {
	if err := t.slice(ctx, length); err != nil {
		return err
	}
	n := numbers{}
	t.load.ages.put(n, "")
	t.flow.party.ages.put(n, "push_")
	t.slices[which] = append(t.slices[which], n)
	return nil
}

// slice keeps the honest clients going and waits for their last answers.
func (t *abuseTrial) slice(ctx context.Context, length time.Duration) error {
	t.load.ages.h.Reset()
	t.flow.party.restart()
	t.gen.tick()
	t.pulseAt = t.gen.now
	err := t.load.offer(ctx, honestRate, length, t.step)
	if err = errors.Join(err, t.fault, t.hall.fault()); err != nil {
		return err
	}
	if err := t.settle(ctx, t.load); err != nil {
		return err
	}
	return t.flow.settle(ctx)
}

// step changes stock when that is due, and looks after the node.
func (t *abuseTrial) step() {
	t.progress.since(t.began)
	for ; t.pulseAt <= t.gen.now && t.flow.ready(0); t.pulseAt += int64(honestPulse) {
		t.fault = errors.Join(t.fault, t.flow.send(0, t.pulseAt))
	}
	if time.Since(t.sizedAt) >= rssEvery {
		t.sizedAt = time.Now()
		if rss, err := t.residentBytes(); err == nil && t.rssStart > 0 {
			t.rssMax = max(t.rssMax, rss)
		}
	}
	if !t.notedAt.IsZero() && time.Since(t.notedAt) >= noteEvery {
		t.notedAt = time.Now()
		t.tell()
	}
}

func (t *abuseTrial) tell() {
	tally, err := t.thugs.tally()
	if err != nil {
		t.fault = errors.Join(t.fault, err)
		return
	}
	t.progress.note("  %v: %d attacks, %d honest answers, node %+d KiB at most, %d faults",
		time.Since(t.began).Round(time.Second), tally.sum(), t.load.acked, (t.rssMax-t.rssStart)>>10, len(tally.Faults))
	for _, fault := range tally.Faults[t.told:] {
		t.progress.note("  %s", fault)
	}
	t.told = len(tally.Faults)
}

// conclude holds what came of it against what should have.
func (t *abuseTrial) conclude(ctx context.Context) error {
	tally, err := t.thugs.tally()
	if err != nil {
		return err
	}
	for kind, n := range tally.Done {
		t.numbers["attacks_"+strings.ReplaceAll(strings.ToLower(kind), " ", "_")] = float64(n)
	}
	t.numbers["attacks"] = float64(tally.sum())
	if tally.sum() == 0 {
		t.violate("no attack was carried through")
	}
	for _, fault := range append(tally.Faults, t.load.faults...) {
		t.violate("%s", fault)
	}
	t.hall.judge()
	t.putHonest()
	if err := t.putMemory(ctx); err != nil {
		return err
	}
	if _, err := stock(ctx, t.target.endpoint(0), t.hall.board.skus); err != nil {
		t.violate("the node is not what it was: %v", err)
	}
	return t.readLog()
}

func (t *abuseTrial) putHonest() {
	median := func(which int, metric string) float64 {
		var values []float64
		for _, n := range t.slices[which] {
			values = append(values, n[metric])
		}
		return spreadOf(values).median
	}
	for _, metric := range []string{"p50_ms", "p99_ms", "push_p50_ms", "push_p99_ms"} {
		calm, attacked := median(0, metric), median(1, metric)
		t.numbers["calm_"+metric], t.numbers[metric] = calm, attacked
		if name, is := strings.CutSuffix(metric, "p99_ms"); is {
			t.numbers[name+"p99_ratio"] = attacked / max(calm, 0.001)
			t.mark(name+"p99_ratio", atMost, abuseP99Max)
		}
	}
}

func (t *abuseTrial) putMemory(ctx context.Context) error {
	if t.rssStart == 0 {
		return nil
	}
	end, err := t.settledMemory(ctx, t.gen)
	if err != nil {
		return err
	}
	t.numbers["rss_start_bytes"], t.numbers["rss_end_bytes"] = float64(t.rssStart), float64(end)
	t.numbers["rss_growth_max_bytes"] = float64(max(t.rssMax-t.rssStart, 0))
	if t.rssMax-t.rssStart > abuseRSSMax {
		t.violate("the node grew by %d bytes: want %d at most", t.rssMax-t.rssStart, abuseRSSMax)
	}
	return nil
}

// panicked is how Go's runtime and net/http tell of a panic.
var panicked = regexp.MustCompile(`(?i)\bpanic|fatal error:|^goroutine \d+ \[`)

// readLog looks for panics in what the node has said.
func (t *abuseTrial) readLog() error {
	panics := 0
	for _, n := range t.target.nodes {
		f, err := os.Open(n.log)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if panicked.MatchString(lines.Text()) {
				if panics++; panics <= faultsMax {
					t.violate("%s says: %.300s", n.name, lines.Text())
				}
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return err
		}
	}
	t.numbers["panics"] = float64(panics)
	return nil
}
