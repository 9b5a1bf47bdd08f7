package clustertest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// Mesh is several regions under test. What breaks between them is named by them:
// m.Cut("eu", "us").
type Mesh struct {
	t       testing.TB
	setup   meshSetup
	regions []*Region
	links   *linkNet // nil without proxies
	wires   *wires   // nil without namespaces
	shops   int
}

// StartMesh starts regions and waits until every node is ready and hears all regions. All
// ends with the test.
func StartMesh(t testing.TB, options ...MeshOption) *Mesh {
	t.Helper()
	m := BuildMesh(t, options...)
	for _, n := range m.Nodes() {
		n.Start()
	}
	for _, r := range m.regions {
		r.AwaitReady()
	}
	m.AwaitLinked()
	return m
}

// BuildMesh is StartMesh without starting the nodes.
func BuildMesh(t testing.TB, options ...MeshOption) *Mesh {
	t.Helper()
	m := &Mesh{t: t, setup: meshSetup{regions: []string{"eu", "us", "asia"}, nodes: 1, shards: 1}}
	for _, o := range options {
		o(&m.setup)
	}
	if m.setup.proxied {
		m.links = newLinkNet()
		t.Cleanup(m.links.close)
	}
	each := portsEach * m.setup.nodes
	addrs := m.addresses(each)
	for i, name := range m.setup.regions {
		part := &meshPart{mesh: m}
		for j := range m.setup.regions {
			if j != i {
				part.seeds = append(part.seeds, seedsOf(addrs[each*j:each*(j+1)])...)
			}
		}
		s := setup{region: name, nodes: m.setup.nodes, shards: m.setup.shards, flags: m.setup.flags, part: part}
		m.regions = append(m.regions, build(t, s, addrs[each*i:each*(i+1)]))
	}
	return m
}

// addresses are those of all nodes, so many for each region.
func (m *Mesh) addresses(each int) []string {
	m.t.Helper()
	if !m.setup.spaces {
		return loopback.Addresses(m.t, each*len(m.setup.regions))
	}
	m.wires = newWires(m.t, m.setup.regions)
	var list []string
	for i := range m.setup.regions {
		for j := range each {
			list = append(list, m.wires.address(i, j))
		}
	}
	return list
}

// seedsOf are the addresses at which a region's nodes can be joined.
func seedsOf(addrs []string) (seeds []string) {
	for i := portWAN; i < len(addrs); i += portsEach {
		seeds = append(seeds, addrs[i])
	}
	return seeds
}

// meshPart is what makes a region one of a mesh.
type meshPart struct {
	mesh  *Mesh
	seeds []string // where the nodes of the other regions can be joined
	space []string // the command that runs its nodes in a namespace of their own
}

// prefix is the command that a node's process is started by, if any.
func (p *meshPart) prefix() []string {
	if p == nil {
		return nil
	}
	return p.space
}

// join links a node's configuration to the other regions.
func (p *meshPart) join(r *Region, c *server.Config, own []string) {
	r.t.Helper()
	c.Mesh = true
	c.WANGossip, c.LinkListen, c.JoinRegion = own[portWAN], own[portLink], p.seeds
	if p.mesh.wires != nil {
		p.space = p.mesh.wires.enter(r.Name)
	}
	if p.mesh.links == nil {
		return
	}
	host, _, err := net.SplitHostPort(c.LinkListen)
	if err != nil {
		r.t.Fatalf("link address of %s: %v", c.Name, err)
	}
	var told []string
	for _, other := range p.mesh.setup.regions {
		if other == r.Name {
			continue
		}
		addr, err := p.mesh.links.lead(host, way{other, r.Name}, c.LinkListen)
		if err != nil {
			r.t.Fatalf("proxy of %s for %s: %v", c.Name, other, err)
		}
		told = append(told, other+"="+addr)
	}
	c.AdvertiseLink = strings.Join(told, ",")
}

// Region returns a region by its name.
func (m *Mesh) Region(name string) *Region {
	m.t.Helper()
	for _, r := range m.regions {
		if r.Name == name {
			return r
		}
	}
	m.t.Fatalf("no region %q in %q", name, m.setup.regions)
	return nil
}

// Regions returns all regions in the order they were named.
func (m *Mesh) Regions() []*Region { return m.regions }

// Others returns all regions but one.
func (m *Mesh) Others(name string) (list []*Region) {
	for _, r := range m.regions {
		if r.Name != name {
			list = append(list, r)
		}
	}
	return list
}

// Nodes returns the nodes of all regions.
func (m *Mesh) Nodes() (list []*Node) {
	for _, r := range m.regions {
		list = append(list, r.nodes...)
	}
	return list
}

// Running returns the nodes of all regions that run and are not paused.
func (m *Mesh) Running() (list []*Node) {
	for _, r := range m.regions {
		list = append(list, r.Running()...)
	}
	return list
}

