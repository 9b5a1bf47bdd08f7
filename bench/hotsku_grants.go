package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	withoutTokens  = "without-tokens"
	grantsTurn     = 500 * time.Millisecond
	grantsRatioMin = 0.95
)

// grantsSide is a node with its load.
type grantsSide struct {
	*round
	load  *load
	sku   string
	rates []float64 // of each turn: acknowledged per second
	cpu   time.Duration
	acked int64
	ages  latencies
}

// compareGrants sells on a node whose clients have tokens of restricted grants, and on
// one that asks nobody, by turns.
func (r *round) compareGrants(ctx context.Context, gen *generator) (err error) {
	o := *r.options
	o.grants = false
	plain, err := spawn(ctx, &o, nil, r.progress)
	if plain != nil {
		defer func() { err = errors.Join(err, plain.close()) }()
	}
	if err != nil {
		return err
	}
	sides := [2]*grantsSide{}
	for i, t := range []*target{r.target, plain} {
		one := *r
		one.target = t
		l := newLoad(gen)
		l.ages = gen.newLatencies([2]string{"commands with tokens", "commands without"}[i])
		s := &grantsSide{round: &one, load: l, sku: hotPrefix + r.id, ages: newLatencies()}
		if err := one.openLoad(ctx, s.load, s.sku); err != nil {
			return err
		}
		sides[i] = s
	}
	r.phase(fmt.Sprintf("%d connections, %d commands each under way, with tokens and without in turn", r.connections, r.depth), 2*r.duration)
	err = r.profiled(2*r.duration, func() error { return r.grantTurns(ctx, sides) })
	if err != nil {
		return err
	}
	r.putGrants(sides[0], sides[1])
	for _, s := range sides {
		s.violations = nil
		if err := s.checkSales(ctx, s.load, s.sku); err != nil {
			return err
		}
		r.violations = append(r.violations, s.violations...)
	}
	return nil
}

func (r *round) grantTurns(ctx context.Context, sides [2]*grantsSide) error {
	began := time.Now()
	step := func() { r.progress.since(began) }
	turns := max(phaseSlices, int(r.duration/grantsTurn))
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

func (s *grantsSide) turn(ctx context.Context, length time.Duration, step func()) error {
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

func (r *round) putGrants(with, without *grantsSide) {
	var ratios []float64
	for i, rate := range with.rates {
		ratios = append(ratios, rate/max(without.rates[i], 1))
	}
	ratio := spreadOf(ratios)
	r.numbers["grants_ratio"], r.numbers["grants_ratio_lowest"], r.numbers["grants_ratio_highest"] = ratio.median, ratio.low, ratio.high
	r.mark("grants_ratio", atLeast, grantsRatioMin)
	r.numbers["acked_per_second"] = spreadOf(with.rates).median
	r.peer(withoutTokens)["acked_per_second"] = spreadOf(without.rates).median
	with.put(r.numbers)
	without.put(r.peer(withoutTokens))
}

// put writes what a side was like, and what a command has cost its node.
func (s *grantsSide) put(to numbers) {
	s.ages.put(to, "")
	if s.cpu > 0 && s.acked > 0 {
		to["node_cpu_us_per_command"] = float64(s.cpu.Nanoseconds()) / 1000 / float64(s.acked)
	}
}
