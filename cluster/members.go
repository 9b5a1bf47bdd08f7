package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/stockmesh/stockmesh/cluster/bus"
)

// ErrAlone says that the node is not one of several.
var ErrAlone = errors.New("this node is a region by itself")

// ErrAlive says that a node to be removed still lives.
var ErrAlive = errors.New("the node is alive")

// ErrNoMember says that the region has no such node.
var ErrNoMember = errors.New("the region has no such node")

// Member is a node as the engines see it.
type Member struct {
	Name    string `json:"name"`
	Online  bool   `json:"online"`
	Current bool   `json:"current"` // it knows the region's streams as they are
	Leader  bool   `json:"leader"`  // of the group that keeps them
	Lag     uint64 `json:"lag"`     // entries of that group it has yet to see
}

// Members lists the nodes that hold the region's data, and how many copies there are.
func (c *Cluster) Members(ctx context.Context) (list []Member, replicas int, err error) {
	if c.region == nil {
		return nil, 0, ErrAlone
	}
	peers, err := c.bus.Peers(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("list nodes: %w", err)
	}
	for _, p := range peers {
		list = append(list, Member{Name: p.Name, Online: p.Online, Current: p.Current, Leader: p.Leader, Lag: p.Lag})
	}
	streams, err := c.bus.Replicas(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("count copies: %w", err)
	}
	for _, s := range streams {
		if replicas == 0 || s.Replicas < replicas {
			replicas = s.Replicas
		}
	}
	return list, replicas, nil
}

// RemoveMember takes a node that is gone for ever out of the region: others get the
// copies it had. It must not come back with its old data.
func (c *Cluster) RemoveMember(ctx context.Context, name string, force bool) error {
	if c.region == nil {
		return ErrAlone
	}
	if name == c.config.Node {
		return fmt.Errorf("%w: %s is this node: ask another one", ErrAlive, name)
	}
	for _, m := range c.region.others() {
		if m.Name == name && !force {
			return fmt.Errorf("%w: %s: stop it first", ErrAlive, name)
		}
	}
	if err := c.bus.RemovePeer(ctx, name); errors.Is(err, bus.ErrMissing) {
		return fmt.Errorf("%w: %s", ErrNoMember, name)
	} else if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	c.logger.Info("a node was removed from the region", "node", name)
	return nil
}

// SetReplicas gives every log and bucket of the region so many copies: 1, 3 or 5.
func (c *Cluster) SetReplicas(ctx context.Context, n int) error {
	if c.region == nil {
		return ErrAlone
	}
	if err := c.bus.SetReplicas(ctx, n); err != nil {
		return fmt.Errorf("set %d copies: %w", n, err)
	}
	return nil
}
