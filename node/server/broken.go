package server

import (
	"context"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/node/edge"
)

const (
	brokenLook = time.Second
	// brokenDrain is less than a drain takes: here the clients get no answers any more.
	brokenDrain = 5 * time.Second
)

// watchEngine has the clients sent elsewhere if the engine fails, until the node stops.
func (s *Server) watchEngine(stops *stack, c *cluster.Cluster, e *edge.Edge, a *api.API) {
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { s.leaveBroken(ctx, c, e, a) })
	stops.push(func() error {
		cancel()
		watch.Wait()
		return nil
	})
}

// leaveBroken sends the clients to other nodes once a disk has failed this one. It goes on
// running, for its operators to look at, and nobody new comes in.
func (s *Server) leaveBroken(ctx context.Context, c *cluster.Cluster, e *edge.Edge, a *api.API) {
	tick := time.NewTicker(brokenLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := c.Broken()
		if err == nil {
			continue
		}
		if others := c.Elsewhere(); len(others) > 0 {
			s.logger.Error("clients are sent to other nodes: this one stores nothing until it is started again", "error", err)
			a.Drain()
			e.Drain(ctx, min(s.config.Drain, brokenDrain), others)
			return
		}
	}
}
