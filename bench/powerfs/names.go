package powerfs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// inode is a file or a directory. It stays the same through power cuts.
type inode struct {
	number uint64
	dir    bool
	mode   uint32 // permissions
	links  int    // names that lead here now
	file   file
	names  names // of a directory
}

// names are a directory's entries as they are seen now, and what a power cut is sure
// to leave of them.
type names struct {
	now, kept map[string]*inode
}

// entry is a name in a directory that leads to an inode; nil: to none.
type entry struct {
	dir  *inode
	name string
	to   *inode
}

// change is what one operation has done to names: all of it happens, or nothing.
type change []entry

// of is the part that concerns one directory, and the rest.
func (c change) of(dir *inode) (its, others change) {
	for _, e := range c {
		if e.dir == dir {
			its = append(its, e)
		} else {
			others = append(others, e)
		}
	}
	return its, others
}

// keep makes a change durable.
func (c change) keep() {
	for _, e := range c {
		put(&e.dir.names.kept, e.name, e.to)
	}
}

func put(in *map[string]*inode, name string, to *inode) {
	switch {
	case to == nil:
		delete(*in, name)
	case *in == nil:
		*in = map[string]*inode{name: to}
	default:
		(*in)[name] = to
	}
}

// do carries out a change of names, which is not durable yet.
func (d *Disk) do(c change) {
	for _, e := range c {
		if was := e.dir.names.now[e.name]; was != nil {
			was.links--
			d.changed[was] = true
		}
		if e.to != nil {
			e.to.links++
			d.changed[e.to] = true
		}
		put(&e.dir.names.now, e.name, e.to)
		d.changed[e.dir] = true
	}
	d.journal = append(d.journal, c)
}

// keepNames is what a sync of an inode makes durable besides its data.
func (d *Disk) keepNames(n *inode) {
	if d.model == Ordered {
		d.keepAllNames()
		return
	}
	var left []change
	for _, c := range d.journal {
		its, others := c.of(n)
		its.keep()
		if len(others) > 0 {
			left = append(left, others)
		}
	}
	d.journal = left
}

func (d *Disk) keepAllNames() {
	for _, c := range d.journal {
		c.keep()
	}
	d.journal = nil
}

// loseNames goes back to the names that a power cut leaves and returns how many
// changes it took.
func (d *Disk) loseNames(random *rand.Rand) (lost int) {
	for _, part := range d.histories() {
		k := 0
		if random != nil {
			k = random.IntN(len(part) + 1)
		}
		for _, c := range part[:k] {
			c.keep()
		}
		lost += len(part) - k
	}
	d.journal = nil
	d.recall(d.root)
	return lost
}

// histories are the changes whose order is kept, oldest first.
func (d *Disk) histories() [][]change {
	if d.model == Ordered {
		return [][]change{d.journal}
	}
	var order []*inode
	of := make(map[*inode][]change)
	for _, c := range d.journal {
		for len(c) > 0 {
			dir := c[0].dir
			if of[dir] == nil {
				order = append(order, dir)
			}
			its, others := c.of(dir)
			of[dir], c = append(of[dir], its), others
		}
	}
	var all [][]change
	for _, dir := range order {
		all = append(all, of[dir])
	}
	return all
}

// recall has what is durable be what is seen, from a directory downward.
func (d *Disk) recall(dir *inode) {
	dir.names.now = maps.Clone(dir.names.kept)
	for _, n := range dir.names.now {
		n.links = 1
		if n.dir {
			d.recall(n)
		}
	}
}

// list returns a directory's names in order.
func (n *inode) list() []string { return slices.Sorted(maps.Keys(n.names.now)) }

func (n *inode) find(name string) (*inode, error) {
	if to := n.names.now[name]; to != nil {
		return to, nil
	}
	return nil, syscall.ENOENT
}
