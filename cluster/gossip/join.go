package gossip

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	joinPauseMin = 1 * time.Second
	joinPauseMax = 10 * time.Second
	// For so long after the start, or after a dispute about our name, others may
	// still hold our name for an earlier process at another port and ignore us:
	// until they find that dead. We can't see that, so we go on joining.
	settleTime    = 10 * time.Second
	settleTimeWAN = 40 * time.Second

	// Addresses learned while running come and go with their nodes.
	learnedMax = 64
)

// Join adds addresses to join by, host:port as in Config.Join; those known already are
// passed over. It returns at once; a new one is tried at once. Of more than 64 added in
// this way the oldest are forgotten.
func (g *Gossip) Join(addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, addr := range addrs {
		if addr == "" || addr == g.addr || slices.Contains(g.join, addr) || slices.Contains(g.learned, addr) {
			continue
		}
		g.learned = append(g.learned, addr)
		kick(g.joinKick)
	}
	if over := len(g.learned) - learnedMax; over > 0 {
		g.learned = slices.Delete(g.learned, 0, over)
	}
}

// joinLoop keeps this node part of the mesh. memberlist joins once, forgets a
// dead member's address after half a minute, and so never heals a longer cut.
func (g *Gossip) joinLoop(ctx context.Context) {
	opened := time.Now()
	calm, told := opened, false
	settle := settleTime
	if g.wan {
		settle = settleTimeWAN
	}
	for {
		now := time.Now()
		g.prune(now)
		alone, disputed := g.standing()
		restless := alone || now.Sub(opened) < settle || now.Sub(disputed) < settle
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
			g.log.Warn("gossip: no other member is reached, trying on", "join", g.joinList(), "err", err)
		}
		told = failed
		if !g.sleepOrJoin(ctx, pause) {
			return
		}
	}
}

// sleepOrJoin is sleep, but new addresses to join by end it.
func (g *Gossip) sleepOrJoin(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-g.joinKick:
	}
	return true
}

// joinPause grows with the time it has been in vain.
func joinPause(restless time.Duration) time.Duration {
	return min(max(restless/4, joinPauseMin), joinPauseMax)
}

// standing returns whether no other member is alive, in a pool of regions none of
// another region, and when our name was last seen at another address.
func (g *Gossip) standing() (alone bool, disputed time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, r := range g.table.records {
		if r.Alive && name != g.name && (!g.wan || r.Region != g.region) {
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
	for _, j := range g.joinList() {
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

// joinList returns the addresses given and learned.
func (g *Gossip) joinList() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Concat(g.join, g.learned)
}

func (g *Gossip) prune(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table.prune(now) > 0 {
		g.changedLocked()
	}
}
