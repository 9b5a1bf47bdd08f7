//go:build !race

package cluster

// simDepthPlain is how deep the small case is searched in the plain form.
const simDepthPlain = 8
