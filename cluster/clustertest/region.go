package clustertest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// RegionName is the name of a region under test that is not of a mesh.
const RegionName = "eu"

// Region is a region under test.
type Region struct {
	Name  string
	t     testing.TB
	setup setup
	dir   string
	nodes []*Node
	net   *network // nil without proxies
	keys  *Keys    // nil where it is not Secured
	http  *http.Client
	shops int
}

// Start starts a region and waits until every node is ready. It ends with the test.
func Start(t testing.TB, options ...Option) *Region {
	t.Helper()
	r := Build(t, options...)
	for _, n := range r.nodes {
		n.Start()
	}
	r.AwaitReady()
	return r
}

// Build is Start without starting the nodes.
func Build(t testing.TB, options ...Option) *Region {
	t.Helper()
	s := setup{region: RegionName, nodes: 3, shards: 1}
	for _, o := range options {
		o(&s)
	}
	return build(t, s, loopback.Addresses(t, portsEach*s.nodes))
}

// build prepares a region; each node takes portsEach of the addresses.
func build(t testing.TB, s setup, addrs []string) *Region {
	t.Helper()
	// Before the cleanup: so the directory is removed after the nodes have ended and the
	// engine's assertions in it have been read.
	r := &Region{Name: s.region, t: t, setup: s, dir: t.TempDir()}
	r.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(r.end)
	if s.tokens > 0 {
		r.keys = newKeys(t, filepath.Join(r.dir, "keys"), s.tokens)
		r.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: r.keys.trust()}
	}
	if r.setup.proxied {
		r.net = newNetwork()
	}
	for i := range r.setup.nodes {
		r.nodes = append(r.nodes, r.node(i, addrs))
	}
	return r
}

// portsEach is how many addresses a node takes. Their order is that of node, then of
// meshPart.join.
const (
	portsEach  = 6
	portGossip = 2
	portWAN    = 4
	portLink   = 5
)

