package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/protocol"
)

// BenchmarkRegion is three nodes on one machine, each commit fsynced by a quorum: the
// owner's callers, and those of a node that hands its commands on.
func BenchmarkRegion(b *testing.B) {
	nodes := openRegion(b, 3, 1)
	owner := slices.IndexFunc(nodes, owns)
	for _, at := range []struct {
		name string
		node *cluster.Cluster
	}{{"owner", nodes[owner]}, {"follower", nodes[(owner+1)%3]}} {
		for _, callers := range []int{1, 256} {
			b.Run(fmt.Sprintf("at=%s/callers=%d", at.name, callers), func(b *testing.B) { benchmarkCallers(b, at.node, callers) })
		}
	}
}

func owns(c *cluster.Cluster) bool {
	m := c.Mesh()
	for _, n := range m.Regions[0].Nodes {
		if n.Name == m.Node && len(n.OwnerOf) > 0 {
			return true
		}
	}
	return false
}

// openRegion opens a region's nodes in this process.
func openRegion(tb testing.TB, n, shards int) []*cluster.Cluster {
	tb.Helper()
	ports := loopback.Addresses(tb, 2*n)
	nodes := make([]*cluster.Cluster, n)
	var opening sync.WaitGroup
	ctx, giveUp := context.WithCancel(tb.Context()) // the others would wait for one that failed
	defer giveUp()
	for i := range nodes {
		c := cluster.Config{
			Dir: tb.TempDir(), Region: "eu", Node: fmt.Sprintf("eu-%d", i+1), Shards: shards, KeyWindow: 24 * time.Hour,
			Members: &cluster.Members{
				Expect: n, Gossip: ports[2*i], Join: ports[:1], Cluster: ports[2*i+1],
			},
		}
		opening.Go(func() {
			var err error
			if nodes[i], err = cluster.Open(ctx, c); err != nil {
				tb.Errorf("%s: %v", c.Node, err)
				giveUp()
			}
		})
	}
	opening.Wait()
	tb.Cleanup(func() {
		var closing sync.WaitGroup
		for _, node := range nodes {
			if node == nil {
				continue
			}
			closing.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := node.Close(ctx); err != nil {
					tb.Error(err)
				}
			})
		}
		closing.Wait()
	})
	if tb.Failed() {
		tb.FailNow()
	}
	tick := time.NewTicker(10 * time.Millisecond) // what nodes tell of themselves comes twice a second
	defer tick.Stop()
	for !slices.ContainsFunc(nodes, owns) {
		<-tick.C
	}
	return nodes
}

func benchmarkCallers(b *testing.B, c *cluster.Cluster, callers int) {
	do(c, protocol.Command{Op: protocol.OpCount, Key: fmt.Sprint("seed", b.Name(), b.N), SKU: "A", OnHand: protocol.Ptr[int64](1 << 40)})
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	b.ResetTimer()
	var selling sync.WaitGroup
	for range callers {
		selling.Go(func() {
			answered := make(chan struct{}, 1)
			call := &protocol.Call{Done: func(*protocol.Call) { answered <- struct{}{} }}
			calls := []*protocol.Call{call}
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				*call = protocol.Call{Done: call.Done, Command: protocol.Command{
					Op: protocol.OpSell, Key: fmt.Sprintf("%s-%d-%d", b.Name(), b.N, i), Lines: []protocol.Line{{SKU: "A", Location: "main", Quantity: 1}},
				}}
				start := time.Now()
				c.Submit(calls)
				<-answered
				took[i-1] = time.Since(start)
				if call.Err != nil {
					b.Error(call.Err)
					return
				}
			}
		})
	}
	selling.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
