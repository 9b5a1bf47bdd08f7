//go:build race

package clustertest

// Slow is how much longer things may take: the race detector is in the nodes too.
const Slow = 4
