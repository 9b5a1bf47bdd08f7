package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stockmesh/stockmesh/bench/fault"
)

// disks are the small disks of the nodes that a plan fills, by name: in memory, and
// gone with this process whatever happens to it. They are mounted nowhere: what holds
// each is an open file, and what leads there is its name below /proc.
type disks map[string]*os.File

const (
	diskMin        = 256 << 20 // of each
	diskPerCommand = 1 << 10   // bytes that a command leaves on each node, generously
	diskShare      = 4         // of the memory, all disks may take one part of so many
)

// diskSize has room for all that a run writes.
func (s *soakTrial) diskSize() uint64 {
	return max(diskMin, uint64(s.duration.Seconds()*float64(s.rate)*diskPerCommand))
}

func (s *soakTrial) lacksDisk() string {
	if err := tryDisk(); err != nil {
		return fmt.Sprintf("a small disk can't be mounted: %v", err)
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return err.Error()
	}
	need := s.diskSize() * uint64(s.regions*s.each)
	if have := uint64(info.Totalram) * uint64(info.Unit) / diskShare; need > have {
		return fmt.Sprintf("disks with room for so long a run take %d MiB of memory, and may take %d", need>>20, have>>20)
	}
	return ""
}

func tryDisk() error {
	f, err := makeDisk(1 << 20)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeDisk mounts a disk and takes it out of the tree again, where only the file that
// is returned leads to it.
func makeDisk(size uint64) (*os.File, error) {
	dir, err := os.MkdirTemp("", "stockmesh-disk-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	f, err := os.Open(dir)
	return f, errors.Join(err, os.NewSyscallError("umount", syscall.Unmount(dir, syscall.MNT_DETACH)))
}

// layDisks gives the nodes whose disks the plan fills small ones.
func (s *soakTrial) layDisks() error {
	s.disks = make(disks)
	for _, e := range s.plan {
		n := s.victim(e)
		if e.Kind != fault.Disk || s.disks[n.name] != nil {
			continue
		}
		disk, err := makeDisk(s.diskSize())
		if err != nil {
			return fmt.Errorf("a small disk for %s: %w", n.name, err)
		}
		s.disks[n.name] = disk
		n.args = append(n.args, "--data", filepath.Join(s.disks.path(n.name), "data")) // the last one counts
	}
	return nil
}

// path leads to a disk, for other processes too.
func (d disks) path(name string) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), d[name].Fd())
}

const ballast = "ballast" // the file that fills a disk

// fill leaves no room on a node's disk. A node that has met a full disk takes nothing
// more until it is started again: so undo does that, once there is room.
func (s *soakTrial) fill(n *node) (undo func(context.Context) error, err error) {
	name := filepath.Join(s.disks.path(n.name), ballast)
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := os.Remove(name); err != nil {
			return err
		}
		return n.again(ctx)
	}, nil
}

// save copies what is on the disks to where the other nodes have theirs. The nodes
// stand still meanwhile, so that each copy is of one moment.
func (d disks) save(nodes []*node) error {
	var errs []error
	for _, n := range nodes {
		if d[n.name] != nil {
			errs = append(errs, d.saveOf(n))
		}
	}
	return errors.Join(errs...)
}

func (d disks) saveOf(n *node) error {
	if n.process != nil {
		p := n.process.cmd.Process
		if err := halt(p); err != nil {
			return err
		}
		defer resume(p)
	}
	return os.CopyFS(filepath.Join(filepath.Dir(n.log), n.name+"-disk"), os.DirFS(d.path(n.name)))
}

// close gives up the disks. What nodes have open stays until they end.
func (d disks) close() {
	for _, f := range d {
		_ = f.Close()
	}
}
