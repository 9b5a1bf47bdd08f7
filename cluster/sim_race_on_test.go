//go:build race

package cluster

// How deep the small case is searched in the plain form. The race detector makes each step
// ten times as long, and has nothing to find in one goroutine.
const (
	simDepthPlain     = 4
	simDepthFaultless = 6
)
