package powerfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Available says what is missing for a Mount on this machine; nil: nothing. It mounts
// something to find out.
func Available() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("FUSE: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		if _, err := helper(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "powerfs-")
	if err != nil {
		return err
	}
	m, err := NewMount(dir, New(Config{}))
	if err == nil {
		err = m.Close(context.Background())
	}
	return errors.Join(err, os.Remove(dir))
}

// helper is the program that mounts and unmounts for those who are not root.
func helper() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("FUSE: who is not root needs the program fusermount3 or fusermount")
}

// Mount is a disk that stands in the system's tree of files.
type Mount struct {
	dir    string
	server *fuse.Server
}

// NewMount mounts a disk over a directory, and returns when it can be used.
func NewMount(dir string, d *Disk) (*Mount, error) {
	d.owner, d.group = uint32(os.Getuid()), uint32(os.Getgid())
	server, err := fs.Mount(dir, &node{disk: d, inode: d.root}, &fs.Options{
		MountOptions:    fuse.MountOptions{DirectMount: true, DisableXAttrs: true, FsName: "powerfs", Name: "powerfs"},
		NullPermissions: true,
		RootStableAttr:  &fs.StableAttr{Ino: d.root.number},
		// Nothing is remembered by the kernel, as it may be other after a power cut.
	})
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	return &Mount{dir: dir, server: server}, nil
}

// closePoll is how often Close looks whether the disk is in use.
const closePoll = 20 * time.Millisecond

// Close takes the disk out of the tree once nobody has files of it open, or when ctx
// ends: whoever has then gets errors as soon as this process has ended.
func (m *Mount) Close(ctx context.Context) error {
	for {
		err := unmount(m.dir, 0, "-u")
		if err == nil {
			return nil
		}
		select {
		case <-time.After(closePoll):
		case <-ctx.Done():
			return Detach(m.dir)
		}
	}
}

// Wait returns when the disk is in no use any more.
func (m *Mount) Wait() { m.server.Wait() }

// Detach takes out of the tree what is mounted on a directory, whoever has mounted it,
// uses it, and whether that one still lives. Nothing mounted there is no error.
func Detach(dir string) error {
	if !mounted(dir) {
		return nil
	}
	return unmount(dir, syscall.MNT_DETACH, "-u", "-z")
}

// unmount asks the kernel, or whoever may.
func unmount(dir string, flags int, helperFlags ...string) error {
	err := syscall.Unmount(dir, flags)
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	program, err := helper()
	if err != nil {
		return err
	}
	if said, err := exec.Command(program, append(helperFlags, dir)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, dir, err, said)
	}
	return nil
}

// mounted reports whether a directory is another file system than the one it lies in.
// One whose process is gone can't be looked at and is mounted, too.
func mounted(dir string) bool {
	var at, above syscall.Stat_t
	if err := syscall.Stat(dir, &at); err != nil {
		return !errors.Is(err, syscall.ENOENT)
	}
	return syscall.Stat(dir+"/..", &above) == nil && at.Dev != above.Dev
}
