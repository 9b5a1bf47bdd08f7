package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

// BenchmarkEngine is 256 callers, each waiting for its answer before the next
// sell, every commit on disk.
func BenchmarkEngine(b *testing.B) {
	for _, skus := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("skus=%d", skus), func(b *testing.B) { benchmarkEngine(b, 256, skus) })
	}
}

func benchmarkEngine(b *testing.B, callers, skus int) {
	c := openBench(b)
	names := make([]string, skus)
	for i := range names {
		names[i] = fmt.Sprintf("SKU-%05d", i)
		do(c, protocol.Command{Op: protocol.OpCount, Key: names[i], SKU: names[i], OnHand: protocol.Ptr[int64](1 << 40)})
	}
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	done := make(chan error, callers)
	for range callers {
		go func() { done <- sellUntil(c, &next, int64(b.N), names) }()
	}
	for range callers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
}

func sellUntil(c *cluster.Cluster, next *atomic.Int64, n int64, names []string) error {
	answered := make(chan struct{}, 1)
	call := &protocol.Call{Done: func(*protocol.Call) { answered <- struct{}{} }}
	calls := []*protocol.Call{call}
	for i := next.Add(1); i <= n; i = next.Add(1) {
		call.Command = protocol.Command{
			Op: protocol.OpSell, Key: fmt.Sprintf("sale-%d", i),
			Lines: []protocol.Line{{SKU: names[rand.IntN(len(names))], Location: "main", Quantity: 1}},
		}
		c.Submit(calls)
		<-answered
		if call.Err != nil {
			return call.Err
		}
	}
	return nil
}

func openBench(b *testing.B) *cluster.Cluster {
	c, err := cluster.Open(context.Background(), cluster.Config{Dir: b.TempDir(), Region: "local", Node: "bench", KeyWindow: 24 * time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return c
}

func do(c *cluster.Cluster, cmd protocol.Command) *protocol.Call {
	answered := make(chan struct{})
	call := &protocol.Call{Command: cmd, Done: func(*protocol.Call) { close(answered) }}
	if err := call.Command.Check(); err != nil {
		call.Err = err
		return call
	}
	c.Submit([]*protocol.Call{call})
	<-answered
	return call
}
