package main

import (
	"context"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// regionNames are those of a mesh, in the order in which they are started.
var regionNames = []string{"eu", "us", "asia", "r4", "r5"}

// region is which of the regions a spawned node belongs to: nodes and endpoints come
// region by region.
func (t *target) region(node int) int { return node / t.each }

// names lists the regions of a spawned mesh.
func (t *target) names() []string { return regionNames[:len(t.nodes)/t.each] }

const (
	meshTimeout = 60 * time.Second
	meshPoll    = 50 * time.Millisecond
)

// awaitMesh waits until every node says that it hears all regions and that their
// stock has arrived.
func (t *target) awaitMesh(ctx context.Context) error {
	late := time.Now().Add(meshTimeout)
	for {
		err := t.checkMesh(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("the regions are not linked within %v: %w", meshTimeout, err)
		}
		if err := pause(ctx, meshPoll); err != nil {
			return err
		}
	}
}

func (t *target) checkMesh(ctx context.Context) error {
	for i, n := range t.nodes {
		m, err := readMesh(ctx, n.Public)
		if err == nil {
			err = checkRegions(m, regionNames[t.region(i)], t.names())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}

const regionServing = "serving"

// checkRegions says which region a node of own lacks.
func checkRegions(m *protocol.Mesh, own string, names []string) error {
	if m.Region != own {
		return fmt.Errorf("it is of region %q, not %q", m.Region, own)
	}
	states := make(map[string]string)
	for _, r := range m.Regions {
		states[r.Name] = r.State
	}
	for _, name := range names {
		state, known := states[name]
		if !known {
			return fmt.Errorf("it does not know region %s", name)
		}
		if state != regionServing {
			return fmt.Errorf("region %s is %s", name, state)
		}
	}
	return nil
}
