package clustertest

import (
	"context"
	"fmt"
	"reflect"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// Account compares what the clients of all regions were told with what the nodes hold:
// every acknowledged command took effect exactly once, in its home region, no other did,
// nothing was oversold, and every node of every region shows the sums of that. Of what
// was acknowledged, outcome is asked for from other regions too. All nodes must be up
// and nobody else may have written to the shop's items.
func (r *MeshReport) Account() {
	r.t.Helper()
	all := &Report{t: r.t, shop: r.Regions[0].shop}
	for _, one := range r.Regions {
		all.Entries = append(all.Entries, one.Entries...)
		if one.Unknown > 0 {
			r.t.Errorf("%s: the fate of %d commands is unknown", one.shop.region.Name, one.Unknown)
		}
	}
	b := newBook(all)
	b.homes = make(map[string]string)
	for _, e := range all.Entries {
		b.homes[e.Command.Key] = e.Home
	}
	for _, sku := range append(all.shop.skus, all.shop.ample...) {
		r.walk(b, sku)
	}
	b.missing()
	for _, n := range r.mesh.Running() {
		b.compare(n)
	}
	r.outcomes(all.Entries)
}

// walk goes through an item's history in every region, and looks at the sum of them.
func (r *MeshReport) walk(b *book, sku string) {
	r.t.Helper()
	var total effect
	for i, one := range r.Regions {
		nodes := one.shop.region.Running()
		node := nodes[i%len(nodes)]
		movements, err := one.movements(node, sku)
		if err != nil {
			r.t.Errorf("history of %s on %s: %v", sku, node, err)
			return
		}
		total = total.plus(b.walkRegion(one.shop.region.Name, sku, movements))
	}
	b.sums[sku] = total
	if total.reserved < 0 || total.onHand < total.reserved {
		b.errorf("%s: oversold: %v over all regions", sku, total)
	}
}

// walkRegion is walk for the part of one region of several: it may sell what another one
// received, so only the sum of all can be judged.
func (b *book) walkRegion(region, sku string, movements []protocol.Movement) (sum effect) {
	b.r.t.Helper()
	for i := range movements {
		m := &movements[i]
		change := effect{m.OnHandDelta, m.ReservedDelta}
		sum = sum.plus(change)
		if (effect{m.OnHand, m.Reserved}) != sum {
			b.errorf("%s in %s: after %s there are %d/%d, the movements up to it make %v", sku, region, m.Sequence, m.OnHand, m.Reserved, sum)
			sum = effect{m.OnHand, m.Reserved}
		}
		if sum.reserved < 0 {
			b.errorf("%s in %s: %d are held after %s", sku, region, sum.reserved, m.Sequence)
		}
		switch m.Type {
		case "grant", "accept":
			if change != (effect{}) {
				b.errorf("%s in %s: %s at %s did %v", sku, region, m.Type, m.Sequence, change)
			}
			continue
		case "expire":
			b.expired(m)
		default:
			b.atHome(region, m)
			b.applied(m, change)
		}
		b.ended(m)
	}
	return sum
}

// atHome fails the test where a region decided what another one had to.
func (b *book) atHome(region string, m *protocol.Movement) {
	b.r.t.Helper()
	if home, ours := b.homes[m.Key]; ours && home != region {
		b.errorf("%s: %s by key %s was decided in %s, its home is %s", m.SKU, m.Type, m.Key, region, home)
	}
}

// outcomesMax is how many acknowledged commands of each region are asked for once more.
const outcomesMax = 100

// outcomes asks every region what became of commands that were acknowledged somewhere.
func (r *MeshReport) outcomes(entries []*Entry) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyWait*Slow)
	defer cancel()
	for i, region := range r.mesh.regions {
		c, err := region.dial(nil, false)
		if err != nil {
			r.t.Errorf("outcomes at %s: %v", region.Name, err)
			continue
		}
		step := max(1, len(entries)/outcomesMax)
		for j := i; j < len(entries); j += step {
			if err := known(ctx, c, entries[j]); err != nil {
				r.t.Errorf("outcome of %s, asked at %s, home %s: %v", entries[j].Command.Key, region.Name, entries[j].Home, err)
			}
		}
		_ = c.Close() // it has answered
	}
}

func known(ctx context.Context, c *client.Client, e *Entry) error {
	if !e.Command.Op.IsWrite() {
		return nil
	}
	reply, err := c.Outcome(ctx, e.Command.Key, e.Home)
	switch {
	case err != nil:
		return err
	case (reply != nil) != e.applied():
		return fmt.Errorf("%+v, the client was told %+v %v", reply, e.Reply, e.Err)
	case reply != nil && !reflect.DeepEqual(reply.Reservation, e.Reply.Reservation):
		return fmt.Errorf("%+v, the client was told %+v", reply.Reservation, e.Reply.Reservation)
	}
	return nil
}
