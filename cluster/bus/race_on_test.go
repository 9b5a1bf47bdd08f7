//go:build race

package bus

// slow is how much longer things may take: the race detector is in every server here.
const slow = 4
