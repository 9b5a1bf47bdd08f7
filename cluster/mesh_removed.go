package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// removedKey is the row that says whether a region was removed from the mesh.
func removedKey(region string) string { return bus.EscapeKey("meta", "removed", region) }

const (
	removedYes = "removed"
	removedNo  = "present"
)

// lookRemoved learns which regions were removed, from this region's bucket.
func (m *mesh) lookRemoved(ctx context.Context, names []string) error {
	m.mu.Lock()
	for name := range m.removed {
		names = append(names, name)
	}
	m.mu.Unlock()
	for _, name := range names {
		value, _, err := m.c.table.Get(ctx, removedKey(name))
		if err != nil && !errors.Is(err, bus.ErrMissing) {
			return fmt.Errorf("was region %s removed: %w", name, err)
		}
		m.setRemoved(ctx, name, string(value) == removedYes)
	}
	return nil
}

func (m *mesh) setRemoved(ctx context.Context, name string, gone bool) {
	m.mu.Lock()
	p, before := m.peers[name], m.removed[name]
	if !gone {
		delete(m.removed, name)
	} else {
		m.removed[name] = true
		delete(m.peers, name)
		m.sort()
	}
	m.mu.Unlock()
	switch {
	case !gone && before:
		m.dropMu.Lock()
		delete(m.dropped, name)
		m.dropMu.Unlock()
		m.look()
	case gone && p != nil:
		p.end()
		p.forget(true)
		m.logger.Info("a region was removed; its stock is no longer counted", "region", name)
	}
	if gone {
		m.drop(ctx, name)
	}
}

// drop takes down what joins this node to a removed region, as often as that takes.
func (m *mesh) drop(ctx context.Context, name string) {
	m.dropMu.Lock()
	defer m.dropMu.Unlock()
	if m.dropped[name] {
		return
	}
	if err := errors.Join(m.c.bus.Unlink(name), m.c.bus.DropMirror(ctx, name, stockBucket)); err != nil {
		m.logger.Warn("what was kept of a removed region is not gone yet", "region", name, "error", err)
		return
	}
	m.dropped[name] = true
}

// mayMeet tells whether a region that gossip knows may be met. One that is new to this
// node may have been removed before it started, and then its stock must not be counted
// for even a moment: the bucket knows.
func (m *mesh) mayMeet(ctx context.Context, region string) bool {
	m.mu.Lock()
	known := m.peers[region] != nil || m.removed[region]
	m.mu.Unlock()
	if known || protocol.CheckRegion("region", region) != nil {
		return true // meet knows what to do
	}
	if err := m.lookRemoved(ctx, []string{region}); err != nil {
		m.logger.Debug("a region is not met yet: not known whether it was removed", "region", region, "error", err)
		m.unmet = true
		return false
	}
	return true
}
