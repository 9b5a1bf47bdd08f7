package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// What other regions have of an item comes from their rows, not from this log: it is
// shown, and it is where to ask for rights, but no share is counted from it. It is in no
// snapshot and no digest.

// peerPart is another region's part of an item.
type peerPart struct {
	region    string // shared by all parts of the region
	log       string // cursor component that counts seq; shared
	seq       uint64 // of that log, when the row changed last
	version   uint64
	onHand    int64
	held      int64
	open      int64 // on hand, neither held nor safety stock, and what may be sold on backorder
	free      int64 // of its share
	low       int64 // negative: never set
	granted   int64 // rights given to this region, running total
	accepted  int64 // rights taken from this region, running total
	updatedAt protocol.Time
}

// Holding is what another region has of an item, as this node last saw it.
type Holding struct {
	Region string
	Free   int64 // units it could sell
}

// PeerRow is a row of another region's shard.
type PeerRow struct {
	Region string
	Shard  int
	Key    protocol.ItemKey
	Row    Row
}

// Peer reads a row as it stands in another region's bucket.
func (r *StoredRow) Peer() (PeerRow, error) {
	region, shard, at, err := ParseSequence(r.Position)
	if err != nil || region != r.Region {
		return PeerRow{}, fmt.Errorf("row of %.80q at %.80q of region %.40q: position %.80q", r.SKU, r.Location, r.Region, r.Position)
	}
	p := PeerRow{Region: region, Shard: shard, Key: protocol.ItemKey{SKU: r.SKU, Location: r.Location}}
	p.Row = Row{
		Version: r.Version, Received: r.Received, Removed: r.Removed, Sold: r.Sold, Held: r.Held,
		Granted: r.Granted, Accepted: r.Accepted, Safety: r.SafetyStock, Backorder: r.BackorderLimit, Low: -1,
		UpdatedAt: r.UpdatedAt, Last: at,
	}
	if r.LowStock != nil {
		p.Row.Low = *r.LowStock
	}
	return p, nil
}

// Learn takes another region's row. One that is not newer than what is known changes
// nothing.
func (s *State) Learn(r *PeerRow) (id protocol.ItemID, changed bool, err error) {
	if r.Region == s.region || r.Row.Version == 0 {
		return 0, false, fmt.Errorf("row of %.80q at %.80q of region %s, version %d, is no other region's", r.Key.SKU, r.Key.Location, r.Region, r.Row.Version)
	}
	if !r.Row.credible() {
		return 0, false, fmt.Errorf("row of %.80q at %.80q of region %s holds totals that can't be", r.Key.SKU, r.Key.Location, r.Region)
	}
	if err := CheckKey(r.Key); err != nil {
		return 0, false, fmt.Errorf("row of %.80q at %.80q of region %s: %w", r.Key.SKU, r.Key.Location, r.Region, err)
	}
	id = s.add(r.Key)
	it := &s.items[id]
	n, found := it.part(r.Region)
	if found && it.parts[n].version >= r.Row.Version {
		return id, false, nil
	}
	part := r.Row.part(s.region)
	part.region, part.log = s.share(r.Region), s.share(Component(r.Region, r.Shard))
	if found {
		it.parts[n] = part
	} else {
		it.parts = slices.Insert(it.parts, n, part)
	}
	s.owe(id, it)
	return id, true, nil
}

// credible tells whether a row's figures are within what a ledger keeps to.
func (r *Row) credible() bool {
	ok := r.totalsFit() && r.OnHand() >= -2*protocol.QuantityMax
	for _, n := range [...]int64{r.Received, r.Removed, r.Sold, r.Held, r.Safety, r.Backorder} {
		ok = ok && n >= 0
	}
	for _, totals := range [...]map[string]int64{r.Granted, r.Accepted} {
		for _, n := range totals {
			ok = ok && n >= 0 && n <= protocol.QuantityMax
		}
	}
	return ok && r.Safety <= protocol.QuantityMax && r.Backorder <= protocol.QuantityMax
}

// part is what region to keeps of another region's row.
func (r *Row) part(to string) peerPart {
	return peerPart{
		seq: r.Last.Seq, version: r.Version, onHand: r.OnHand(), held: r.Held, open: r.open(), free: r.Free(),
		low: r.Low, granted: r.Granted[to], accepted: r.Accepted[to], updatedAt: r.UpdatedAt,
	}
}

