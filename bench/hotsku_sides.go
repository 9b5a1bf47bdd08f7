package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const sidesTurn = 500 * time.Millisecond

// comparison is of the node that is measured with a plain one.
type comparison struct {
	labels [2]string // of the node and the plain one, for the progress
	plain  string    // names the plain one among the peers
	ratio  string    // names the figure: what the node acknowledges for each of the plain one's
	least  float64   // mark of it
}

// contender is a node with its load.
type contender struct {
	*round
	load  *load
	sku   string
	rates []float64 // of each turn: acknowledged per second
	cpu   time.Duration
	acked int64
	ages  latencies
}

// compareSides sells on the round's node and on one that is spawned with plain options, by
// turns: what else a machine is busy with hits both.
func (r *round) compareSides(ctx context.Context, gen *generator, plain *options, c comparison) (err error) {
	other, err := spawn(ctx, plain, nil, r.progress)
	if other != nil {
		defer func() { err = errors.Join(err, other.close()) }()
	}
	if err != nil {
		return err
	}
	sides := [2]*contender{}
	for i, t := range []*target{r.target, other} {
		one := *r
		one.target = t
		l := newLoad(gen)
		l.ages = gen.newLatencies("commands " + c.labels[i])
		s := &contender{round: &one, load: l, sku: hotPrefix + r.id, ages: newLatencies()}
		if err := one.openLoad(ctx, s.load, s.sku); err != nil {
			return err
		}
		sides[i] = s
	}
	r.phase(fmt.Sprintf("%d connections, %d commands each under way, %s and %s in turn", r.connections, r.depth, c.labels[0], c.labels[1]), 2*r.duration)
	err = r.profiled(2*r.duration, func() error { return r.takeTurns(ctx, sides) })
	if err != nil {
		return err
	}
	r.putComparison(c, sides[0], sides[1])
	for _, s := range sides {
		s.violations = nil
		if err := s.checkSales(ctx, s.load, s.sku); err != nil {
			return err
		}
		r.violations = append(r.violations, s.violations...)
	}
	return nil
}

func (r *round) takeTurns(ctx context.Context, sides [2]*contender) error {
	began := time.Now()
	step := func() { r.progress.since(began) }
	turns := max(phaseSlices, int(r.duration/sidesTurn))
	for i := range turns + 1 {
		for j := range sides {
			s := sides[(i+j)%2]
			if err := s.turn(ctx, r.duration/time.Duration(turns), step); err != nil {
				return err
			}
		}
		if i == 0 { // the first turn of both has been to warm up
			for _, s := range sides {
				s.rates, s.cpu, s.acked = nil, 0, 0
				s.ages.h.Reset()
			}
		}
	}
	return nil
}

func (s *contender) turn(ctx context.Context, length time.Duration, step func()) error {
	s.load.ages.h.Reset()
	acked, began, used := s.load.acked, time.Now(), cpuTimes(s.target.pids())
	if err := s.load.saturate(ctx, s.depth, length, step); err != nil {
		return err
	}
	s.rates = append(s.rates, float64(s.load.acked-acked)/time.Since(began).Seconds())
	s.ages.h.Merge(s.load.ages.h)
	err := s.settle(ctx, s.load)
	s.acked += s.load.acked - acked
	s.cpu += cpuTimes(s.target.pids()) - used
	return err
}

func (r *round) putComparison(c comparison, node, plain *contender) {
	var ratios []float64
	for i, rate := range node.rates {
		ratios = append(ratios, rate/max(plain.rates[i], 1))
	}
	ratio := spreadOf(ratios)
	r.numbers[c.ratio], r.numbers[c.ratio+"_lowest"], r.numbers[c.ratio+"_highest"] = ratio.median, ratio.low, ratio.high
	r.mark(c.ratio, atLeast, c.least)
	r.numbers["acked_per_second"] = spreadOf(node.rates).median
	r.peer(c.plain)["acked_per_second"] = spreadOf(plain.rates).median
	node.put(r.numbers)
	plain.put(r.peer(c.plain))
}

// put writes what a side was like, and what a command has cost its node.
func (s *contender) put(to numbers) {
	s.ages.put(to, "")
	if s.cpu > 0 && s.acked > 0 {
		to["node_cpu_us_per_command"] = float64(s.cpu.Nanoseconds()) / 1000 / float64(s.acked)
	}
}
