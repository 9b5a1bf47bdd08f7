package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/stockmesh/stockmesh/cluster/gossip"
)

func (m *mesh) joinWAN(ctx context.Context) (err error) {
	cfg := m.config.Mesh
	m.gossip, err = gossip.Open(gossip.Config{
		Name: m.config.Region + "." + m.config.Node, WAN: true,
		Listen: cfg.WANGossip, Advertise: m.ownWAN(ctx), Join: slices.Concat(cfg.JoinRegion, m.c.dir.WAN), KeyFile: cfg.GossipKey,
		Meta: m.meta(), Logger: m.logger.With("part", "wan"), Clock: m.config.Clock,
		OnChange: m.look,
	})
	if err != nil {
		return fmt.Errorf("membership between regions: %w", err)
	}
	return nil
}

// ownWAN is the membership address that other regions are told. A name that can't be
// looked up now stands for what it was the last time: a node must come back without
// a name server, and sell.
func (m *mesh) ownWAN(ctx context.Context) string {
	told := m.config.Mesh.AdvertiseWAN
	if told == "" {
		return ""
	}
	addr, err := gossip.Resolve(ctx, told)
	if err == nil {
		if err := m.c.dir.rememberOwnWAN(told, addr); err != nil {
			m.logger.Warn("can't keep this node's address", "error", err)
		}
		return addr
	}
	if last, ok := m.c.dir.OwnWAN[told]; ok {
		m.logger.Warn("this node's name can't be looked up: other regions are told the address it had", "name", told, "address", last, "error", err)
		return last
	}
	return told // whoever uses it says what is wrong
}
