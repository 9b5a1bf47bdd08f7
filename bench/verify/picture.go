package verify

import (
	"fmt"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// row is what a node shows of an item, besides the version.
type row struct {
	available, onHand, reserved int64
	updatedAt                   protocol.Time
	low                         bool
}

func rowOf(it *protocol.Item) row {
	return row{it.Available, it.OnHand, it.Reserved, it.UpdatedAt, it.Low}
}

// String is the row for people.
func (r row) String() string {
	s := fmt.Sprintf("%d on hand, %d reserved, %d available, of %s", r.onHand, r.reserved, r.available, r.updatedAt.Std().Format("15:04:05.000"))
	if r.low {
		s += ", low"
	}
	return s
}

// picture is what a node shows: of each item, by its number, the row and the version that
// it has shown last.
type picture struct{ chunks []*chunk }

// chunk is a piece of a picture. A table that grows by pieces is never copied.
type chunk struct {
	rows     [chunkRows]row
	versions [][]uint64 // by the region's number, then as rows; nil: no version of that region here
}

const chunkRows = 1 << 13

// version is what a region's part of an item's version is: 0 where there is none.
func (p *picture) version(item uint32, region int) uint64 {
	if c := p.chunk(item); c != nil && region < len(c.versions) && c.versions[region] != nil {
		return c.versions[region][item%chunkRows]
	}
	return 0
}

func (p *picture) chunk(item uint32) *chunk {
	if i := int(item / chunkRows); i < len(p.chunks) {
		return p.chunks[i]
	}
	return nil
}

// row returns what is shown of an item; the zero row where it isn't.
func (p *picture) row(item uint32) row {
	if c := p.chunk(item); c != nil {
		return c.rows[item%chunkRows]
	}
	return row{}
}

// set replaces what is shown of an item. v is its version, by region's number.
func (p *picture) set(item uint32, r row, v []uint64) {
	for int(item/chunkRows) >= len(p.chunks) {
		p.chunks = append(p.chunks, &chunk{})
	}
	c := p.chunks[item/chunkRows]
	c.rows[item%chunkRows] = r
	for len(c.versions) < len(v) {
		c.versions = append(c.versions, nil)
	}
	for region := range c.versions {
		var n uint64
		if region < len(v) {
			n = v[region]
		}
		if c.versions[region] == nil {
			if n == 0 {
				continue
			}
			c.versions[region] = make([]uint64, chunkRows)
		}
		c.versions[region][item%chunkRows] = n
	}
}

// Relations of what is shown of an item to a version.
const (
	shownNot   = iota // the item isn't shown
	shownSame         // at just that version
	shownOlder        // each part is at most the version's, one is below
	shownAhead        // some part is above the version's
)

// relation compares what is shown of an item with a version.
func (p *picture) relation(item uint32, v []uint64) int {
	c := p.chunk(item)
	if c == nil {
		return shownNot
	}
	shown, older := false, false
	for region := range max(len(v), len(c.versions)) {
		have, other := p.version(item, region), uint64(0)
		if region < len(v) {
			other = v[region]
		}
		shown = shown || have > 0
		if have > other {
			return shownAhead
		}
		older = older || have < other
	}
	switch {
	case !shown:
		return shownNot
	case older:
		return shownOlder
	}
	return shownSame
}

// reaches reports whether an item is shown at a version or a newer one.
func (p *picture) reaches(item uint32, v []uint64) bool {
	for region, n := range v {
		if p.version(item, region) < n {
			return false
		}
	}
	return true
}

// vector collects the version of an item, by region's number.
func (p *picture) vector(item uint32, into []uint64) []uint64 {
	c := p.chunk(item)
	if c == nil {
		return into[:0]
	}
	into = slices.Grow(into[:0], len(c.versions))
	for region := range c.versions {
		into = append(into, p.version(item, region))
	}
	return into
}
