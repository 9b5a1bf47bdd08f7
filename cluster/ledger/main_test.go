package ledger

import (
	"flag"
	"os"
	"testing"
)

// TestMain asks for more random runs than the library's default. For many more:
// go test -rapid.checks=20000 -rapid.steps=100.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "400"); err != nil {
		panic(err) // the library renamed its flag
	}
	os.Exit(m.Run())
}
