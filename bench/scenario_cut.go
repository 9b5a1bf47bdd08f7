package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// scenarioCut is the scenario whose links lead through this process.
const scenarioCut = "cut"

// cutAll cuts each region off from each other.
const cutAll = "all"

// Phases of a cut.
const (
	before = iota
	during
	after
	phases
)

var phaseNames = [phases]string{"before", "during", "after"}

// cutTrial is a crowd that goes on selling in every region while links are cut.
type cutTrial struct {
	*trial
	fronts []front // by region
	during int     // which phase
	healed func()  // ends the cut in the charts
	marker *account

	plainRefusals int64
}

// front is what the clients of one region see.
type front struct {
	ages           [phases]latencies // of sells from the region's own stock
	refused        [phases]int64
	falselyRefused [phases]int64
}

// cut sells in every region, cuts some off for a while, and compares: with what was
// before, and what all regions have in the end with all answers.
func cut(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	t := r.newCutTrial(gen)
	defer func() {
		t.crowd.close()
		err = errors.Join(err, gen.close())
	}()
	if err := t.open(ctx); err != nil {
		return err
	}
	if err := r.profiled(phases*r.duration, func() error { return t.load(ctx) }); err != nil {
		return err
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	t.putFronts()
	return t.awaitEqual(ctx)
}

func (r *round) newCutTrial(gen *generator) *cutTrial {
	t := &cutTrial{trial: r.newTrial(gen), fronts: make([]front, r.regions)}
	for i := range t.fronts {
		for phase := range phases {
			t.fronts[i].ages[phase] = newLatencies()
		}
	}
	t.crowd.onAck, t.crowd.onRefusal = t.acked, t.refused
	return t
}

func (t *cutTrial) acked(m *member, age int64) {
	if t.plain(m) {
		t.fronts[t.target.region(m.at)].ages[t.during].add(age, 1)
	}
}

func (t *cutTrial) refused(m *member, lacksRights bool) {
	f := &t.fronts[t.target.region(m.at)]
	f.refused[t.during]++
	if lacksRights {
		f.falselyRefused[t.during]++
	}
	if t.plain(m) {
		t.plainRefusals++
	}
}

// plain reports whether a client sells what its region has plenty of.
func (t *cutTrial) plain(m *member) bool { return m.account != t.crowd.accounts[0] }

// open enters the stock and connects the clients. Half of them sell SKUs that every
// region has been delivered plenty of. The others ask all regions for the last units
// of one SKU, which comes in slower than it is asked for, and first lies in one region.
func (t *cutTrial) open(ctx context.Context) error {
	if err := t.stockUp(ctx); err != nil {
		return err
	}
	t.marker = &account{sku: "bench-marker-" + t.id}
	if err := t.awaitStock(ctx, t.accounted()); err != nil {
		return err
	}
	return t.crowd.open(ctx, t.target, t.connections, t.client)
}

func (t *cutTrial) stockUp(ctx context.Context) error {
	c := t.crowd
	scarce := &account{sku: "bench-scarce-" + t.id, opening: scarceOpening}
	c.accounts = []*account{scarce}
	if err := t.deliver(ctx, 0, scarce.sku, scarceOpening); err != nil {
		return err
	}
	for i := range plainSKUs {
		a := &account{sku: fmt.Sprintf("bench-plain-%s-%d", t.id, i), opening: int64(t.regions) * plenty}
		c.accounts = append(c.accounts, a)
		for region := range t.regions {
			if err := t.deliver(ctx, region, a.sku, plenty); err != nil {
				return err
			}
		}
	}
	return nil
}

// plenty is more than a region can sell in a run.
const plenty = 1 << 30

// deliver adds units to a region's own stock.
func (t *cutTrial) deliver(ctx context.Context, region int, sku string, units int64) error {
	add := protocol.Command{Op: protocol.OpAdjust, Key: fmt.Sprintf("delivery-%s-%d", sku, region), SKU: sku, Delta: units}
	_, err := ask(ctx, t.target.endpoint(region*t.target.each), add)
	return err
}

// accounted is what should be on hand by the answers.
func (t *cutTrial) accounted() map[string]int64 {
	want := make(map[string]int64)
	for _, a := range t.crowd.accounts {
		want[a.sku] = a.onHand()
	}
	return want
}

// client makes the i-th client. Each region has all kinds: of six clients three sell
// plenty, two sell what is scarce and one brings that in.
func (t *cutTrial) client(i, errands int) *member {
	c := t.crowd
	kind := i / len(t.target.endpoints) % 6
	a, op, line := c.accounts[0], "sell", `"lines":[{"sku":"%s","quantity":1}]`
	delta := int64(-1)
	switch kind {
	case 0, 2, 4:
		a = c.accounts[1+i%plainSKUs]
	case 1:
		op, line, delta = "adjust", `"sku":"%s","delta":1`, 1
	}
	return newMember(c, i, errands, a, delta, fmt.Sprintf(`{"op":"%s","id":#,"key":"%s-%d-#",`+line+`}`, op, t.id, i, a.sku))
}

// load keeps the crowd selling through all phases.
func (t *cutTrial) load(ctx context.Context) error {
	c := t.crowd
	c.set(float64(t.rate))
	if err := c.during(ctx, func(ctx context.Context) error { return pause(ctx, warmUp(t.duration)) }); err != nil {
		return err
	}
	c.ages.h.Reset()
	c.late.h.Reset()
	for i := range t.fronts {
		t.fronts[i].ages[before].h.Reset()
		t.fronts[i].refused[before], t.fronts[i].falselyRefused[before] = 0, 0
	}
	acked, from := c.acked, time.Now()
	if err := t.steady(ctx, phaseNames[before]); err != nil {
		return err
	}
	if err := t.sever(); err != nil {
		return err
	}
	t.during = during
	if err := t.steady(ctx, phaseNames[during]); err != nil {
		return err
	}
	if err := t.mark(ctx); err != nil {
		return err
	}
	t.during = after
	if err := t.heal(ctx); err != nil {
		return err
	}
	t.numbers["acked_per_second"] = float64(c.acked-acked) / time.Since(from).Seconds()
	return nil
}

// severed lists the regions that are cut off.
func (o *options) severed() []int {
	switch o.cut {
	case "":
		return []int{o.regions - 1}
	case cutAll:
		list := make([]int, o.regions)
		for i := range list {
			list[i] = i
		}
		return list
	}
	return []int{slices.Index(regionNames, o.cut)}
}

func (t *cutTrial) sever() error {
	list := t.options.severed()
	var names []string
	for _, region := range list {
		names = append(names, regionNames[region])
	}
	if t.target.wires.sever(list...) == 0 {
		return errors.New("the links do not lead through this process: no connection to be cut")
	}
	t.healed = t.happening("%s cut off", strings.Join(names, ", "))
	return nil
}

// mark has every region write something that no other can hear of while it is cut off.
func (t *cutTrial) mark(ctx context.Context) error {
	return t.crowd.during(ctx, func(ctx context.Context) error {
		for region := range t.regions {
			if err := t.deliver(ctx, region, t.marker.sku, 1); err != nil {
				return fmt.Errorf("%s, during the cut: %w", regionNames[region], err)
			}
		}
		for i, n := range t.target.nodes {
			marks, err := t.marks(ctx, i)
			if err != nil {
				return err
			}
			if marks == int64(t.regions) {
				return fmt.Errorf("%s hears of all regions: the cut is none", n.name)
			}
		}
		return nil
	})
}

// marks is from how many regions a node has heard since the cut began.
func (t *cutTrial) marks(ctx context.Context, node int) (int64, error) {
	stock, err := stock(ctx, t.target.endpoint(node), []string{t.marker.sku})
	return stock[t.marker.sku], err
}

// convergeWithin is what a mesh has after a cut.
const convergeWithin = 30 * time.Second

// heal mends the links and waits, under load, until every node has heard what every
// region wrote during the cut.
func (t *cutTrial) heal(ctx context.Context) error {
	t.announce("healed, "+phaseNames[after], t.duration)
	began := time.Now()
	t.target.wires.mend()
	t.healed()
	var converged, serving time.Duration
	acked := t.crowd.acked
	err := t.crowd.during(ctx, func(ctx context.Context) (err error) {
		if converged, err = t.awaitMarks(ctx, began); err != nil {
			return err
		}
		if err := t.target.awaitMesh(ctx); err != nil {
			return err
		}
		serving = time.Since(began)
		return pause(ctx, t.duration-serving)
	})
	t.numbers["after_acked_per_second"] = float64(t.crowd.acked-acked) / time.Since(began).Seconds()
	t.numbers["converge_ms"], t.numbers["all_serving_ms"] = milliseconds(converged), milliseconds(serving)
	if converged > convergeWithin {
		t.violate("all regions knew all rows %v after healing, later than %v", converged.Round(time.Millisecond), convergeWithin)
	}
	return err
}

// healTimeout is when nothing more is expected.
const healTimeout = 2 * convergeWithin

func (t *cutTrial) awaitMarks(ctx context.Context, began time.Time) (time.Duration, error) {
	for i, n := range t.target.nodes {
		for {
			marks, err := t.marks(ctx, i)
			if err != nil {
				return 0, err
			}
			if marks == int64(t.regions) {
				break
			}
			if time.Since(began) > healTimeout {
				return 0, fmt.Errorf("%s has heard of %d regions of %d within %v after healing", n.name, marks, t.regions, healTimeout)
			}
			if err := pause(ctx, settleStockPoll); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

// putFronts writes what the clients of each region have seen.
func (t *cutTrial) putFronts() {
	worst := 0.0
	for i := range t.fronts {
		f, prefix := &t.fronts[i], regionNames[i]+"_"
		for phase, name := range phaseNames {
			f.ages[phase].put(t.numbers, prefix+name+"_")
			t.numbers[prefix+name+"_refused"] = float64(f.refused[phase])
			t.numbers[prefix+name+"_false_refusals"] = float64(f.falselyRefused[phase])
		}
		worst = max(worst, t.numbers[prefix+"during_p99_ms"]/max(t.numbers[prefix+"before_p99_ms"], 0.001))
	}
	t.numbers["p99_during_ratio"] = worst
	t.numbers["refused"] = float64(t.crowd.refused)
	if t.plainRefusals > 0 {
		t.violate("%d sells of what the region had plenty of were refused", t.plainRefusals)
	}
}
