//go:build race

package cluster

// simDepthPlain is how deep the small case is searched in the plain form. The race detector
// makes each step ten times as long.
const simDepthPlain = 6
