package clustertest_test

import (
	"flag"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
)

// The short forms of the tests run always; for the proof, for example
//
//	go test ./cluster/clustertest -run OwnerKilled -kills 100 -timeout 1h -v
var (
	kills  = flag.Int("kills", 3, "kill -9 of the owner under load")
	shards = flag.Int("shards", 1, "logs of the region in the tests of kills and chaos")
	seed   = flag.Uint64("seed", 0, "of the random choices; 0 picks one")
	soak   = flag.Duration("soak", 0, "how long to wait for elections that nobody needs; 0 skips that test")
	pause  = flag.Duration("pause", 4*time.Second, "how long the owner is held by SIGSTOP")
	chaos  = flag.Int("chaos", 1, "rounds of faults at random, some 7 s each")

	meshLong = flag.Bool("mesh-long", false, "meshes of three nodes each too, in namespaces too, cuts of 60 s, 200 clients for the last unit, a whole week of sales")
	meshCut  = flag.Duration("mesh-cut", 0, "how long regions are cut off, where that is to be another time")
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// shopSeed is the seed that was asked for, or a random one.
func shopSeed() clustertest.ShopOption { return clustertest.Seed(drawnSeed()) }

// drawnSeed is the one given, or another each time.
func drawnSeed() uint64 {
	if *seed == 0 {
		return uint64(time.Now().UnixNano())
	}
	return *seed
}

// long picks the value for the long or the short form of the tests of meshes.
func long[T any](inLong, inShort T) T {
	if *meshLong {
		return inLong
	}
	return inShort
}

func shardsAsked() clustertest.Option { return clustertest.Shards(*shards) }
