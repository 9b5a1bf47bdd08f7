//go:build !unix

package cluster

// diskProblem can't tell on this system.
func diskProblem(string) error { return nil }

// storeLimit can't tell on this system: no limit but the disk.
func storeLimit(string) (int64, error) { return 0, nil }
