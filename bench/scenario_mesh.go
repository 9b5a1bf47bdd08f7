package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// manySKUs is how many the wide assortment has.
const manySKUs = 10000

// meshKind is what is sold: the prefix is that of the metrics.
type meshKind struct {
	prefix, what string
	count        int
}

var meshKinds = []meshKind{
	{"", "one SKU", 1},
	{"many_", readable(manySKUs) + " SKUs", manySKUs},
}

// mesh sells in the first region of a mesh. First next to a region of the same size
// that is alone, in turn: what do the others cost? Then before watchers in all other
// regions: how soon do they know, and how many bytes does that take?
func mesh(ctx context.Context, r *round) (err error) {
	alone, err := r.openAlone(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.close()) }()
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	const parts = 3 // alone, linked, before watchers
	return r.profiled(time.Duration(len(meshKinds)*parts)*r.duration, func() error {
		for _, kind := range meshKinds {
			if err := r.measureKind(ctx, gen, alone, kind); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *round) measureKind(ctx context.Context, gen *generator, alone *target, kind meshKind) error {
	a := assortment{fmt.Sprintf("bench-%sof-%s-", kind.prefix, r.id), kind.count}
	linked, err := r.compareLinked(ctx, gen, alone, a, kind)
	if err != nil {
		return err
	}
	// What the others have not been told yet is not counted as the next phase's.
	if err := r.catchUp(ctx, linked, kind.prefix+"catch_up_ms"); err != nil {
		return err
	}
	if err := r.measureFreshness(ctx, gen, linked, kind); err != nil {
		return err
	}
	return r.checkShop(ctx, r.target, linked)
}

// catchUp waits until every node of every region shows what was sold.
func (r *round) catchUp(ctx context.Context, s *shop, metric string) error {
	r.phase("waiting until all regions are equal", settleMeshMax)
	began, want := time.Now(), s.want()
	for i := range r.target.nodes {
		if _, err := r.settledStock(ctx, i, want); err != nil { // checkShop judges the stock
			return err
		}
	}
	r.numbers[metric] = milliseconds(time.Since(began))
	return nil
}

// openAlone starts a region like the first one of the mesh, without any others.
func (r *round) openAlone(ctx context.Context) (*target, error) {
	o := *r.options
	o.regions = 1
	t, err := spawn(ctx, &o, nil, r.progress)
	if err != nil && t != nil {
		err = errors.Join(err, t.close())
	}
	return t, err
}

// firstRegion is the part of a mesh where is sold.
func (t *target) firstRegion() *target {
	return &target{endpoints: t.endpoints[:t.each], nodes: t.nodes[:t.each], each: t.each}
}

// side is one of two that take turns.
type side struct {
	shop     *shop
	p50, p99 []float64 // ms, of each turn
}

// compareLinked has the linked region and the one that is alone take turns and
// compares the medians of their turns: a disk that stalls once spoils one turn, not
// the result.
func (r *round) compareLinked(ctx context.Context, gen *generator, alone *target, a assortment, kind meshKind) (*shop, error) {
	r.progress.counted(fmt.Sprintf("%s: opening stock of %s", r.name, kind.what), a.count)
	var sides [2]side
	for i, t := range []*target{alone, r.target.firstRegion()} {
		s, err := r.openShop(ctx, gen, t, a)
		if err != nil {
			return nil, err
		}
		s.load.ages = gen.newLatencies(fmt.Sprintf("commands on %s, %s", kind.what, [2]string{"alone", "linked"}[i]))
		sides[i].shop = s
	}
	r.phase(fmt.Sprintf("%s commands/s on %s, a region alone and a linked one in turn", readable(float64(r.rate)), kind.what), 2*r.duration)
	began := time.Now()
	for i := range phaseSlices {
		for j := range sides {
			if err := r.takeTurn(ctx, &sides[(i+j)%2], began); err != nil {
				return nil, err
			}
		}
	}
	r.putSides(&sides[0], &sides[1], kind.prefix)
	return sides[1].shop, r.checkShop(ctx, alone, sides[0].shop)
}

func (r *round) takeTurn(ctx context.Context, s *side, began time.Time) error {
	l, length := s.shop.load, r.duration/phaseSlices
	step := func() { r.progress.since(began) }
	if err := l.offer(ctx, float64(r.rate), warmUp(length), step); err != nil {
		return err
	}
	l.ages.h.Reset()
	if err := l.offer(ctx, float64(r.rate), length-warmUp(length), step); err != nil {
		return err
	}
	if err := r.settle(ctx, l); err != nil {
		return err
	}
	turn := numbers{}
	l.ages.put(turn, "")
	s.p50, s.p99 = append(s.p50, turn["p50_ms"]), append(s.p99, turn["p99_ms"])
	return nil
}

const aloneRegion = "alone"

func (r *round) putSides(alone, linked *side, prefix string) {
	put := func(name string, ours, theirs []float64) {
		a, b := spreadOf(ours).median, spreadOf(theirs).median
		r.numbers[prefix+name+"_ms"], r.peer(aloneRegion)[prefix+name+"_ms"] = a, b
		r.numbers[prefix+name+"_ratio"] = a / max(b, 0.001)
	}
	put("p50", linked.p50, alone.p50)
	put("p99", linked.p99, alone.p99)
}

// measureFreshness sells before watchers in all other regions.
func (r *round) measureFreshness(ctx context.Context, gen *generator, s *shop, kind meshKind) error {
	f := newFreshness(gen, regionNames[0], s)
	if err := r.openWatchers(ctx, f); err != nil {
		return err
	}
	s.load.onAck = f.acked
	defer func() { s.load.onAck = s.book }()
	r.phase(fmt.Sprintf("%s commands/s on %s before watchers elsewhere", readable(float64(r.rate)), kind.what), warmUp(r.duration)+r.duration)
	began := time.Now()
	step := func() { r.progress.since(began) }
	if err := s.load.offer(ctx, float64(r.rate), warmUp(r.duration), step); err != nil {
		return err
	}
	f.ages.h.Reset()
	s.load.late.h.Reset()
	bytes, acked, from := r.linkBytes(ctx), s.load.acked, r.times()
	if err := s.load.offer(ctx, float64(r.rate), r.duration, step); err != nil {
		return err
	}
	rate := float64(s.load.acked-acked) / time.Since(from.at).Seconds()
	if err := r.settle(ctx, s.load); err != nil {
		return err
	}
	if err := r.awaitShown(ctx, f); err != nil {
		return err
	}
	r.numbers[kind.prefix+"acked_per_second"] = rate
	f.ages.put(r.numbers, kind.prefix+"freshness_")
	s.load.late.put(r.numbers, kind.prefix+"generator_late_")
	r.putLinkBytes(kind.prefix, bytes, r.linkBytes(ctx), s.load.acked-acked)
	return nil
}
