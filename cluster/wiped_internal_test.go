package cluster

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/cluster/gossip"
)

// A node that lost its data is refused under its name, however often it is started: the
// region would take it for the one that it was, and it could outvote those who remember.
func TestWipedNodeStaysOut(t *testing.T) {
	t.Parallel()
	addrs := loopback.Addresses(t, 4)
	for i, name := range []string{"eu-1", "eu-2"} {
		m, err := gossip.Open(gossip.Config{
			Name: name, Listen: addrs[i], Join: addrs[:i],
			Meta: gossip.Meta{Region: "eu", Route: addrs[3], State: "serving", Shards: 1, Founded: "then", Peers: "eu-1,eu-2,eu-3"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
	}
	wiped := Config{
		Dir: t.TempDir(), Region: "eu", Node: "eu-3", KeyWindow: time.Hour,
		Members: &Members{Expect: 3, Gossip: addrs[2], Join: addrs[:2], Cluster: addrs[3]},
	}
	for _, start := range []string{"first", "second", "third"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // one that is let in waits for a quorum
		c, err := Open(ctx, wiped)
		cancel()
		if err == nil {
			c.Close(t.Context())
			t.Fatalf("%s start: it is let in", start)
		}
		if !strings.Contains(err.Error(), "held data") {
			t.Fatalf("%s start: got %v", start, err)
		}
	}
}

// After all nodes were down, those who remember say who held data before the engine does.
func TestHoldersAreToldFromTheStart(t *testing.T) {
	addrs := loopback.Addresses(t, 2)
	cfg := Config{
		Dir: t.TempDir(), Region: "eu", Node: "eu-1", Logger: slog.New(slog.DiscardHandler),
		Members: &Members{Expect: 3, Gossip: addrs[0], Cluster: addrs[1]},
	}
	dir, err := openDir(cfg.Dir, identity{Format: dirFormat, Mode: modeClustered, Region: "eu", Node: "eu-1", Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	dir.Complete = true
	if err := dir.rememberHolders("eu-1,eu-2,eu-3"); err != nil {
		t.Fatal(err)
	}
	dir.lock.Close()
	if dir, err = openDir(cfg.Dir, dir.identity); err != nil {
		t.Fatal(err)
	}
	defer dir.lock.Close()
	r, err := joinRegion(&cfg, dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.gossip.Close()
	if m := r.meta(nil); m.Peers != "eu-1,eu-2,eu-3" || m.Founded == "" {
		t.Errorf("told %+v", m)
	}
}
