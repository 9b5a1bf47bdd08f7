//go:build race

package server_test

// slow is how much longer things may take: the race detector is in the nodes too.
const slow = 4
