package powerfs

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// Loss is what a power cut took away.
type Loss struct {
	Bytes int64 `json:"bytes"` // written bytes that are not there
	Files int   `json:"files"` // that they were written to
	Names int   `json:"names"` // changes of names that never happened
}

// fate is what becomes of the dirty pages of a file.
type fate int

const (
	nothing fate = iota // is kept
	everything
	first // few, the last of them torn
	some  // of them, any, one of them torn
	fates
)

// LosePower drops what was not durable, as the seed has it, and switches the disk off:
// each operation fails until PowerOn.
func (d *Disk) LosePower() Loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	random := d.random
	if d.lies {
		random = nil // it goes back to a moment, not to a part of one
	}
	var loss Loss
	for _, n := range d.unsynced() {
		if n.file.pending() {
			bytes := n.file.lose(random)
			loss.Bytes += bytes
			if bytes > 0 {
				loss.Files++
			}
		}
	}
	loss.Names = d.loseNames(random)
	clear(d.changed)
	d.state = off
	d.thaw()
	return loss
}

// unsynced lists the inodes that have changed, always in the same order.
func (d *Disk) unsynced() []*inode {
	return slices.SortedFunc(maps.Keys(d.changed), func(a, b *inode) int { return cmp.Compare(a.number, b.number) })
}

// lose goes back to what the power cut leaves, nothing of what is dirty where nobody
// draws, and returns how many bytes it took.
func (f *file) lose(random *rand.Rand) (bytes int64) {
	left, dirty := f.kept.clone(), f.soiled()
	what := nothing
	if random != nil {
		what = fate(random.IntN(int(fates)))
	}
	switch what {
	case everything:
		left = f.now.clone()
	case first:
		k := random.IntN(len(dirty) + 1)
		for _, i := range dirty[:k] {
			left.set(i, f.now.pages[i])
		}
		f.tear(&left, dirty[k:], random)
		f.resize(&left, dirty[:k], random)
	case some:
		var kept []int64
		for _, i := range dirty {
			if random.IntN(2) == 0 {
				left.set(i, f.now.pages[i])
				kept = append(kept, i)
			}
		}
		f.resize(&left, kept, random)
	}
	bytes = f.missing(&left, dirty)
	f.now, f.kept, f.dirty = left, left.clone(), nil
	return bytes
}

// tear writes a few sectors of the first of the pages.
func (f *file) tear(left *content, pages []int64, random *rand.Rand) {
	if len(pages) == 0 {
		return
	}
	torn, fresh := new(page), f.now.pages[pages[0]]
	if old := left.pages[pages[0]]; old != nil {
		*torn = *old
	}
	if fresh != nil {
		copy(torn[:random.IntN(pageBytes/sectorBytes)*sectorBytes], fresh[:])
	}
	left.set(pages[0], torn)
}

// resize says how long the file is: as it was, as it should have become, or as far as
// the pages reach that were kept.
func (f *file) resize(left *content, kept []int64, random *rand.Rand) {
	switch random.IntN(3) {
	case 0:
		left.size = f.now.size
	case 1:
		if len(kept) > 0 {
			left.size = max(left.size, min(f.now.size, (kept[len(kept)-1]+1)*pageBytes))
		}
	}
	cut := file{now: *left, kept: left.clone()} // the pages are others' too
	cut.shorten(left.size)
	*left = cut.now
}

// missing counts the bytes of the dirty pages that are other than they were written.
func (f *file) missing(left *content, dirty []int64) (bytes int64) {
	for _, i := range dirty {
		was, is := page{}, page{}
		f.now.read(was[:], i*pageBytes)
		left.read(is[:], i*pageBytes)
		for k := range was {
			if was[k] != is[k] {
				bytes++
			}
		}
	}
	return bytes
}
