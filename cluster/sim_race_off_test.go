//go:build !race

package cluster

// How deep the small case is searched in the plain form.
const (
	simDepthPlain     = 7
	simDepthFaultless = simToTheEnd
)
