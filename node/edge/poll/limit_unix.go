//go:build unix

package poll

import "golang.org/x/sys/unix"

// FileLimit returns how many files the process may have open: the soft
// RLIMIT_NOFILE.
func FileLimit() (uint64, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), failed("file limit", err)
}

// RaiseFileLimit raises the soft limit to the hard one and returns the soft
// limit then in force. A kernel that refuses is no error: the number tells.
func RaiseFileLimit() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, failed("file limit", err)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	return FileLimit()
}
