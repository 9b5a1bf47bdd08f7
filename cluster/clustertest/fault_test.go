package clustertest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// How long no client may get anything done: where another node must take over, and
// where nothing should be noticed, on a machine that has other things to do too.
const (
	failover  = 4 * time.Second
	unnoticed = time.Second
)

// TestFollowerKilled: nobody notices but those who were connected to it, and they go
// elsewhere.
func TestFollowerKilled(t *testing.T) {
	r := clustertest.Start(t)
	shop := r.Shop(clustertest.Baskets(), shopSeed())
	for _, follower := range r.Followers(0) {
		shop.AwaitSuccesses(100)
		shop.Mark("kill %s", follower)
		follower.Kill()
		shop.AwaitSuccesses(200)
		shop.Mark("start %s", follower)
		follower.Start()
		r.AwaitReady()
	}
	report := shop.Stop()
	t.Log(report)
	report.NothingFailed()
	report.Paused(unnoticed, unnoticed)
	report.Account()
}

// TestOwnerPaused: a machine that stalls loses its shard, and says nothing wrong when
// it goes on.
func TestOwnerPaused(t *testing.T) {
	if !clustertest.CanPause {
		t.Skip("no SIGSTOP on this system")
	}
	r := clustertest.Start(t)
	shop := r.Shop(shopSeed())
	shop.AwaitSuccesses(100)
	owner := r.Owner(0)
	shop.Mark("pause %s", owner)
	owner.Pause()
	// The others go on while it hangs.
	shop.RunFor(*pause)
	shop.AwaitSuccesses(100)
	shop.Mark("resume")
	owner.Resume()
	shop.AwaitSuccesses(200)
	r.AwaitReady()
	report := shop.Stop()
	t.Log(report)
	report.FailedOnlyAt(owner)
	report.Paused(failover, failover)
	report.Account()
	report.Linearizable()
}

// TestNoQuorum: with two of three nodes down the third says so, in time, and goes on
// by itself once it is no longer alone.
func TestNoQuorum(t *testing.T) {
	r := clustertest.Start(t)
	survivor := r.Followers(0)[0]
	c := r.Dial(survivor)
	ctx := t.Context()
	if _, err := c.Adjust(ctx, "A", "", 5, client.Key("before")); err != nil {
		t.Fatal(err)
	}
	var others []*clustertest.Node
	for _, n := range r.Nodes() {
		if n != survivor {
			n.Kill()
			others = append(others, n)
		}
	}
	refusedInTime(ctx, t, c, "during") // at once after the loss
	survivor.AwaitStatus("no_quorum")
	refusedInTime(ctx, t, c, "during") // and once it is known
	if items, err := c.Get(ctx, []string{"A"}); err != nil || items[0].OnHand != 5 {
		t.Errorf("reads must go on: %v %v", items, err)
	}
	for _, n := range others {
		n.Start()
	}
	r.AwaitReady()
	if _, err := c.Adjust(ctx, "A", "", 5, client.Key("after")); err != nil {
		t.Fatal(err)
	}
	r.AwaitConverged()
}

// refusedInTime sends a write that can't be committed now.
func refusedInTime(ctx context.Context, t *testing.T, c *client.Client, key string) {
	t.Helper()
	const limit = 3 * time.Second
	begun := time.Now()
	_, err := c.Adjust(ctx, "B", "", 1, client.Key(key))
	took := time.Since(begun)
	var wire *protocol.Error
	if !errors.As(err, &wire) || wire.Code != protocol.CodeUnavailable || !wire.Retryable {
		t.Errorf("without a quorum: %v", err)
	}
	if took > limit*clustertest.Slow {
		t.Errorf("the refusal took %v", took)
	}
	t.Logf("refused after %v: %v", took.Round(time.Millisecond), err)
}

// TestAllKilled: what was acknowledged is there after all nodes died at once.
func TestAllKilled(t *testing.T) {
	r := clustertest.Start(t)
	shop := r.Shop(clustertest.Baskets(), shopSeed())
	shop.AwaitSuccesses(300)
	shop.Mark("kill all")
	for _, n := range r.Nodes() {
		n.Kill()
	}
	for _, n := range r.Nodes() {
		n.Start()
	}
	r.AwaitReady()
	shop.AwaitSuccesses(200)
	report := shop.Stop()
	t.Log(report)
	report.Account()
}

// TestRollingRestart: a restart of each node in turn is no news to clients, in whatever
// way it is done: by SIGTERM alone, after a drain, or in the middle of one.
func TestRollingRestart(t *testing.T) {
	r := clustertest.Start(t)
	const delay = 200 * time.Millisecond
	ways := []struct {
		name  string
		leave func(n *clustertest.Node)
	}{
		{"stop", (*clustertest.Node).Stop},
		{"drain and stop", func(n *clustertest.Node) {
			n.Drain(delay)
			n.AwaitStatus("draining")
			n.Stop()
		}},
		{"drain, and stop meanwhile", func(n *clustertest.Node) {
			drained := make(chan struct{})
			go func() {
				defer close(drained)
				n.Drain(delay)
			}()
			n.AwaitStatus("draining")
			n.Stop()
			<-drained
		}},
	}
	seed := drawnSeed() // any of them may meet the owner
	rand.New(rand.NewPCG(seed, seed)).Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
	shop := r.Shop(clustertest.Baskets(), clustertest.Seed(seed))
	sub := watch(t, r.Dial(r.Nodes()...))
	for i, n := range r.Nodes() {
		shop.AwaitSuccesses(100)
		shop.Mark("%s %s", ways[i].name, n)
		ways[i].leave(n)
		shop.AwaitSuccesses(100)
		shop.Mark("start %s", n)
		n.Start()
		r.AwaitReady()
	}
	report := shop.Stop()
	t.Log(report)
	report.NothingFailed()
	report.Paused(unnoticed, unnoticed)
	report.Account()
	sub.awaitStock(r.Nodes()[0])
}

// TestOwnerIsolated: a node whose routes lead nowhere, while its clients still reach
// it, acknowledges nothing that the others don't know.
func TestOwnerIsolated(t *testing.T) {
	r := clustertest.Start(t, clustertest.WithProxies())
	shop := r.Shop(shopSeed())
	shop.AwaitSuccesses(100)
	owner := r.Owner(0)
	shop.Mark("isolate %s", owner)
	r.Isolate(owner)
	shop.RunFor(*pause)
	shop.AwaitSuccesses(100)
	shop.Mark("heal")
	r.Heal()
	r.AwaitReady()
	shop.AwaitSuccesses(200)
	report := shop.Stop()
	t.Log(report)
	report.FailedOnlyAt(owner)
	report.Paused(failover, failover)
	report.Account()
	report.Linearizable()
}
