//go:build !race

package clustertest

// Slow is how much longer things may take than in a plain build.
const Slow = 1
