//go:build !race

package edge_test

// slower is how much longer things may take than in a plain build.
const slower = 1
