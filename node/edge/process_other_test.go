//go:build !linux

package edge_test

import (
	"testing"
	"time"
)

// processTime is told on Linux only.
func processTime(testing.TB) time.Duration { return 0 }

// residentBytes is told on Linux only.
func residentBytes(t testing.TB, pid int) int64 {
	t.Helper()
	t.Skip("reads /proc")
	return 0
}
