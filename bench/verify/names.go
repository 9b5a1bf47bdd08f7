package verify

import (
	"hash/maphash"

	"github.com/stockmesh/stockmesh/protocol"
)

// names numbers items in the order in which they are first heard of, from 0. A million
// take some 60 MB: there is no pointer for each, which the garbage collector would follow.
type names struct {
	seed      maphash.Seed
	slots     []uint64 // the hash's upper half, and the number + 1; 0: free
	places    []place  // by number
	pages     [][]byte // the SKUs' text
	locations map[string]uint32
	located   []string // by the location's number
}

// place is where an item's SKU stands.
type place struct{ page, offset, length, location uint32 }

const (
	pageBytes = 1 << 20
	slotsMin  = 1 << 10

	// Fibonacci hashing: 2^64 divided by the golden ratio.
	golden = 0x9e3779b97f4a7c15
)

func newNames() names {
	return names{seed: maphash.MakeSeed(), slots: make([]uint64, slotsMin), locations: make(map[string]uint32)}
}

func (n *names) len() int { return len(n.places) }

// number returns an item's number, a new one if it was never heard of.
func (n *names) number(sku, location string) uint32 {
	at := n.location(location)
	hash := (maphash.String(n.seed, sku) ^ uint64(at)*golden) >> 32
	mask := uint64(len(n.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := n.slots[i]
		switch {
		case slot == 0:
			number := n.add(sku, at)
			n.slots[i] = hash<<32 | uint64(number+1)
			if 4*len(n.places) > 3*len(n.slots) {
				n.grow()
			}
			return number
		case slot>>32 == hash && n.is(uint32(slot)-1, sku, at):
			return uint32(slot) - 1
		}
	}
}

// find returns an item's number, if it was ever heard of.
func (n *names) find(sku, location string) (number uint32, known bool) {
	at, known := n.locations[location]
	if !known {
		return 0, false
	}
	hash := (maphash.String(n.seed, sku) ^ uint64(at)*golden) >> 32
	mask := uint64(len(n.slots) - 1)
	for i := hash & mask; n.slots[i] != 0; i = (i + 1) & mask {
		if slot := n.slots[i]; slot>>32 == hash && n.is(uint32(slot)-1, sku, at) {
			return uint32(slot) - 1, true
		}
	}
	return 0, false
}

// is compares the names themselves: items whose hashes meet stay two.
func (n *names) is(number uint32, sku string, location uint32) bool {
	return n.places[number].location == location && string(n.sku(number)) == sku
}

func (n *names) sku(number uint32) []byte {
	p := n.places[number]
	return n.pages[p.page][p.offset : p.offset+p.length]
}

// key is the item's name.
func (n *names) key(number uint32) protocol.ItemKey {
	return protocol.ItemKey{SKU: string(n.sku(number)), Location: n.located[n.places[number].location]}
}

func (n *names) location(name string) uint32 {
	if i, ok := n.locations[name]; ok {
		return i
	}
	i := uint32(len(n.located))
	n.locations[name] = i
	n.located = append(n.located, name)
	return i
}

func (n *names) add(sku string, location uint32) uint32 {
	last := len(n.pages) - 1
	if last < 0 || cap(n.pages[last])-len(n.pages[last]) < len(sku) {
		n.pages = append(n.pages, make([]byte, 0, max(pageBytes, len(sku))))
		last++
	}
	page := n.pages[last]
	n.places = append(n.places, place{uint32(last), uint32(len(page)), uint32(len(sku)), location})
	n.pages[last] = append(page, sku...)
	return uint32(len(n.places) - 1)
}

func (n *names) grow() {
	old := n.slots
	n.slots = make([]uint64, 2*len(old))
	mask := uint64(len(n.slots) - 1)
	for _, slot := range old {
		if slot == 0 {
			continue
		}
		i := slot >> 32 & mask
		for n.slots[i] != 0 {
			i = (i + 1) & mask
		}
		n.slots[i] = slot
	}
}
