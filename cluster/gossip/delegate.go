package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It does so with its own lock held, so
// nothing here may call memberlist or wait; Gossip.mu comes after that lock.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate. What it returns is never too long:
// memberlist panics on that.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

// No state but the metas is exchanged.

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.put(n)
	d.g.log.Info("gossip: member is here", "member", n.Name, "addr", n.Address())
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.put(n) }

func (d delegate) put(n *memberlist.Node) {
	g := d.g
	g.mu.Lock()
	r := g.table.put(n.Name, n.Address(), n.Meta, time.Now())
	odd := n.Name != g.name && (r.garbled != nil || !g.wan && r.Region != g.region)
	first := odd && !r.warned
	r.warned = r.warned || odd
	garbled, region, ours := r.garbled, r.Region, g.region
	g.changedLocked()
	g.mu.Unlock()

	switch {
	case first && garbled != nil:
		g.log.Warn("gossip: member can't be understood, a newer version?", "member", n.Name, "err", garbled)
	case first:
		g.log.Warn("gossip: member of another region in this pool, it is not counted", "member", n.Name, "region", region, "ours", ours)
	}
}

// NotifyLeave implements memberlist.EventDelegate. n.State is of no use:
// memberlist never sets it, so a node says in its Meta that it is about to leave.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	g := d.g
	g.clocks.forget(n.Name) // whoever comes back under that name may be another machine
	g.mu.Lock()
	left := g.table.gone(n.Name, time.Now())
	g.changedLocked()
	g.mu.Unlock()
	if left {
		g.log.Info("gossip: member left", "member", n.Name)
		return
	}
	g.log.Warn("gossip: member failed", "member", n.Name, "addr", n.Address())
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.suspectConflict(existing.Name, existing.Address(), other.Address())
}
