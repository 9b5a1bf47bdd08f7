package clustertest_test

import (
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func alone(c *server.Config) { c.Expect, c.Join = 1, nil }

// TestDataOfAnotherKind: data of a node alone is not taken for that of a region's, nor
// the other way, for the engine would throw it away. The refusal says what to do.
func TestDataOfAnotherKind(t *testing.T) {
	r := clustertest.Build(t)
	n := r.Nodes()[0]
	var member server.Config
	n.Change(func(c *server.Config) { member = *c; alone(c) })
	n.Start()
	r.AwaitReady()
	put(t, r, n, "alone")
	n.Stop()

	n.Change(func(c *server.Config) { *c = member })
	wants(t, n.Refused(), "standalone", "clustered", "stockctl backup")

	n.Change(alone)
	n.Start()
	r.AwaitReady()
	has(t, r, n, "alone")
}

func TestDataOfARegion(t *testing.T) {
	r := clustertest.Start(t)
	n := r.Nodes()[0]
	put(t, r, n, "region")
	for _, n := range r.Nodes() {
		n.Stop()
	}
	var member server.Config
	n.Change(func(c *server.Config) { member = *c; alone(c) })
	wants(t, n.Refused(), "standalone", "clustered", "stockctl backup")

	n.Change(func(c *server.Config) { *c = member })
	for _, n := range r.Nodes() {
		n.Start()
	}
	r.AwaitReady()
	has(t, r, n, "region")
}

func put(t *testing.T, r *clustertest.Region, n *clustertest.Node, sku string) {
	t.Helper()
	if _, err := r.Dial(n).Adjust(t.Context(), sku, "", 7, client.Key(sku)); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, r *clustertest.Region, n *clustertest.Node, sku string) {
	t.Helper()
	items, err := r.Dial(n).Get(t.Context(), []string{sku})
	if err != nil || len(items) != 1 || items[0].OnHand != 7 {
		t.Errorf("%s: %v %v", sku, items, err)
	}
}

func wants(t *testing.T, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("the refusal does not speak of %q:\n%s", w, said)
		}
	}
}
