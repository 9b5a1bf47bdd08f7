//go:build !race

package server_test

// slow is how much longer things may take.
const slow = 1
