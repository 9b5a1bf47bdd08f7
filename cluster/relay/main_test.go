package relay

import (
	"flag"
	"os"
	"testing"
)

// TestMain asks for more and longer random runs than the library's default. For
// many more: go test -rapid.checks=20000 -rapid.steps=300.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "300", "rapid.steps": "120"} {
		if err := flag.Set(name, value); err != nil {
			panic(err) // the library renamed its flag
		}
	}
	os.Exit(m.Run())
}
