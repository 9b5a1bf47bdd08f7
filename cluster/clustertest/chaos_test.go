package clustertest_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
)

// TestChaos: whatever happens to one node at a time, the commands on each item have
// one order that explains every answer. Each round has an account of its own, so that
// the search for that order stays short.
func TestChaos(t *testing.T) {
	chosen := *seed
	if chosen == 0 {
		chosen = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(chosen, 1))
	r := clustertest.Start(t, clustertest.WithProxies(), shardsAsked())
	for round := range *chaos {
		shop := r.Shop(clustertest.Seed(chosen + uint64(round)))
		var excused []*clustertest.Node
		for range 3 {
			shop.AwaitSuccesses(50)
			excused = append(excused, fault(r, shop, rng)...)
			r.AwaitReady()
		}
		report := shop.Stop()
		t.Logf("round %d of seed %d: %s", round, chosen, report)
		report.FailedOnlyAt(excused...)
		report.Paused(failover, failover)
		report.Account()
		report.Linearizable()
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, chosen)
		}
	}
}

// fault does something to one node and undoes it. It returns the nodes that may tell
// their clients so: a killed one can't, but one that stood still or is cut off must.
func fault(r *clustertest.Region, shop *clustertest.Shop, rng *rand.Rand) (excused []*clustertest.Node) {
	node := r.Nodes()[rng.IntN(len(r.Nodes()))]
	if rng.IntN(2) == 0 {
		node = r.Owner(0)
	}
	length := time.Duration(rng.IntN(2500)) * time.Millisecond
	switch kind := rng.IntN(4); {
	case kind == 0:
		shop.Mark("kill %s", node)
		node.Kill()
		shop.RunFor(length)
		shop.Mark("start")
		node.Start()
		return nil
	case kind == 1 && clustertest.CanPause:
		shop.Mark("pause %s", node)
		node.Pause()
		shop.RunFor(length)
		shop.Mark("resume")
		node.Resume()
		return []*clustertest.Node{node}
	case kind == 2:
		shop.Mark("isolate %s", node)
		r.Isolate(node)
		shop.RunFor(length)
		shop.Mark("heal")
		r.Heal()
		return []*clustertest.Node{node}
	}
	other := r.Nodes()[rng.IntN(len(r.Nodes()))]
	for other == node {
		other = r.Nodes()[rng.IntN(len(r.Nodes()))]
	}
	shop.Mark("cut %s-%s", node, other)
	r.Cut(node, other)
	shop.RunFor(length)
	shop.Mark("heal")
	r.Heal()
	return []*clustertest.Node{node, other}
}

// TestNoFalseElections: neither idleness nor disks that stall move a shard.
func TestNoFalseElections(t *testing.T) {
	if *soak == 0 {
		t.Skip("takes long: give -soak 10m")
	}
	r := clustertest.Start(t)
	r.Owner(0)
	before := r.OwnerChanges()
	shop := r.Shop(shopSeed())
	shop.RunFor(*soak / 3)
	report := shop.Stop()
	t.Log("load alone: ", report)
	t.Logf("owners changed %d times", r.OwnerChanges()-before)
	stop := stallDisk(t)
	shop = r.Shop(shopSeed())
	shop.RunFor(*soak / 3)
	stop()
	report = shop.Stop()
	t.Log("load and a busy disk: ", report)
	t.Logf("owners changed %d times", r.OwnerChanges()-before)
	idle(t, *soak/3)
	if changes := r.OwnerChanges() - before; changes > 0 {
		t.Errorf("owners changed %d times in %v without any fault", changes, *soak)
	}
	report.NothingFailed()
	report.Account()
}

func idle(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// stallDisk writes and syncs big files as fast as the disk takes them, as a backup
// would beside the nodes.
func stallDisk(t *testing.T) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for i := range 2 {
		name := filepath.Join(t.TempDir(), "stall")
		wg.Go(func() {
			if err := writeAndSync(name, byte(i), ended); err != nil {
				t.Errorf("busy disk: %v", err)
			}
		})
	}
	stopOnce := sync.OnceFunc(func() { close(ended); wg.Wait() })
	t.Cleanup(stopOnce)
	return stopOnce
}

func writeAndSync(name string, fill byte, ended <-chan struct{}) error {
	const fileBytesMax = 256 << 20
	block := make([]byte, 8<<20)
	for i := range block {
		block[i] = fill
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); ; at = (at + int64(len(block))) % fileBytesMax {
		select {
		case <-ended:
			return nil
		default:
		}
		if _, err := f.WriteAt(block, at); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}
