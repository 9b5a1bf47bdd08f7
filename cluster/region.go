package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/gossip"
	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// region is what a node knows of the other nodes of its region, and tells them.
type region struct {
	config *Config
	gossip *gossip.Gossip
	logger *slog.Logger
	route  string // of this node, as told to the others

	phase       atomic.Pointer[string]
	opened      atomic.Bool
	endpoint    atomic.Pointer[string]
	connections atomic.Pointer[func() int]
	founded     atomic.Pointer[string]
	peers       atomic.Pointer[string]          // names of those who hold the region's data
	wan         atomic.Pointer[string]          // where this node is found by other regions
	formats     atomic.Pointer[map[string]byte] // of batches, that the others read
	news        chan struct{}                   // holds a token while something is to be told at once
}

// Times of joining.
const (
	seekWait  = 3 * time.Second        // for somebody to be heard of, where routes are remembered
	reportsAt = 500 * time.Millisecond // between two looks whether there is news to tell

	peersEvery    = 3 * time.Second // between two looks who holds the region's data
	peersWait     = 2 * time.Second
	peersBytesMax = 200 // what a node tells of itself has little room
)

// joinRegion starts the membership protocol.
func joinRegion(c *Config, dir *dataDir, restoring bool) (*region, error) {
	m := c.Members
	r := &region{config: c, logger: c.Logger, news: make(chan struct{}, 1)}
	none := func() int { return 0 }
	r.phase.Store(new("starting"))
	r.endpoint.Store(&m.Endpoint)
	r.connections.Store(&none)
	r.founded.Store(new(""))
	r.peers.Store(new(""))
	r.wan.Store(new(""))
	if dir.Complete || restoring {
		r.founded.Store(&dir.Incarnation) // nobody else may create this region's streams
		r.peers.Store(new(dir.Holders))   // until the engine knows it: a wiped node may start beside this one
	}
	host, err := hostToTell(m)
	if err != nil {
		return nil, err
	}
	r.route = m.AdvertiseCluster
	if r.route == "" {
		_, port, err := net.SplitHostPort(m.Cluster)
		if err != nil || port == "0" {
			return nil, fmt.Errorf("cluster address %q: want host:port with a fixed port", m.Cluster)
		}
		r.route = net.JoinHostPort(host, port)
	}
	r.gossip, err = gossip.Open(gossip.Config{
		Name: c.Node, Listen: m.Gossip, Advertise: m.AdvertiseGossip, Join: m.Join, KeyFile: m.GossipKey,
		Meta: r.meta(nil), Logger: c.Logger.With("part", "gossip"), Clock: c.Clock,
	})
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	return r, nil
}

// hostToTell is the host under which the others reach this node: that of the routes,
// or of the gossip, where one is named; else the first address of the machine.
func hostToTell(m *Members) (string, error) {
	return firstHost(m.Cluster, m.AdvertiseGossip, m.Gossip)
}

func firstHost(addrs ...string) (string, error) {
	for _, addr := range addrs {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			return host, nil
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find an address to tell the others: %w", err)
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no address to tell the others: set the advertised ones")
}

func (r *region) meta(owns []int) gossip.Meta {
	return gossip.Meta{
		Region: r.config.Region, Route: r.route, Endpoint: *r.endpoint.Load(), State: *r.phase.Load(),
		Connections: (*r.connections.Load())(), Owns: owns, Shards: r.config.Shards, Founded: *r.founded.Load(),
		Peers: *r.peers.Load(), WAN: *r.wan.Load(), Batches: relay.BatchFormat,
	}
}

// checkName refuses an empty directory under a name that the region knows. The engine
// would take it for the server that it was, with all that it had acknowledged forgotten:
// it could then outvote those who remember.
func (r *region) checkName(dir *dataDir) error {
	if dir.Joined {
		return nil
	}
	for _, m := range r.others() {
		if m.Founded != "" && slices.Contains(strings.Split(m.Peers, ","), r.config.Node) {
			return fmt.Errorf("region %s knows a node %q that held data, and data directory %s is new: start with another --name and remove the old one (`stockctl node remove`), or bring its directory back", r.config.Region, r.config.Node, dir.path)
		}
	}
	return nil
}

// learnPeers asks the engine who holds the region's data.
func (c *Cluster) learnPeers(ctx context.Context) {
	for {
		within, cancel := context.WithTimeout(ctx, peersWait)
		peers, err := c.bus.Peers(within)
		cancel()
		var names []string
		for _, p := range peers {
			if p.Name != "" {
				names = append(names, p.Name)
			}
		}
		if told := strings.Join(names, ","); err == nil && len(told) <= peersBytesMax {
			c.region.peers.Store(&told)
			if len(names) == len(peers) && len(names) > 0 {
				if err := c.dir.rememberHolders(told); err != nil {
					c.logger.Warn("can't keep who holds the region's data", "error", err)
				}
			}
		}
		if pause(ctx, peersEvery) != nil {
			return
		}
	}
}

// seek waits for the others: for all that are expected where the node is new, for
// anybody where it comes back. It returns their routes.
func (r *region) seek(ctx context.Context, dir *dataDir) ([]string, error) {
	want := r.config.Members.Expect
	if dir.Complete {
		want = 2
		if len(dir.Routes) > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, seekWait)
			defer cancel()
		}
	}
	_, err := r.gossip.Await(ctx, want, func(have int) {
		r.logger.Info("waiting for the other nodes", "have", have, "want", want)
	})
	routes := r.routes()
	if err != nil && (!dir.Complete || len(dir.Routes) == 0) {
		return nil, fmt.Errorf("wait for %d nodes of region %s: %w", want, r.config.Region, err)
	}
	for _, route := range dir.Routes {
		if !slices.Contains(routes, route) {
			routes = append(routes, route)
		}
	}
	return routes, nil
}

