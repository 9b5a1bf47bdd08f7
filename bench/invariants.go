package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/bench/verify"
)

const (
	// ownPrefix is what the SKUs of scenarios begin with, so that on nodes that serve others
	// too nothing else is looked at.
	ownPrefix = "bench-"

	invariantsSample = 16 // items of which histories are read
	invariantsDepth  = 64 // movements of each
	invariantsMax    = 2 * time.Minute
)

// abuseKeyWindow is for how long the nodes of abuse remember keys.
const abuseKeyWindow = 20 * time.Second

// promises are what the round's nodes are held against.
func (r *round) promises() (c verify.Config, err error) {
	c = verify.Config{Endpoints: r.target.up(), Sample: invariantsSample, Depth: invariantsDepth, Settle: settleStockMax}
	if r.meshed() {
		c.Settle = settleMeshMax
	}
	if len(r.target.nodes) == 0 {
		c.Prefixes = []string{ownPrefix}
		return c, nil
	}
	for i, e := range c.Endpoints {
		if c.Endpoints[i], err = withToken(e, r.target.inspector); err != nil {
			return c, err
		}
	}
	c.Own = !slices.ContainsFunc(r.flags, shortens)
	if r.scenario == scenarioAbuse {
		c.Own, c.KeyWindow = false, abuseKeyWindow
	}
	return c, nil
}

// shortens reports whether a node that is started with a flag may forget what it should
// remember in the time of a run.
func shortens(flag string) bool {
	return strings.HasPrefix(flag, "--history") || strings.HasPrefix(flag, "--key-window")
}

// invariants holds the round's nodes against what they promise, whatever the scenario has
// done to them. What is wrong is a violation, and so is a node of our own that can't be
// looked at: of others the token may not allow it.
func (r *round) invariants(ctx context.Context) error {
	c, err := r.promises()
	if err != nil {
		return err
	}
	if down := len(r.target.endpoints) - len(c.Endpoints); down > 0 {
		r.violate("%d nodes of %d are down and could not be held against their promises", down, len(r.target.endpoints))
	}
	if len(c.Endpoints) == 0 {
		return nil
	}
	r.phase("holding the nodes against their promises", time.Second)
	bounded, cancel := context.WithTimeout(ctx, invariantsMax)
	defer cancel()
	result, err := verify.Check(bounded, c)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	switch {
	case err == nil:
		r.numbers["verified_items"] = float64(result.Items)
	case len(r.target.nodes) > 0:
		r.violate("the nodes could not be held against their promises: %v", err)
	default:
		r.progress.note("the nodes could not be held against their promises: %v", err)
	}
	for _, f := range result.Faults {
		r.violate("%v", f)
	}
	if more := result.FaultsTotal - int64(len(result.Faults)); more > 0 {
		r.violate("and %d more faults", more)
	}
	return nil
}

// up lists the endpoints of the nodes that run.
func (t *target) up() (endpoints []string) {
	if len(t.nodes) == 0 {
		return t.endpoints
	}
	for i, e := range t.endpoints {
		if i < len(t.nodes) && t.nodes[i].process != nil {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}
