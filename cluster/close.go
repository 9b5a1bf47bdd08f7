package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
)

// Drain says that the node is about to stop, and hands the shards it decides for to
// other nodes. It returns when they have taken over, or ctx ends. Commands go on being
// answered; a node without others goes on deciding.
func (c *Cluster) Drain(ctx context.Context) {
	c.draining.Store(true)
	if c.region == nil {
		return
	}
	c.phase("draining")
	for _, s := range c.shards {
		s.resign()
	}
	for ctx.Err() == nil && c.region.successor(0) != "" {
		if len(c.owns()) == 0 && c.ownersKnown() || !c.handingOver() {
			return
		}
		_ = pause(ctx, 5*time.Millisecond) // the loop's condition sees its end
	}
	for _, s := range c.shards {
		s.handOver.Store(false) // what nobody took, this node decides to the end
	}
}

// handingOver tells whether a shard is still meant to go to another node.
func (c *Cluster) handingOver() bool {
	for _, s := range c.shards {
		if s.handOver.Load() {
			return true
		}
	}
	return false
}

// Close answers what is waiting, writes what is dirty and stops. Calls submitted
// afterwards are refused. When the context ends first, dirty rows stay unwritten (the
// log has them), and a round whose fate is still unknown is answered as such.
func (c *Cluster) Close(ctx context.Context) error {
	c.once.Do(func() { c.closeErr = c.close(ctx) })
	return c.closeErr
}

// close goes against the direction of data: first no more commands, then no more
// changes, then no more writers, then the engine.
func (c *Cluster) close(ctx context.Context) error {
	if errors.Is(c.bus.Err(), bus.ErrFull) { // nothing is written any more, so what waits for that waits in vain
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, goodbyeWait)
		defer cancel()
	}
	c.Drain(ctx)
	// An owner that can't find out what became of its last round must not hold the
	// node for ever.
	defer context.AfterFunc(ctx, c.stop)()
	writers := c.writers()
	for _, s := range c.shards {
		s.desk.close()
	}
	c.awaitAnswers(ctx)
	c.walksMu.Lock()
	c.closing = true
	c.walksMu.Unlock()
	c.stop()
	c.running.Wait()
	c.walks.Wait()
	c.unlisten()
	for _, s := range c.shards {
		s.close()
	}
	for _, f := range writers {
		if err := f.drain(ctx); err != nil {
			c.logger.Warn("rows are left unwritten until the next owner writes them; the log has them", "error", err)
		}
	}
	return c.closeEngine(ctx)
}

// awaitAnswers waits until no call is left, or ctx ends.
func (c *Cluster) awaitAnswers(ctx context.Context) {
	for _, s := range c.shards {
		for s.desk.busy() && pause(ctx, time.Millisecond) == nil {
		}
	}
	if c.mesh == nil {
		return
	}
	for _, p := range c.mesh.all() {
		for p.envoy.busy() && pause(ctx, time.Millisecond) == nil {
		}
	}
}

// writers returns the flushers of the shards that this node still decides for.
func (c *Cluster) writers() (list []*flusher) {
	for _, s := range c.shards {
		if f := s.flusher.Load(); f != nil {
			list = append(list, f)
		}
	}
	return list
}

// goodbyeWait bounds each thing that a stopping node still tells the others: they would
// find out by themselves.
const goodbyeWait = 3 * time.Second

func (c *Cluster) closeEngine(ctx context.Context) error {
	if c.region != nil {
		c.say(ctx, "not everything was handed over", c.bus.StepDownAll)
		c.say(ctx, "the others were not told", c.region.gossip.Leave)
	}
	if c.mesh != nil {
		if c.mesh.anyReachable() { // whoever hears nothing would be waited for in vain
			c.say(ctx, "other regions were not told", c.mesh.gossip.Leave)
		}
		if err := c.mesh.close(); err != nil {
			c.logger.Warn("membership between regions did not end well", "error", err)
		}
	}
	return errors.Join(c.bus.Close(), c.dir.close())
}

func (c *Cluster) say(ctx context.Context, failed string, goodbye func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeWait)
	defer cancel()
	if err := goodbye(ctx); err != nil {
		c.logger.Warn(failed+"; they will notice by themselves", "error", err)
	}
}
