package gossip

import (
	"context"
	"sync"
	"time"
)

const (
	joinPauseMin = 1 * time.Second
	joinPauseMax = 10 * time.Second
	// For so long after the start, or after a dispute about our name, others may
	// still hold our name for an earlier process at another port and ignore us:
	// until they find that dead. We can't see that, so we go on joining.
	settleTime = 10 * time.Second
)

// joinLoop keeps this node part of the mesh. memberlist joins once, forgets a
// dead member's address after half a minute, and so never heals a longer cut.
func (g *Gossip) joinLoop(ctx context.Context) {
	opened := time.Now()
	calm, told := opened, false
	for {
		now := time.Now()
		g.prune(now)
		alone, disputed := g.standing()
		restless := alone || now.Sub(opened) < settleTime || now.Sub(disputed) < settleTime
		pause := joinPauseMax
		if restless {
			pause = joinPause(now.Sub(calm))
		} else {
			calm = now
		}
		reached, err := g.joinRound(ctx, restless)
		if ctx.Err() != nil {
			return
		}
		failed := alone && reached == 0 && err != nil
		if failed && !told {
			g.log.Warn("gossip: no other member is reached, trying on", "join", g.join, "err", err)
		}
		told = failed
		if !sleep(ctx, pause) {
			return
		}
	}
}

// joinPause grows with the time it has been in vain.
func joinPause(restless time.Duration) time.Duration {
	return min(max(restless/4, joinPauseMin), joinPauseMax)
}

// standing returns whether no other member is alive, and when our name was last
// seen at another address.
func (g *Gossip) standing() (alone bool, disputed time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, r := range g.table.records {
		if r.Alive && name != g.name {
			return false, g.disputed
		}
	}
	return true, g.disputed
}

// joinRound tries all addresses at once: one that drops packets takes seconds.
func (g *Gossip) joinRound(ctx context.Context, again bool) (reached int, last error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	addrs, last := g.joinAddrs(ctx, again)
	for addr := range addrs {
		wg.Go(func() {
			_, err := g.list.Join([]string{addr})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				last = err
				return
			}
			reached++
		})
	}
	wg.Wait()
	return reached, last
}

// joinAddrs returns what to try: the given addresses and those of members which
// failed, but never our own; those of members alive only if again is set. The
// error is of the last one that can't be resolved.
func (g *Gossip) joinAddrs(ctx context.Context, again bool) (map[string]bool, error) {
	addrs := make(map[string]bool)
	var last error
	for _, j := range g.join {
		resolved, err := lookup(ctx, j)
		if err != nil {
			last = err
		}
		for _, a := range resolved {
			addrs[a.String()] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.table.records {
		if !r.Alive {
			addrs[r.Addr] = true
		}
	}
	for _, r := range g.table.records {
		if r.Alive && !again {
			delete(addrs, r.Addr)
		}
	}
	delete(addrs, g.addr)
	return addrs, last
}

func (g *Gossip) prune(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table.prune(now) > 0 {
		g.changedLocked()
	}
}
