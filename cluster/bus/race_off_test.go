//go:build !race

package bus

// slow is how much longer things may take than in a plain build.
const slow = 1
