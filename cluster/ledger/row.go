package ledger

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// Position is the place of a movement in a shard's log. The zero Position is
// before every movement.
type Position struct {
	Seq   uint64 // log sequence of the round
	Index uint32 // which movement of the round
}

// Row is what one region knows of its own units of an item. The totals only
// grow, so a row can be replaced by a newer one but never be added up twice.
type Row struct {
	Version   uint64           // +1 on each change
	Received  int64            // units that came in, running total
	Removed   int64            // units taken out unsold, running total
	Sold      int64            // units sold, running total
	Held      int64            // units in live reservations
	Granted   map[string]int64 // rights given to a region, running totals
	Accepted  map[string]int64 // rights taken from a region, running totals
	Safety    int64            // units never sold
	Backorder int64            // units that may be sold though not there
	Low       int64            // available at or below it is low; negative: never set
	UpdatedAt protocol.Time
	Last      Position // the movement that made this version
}

// noRow is the row of an item before its first write.
func noRow() Row { return Row{Low: -1} }

// OnHand is the region's units, negative where backorders are owed.
func (r *Row) OnHand() int64 { return r.Received - r.Removed - r.Sold }

// Share is what the region may still dispose of: its units and rights that no
// reservation holds.
func (r *Row) Share() int64 {
	n := r.OnHand() - r.Held
	for _, a := range r.Accepted {
		n += a
	}
	for _, g := range r.Granted {
		n -= g
	}
	return n
}

// Free is how many units can be sold or held now.
func (r *Row) Free() int64 { return max(0, r.Share()-r.Safety+r.Backorder) }

// Removable is how many units can be taken out without selling them.
func (r *Row) Removable() int64 { return max(0, r.Share()) }

func (r *Row) take(t Type, n int64) {
	if t == TypeSell {
		r.Sold += n
	} else {
		r.Held += n
	}
}

// open is the region's part of what clients see as available.
func (r *Row) open() int64 { return r.OnHand() - r.Held - r.Safety + r.Backorder }

// Item returns the item as clients see it where this row is all there is.
func (r *Row) Item(region string, key protocol.ItemKey) protocol.Item {
	it := r.item(key, nil)
	if r.Version > 0 {
		it.Version = string(appendVersion(make([]byte, 0, len(region)+21), region, r.Version))
	}
	return it
}

// item is the item as clients see it, without the version.
func (r *Row) item(key protocol.ItemKey, parts []peerPart) protocol.Item {
	it := protocol.Item{
		SKU: key.SKU, Location: key.Location,
		OnHand: r.OnHand(), Reserved: r.Held, UpdatedAt: r.UpdatedAt,
	}
	merge(&it, r, parts)
	return it
}

// appendVersion appends the wire form of a Vector of one region.
func appendVersion(b []byte, region string, n uint64) []byte {
	return strconv.AppendUint(append(append(b, region...), ':'), n, 10)
}

// runningMax keeps running totals so far from overflow that the largest quantity
// can still be added.
const runningMax = 1 << 62

// totalsFit reports whether every figure a client may be shown stays within the
// contract's range, and every running total far from overflow.
func (r *Row) totalsFit() bool {
	// Confirming sells what is held and is never refused, so what would be left
	// after it must fit already.
	return r.OnHand() <= protocol.QuantityMax && r.OnHand()-r.Held >= -protocol.QuantityMax &&
		r.Held <= protocol.QuantityMax &&
		r.Received < runningMax && r.Removed < runningMax && r.Sold < runningMax
}

// withTotal returns totals with region's set to n, leaving the argument as it was:
// committed rows and open rounds must not share a map.
func withTotal(totals map[string]int64, region string, n int64) map[string]int64 {
	c := maps.Clone(totals)
	if c == nil {
		c = make(map[string]int64, 1)
	}
	c[region] = n
	return c
}

// StoredRow is the row as it stands in the stock bucket: JSON that any tool can
// read.
type StoredRow struct {
	SKU            string           `json:"sku"`
	Location       string           `json:"location"`
	Region         string           `json:"region"`
	Version        uint64           `json:"version"`
	Received       int64            `json:"received"`
	Removed        int64            `json:"removed"`
	Sold           int64            `json:"sold"`
	Held           int64            `json:"held"`
	Granted        map[string]int64 `json:"granted,omitzero"`
	Accepted       map[string]int64 `json:"accepted,omitzero"`
	SafetyStock    int64            `json:"safety_stock,omitzero"`
	BackorderLimit int64            `json:"backorder_limit,omitzero"`
	LowStock       *int64           `json:"low_stock,omitzero"`
	UpdatedAt      protocol.Time    `json:"updated_at"`
	Position       string           `json:"position"` // of the movement that made this version
}

// Stored returns the row in its stored form.
func (r *Row) Stored(region string, shard int, key protocol.ItemKey) StoredRow {
	s := StoredRow{
		SKU: key.SKU, Location: key.Location, Region: region, Version: r.Version,
		Received: r.Received, Removed: r.Removed, Sold: r.Sold, Held: r.Held,
		Granted: r.Granted, Accepted: r.Accepted,
		SafetyStock: r.Safety, BackorderLimit: r.Backorder,
		UpdatedAt: r.UpdatedAt, Position: sequence(region, shard, r.Last),
	}
	if r.Low >= 0 {
		s.LowStock = &r.Low
	}
	return s
}

// sequence is a position's wire form: region.shard.log sequence.index.
func sequence(region string, shard int, p Position) string {
	b := append(make([]byte, 0, len(region)+32), region...)
	b = strconv.AppendInt(append(b, '.'), int64(shard), 10)
	b = strconv.AppendUint(append(b, '.'), p.Seq, 10)
	b = strconv.AppendUint(append(b, '.'), uint64(p.Index), 10)
	return string(b)
}

// ParseSequence reads a movement's sequence.
func ParseSequence(s string) (region string, shard int, p Position, err error) {
	bad := fmt.Errorf("%.80q is not a movement's sequence", s)
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return "", 0, p, bad
	}
	n, err1 := strconv.ParseUint(parts[1], 10, 16)
	seq, err2 := strconv.ParseUint(parts[2], 10, 64)
	index, err3 := strconv.ParseUint(parts[3], 10, 32)
	if errors.Join(err1, err2, err3) != nil {
		return "", 0, p, bad
	}
	return parts[0], int(n), Position{seq, uint32(index)}, nil
}