// node prepares the i-th node.
func (r *Region) node(i int, addrs []string) *Node {
	r.t.Helper()
	own := addrs[portsEach*i : portsEach*(i+1)]
	c := server.Default()
	c.Name, c.Region = fmt.Sprintf("n%d", i+1), r.Name
	dir := filepath.Join(r.dir, c.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	c.Data = filepath.Join(dir, "data")
	c.Listen, c.Admin, c.Gossip, c.ClusterListen = own[0], own[1], own[2], own[3]
	c.Expect, c.Shards, c.Insecure = r.setup.nodes, r.setup.shards, true
	c.Heartbeat, c.Drain = heartbeat, drain
	for j := range r.setup.nodes {
		if j != i {
			c.Join = append(c.Join, addrs[portsEach*j+portGossip])
		}
	}
	if r.net != nil {
		var err error
		if c.AdvertiseCluster, err = r.net.lead(c.Name, c.ClusterListen); err != nil {
			r.t.Fatalf("proxy of %s: %v", c.Name, err)
		}
	}
	if r.setup.part != nil {
		r.setup.part.join(r, &c, own)
	}
	scheme := ""
	if r.keys != nil {
		r.keys.join(&c)
		scheme = "s"
	}
	r.parse(&c)
	n := &Node{
		Name: c.Name, Endpoint: "ws" + scheme + "://" + c.Listen, HTTP: "http" + scheme + "://" + c.Listen, Admin: "http://" + c.Admin,
		region: r, config: c,
	}
	if asserting {
		n.hits = filepath.Join(dir, "assertions")
	}
	return n
}

func (r *Region) parse(c *server.Config) {
	r.t.Helper()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(flags)
	if err := flags.Parse(r.setup.flags); err != nil {
		r.t.Fatalf("flags: %v", err)
	}
}

// end stops what was started, and shows what the nodes said where the test failed.
func (r *Region) end() {
	var buried sync.WaitGroup
	for _, n := range r.nodes {
		buried.Go(n.bury)
	}
	buried.Wait()
	if r.net != nil {
		r.net.close()
	}
	r.http.CloseIdleConnections()
	r.checkAssertions()
	r.keepLogs()
	for _, n := range r.nodes {
		for _, fault := range n.log.faults() {
			r.t.Errorf("%s had a data race or a panic:\n%s", n, fault)
		}
	}
	if !r.t.Failed() {
		return
	}
	for _, n := range r.nodes {
		r.t.Logf("the end of the log of %s:\n%s", n, n.log.tail(60))
	}
}

// logsEnv names a directory that the nodes' logs are kept in.
const logsEnv = "STOCKMESH_CLUSTERTEST_LOGS"

func (r *Region) keepLogs() {
	dir := os.Getenv(logsEnv)
	if dir == "" {
		return
	}
	for _, n := range r.nodes {
		name := filepath.Join(dir, strings.ReplaceAll(r.t.Name(), "/", "-")+"-"+r.Name+"-"+n.Name+".log")
		if err := os.WriteFile(name, []byte(n.Log()), 0o644); err != nil {
			r.t.Errorf("keep the log of %s: %v", n, err)
		}
	}
}

// Nodes returns all nodes, in order of their names.
func (r *Region) Nodes() []*Node { return r.nodes }

// Running returns the nodes that run and are not paused.
func (r *Region) Running() (list []*Node) {
	for _, n := range r.nodes {
		if n.Up() {
			list = append(list, n)
		}
	}
	return list
}

func (r *Region) byName(name string) *Node {
	for _, n := range r.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Owner returns the node that decides for a shard, waiting until the running nodes
// agree on one.
func (r *Region) Owner(shard int) *Node {
	r.t.Helper()
	return r.AwaitOwner(shard)
}

// Followers returns the running nodes that don't decide for the shard.
func (r *Region) Followers(shard int) (list []*Node) {
	r.t.Helper()
	owner := r.Owner(shard)
	for _, n := range r.Running() {
		if n != owner {
			list = append(list, n)
		}
	}
	return list
}

// OwnerChanges is how often a node became the owner of a shard since the start.
func (r *Region) OwnerChanges() (sum int) {
	for _, n := range r.nodes {
		sum += n.Terms()
	}
	return sum
}

// Dial connects a client that knows the given nodes, all where none are given. The
// first one is tried first. Retryable errors are the caller's (FailFast).
func (r *Region) Dial(nodes ...*Node) *client.Client {
	r.t.Helper()
	c, err := r.dial(nodes, true)
	if err != nil {
		r.t.Fatalf("dial: %v", err)
	}
	r.t.Cleanup(func() { _ = c.Close() }) // closing twice is fine
	return c
}

func (r *Region) dial(nodes []*Node, failFast bool) (*client.Client, error) {
	if len(nodes) == 0 {
		nodes = r.nodes
	}
	cfg := client.Config{FailFast: failFast, Wait: true, DialTimeout: Slow * time.Second, BackoffMax: 200 * time.Millisecond}
	for _, n := range nodes {
		cfg.Endpoints = append(cfg.Endpoints, n.Endpoint)
	}
	if r.keys != nil {
		cfg.TLS, cfg.Token = r.keys.trust(), r.keys.source("clients")
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyWait)
	defer cancel()
	return client.Dial(ctx, cfg)
}

// Cut swallows everything that the two nodes send each other by their routes, without
// closing anything, until Heal.
func (r *Region) Cut(a, b *Node) {
	r.t.Helper()
	r.proxies().cut(a.Name, b.Name)
}

// Isolate cuts a node from all others.
func (r *Region) Isolate(n *Node) {
	r.t.Helper()
	for _, other := range r.nodes {
		if other != n {
			r.Cut(n, other)
		}
	}
}

// Heal ends all cuts, and waits until all running nodes are connected again: before
// that the next fault would come on top of this one.
func (r *Region) Heal() {
	r.t.Helper()
	r.proxies().heal()
	r.await("routes", readyWait, func(context.Context) error {
		have := r.net.pairs()
		for i, a := range r.Running() {
			for _, b := range r.Running()[:i] {
				if have[pairOf(a.Name, b.Name)] == 0 {
					return fmt.Errorf("%s and %s are not connected", a, b)
				}
			}
		}
		return nil
	})
}

func (r *Region) proxies() *network {
	r.t.Helper()
	if r.net == nil {
		r.t.Fatal("the region was started without WithProxies")
	}
	return r.net
}
