//go:build !unix

package cluster

// diskProblem can't tell on this system.
func diskProblem(string) error { return nil }
