//go:build unix

package cluster

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// diskUsedMax is the fill level above which a node is not ready: the engine stops
// for good on a full disk, so there must be time to act before.
const diskUsedMax = 0.80

// volume is the room of a file system: what this process could ever use, and what is
// left of that, in bytes.
type volume struct{ total, free float64 }

// used is the fill level, 0 to 1.
func (v volume) used() float64 {
	if v.total == 0 {
		return 0
	}
	return 1 - v.free/v.total
}

// volumeOf looks at the file system of a directory.
func volumeOf(dir string) (volume, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return volume{}, fmt.Errorf("disk of %s: %w", dir, err)
	}
	size := float64(disk.Bsize)
	return volume{total: size * (float64(disk.Blocks-disk.Bfree) + float64(disk.Bavail)), free: size * float64(disk.Bavail)}, nil
}

// diskProblem says that the file system of a directory is nearly full.
func diskProblem(dir string) error {
	v, err := volumeOf(dir)
	if err != nil {
		return err
	}
	if used := v.used(); used > diskUsedMax {
		return fmt.Errorf("the disk of %s is %.0f %% full, above %.0f %%", dir, used*100, diskUsedMax*100)
	}
	return nil
}

// diskReserved is the part of a disk's room that the engine leaves free.
const diskReserved = 0.05

// storeLimit is how much the engine may keep in dir: what it has and what is free,
// less a reserve. At the limit it refuses writes cleanly; on a full disk it would
// take none until the next start.
func storeLimit(dir string) (int64, error) {
	v, err := volumeOf(dir)
	if err != nil {
		return 0, err
	}
	var used int64
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			used += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", dir, err)
	}
	return used + int64(v.free*(1-diskReserved)), nil
}
