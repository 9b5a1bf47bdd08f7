package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func unit(sku string) []protocol.Line { return []protocol.Line{{SKU: sku, Quantity: 1}} }

// short returns the refusal for want of stock, nil where it is something else.
func short(err error) *protocol.Error {
	var wire *protocol.Error
	if errors.As(err, &wire) && wire.Code == protocol.CodeInsufficientStock {
		return wire
	}
	return nil
}

// elsewhere is what a refusal says that other regions may have.
func elsewhere(err error) (units int64) {
	if wire := short(err); wire != nil && wire.Details != nil {
		for _, l := range wire.Details.Lines {
			units += l.Elsewhere
		}
	}
	return units
}

// tell is how long a test waits for something that should come soon.
func tell(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pushWait*clustertest.Slow)
	t.Cleanup(cancel)
	return ctx
}

// TestMeshRights: what was received in one region is sold in all, to the last unit; cut
// off, a region sells what it has and says that there may be more.
func TestMeshRights(t *testing.T) {
	m := clustertest.StartMesh(t, clustertest.MeshProxies())
	ctx := tell(t)
	const units = 60
	if _, err := m.Region("asia").Dial().Adjust(ctx, "bag", "", units); err != nil {
		t.Fatal(err)
	}
	m.AwaitConverged() // what nobody has heard of yet is not looked for
	refusals := 0
	clients := map[string]*client.Client{}
	for _, r := range m.Regions() {
		clients[r.Name] = r.Dial()
	}
	for i := range units {
		r := m.Regions()[i%3]
		for {
			_, err := clients[r.Name].Sell(ctx, unit("bag"))
			if err == nil {
				break
			}
			if refusals++; elsewhere(err) == 0 && i < units-6 || short(err) == nil {
				t.Fatalf("sale %d at %s: %v", i+1, r.Name, err)
			}
		}
	}
	t.Logf("%d units sold in three regions, %d refusals on the way", units, refusals)
	for _, r := range m.Regions() {
		if _, err := clients[r.Name].Sell(ctx, unit("bag")); short(err) == nil {
			t.Errorf("a sale of nothing at %s: %v", r.Name, err)
		}
	}
	m.AwaitConverged()

	if _, err := clients["eu"].Adjust(ctx, "hat", "", 5); err != nil {
		t.Fatal(err)
	}
	m.AwaitConverged()
	m.CutAll()
	begun := time.Now()
	_, err := clients["us"].Sell(ctx, []protocol.Line{{SKU: "hat", Quantity: 5}})
	if short(err) == nil || elsewhere(err) != 5 {
		t.Errorf("cut off, a sale of what is elsewhere: %v", err)
	}
	if took := time.Since(begun); took > 2*time.Second*clustertest.Slow {
		t.Errorf("the refusal took %v", took)
	}
	if _, err := clients["eu"].Sell(ctx, unit("hat")); err != nil {
		t.Errorf("cut off, a sale of its own share: %v", err)
	}
	m.Heal()
	m.AwaitLinked()
	m.AwaitConverged()
	soldAfter(ctx, t, clients["us"], "hat", 4)
}

// soldAfter sells units whose rights may still be on their way.
func soldAfter(ctx context.Context, t *testing.T, c *client.Client, sku string, units int64) {
	t.Helper()
	for {
		_, err := c.Sell(ctx, []protocol.Line{{SKU: sku, Quantity: units}})
		if err == nil {
			return
		}
		if short(err) == nil || ctx.Err() != nil {
			t.Fatalf("sale of %d %s: %v", units, sku, err)
		}
	}
}

// TestMeshLastUnit: one unit, many buyers in three regions: exactly one of them gets it,
// who need not be in the region that has it.
func TestMeshLastUnit(t *testing.T) {
	buyers, rounds := long(200, 20), long(100, 4)
	// What matters is who gets it, not how fast this machine is.
	m := clustertest.StartMesh(t, clustertest.MeshFlags("--rights-timeout", "1s"))
	c := crowdOf(t, m, buyers)
	away := 0
	for round := range rounds {
		from := m.Regions()[round%3]
		sku := fmt.Sprint("last-", round)
		if _, err := from.Dial().Adjust(tell(t), sku, "", 1); err != nil {
			t.Fatal(err)
		}
		m.AwaitConverged()
		// In every other round nobody buys in the region that has the unit.
		var barred *clustertest.Region
		if round%2 == 1 {
			barred = from
		}
		winners := c.rush(t, sku, barred)
		if len(winners) != 1 {
			t.Fatalf("%s: %d buyers got the one unit of %s: %q", sku, len(winners), from.Name, winners)
		}
		if winners[0] != from.Name {
			away++
		}
	}
	t.Logf("%d rounds of 3x%d buyers: the unit went to another region in %d", rounds, buyers, away)
	if away < rounds/2 {
		t.Errorf("the unit left its region in %d of %d rounds", away, rounds)
	}
	m.AwaitConverged()
	for _, n := range m.Nodes() {
		soldOut(t, n)
	}
}

func soldOut(t *testing.T, n *clustertest.Node) {
	t.Helper()
	items, err := n.Stock(tell(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		if it.OnHand != 0 || it.Available != 0 || it.Reserved != 0 {
			t.Errorf("%s: %+v is left", n, it)
		}
	}
}

// crowd is buyers in all regions.
type crowd struct {
	regions []*clustertest.Region
	buyers  map[*clustertest.Region][]*client.Client
}

func crowdOf(t *testing.T, m *clustertest.Mesh, each int) *crowd {
	t.Helper()
	c := &crowd{m.Regions(), make(map[*clustertest.Region][]*client.Client)}
	for _, r := range m.Regions() {
		for i := range each {
			c.buyers[r] = append(c.buyers[r], r.Dial(r.Nodes()[i%len(r.Nodes())]))
		}
	}
	return c
}

// rush lets everybody buy at once, but for those of one region, and returns the regions
// of those who got something.
func (c *crowd) rush(t *testing.T, sku string, barred *clustertest.Region) (winners []string) {
	t.Helper()
	ctx := tell(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range c.regions {
		if r == barred {
			continue
		}
		for _, buyer := range c.buyers[r] {
			all.Go(func() {
				_, err := buyer.Sell(ctx, unit(sku))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, r.Name)
				} else if short(err) == nil {
					t.Errorf("%s at %s: %v", sku, r.Name, err)
				}
			})
		}
	}
	all.Wait()
	return winners
}
