package verify

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/stockmesh/stockmesh/protocol"
)

// book is what all nodes show, and is held against the promises with each item that one
// of them sends.
type book struct {
	found *findings

	mu       sync.Mutex
	names    names
	regions  []string // by number
	labels   []string // of nodes
	pictures []*picture
	vec      []uint64 // of memo
	memo     string   // the version read last; most are like the one before
}

func newBook(found *findings, labels []string) *book {
	b := &book{found: found, names: newNames(), labels: labels}
	for range labels {
		b.pictures = append(b.pictures, &picture{})
	}
	return b
}

// tally counts what was looked at, so that the findings are locked once for a message.
type tally [checks]int64

// take enters the items of one message of a node.
func (b *book) take(node int, items []protocol.Item) {
	var t tally
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range items {
		b.enter(node, &items[i], &t)
	}
	for c, n := range t {
		if n > 0 {
			b.found.count(check(c), n)
		}
	}
}

func (b *book) enter(node int, it *protocol.Item, t *tally) {
	t[checkForm]++
	v, err := b.read(it.Version)
	if err == nil && len(v) == 0 {
		b.enterNothing(node, it)
		return
	}
	if bad := protocol.CheckName("sku", it.SKU); err == nil && bad != nil {
		err = bad
	}
	if bad := protocol.CheckName("location", it.Location); err == nil && bad != nil {
		err = bad
	}
	if err != nil {
		b.found.fault(checkForm, "%s sent %q at %q: %v", b.labels[node], it.SKU, it.Location, err)
		return
	}
	item := b.names.number(it.SKU, it.Location)
	r := rowOf(it)
	t[checkBounds]++
	if r.reserved < 0 || r.available < 0 {
		b.found.fault(checkBounds, "%s: %s shows %v at %s", b.name(item), b.labels[node], r, it.Version)
	}
	b.replace(node, item, r, v, t)
	b.compare(node, item, r, v, t)
}

// enterNothing takes an item without a version, which is said of one that doesn't exist.
// To those who ask for all there are, that isn't shown; and what was there once stays.
func (b *book) enterNothing(node int, it *protocol.Item) {
	p := b.pictures[node]
	item, known := b.names.find(it.SKU, it.Location)
	if !known || p.relation(item, nil) == shownNot {
		b.found.fault(checkForm, "%s sent %q at %q without a version", b.labels[node], it.SKU, it.Location)
		return
	}
	b.found.count(checkOrder, 1)
	b.found.fault(checkOrder, "%s: %s showed %s and then nothing", b.name(item), b.labels[node], b.text(p.vector(item, nil)))
	p.set(item, row{}, nil)
}

// replace enters what a node shows of an item in the place of what it has shown before.
func (b *book) replace(node int, item uint32, r row, v []uint64, t *tally) {
	p := b.pictures[node]
	relation := p.relation(item, v)
	if relation != shownNot {
		t[checkOrder]++
	}
	switch relation {
	case shownAhead:
		b.found.fault(checkOrder, "%s: %s showed %s and then %s", b.name(item), b.labels[node], b.text(p.vector(item, nil)), b.text(v))
	case shownSame:
		t[checkBody]++
		if before := p.row(item); before != r {
			b.found.fault(checkBody, "%s at version %s: %s showed %v and then %v", b.name(item), b.text(v), b.labels[node], before, r)
		}
	}
	p.set(item, r, v)
}

// compare holds what a node shows of an item against the others that show the same
// version.
func (b *book) compare(node int, item uint32, r row, v []uint64, t *tally) {
	for other, p := range b.pictures {
		if other == node || p.relation(item, v) != shownSame {
			continue
		}
		t[checkBody]++
		if there := p.row(item); there != r {
			b.found.fault(checkBody, "%s at version %s: %s shows %v, %s shows %v", b.name(item), b.text(v), b.labels[other], there, b.labels[node], r)
			return
		}
	}
}

// read turns a version's text into a number for each region, good until the next call.
func (b *book) read(version string) ([]uint64, error) {
	if version == b.memo {
		return b.vec, nil
	}
	vector, err := protocol.ParseVector(version)
	if err != nil {
		return nil, err
	}
	b.vec = b.vec[:0]
	for _, c := range vector {
		region := b.region(c.Region)
		for len(b.vec) <= region {
			b.vec = append(b.vec, 0)
		}
		b.vec[region] = c.N
	}
	b.memo = strings.Clone(version)
	return b.vec, nil
}

func (b *book) region(name string) int {
	i := slices.Index(b.regions, name)
	if i < 0 {
		i = len(b.regions)
		b.regions = append(b.regions, strings.Clone(name))
	}
	return i
}

// text is a version as it is sent, "nothing" for that of an item that isn't there.
func (b *book) text(v []uint64) string {
	vector := b.vector(v)
	if len(vector) == 0 {
		return "nothing"
	}
	return vector.String()
}

func (b *book) vector(v []uint64) (vector protocol.Vector) {
	for region, n := range v {
		if n > 0 {
			vector = append(vector, protocol.Component{Region: b.regions[region], N: n})
		}
	}
	slices.SortFunc(vector, func(a, c protocol.Component) int { return strings.Compare(a.Region, c.Region) })
	return vector
}

// name is an item for people.
func (b *book) name(item uint32) string {
	k := b.names.key(item)
	if k.Location == protocol.DefaultLocation {
		return fmt.Sprintf("%q", k.SKU)
	}
	return fmt.Sprintf("%q at %q", k.SKU, k.Location)
}

// len is how many items any node has shown.
func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names.len()
}
