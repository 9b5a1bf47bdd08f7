// Package powerfs is a file system that can lose its power: what was not made durable
// by then is gone, as far as POSIX allows. DESIGN.md tells what survives.
package powerfs

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
)

// Model says when names are durable. The zero value is Ordered.
type Model int

// The models, which DESIGN.md describes.
const (
	Ordered Model = iota
	POSIX
)

// Config is what a disk is made of.
type Config struct {
	Model Model
	Seed  uint64 // of what is drawn when the power is cut
	Lies  bool   // syncs are answered and nothing is done; see Checkpoint
}

// Disk is the state of the file system. It may be used by several goroutines.
type Disk struct {
	model Model
	lies  bool

	owner, group uint32 // of all files; set before they are used

	mu      sync.Mutex
	random  *rand.Rand
	root    *inode
	last    uint64          // inode number given
	changed map[*inode]bool // since they were synced last
	journal []change        // of names, those not durable
	syncErr error           // of each sync; nil: they succeed
	state   state
	thawed  chan struct{} // closed when what was frozen goes on
}

// state is that of the power.
type state int

const (
	on    state = iota
	armed       // frozen by the next sync
	frozen
	off
)

// errFrozen: the operation waits for the power to be lost.
var errFrozen = errors.New("powerfs: frozen")

// New returns an empty disk that is switched on.
func New(c Config) *Disk {
	root := &inode{number: 1, dir: true, mode: 0o755, links: 1}
	return &Disk{
		model: c.Model, lies: c.Lies, random: rand.New(rand.NewPCG(c.Seed, 0)),
		root: root, last: root.number, changed: make(map[*inode]bool), thawed: make(chan struct{}),
	}
}

// Freeze is the moment in which the power goes: nothing is carried out any more.
// Operations wait for LosePower, which fails them; so those who are to be killed with
// the power never hear that something is wrong.
func (d *Disk) Freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == on || d.state == armed {
		d.state = frozen
	}
}

// Arm is Freeze in the moment in which most is at stake: when a sync has something to
// write next. Where none comes soon, Freeze.
func (d *Disk) Arm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == on {
		d.state = armed
	}
}

// Frozen reports whether nothing is carried out any more.
func (d *Disk) Frozen() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == frozen || d.state == off
}

// thaw lets those go on who wait; d.mu is held.
func (d *Disk) thaw() {
	close(d.thawed)
	d.thawed = make(chan struct{})
}

// PowerOn ends what LosePower began. Syncs succeed again: it is another disk with the
// same content.
func (d *Disk) PowerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.syncErr = on, nil
	d.thaw()
}

// FailSync has each sync from now on fail with err and drop what it should have
// written.
func (d *Disk) FailSync(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncErr = err
}

// Checkpoint makes everything durable, as disks do by themselves now and then.
func (d *Disk) Checkpoint() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != on && d.state != armed || d.syncErr != nil {
		return
	}
	for n := range d.changed {
		n.file.sync()
	}
	clear(d.changed)
	d.keepAllNames()
}

// Dirty returns the pages that a power cut might take.
func (d *Disk) Dirty() (pages int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.changed {
		pages += len(n.file.dirty)
	}
	return pages
}

// with carries out an operation while the power is on. Where it is frozen that takes
// until it is lost, and fails.
func (d *Disk) with(do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := errFrozen
	switch d.state {
	case on, armed:
		err = do()
	case off:
		err = syscall.EIO
	}
	if !errors.Is(err, errFrozen) {
		return err
	}
	thawed := d.thawed
	d.mu.Unlock()
	<-thawed
	d.mu.Lock()
	return syscall.EIO
}

// sync makes an inode durable; d.mu is held.
func (d *Disk) sync(n *inode) error {
	if d.syncErr != nil {
		n.file.fail()
		return d.syncErr
	}
	if d.state == armed && d.changed[n] {
		d.state = frozen
		return errFrozen
	}
	if d.lies || !d.changed[n] {
		return nil
	}
	delete(d.changed, n)
	n.file.sync()
	d.keepNames(n)
	return nil
}

func (d *Disk) fresh(dir bool, mode uint32) *inode {
	d.last++
	return &inode{number: d.last, dir: dir, mode: mode & 0o7777}
}

func (d *Disk) lookup(dir *inode, name string) (n *inode, err error) {
	err = d.with(func() error {
		n, err = dir.find(name)
		return err
	})
	return n, err
}

func (d *Disk) create(dir *inode, name string, isDir bool, mode uint32) (n *inode, err error) {
	err = d.with(func() error {
		if _, err := dir.find(name); err == nil {
			return syscall.EEXIST
		}
		n = d.fresh(isDir, mode)
		d.do(change{{dir, name, n}})
		return nil
	})
	return n, err
}

func (d *Disk) remove(dir *inode, name string, isDir bool) error {
	return d.with(func() error {
		n, err := dir.find(name)
		if err == nil {
			err = removable(n, isDir)
		}
		if err == nil {
			d.do(change{{dir, name, nil}})
		}
		return err
	})
}

func removable(n *inode, isDir bool) error {
	switch {
	case isDir && !n.dir:
		return syscall.ENOTDIR
	case !isDir && n.dir:
		return syscall.EISDIR
	case len(n.names.now) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// rename moves a name. The kernel has seen to it that no directory goes into itself.
func (d *Disk) rename(from *inode, name string, to *inode, newName string, exclusive bool) error {
	return d.with(func() error {
		n, err := from.find(name)
		if err != nil {
			return err
		}
		if there, err := to.find(newName); err == nil {
			if there == n {
				return nil
			}
			if exclusive {
				return syscall.EEXIST
			}
			if err := removable(there, n.dir); err != nil {
				return err
			}
		}
		d.do(change{{from, name, nil}, {to, newName, n}})
		return nil
	})
}

func (d *Disk) read(n *inode, b []byte, at int64) (count int, err error) {
	err = d.with(func() error {
		count = n.file.now.read(b, at)
		return nil
	})
	return count, err
}

// write writes at an offset, or at the end, and through to the disk where that is
// asked for.
func (d *Disk) write(n *inode, b []byte, at int64, atEnd, through bool) error {
	return d.with(func() error {
		if atEnd {
			at = n.file.now.size
		}
		n.file.write(b, at)
		d.changed[n] = true
		if through {
			return d.sync(n)
		}
		return nil
	})
}

func (d *Disk) truncate(n *inode, size int64) error {
	return d.with(func() error {
		n.file.truncate(size)
		d.changed[n] = true
		return nil
	})
}

func (d *Disk) chmod(n *inode, mode uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.mode = mode & 0o7777
}

func (d *Disk) fsync(n *inode) error {
	return d.with(func() error { return d.sync(n) })
}
