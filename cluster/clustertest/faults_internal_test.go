package clustertest

import (
	"strings"
	"testing"
)

const reloadRace = `==================
WARNING: DATA RACE
Write at 0x00c000380000 by goroutine 9:
  github.com/nats-io/nats-server/v2/server.(*Server).configureAccounts.func2()
      server.go:1398 +0x70e
  github.com/nats-io/nats-server/v2/server.(*Server).reloadAuthorization()
      reload.go:2244 +0x47b
  github.com/stockmesh/stockmesh/cluster/bus.(*mesh).redial()
      mesh.go:359 +0x584

Previous read at 0x00c000380000 by goroutine 95:
  github.com/nats-io/nats-server/v2/server.(*client).setupResponseServiceImport()
      client.go:4643 +0x84

Goroutine 9 (running) created at:
  testing.(*T).Run()
==================
`

func TestFaultsAreFound(t *testing.T) {
	ours := strings.Replace(reloadRace, "github.com/nats-io/nats-server/v2/server.(*client).setup", "github.com/stockmesh/stockmesh/cluster.(*x).setup", 1)
	elsewhere := strings.Replace(reloadRace, "reloadAuthorization", "somethingElse", 1)
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"nothing", "level=INFO msg=serving\n", 0},
		{"a panic", "x\npanic: runtime error\n\ngoroutine 1 [running]:\n", 1},
		{"the engine's reload", "x\n" + reloadRace + "y\n", 0},
		{"a place of ours", ours, 1},
		{"the engine, not reloading", elsewhere, 1},
		{"one after the other", reloadRace + ours + elsewhere + reloadRace + "panic: x\n", 3},
		{"cut off", strings.TrimSuffix(ours, raceEnd+"\n"), 1},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			var f faultFinder
			for text := c.text; text != ""; {
				n := min(piece, len(text))
				f.write([]byte(text[:n]))
				text = text[n:]
			}
			if got := f.found(); len(got) != c.want {
				t.Errorf("%s in pieces of %d: found %d, want %d: %q", c.name, piece, len(got), c.want, got)
			}
		}
	}
}