// Forget drops what is known of a region that is no longer one of the mesh.
func (s *State) Forget(region string) (changed []protocol.ItemID) {
	for i := range s.items {
		it := &s.items[i]
		if n, found := it.part(region); found {
			it.parts = slices.Delete(it.parts, n, n+1)
			changed = append(changed, protocol.ItemID(i))
			s.owe(protocol.ItemID(i), it)
		}
	}
	return changed
}

// Holdings appends what other regions have of an item, in order of their names.
func (s *State) Holdings(dst []Holding, key protocol.ItemKey) []Holding {
	if id, ok := s.index[key]; ok {
		for i := range s.items[id].parts {
			p := &s.items[id].parts[i]
			dst = append(dst, Holding{p.region, p.free})
		}
	}
	return dst
}

// CheckKey says what is wrong with an item's name.
func CheckKey(key protocol.ItemKey) error {
	if err := protocol.CheckName("sku", key.SKU); err != nil {
		return err
	}
	if err := protocol.CheckName("location", key.Location); err != nil {
		return err
	}
	return nil
}

// Component is the name under which a cursor counts a shard's log: the region's for
// the first, which is the only one by default.
func Component(region string, shard int) string {
	if shard == 0 {
		return region
	}
	return region + "." + strconv.Itoa(shard)
}

// share returns the one copy of a name that all parts hold.
func (s *State) share(name string) string {
	if kept, ok := s.names[name]; ok {
		return kept
	}
	name = strings.Clone(name)
	s.names[name] = name
	return name
}

// owe notes whether rights that another region gave are still to be taken, or rights that
// it took are not known to have been given, as after this one came back from a backup.
func (s *State) owe(id protocol.ItemID, it *item) {
	for i := range it.parts {
		if p := &it.parts[i]; p.granted > it.row.Accepted[p.region] || it.row.mustConcede(p.region, p.accepted) {
			s.owed[id] = struct{}{}
			return
		}
	}
	delete(s.owed, id)
}

// Owed tells whether rights that other regions gave are still to be taken.
func (s *State) Owed() bool { return len(s.owed) > 0 }

// AcceptOwed takes rights that other regions' rows say were given to this one, of up to
// limit items, and returns of which.
func (d *Draft) AcceptOwed(limit int) (keys []protocol.ItemKey) {
	for _, id := range slices.Sorted(maps.Keys(d.state.owed)) {
		if len(keys) == limit {
			break
		}
		it := &d.state.items[id]
		for i := range it.parts {
			p := &it.parts[i]
			d.Accept(it.key, p.region, p.granted)
			d.concede(it.key, p.region, p.accepted)
		}
		keys = append(keys, it.key)
	}
	return keys
}

// part returns the place of a region's part, or where it would be.
func (it *item) part(region string) (n int, found bool) {
	return slices.BinarySearchFunc(it.parts, region, func(p peerPart, region string) int {
		return strings.Compare(p.region, region)
	})
}

// elsewhere is what other regions could sell.
func elsewhere(parts []peerPart) (n int64) {
	for i := range parts {
		n = min(n+parts[i].free, protocol.QuantityMax)
	}
	return n
}

// merge adds the other regions' parts to what clients see of a row. Version is left to
// the caller.
func merge(it *protocol.Item, row *Row, parts []peerPart) {
	open, low := row.open(), row.Low
	for i := range parts {
		p := &parts[i]
		it.OnHand += p.onHand
		it.Reserved += p.held
		it.UpdatedAt = max(it.UpdatedAt, p.updatedAt)
		open += p.open
		if p.low >= 0 {
			low = max(low, 0) + p.low
		}
	}
	it.Available = min(protocol.QuantityMax, max(0, open))
	it.Low = low >= 0 && it.Available <= low
}

// appendVersions appends the wire form of an item's version.
func appendVersions(b []byte, region string, own uint64, parts []peerPart) []byte {
	comma := func() {
		if len(b) > 0 {
			b = append(b, ',')
		}
	}
	for i := range parts {
		p := &parts[i]
		if own > 0 && p.region > region {
			comma()
			b, own = appendVersion(b, region, own), 0
		}
		comma()
		b = appendVersion(b, p.region, p.version)
	}
	if own > 0 {
		comma()
		b = appendVersion(b, region, own)
	}
	return b
}

// newerThan tells whether another region's part changed after a cursor.
func newerThan(parts []peerPart, since protocol.Vector) bool {
	for i := range parts {
		if parts[i].seq > since.Get(parts[i].log) {
			return true
		}
	}
	return false
}