// others returns the living nodes of the region except this one.
func (r *region) others() (list []gossip.Member) {
	for _, m := range r.gossip.Members() {
		if m.Name != r.config.Node && m.Region == r.config.Region && m.Alive {
			list = append(list, m)
		}
	}
	return list
}

func (r *region) routes() (routes []string) {
	for _, m := range r.others() {
		routes = append(routes, m.Route)
	}
	return routes
}

// mayFound tells whether this node may create the region's streams: nobody may hold
// any yet. A node that is new to a region finds them.
func (r *region) mayFound(dir *dataDir) bool {
	if dir.Complete {
		return false
	}
	for _, m := range r.others() {
		if m.Founded != "" {
			return false
		}
	}
	return true
}

// enter says how far the node is; from serving on run looks for itself.
func (r *region) enter(phase string) {
	r.phase.Store(&phase)
	r.opened.Store(r.opened.Load() || phase == "serving")
	r.hurry()
	r.config.OnPhase(phase)
}

// hurry has the others told at once: one that is drained now should know where its
// clients may go.
func (r *region) hurry() {
	select {
	case r.news <- struct{}{}:
	default: // it will be
	}
}

// run tells the others what changes, and told the node's state, until ctx ends.
func (r *region) run(ctx context.Context, state func() string, told func(state string), owns func() []int, dir *dataDir) {
	tick := time.NewTicker(reportsAt)
	defer tick.Stop()
	for {
		if r.opened.Load() {
			now := state()
			r.phase.Store(&now)
			told(now)
		}
		if err := r.gossip.Update(r.meta(owns())); err != nil {
			r.logger.Error("the others can't be told of this node", "error", err)
		}
		r.learnFormats()
		if err := dir.remember(r.routes()); err != nil {
			r.logger.Error("the other nodes' routes are not remembered", "error", err)
		}
		select {
		case <-tick.C:
		case <-r.news:
		case <-ctx.Done():
			return
		}
	}
}

// successor is the node that should follow this one as an owner: serving, and with
// the fewest shards.
func (r *region) successor(int) string {
	best, fewest := "", 1<<30
	for _, m := range r.others() {
		if m.State == "serving" && len(m.Owns) < fewest {
			best, fewest = m.Name, len(m.Owns)
		}
	}
	return best
}

// Times of spreading the shards over the nodes.
const (
	balanceEvery = 5 * time.Second
	balanceWait  = 2 * time.Second // for another node to take over
)

// tooMany tells whether this node owns so many shards more than another one that serves
// that one of them should move.
func (r *region) tooMany(owned int) bool {
	for _, m := range r.others() {
		if m.State == "serving" && owned-len(m.Owns) >= 2 {
			return true
		}
	}
	return false
}

// balance keeps the owners spread over the nodes: elections alone pile them up on
// whoever was up first.
func (c *Cluster) balance(ctx context.Context) {
	for pause(ctx, balanceEvery) == nil {
		owned := c.owns()
		if c.draining.Load() || len(owned) == 0 || !c.region.tooMany(len(owned)) {
			continue
		}
		s := c.shards[owned[len(owned)-1]]
		c.logger.Info("handing a shard to a node with fewer", "shard", s.n)
		s.resign()
		_ = pause(ctx, balanceWait) // the loop's condition sees its end
		if !c.draining.Load() {
			s.handOver.Store(false)
		}
	}
}

// endpoints are where clients of this node may go instead.
func (r *region) endpoints() []string { return endpointsOf(r.others()) }

// endpointsOf lists the nodes that serve. Where none is known to, those that may by the
// time the clients arrive: what a node says of itself takes a moment to get around.
func endpointsOf(others []gossip.Member) []string {
	serving, soon := []string{}, []string{}
	for _, m := range others {
		switch {
		case m.Endpoint == "" || m.State == "draining" || m.State == "starting": // the last don't listen yet
		case m.State == "serving":
			serving = append(serving, m.Endpoint)
		default:
			soon = append(soon, m.Endpoint)
		}
	}
	if len(serving) == 0 {
		return soon
	}
	return serving
}

// nodes describes the region's nodes.
func (r *region) nodes() (list []protocol.MeshNode) {
	for _, m := range r.gossip.Members() {
		if m.Region != r.config.Region {
			continue
		}
		list = append(list, meshNode(m))
	}
	return list
}

// meshNode describes a node by what it told of itself. Between regions its name has the
// region before it.
func meshNode(m gossip.Member) protocol.MeshNode {
	n := protocol.MeshNode{
		Name: strings.TrimPrefix(m.Name, m.Region+"."), Endpoint: m.Endpoint, State: m.State, OwnerOf: m.Owns, Connections: m.Connections,
	}
	if n.OwnerOf == nil {
		n.OwnerOf = []int{}
	}
	if !m.Alive {
		n.State, n.Connections, n.OwnerOf = "down", 0, []int{}
	}
	return n
}

// busConfig is how the engine of this node runs.
func (c *Cluster) busConfig(limit int64, routes []string) bus.Config {
	b := bus.Config{
		Dir: filepath.Join(c.dir.path, "nats"), Name: c.config.Node,
		StoreBytesMax: limit, Logger: c.logger.With("part", "bus"),
		Fresh: !c.dir.Complete && c.restore == nil,
	}
	if m := c.config.Members; m != nil {
		b.Region = &bus.Region{
			Name: c.config.Region, Listen: m.Cluster, Advertise: c.region.route, Routes: routes,
			Replicas: m.Expect, TLS: m.TLS, Timers: m.Raft,
		}
	}
	b.Mesh = c.busMesh()
	return b
}
