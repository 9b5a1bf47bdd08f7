//go:build unix

package cluster

import (
	"fmt"
	"syscall"
)

// diskUsedMax is the fill level above which a node is not ready: the engine stops
// for good on a full disk, so there must be time to act before.
const diskUsedMax = 0.80

// diskProblem says that the file system of a directory is nearly full.
func diskProblem(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("disk of %s: %w", dir, err)
	}
	total := float64(fs.Blocks-fs.Bfree) + float64(fs.Bavail)
	if total == 0 {
		return nil
	}
	if used := 1 - float64(fs.Bavail)/total; used > diskUsedMax {
		return fmt.Errorf("the disk of %s is %.0f %% full, above %.0f %%", dir, used*100, diskUsedMax*100)
	}
	return nil
}
