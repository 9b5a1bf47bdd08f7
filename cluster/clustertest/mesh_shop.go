package clustertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// MeshShop is a shop in each region of a mesh. All sell the same items, and a reservation
// may be ended by a client of another region.
type MeshShop struct {
	mesh  *Mesh
	shops []*Shop // in the order of the regions
	begun time.Time
}

// Shop opens a shop in every region. Every item gets its stock in each of them, or with
// StockedIn in one; then the clients begin, 6 in each region unless Clients says else.
func (m *Mesh) Shop(options ...ShopOption) *MeshShop {
	m.t.Helper()
	m.shops++
	items := fmt.Sprintf("shop%d", m.shops)
	l, shelf, begun := newLoad(6, options), &shelf{}, time.Now()
	s := &MeshShop{mesh: m, begun: begun}
	for i, r := range m.regions {
		l.seed += uint64(i)
		s.shops = append(s.shops, r.shop(items+"-"+r.Name, items, l, shelf, begun))
	}
	for _, shop := range s.shops {
		if l.stockedIn == "" || l.stockedIn == shop.region.Name {
			shop.stockUp()
		}
	}
	for _, shop := range s.shops {
		shop.open()
	}
	return s
}

// In is the shop of a region.
func (s *MeshShop) In(region string) *Shop {
	s.mesh.t.Helper()
	s.mesh.Region(region)
	return s.shops[slices.IndexFunc(s.shops, func(shop *Shop) bool { return shop.region.Name == region })]
}

// Mark notes the moment of a fault, for the report.
func (s *MeshShop) Mark(format string, args ...any) {
	s.shops[0].Mark(format, args...)
	for _, shop := range s.shops[1:] {
		shop.note(s.shops[0].marks[len(s.shops[0].marks)-1])
	}
}

// Now is the time since the shop opened, as in the entries.
func (s *MeshShop) Now() time.Duration { return time.Since(s.begun) }

// AwaitSuccesses waits until n more writes have been acknowledged in every region that
// runs.
func (s *MeshShop) AwaitSuccesses(n int) {
	s.mesh.t.Helper()
	want := make(map[*Shop]int)
	for _, shop := range s.shops {
		if len(shop.region.Running()) > 0 {
			want[shop] = shop.successes() + n
		}
	}
	s.mesh.await(fmt.Sprintf("%d more successes in each region", n), readyWait*Slow, func(context.Context) error {
		for shop, want := range want {
			if have := shop.successes(); have < want {
				return fmt.Errorf("%s: %d of %d", shop.region.Name, have, want)
			}
		}
		return nil
	})
}

// RunFor lets the shop run on for a while.
func (s *MeshShop) RunFor(d time.Duration) {
	s.mesh.t.Helper()
	until := time.Now().Add(d)
	s.mesh.await("the shop's time", d+lookWait, func(context.Context) error {
		if left := time.Until(until); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
}

// Stop closes the shop: the clients get their last commands answered, all regions
// converge, and what is still unknown is asked for at its home. All nodes must be up and
// all faults healed.
func (s *MeshShop) Stop() *MeshReport {
	s.mesh.t.Helper()
	for _, shop := range s.shops {
		shop.cancel()
	}
	for _, shop := range s.shops {
		shop.wg.Wait()
	}
	r := &MeshReport{mesh: s.mesh, t: s.mesh.t, shop: s, Length: s.Now()}
	for _, shop := range s.shops {
		shop.awaitExpiries()
	}
	r.Converged = s.mesh.AwaitConverged()
	for _, shop := range s.shops {
		r.Regions = append(r.Regions, shop.report(r.Length))
	}
	return r
}

// MeshReport is what came of a MeshShop.
type MeshReport struct {
	mesh *Mesh
	shop *MeshShop
	t    testing.TB

	Regions   []*Report // in the order of the regions
	Length    time.Duration
	Converged time.Duration // how long the nodes took to agree after the last command
}

// In is the report of a region.
func (r *MeshReport) In(region string) *Report {
	r.t.Helper()
	shop := r.shop.In(region)
	return r.Regions[slices.IndexFunc(r.Regions, func(one *Report) bool { return one.shop == shop })]
}

// String is the report in one line for each region.
func (r *MeshReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "equal %v after the last command", r.Converged.Round(time.Millisecond))
	for _, one := range r.Regions {
		fmt.Fprintf(&b, "\n    %s: %s; %d whose home was cut off; %d refused with stock elsewhere",
			one.shop.region.Name, one, one.CutOff(), one.Elsewhere())
	}
	return b.String()
}

// CutOff counts the commands whose home could not be reached.
func (r *Report) CutOff() (n int) {
	for _, e := range r.Entries {
		if e.CutOff {
			n++
		}
	}
	return n
}

// Elsewhere counts the refusals for want of stock that say other regions may have enough.
func (r *Report) Elsewhere() (n int) {
	for _, e := range r.Entries {
		if stockElsewhere(e.Err) {
			n++
		}
	}
	return n
}

// stockElsewhere tells whether the refusal says that other regions may have what is
// missing of every line.
func stockElsewhere(err error) bool {
	var wire *protocol.Error
	if !errors.As(err, &wire) || wire.Code != protocol.CodeInsufficientStock || wire.Details == nil {
		return false
	}
	for _, l := range wire.Details.Lines {
		if l.Available+l.Elsewhere < l.Requested {
			return false
		}
	}
	return true
}

// Local is the p-th quantile of how long sales of Ample items took that began between
// two moments, and how many there were. Those need no other region.
func (r *Report) Local(p float64, from, to time.Duration) (took time.Duration, count int) {
	var all []time.Duration
	for _, e := range r.Entries {
		if e.Command.Op == protocol.OpSell && e.applied() && e.Call >= from && e.Call < to &&
			slices.Contains(r.shop.ample, e.Command.Lines[0].SKU) {
			all = append(all, e.Return-e.Call)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.SortFunc(all, cmp.Compare)
	return all[max(0, int(math.Ceil(p*float64(len(all))))-1)], len(all)
}

// NothingFailed fails the test where a client saw an error that neither stock nor rules
// nor a home that is cut off ask for.
func (r *MeshReport) NothingFailed() {
	r.t.Helper()
	for _, one := range r.Regions {
		one.NothingFailed()
	}
}
