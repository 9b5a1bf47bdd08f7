package main

import (
	"context"
	"errors"
	"os"
	"time"
)

// ceiling is how much the generator gets done before a node that does nothing. It tells
// about this program and this machine, so one measurement holds for all rounds.
type ceiling struct{ perSecond float64 }

const (
	ceilingLength     = 800 * time.Millisecond // a second, with what precedes it
	generatorShareMax = 0.8
)

// putCeiling compares a metric with what the generator reaches at most: drive has it
// do, on a round against a null node, what it has done on this one.
func (r *round) putCeiling(ctx context.Context, metric string, drive func(context.Context, *round, *generator) error) error {
	if r.ceiling == nil {
		r.ceiling = &ceiling{}
	}
	if r.ceiling.perSecond == 0 {
		found, err := r.driveNull(ctx, drive)
		if err != nil {
			return err
		}
		r.ceiling.perSecond = found[metric]
	}
	share := r.numbers[metric] / max(r.ceiling.perSecond, 1)
	r.numbers["generator_ceiling_per_second"], r.numbers["generator_share"] = r.ceiling.perSecond, share
	if share > generatorShareMax {
		r.progress.note("%s: %.0f %% of what the generator reaches before a node that does nothing: the generator may be the limit", r.name, 100*share)
	}
	return nil
}

// driveNull returns the numbers of a short round against a null node. What else such a
// round finds, a violation even, says nothing about the real one.
func (r *round) driveNull(ctx context.Context, drive func(context.Context, *round, *generator) error) (found numbers, err error) {
	p, err := startProcess(ctx, os.Stderr, childNull)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	gen, err := newGenerator() // one that nothing is drawn from
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	one := r.againstNull(p)
	return one.numbers, drive(ctx, one, gen)
}

func (r *round) againstNull(p *process) *round {
	o := *r.options
	o.duration, o.profile = min(o.duration, ceilingLength), ""
	o.endpoints, o.spawn, o.regions, o.each = []string{"ws://" + p.Public + "/v1/ws"}, "", 1, 1
	one := newRound(&o, 1, &target{endpoints: o.endpoints, nodes: []*node{{process: p, name: childNull}}, each: 1}, r.progress)
	one.name, one.chronicle = r.name+", the generator alone", nil
	return one
}
