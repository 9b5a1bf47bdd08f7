//go:build race

package edge_test

// slower is how much longer things may take: the race detector is in both ends here.
const slower = 4
