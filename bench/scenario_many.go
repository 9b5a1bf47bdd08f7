package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const manyPrefix = "bench-many-"

// skewed is what precedes the metrics of skewed sales.
const skewed = "zipf_"

// many sells many SKUs over all connections: first all alike, then the way customers
// buy, a few of them most of the time; each as fast as answers come and at half of that
// rate. In the end every node is asked for the stock of each.
func many(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	s, err := r.openMany(ctx, gen)
	if err != nil {
		return err
	}
	if err := r.measureMany(ctx, s); err != nil {
		return err
	}
	s.skew(r.seed)
	if err := r.prefixed(skewed, "a few SKUs most of the time, ", func() error { return r.measureMany(ctx, s) }); err != nil {
		return err
	}
	if err := r.putCeiling(ctx, "acked_per_second", driveMany); err != nil {
		return err
	}
	return r.checkMany(ctx, s)
}

// driveMany has the generator do what many measures first.
func driveMany(ctx context.Context, r *round, gen *generator) error {
	s, err := r.openMany(ctx, gen)
	if err != nil {
		return err
	}
	return r.measureMaximum(ctx, s.load)
}

func (r *round) openMany(ctx context.Context, gen *generator) (*shop, error) {
	r.progress.counted(fmt.Sprintf("%s: opening stock of %s SKUs", r.name, readable(float64(r.assorted))), r.assorted)
	s, err := r.openShop(ctx, gen, r.target, assortment{manyPrefix + r.id + "-", r.assorted})
	if err != nil {
		return nil, err
	}
	return s, r.awaitStock(ctx, s.want())
}

func (r *round) measureMany(ctx context.Context, s *shop) error {
	if err := r.measureMaximum(ctx, s.load); err != nil || r.noHalf {
		return err
	}
	return r.measureHalf(ctx, s.load)
}

// prefixed has fn write its metrics under names that begin with prefix, and announce its
// phases as a stage of its own.
func (r *round) prefixed(prefix, stage string, fn func() error) error {
	all := r.numbers
	r.numbers, r.stage = numbers{}, stage
	defer func() { r.stage = "" }()
	err := fn()
	for metric, v := range r.numbers {
		all[prefix+metric] = v
	}
	r.numbers = all
	return err
}

const (
	skewExponent = 1.1     // of Zipf's law: what shops with a long tail see
	skewDraws    = 1 << 18 // so many sales, over and over
)

// skew has the SKUs sold by Zipf's law from now on, the first one most. Nothing may be
// under way: a success is booked by what the command's number stands for.
func (s *shop) skew(seed uint64) {
	pick := zipf(seed, s.count)
	for _, c := range s.load.clients {
		c.template.pick = pick
	}
}

// zipf draws one of so many items, the first one most often.
func zipf(seed uint64, items int) chooser {
	law := rand.NewZipf(rand.New(rand.NewPCG(seed, 0)), skewExponent, 1, uint64(items-1))
	draws := make([]uint32, skewDraws)
	for i := range draws {
		draws[i] = uint32(law.Uint64())
	}
	return func(bits uint64, _ int) uint64 { return uint64(draws[bits>>32%skewDraws]) }
}

// checkMany holds the stock of every node against the answers.
func (r *round) checkMany(ctx context.Context, s *shop) error {
	r.putFalseRefusals(s.load.acked, s.load.falselyRefused)
	for _, fault := range s.load.faults {
		r.violate("%s", fault)
	}
	if n := s.load.refused; n > 0 {
		r.violate("%d sells were refused although there was stock", n)
	}
	want := make(map[string]standing)
	for sku, units := range s.want() {
		want[sku] = standing{onHand: units}
	}
	return r.checkStandings(ctx, want, fmt.Sprintf("%d acknowledged sells", s.load.acked))
}

// putFalseRefusals tells how often a region had to refuse what others may have had; for
// those outside a mesh nothing, as that can't be.
func (r *round) putFalseRefusals(acked, falselyRefused int64) {
	if !r.meshed() && falselyRefused == 0 {
		return
	}
	r.numbers["false_refusals"] = float64(falselyRefused)
	r.numbers["false_refusals_percent"] = 100 * float64(falselyRefused) / float64(max(acked+falselyRefused, 1))
}

// standing is how a SKU stands.
type standing struct{ onHand, reserved int64 }

func (s standing) String() string {
	return fmt.Sprintf("%d, %d of them reserved", s.onHand, s.reserved)
}

// checkStandings compares what every node shows with what follows from the answers.
func (r *round) checkStandings(ctx context.Context, want map[string]standing, after string) error {
	for i, endpoint := range r.target.endpoints {
		name := redacted(endpoint)
		if i < len(r.target.nodes) {
			name = r.target.nodes[i].name
		}
		shown, err := r.settledStandings(ctx, i, want)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.compareStandings(name, shown, want, after)
	}
	return nil
}

// compareStandings notes what a node shows wrong.
func (r *round) compareStandings(name string, shown, want map[string]standing, after string) {
	wrong, first := 0, ""
	for _, sku := range slices.Sorted(maps.Keys(want)) {
		have, known := shown[sku]
		if known && have == want[sku] {
			continue
		}
		if wrong++; wrong > 1 {
			continue
		}
		if first = fmt.Sprintf("%s is not there", sku); known {
			first = fmt.Sprintf("%s has %v", sku, have)
		}
		first += fmt.Sprintf(": want %v", want[sku])
	}
	if wrong > 0 {
		r.violate("%s shows %d of %d SKUs wrong after %s; %s", name, wrong, len(want), after, first)
	}
}

// settledStandings gives a node the time that settledStock gives it.
func (r *round) settledStandings(ctx context.Context, node int, want map[string]standing) (map[string]standing, error) {
	patience := settleStockMax
	if r.meshed() {
		patience = settleMeshMax
	}
	skus := slices.Sorted(maps.Keys(want))
	for late := time.Now().Add(patience); ; {
		items, err := readItems(ctx, r.target.endpoint(node), skus)
		shown := standings(items)
		if err != nil || maps.Equal(shown, want) || len(r.target.endpoints) == 1 || time.Now().After(late) {
			return shown, err
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return nil, err
		}
	}
}

func standings(items []protocol.Item) map[string]standing {
	shown := make(map[string]standing)
	for _, it := range items {
		shown[it.SKU] = standing{it.OnHand, it.Reserved}
	}
	return shown
}
