package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
)

// Nodes of a region hear of a revocation within 2 s, whichever of them took it, and what
// they tell each other.
func TestRegionRevokes(t *testing.T) {
	nodes := openRegion(t, 3, 1)
	var slowest time.Duration
	for i := range 12 {
		begun := time.Now()
		rev := cluster.Revocation{TokenID: fmt.Sprint("t", i), Until: begun.Add(time.Hour)}
		if err := nodes[i%3].Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		stored := time.Now()
		for _, n := range nodes {
			eventuallyIs(t, "all nodes know", func() bool { return len(n.Revocations()) == i+1 })
		}
		t.Logf("stored after %v, known to all %v later", stored.Sub(begun), time.Since(stored))
		slowest = max(slowest, time.Since(stored))
	}
	if slowest > 8*time.Second { // four times what is promised: this machine may be busy
		t.Errorf("known to all after %v", slowest)
	}
	tellAround(t, nodes)

	// One node down: a quorum is left.
	shutNow(t, nodes[2])
	if err := nodes[0].Revoke(t.Context(), cluster.Revocation{Subject: "s"}); err != nil {
		t.Error(err)
	}
	eventuallyIs(t, "those that are left know", func() bool { return len(nodes[1].Revocations()) == 13 })
}

func shutNow(t *testing.T, n *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

// tellAround has each node tell the others something.
func tellAround(t *testing.T, nodes []*cluster.Cluster) {
	t.Helper()
	var mu sync.Mutex
	heard := make(map[string]bool)
	for i, n := range nodes {
		n.OnTold(func(node string, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			heard[fmt.Sprintf("eu-%d: %s %s", i+1, node, data)] = true
		})
	}
	eventuallyIs(t, "all were told by all others", func() bool {
		for i, n := range nodes {
			n.Tell(fmt.Append(nil, "hello ", i))
		}
		mu.Lock()
		defer mu.Unlock()
		return len(heard) == 6
	})
	mu.Lock()
	defer mu.Unlock()
	for what := range heard {
		if own, from, _ := strings.Cut(what, ": "); strings.HasPrefix(from, own) {
			t.Errorf("told by itself: %s", what)
		}
	}
	alone := open(t, config(t.TempDir()))
	alone.OnTold(func(string, []byte) { t.Error("a node alone was told something") })
	alone.Tell([]byte("x"))
}

// Without a quorum nothing is promised.
func TestRevokeWithoutAQuorum(t *testing.T) {
	t.Parallel() // it waits more than it works
	nodes := openRegion(t, 3, 1)
	if err := nodes[0].Revoke(t.Context(), cluster.Revocation{Subject: "before"}); err != nil {
		t.Fatal(err)
	}
	shutNow(t, nodes[1])
	shutNow(t, nodes[2])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := nodes[0].Revoke(ctx, cluster.Revocation{Subject: "s"}); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if got := nodes[0].Revocations(); len(got) != 1 {
		t.Errorf("the list it had is gone: %+v", got)
	}
}
