package gossip

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Telling the others takes each of Leave's two steps some rounds of gossip, 0.1 s
// each.
const leaveStepMax = 3 * time.Second

// Leave tells the others that this node goes, so that it is not shown as failed,
// and closes it. It takes up to 6 s, or less when ctx has a deadline; a ctx that
// is cancelled ends it between its steps. An error means that the others may not
// have been told; the node is closed all the same. After Close it does nothing.
func (g *Gossip) Leave(ctx context.Context) error {
	var told error
	err := g.shut(func() { told = g.sayGoodbye(ctx) })
	if told != nil {
		told = fmt.Errorf("gossip: leave: %w", told)
	}
	return errors.Join(told, err)
}

// Close ends this node without a word: the others will find that it failed. It
// waits for OnChange. It may be called more than once.
func (g *Gossip) Close() error { return g.shut(func() {}) }

// shut stops our own loops, then says what is to be said, then closes the sockets:
// a loop must not use what is closed, nor send a Meta after the last one. A
// goodbye needs no connection, and a loop may wait for one.
func (g *Gossip) shut(last func()) error {
	g.closeOnce.Do(func() {
		g.mu.Lock()
		close(g.closed)
		g.mu.Unlock()
		g.stop()
		g.hangUp()
		g.loops.Wait()
		last()
		if err := g.list.Shutdown(); err != nil {
			g.closeErr = fmt.Errorf("gossip: close: %w", err)
		}
	})
	return g.closeErr
}

// sayGoodbye first marks our Meta, because memberlist does not tell the others
// which of left and failed it was. It goes wrong only when a mark got lost and the
// second step did not.
func (g *Gossip) sayGoodbye(ctx context.Context) error {
	g.mu.Lock()
	g.meta = asLeaving(g.meta)
	g.mu.Unlock()
	wait, err := step(ctx)
	if err != nil {
		return err
	}
	marked := g.list.UpdateNode(wait)
	if wait, err = step(ctx); err != nil {
		return errors.Join(marked, err)
	}
	return errors.Join(marked, g.list.Leave(wait))
}

// step returns how long one may take.
func step(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return leaveStepMax, nil
	}
	// 0 would mean no limit to memberlist.
	return max(min(time.Until(deadline), leaveStepMax), time.Nanosecond), nil
}
