package powerfs

import (
	"maps"
	"slices"
)

const (
	pageBytes   = 4096
	sectorBytes = 512 // what a disk writes as a whole
)

type page [pageBytes]byte

// content is the bytes of a file at one time. A page that is missing holds zeros, and
// so does the rest of the last one. Pages are shared between contents: who changes one
// copies it first.
type content struct {
	pages map[int64]*page
	size  int64
}

func (c *content) clone() content { return content{maps.Clone(c.pages), c.size} }

// set puts a page in its place; nil takes it out.
func (c *content) set(i int64, p *page) {
	switch {
	case p == nil:
		delete(c.pages, i)
	case c.pages == nil:
		c.pages = map[int64]*page{i: p}
	default:
		c.pages[i] = p
	}
}

// read fills b from an offset and returns how much there was.
func (c *content) read(b []byte, at int64) int {
	b = b[:max(0, min(int64(len(b)), c.size-at))]
	for done := 0; done < len(b); {
		i, from := (at+int64(done))/pageBytes, (at+int64(done))%pageBytes
		part := b[done:min(len(b), done+pageBytes-int(from))]
		if p := c.pages[i]; p != nil {
			copy(part, p[from:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(b)
}

// file is content as it is read now, and what a power cut is sure to leave of it.
type file struct {
	now, kept content
	dirty     map[int64]bool // pages in which the two may differ
}

// own returns the page, one that only now has.
func (f *file) own(i int64) *page {
	p := f.now.pages[i]
	if p == nil || p == f.kept.pages[i] {
		fresh := new(page)
		if p != nil {
			*fresh = *p
		}
		p = fresh
		f.now.set(i, p)
	}
	f.soil(i)
	return p
}

func (f *file) soil(i int64) {
	if f.dirty == nil {
		f.dirty = make(map[int64]bool)
	}
	f.dirty[i] = true
}

func (f *file) write(b []byte, at int64) {
	f.now.size = max(f.now.size, at+int64(len(b)))
	for len(b) > 0 {
		from := at % pageBytes
		n := copy(f.own(at / pageBytes)[from:], b)
		b, at = b[n:], at+int64(n)
	}
}

func (f *file) truncate(size int64) {
	if size < f.now.size {
		f.shorten(size)
	}
	f.now.size = size
}

// shorten takes out what lies behind size, so that it doesn't come back when the file
// grows again.
func (f *file) shorten(size int64) {
	for i := range f.now.pages {
		if i*pageBytes >= size {
			f.soil(i)
			delete(f.now.pages, i)
		}
	}
	if rest := size % pageBytes; rest > 0 && f.now.pages[size/pageBytes] != nil {
		clear(f.own(size / pageBytes)[rest:])
	}
}

// pending reports whether a sync has anything to do.
func (f *file) pending() bool { return len(f.dirty) > 0 || f.now.size != f.kept.size }

// sync makes the file durable.
func (f *file) sync() {
	for i := range f.dirty {
		f.kept.set(i, f.now.pages[i])
	}
	f.kept.size = f.now.size
	f.dirty = nil
}

// fail is a sync that could not write: what it should have written is gone. The size
// is the new one still.
func (f *file) fail() {
	for i := range f.dirty {
		f.now.set(i, f.kept.pages[i])
	}
	f.dirty = nil
	if f.now.size < f.kept.size {
		f.shorten(f.now.size)
	}
}

// soiled lists the dirty pages in order.
func (f *file) soiled() []int64 { return slices.Sorted(maps.Keys(f.dirty)) }