// KillRegion kills every running node of a region at once.
func (m *Mesh) KillRegion(name string) {
	m.t.Helper()
	r := m.Region(name)
	var killed sync.WaitGroup
	errs := make([]error, len(r.nodes))
	for i, n := range r.nodes {
		if b := n.take(); b != nil {
			killed.Go(func() { errs[i] = b.kill() })
		}
	}
	killed.Wait()
	for i, err := range errs {
		if err != nil {
			m.t.Fatalf("kill %s: %v", r.nodes[i], err)
		}
	}
}

// StartRegion starts every node of a region that is down, and waits until it is ready. It
// does not wait for the other regions.
func (m *Mesh) StartRegion(name string) {
	m.t.Helper()
	r := m.Region(name)
	for _, n := range r.nodes {
		if n.running() == nil {
			n.Start()
		}
	}
	r.AwaitReady()
}

// await is Region.await for the nodes of all regions.
func (m *Mesh) await(what string, limit time.Duration, look func(ctx context.Context) error) {
	m.t.Helper()
	await(m.t, m.Nodes(), what, limit, look)
}

// Cut swallows everything that two regions send each other, without closing anything,
// until Heal. Membership is not led through the proxies: it goes on, and may only
// suggest addresses.
func (m *Mesh) Cut(a, b string) {
	m.t.Helper()
	m.CutOneWay(a, b)
	m.CutOneWay(b, a)
}

// CutOneWay swallows what one region sends to another.
func (m *Mesh) CutOneWay(from, to string) {
	m.t.Helper()
	m.proxies(from, to).cut(way{from, to})
}

// Isolate cuts a region from all others.
func (m *Mesh) Isolate(name string) {
	m.t.Helper()
	if m.wires != nil {
		m.wires.unplug(name)
		return
	}
	for _, other := range m.Others(name) {
		m.Cut(name, other.Name)
	}
}

// CutAll cuts every region from every other.
func (m *Mesh) CutAll() {
	m.t.Helper()
	for _, r := range m.regions {
		m.Isolate(r.Name)
	}
}

// Sever closes the links of two regions and refuses new ones until Heal.
func (m *Mesh) Sever(a, b string) {
	m.t.Helper()
	m.proxies(a, b).sever(way{a, b})
}

// Slow delays what two regions send each other, in each direction, until Heal.
func (m *Mesh) Slow(a, b string, delay time.Duration) {
	m.t.Helper()
	m.proxies(a, b).slow(way{a, b}, delay)
}

// Flap cuts two regions for a period, lets them speak for one, and so on until Heal.
func (m *Mesh) Flap(a, b string, period time.Duration) {
	m.t.Helper()
	m.proxies(a, b).flap(way{a, b}, period)
}

// Heal ends all that was done to the links. It waits for nothing.
func (m *Mesh) Heal() {
	m.t.Helper()
	if m.wires != nil {
		m.wires.plug()
		return
	}
	m.proxies().heal()
}

// LinkBytes is what one region has sent to another through the proxies.
func (m *Mesh) LinkBytes(from, to string) int64 {
	m.t.Helper()
	return m.proxies(from, to).bytes(way{from, to})
}

func (m *Mesh) proxies(regions ...string) *linkNet {
	m.t.Helper()
	if m.links == nil {
		m.t.Fatal("the mesh was started without MeshProxies")
	}
	for _, name := range regions {
		m.Region(name) // a wrong name would break nothing
	}
	return m.links
}

// AwaitLinked waits until every running node hears every region that runs.
func (m *Mesh) AwaitLinked() {
	m.t.Helper()
	m.await("links", readyWait, m.Linked)
}

// Linked says which running node does not hear a region that runs, if any.
func (m *Mesh) Linked(ctx context.Context) error {
	for _, n := range m.Running() {
		if err := m.hearsAll(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mesh) hearsAll(ctx context.Context, n *Node) error {
	states, err := n.states(ctx)
	if err != nil {
		return err
	}
	for _, r := range m.regions {
		if state := states[r.Name]; len(r.Running()) > 0 && state != servingState {
			return fmt.Errorf("%s says that %s is %q", n, r.Name, state)
		}
	}
	return nil
}

// States of regions, as GET /v1/mesh tells them.
const (
	servingState = "serving"
	cutOffState  = "cut_off"
)

// states is what a node says of each region.
func (n *Node) states(ctx context.Context) (map[string]string, error) {
	var mesh protocol.Mesh
	if err := n.region.fetch(ctx, n.HTTP+"/v1/mesh", &mesh); err != nil {
		return nil, err
	}
	states := make(map[string]string)
	for _, r := range mesh.Regions {
		states[r.Name] = r.State
	}
	return states, nil
}

// AwaitCutOff waits until the nodes of a region say that another one is cut off.
func (m *Mesh) AwaitCutOff(at, other string) {
	m.t.Helper()
	m.await(other+" cut off from "+at, readyWait, func(ctx context.Context) error {
		for _, n := range m.Region(at).Running() {
			states, err := n.states(ctx)
			if err != nil {
				return err
			}
			if states[other] != cutOffState {
				return fmt.Errorf("%s says that %s is %q", n, other, states[other])
			}
		}
		return nil
	})
}
