package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrConflict is what Conflict's error wraps: two nodes that are alive have the
// same name. The others see only one of them, and not all the same one.
var ErrConflict = errors.New("gossip: two nodes have the same name")

const (
	conflictCheck  = 2 * time.Second
	conflictMisses = 3  // checks without both answers after which it is over
	conflictsMax   = 16 // names looked after at a time
)

// conflict is a name seen at two addresses. That happens also when a node was
// restarted at another port, so both are asked before anybody is alarmed.
type conflict struct {
	name, a, b string
	confirmed  bool
	misses     int
}

// suspectConflict is called with memberlist's lock held.
func (g *Gossip) suspectConflict(name, a, b string) {
	if a > b { // the same conflict, whoever was known first
		a, b = b, a
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if name == g.name {
		g.disputed = time.Now()
	}
	c := g.conflicts[name]
	known := c != nil && (c.confirmed || c.a == a && c.b == b)
	if known || c == nil && len(g.conflicts) >= conflictsMax {
		return
	}
	g.conflicts[name] = &conflict{name: name, a: a, b: b}
	kick(g.conflictKick)
}

// Conflict returns nil, or an error that wraps ErrConflict and says which name is
// used by two nodes, and where. It becomes nil again some seconds after one of
// them is gone.
func (g *Gossip) Conflict() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, c := range g.conflicts {
		if c.confirmed {
			errs = append(errs, fmt.Errorf("%w: %s at %s and at %s", ErrConflict, c.name, c.a, c.b))
		}
	}
	return errors.Join(errs...)
}

// conflictLoop checks the conflicts while there are any.
func (g *Gossip) conflictLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.conflictKick:
		}
		for g.checkConflicts(ctx) > 0 {
			if !sleep(ctx, conflictCheck) {
				return
			}
		}
	}
}

// checkConflicts returns how many are left.
func (g *Gossip) checkConflicts(ctx context.Context) int {
	g.mu.Lock()
	var all []conflict
	for _, c := range g.conflicts {
		all = append(all, *c)
	}
	g.mu.Unlock()
	for _, c := range all {
		if ctx.Err() != nil {
			return 0
		}
		g.settleConflict(c, g.answers(c.name, c.a) && g.answers(c.name, c.b))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conflicts)
}

// answers tells whether a node of that name is at the address.
func (g *Gossip) answers(name, addr string) bool {
	if addr == g.addr {
		return name == g.name
	}
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false
	}
	_, err = g.list.Ping(name, net.UDPAddrFromAddrPort(at))
	return err == nil
}

func (g *Gossip) settleConflict(seen conflict, both bool) {
	g.mu.Lock()
	c := g.conflicts[seen.name]
	if c.a != seen.a || c.b != seen.b { // replaced meanwhile
		g.mu.Unlock()
		return
	}
	was := c.confirmed
	if both {
		c.confirmed, c.misses = true, 0
	} else if c.misses++; c.misses >= conflictMisses {
		delete(g.conflicts, c.name)
	}
	begun, over := both && !was, was && c.misses >= conflictMisses
	if begun || over {
		g.changedLocked()
	}
	g.mu.Unlock()

	where := []any{"name", c.name, "addr", c.a, "other", c.b}
	switch {
	case begun:
		g.log.Error("gossip: two nodes have the same name; stop one of them and give it another", where...)
	case over:
		g.log.Info("gossip: a name is used by one node again", where...)
	}
}
