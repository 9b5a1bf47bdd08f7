package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/gossip"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// mesh is what a node knows of the other regions, and how it speaks to them.
type mesh struct {
	c      *Cluster
	config *Config
	logger *slog.Logger
	gossip *gossip.Gossip
	known  map[string][]string // regions that this node had met when it started
	news   chan struct{}       // holds a token when gossip may know something new
	begun  atomic.Bool         // peers may be taken in
	unmet  bool                // a region was heard of, and may not be met before the bucket says that; run's

	rights *rightsMetrics
	stops  []func() // of subscriptions
	tasks  inquiries

	sent *lru.Cache[string, string] // keys of writes that went to another region

	dropMu  sync.Mutex
	dropped map[string]bool // removed regions of which nothing is left here

	sorted atomic.Pointer[[]string] // names of the peers

	mu       sync.Mutex
	receiver *relay.Receiver // of other regions' commands
	peers    map[string]*peer
	removed  map[string]bool
	watchers map[*markWatcher]struct{}
}

// markWatcher is told how far the picture of other regions reaches.
type markWatcher struct {
	fn func(component string, n uint64)
}

// Times of a mesh.
const (
	meshBeatEvery = 200 * time.Millisecond // between two signs of life of an owner
	reachableFor  = time.Second            // after the last one
	cutOffAfter   = 2 * time.Second
	meshTellEvery = 500 * time.Millisecond // between two looks whether there is news to tell
	removedEvery  = 3 * time.Second        // between two looks who was removed
	peersMax      = 15                     // other regions of a mesh

	viewWait = 10 * time.Second // for other regions' rows when a node starts
)

// Subjects of what regions tell each other.
const (
	subjectBeat   = "beat"
	subjectRights = "rights"
)

func newMesh(c *Cluster) *mesh {
	m := &mesh{
		news: make(chan struct{}, 1),
		c:    c, config: &c.config, logger: c.logger.With("part", "mesh"),
		receiver: relay.NewReceiver(), dropped: make(map[string]bool),
		peers: make(map[string]*peer), removed: make(map[string]bool), watchers: make(map[*markWatcher]struct{}),
	}
	m.sent, _ = lru.New[string, string](sentMax) // fails for a size below 1 only
	m.sort()
	return m
}

// sentMax is how many keys of writes that went to another region are remembered, so that
// their outcome is asked for there.
const sentMax = 1 << 14

// busMesh is how the engine links to other regions.
func (c *Cluster) busMesh() *bus.Mesh {
	m := c.config.Mesh
	if m == nil {
		return nil
	}
	return &bus.Mesh{Region: c.config.Region, Listen: m.Link, TLS: m.TLS, Secrets: m.Secrets}
}

// open begins to listen to other regions and to find them. What was known of them
// before is shown first: a node that starts again must not forget what it had told.
func (m *mesh) open(ctx context.Context) error {
	for subject, fn := range map[string]func(from, subject string, data []byte){
		subjectBeat:                    m.heardBeat,
		subjectRights:                  m.heardRights,
		subjectNews:                    m.heardNews,
		subjectRevoked:                 m.heardRevoked,
		subjectRevokedSums:             m.heardRevokedSums,
		"calls." + m.config.Node:       m.attend,
		"answers." + m.config.Node:     m.answered,
		"inquiries." + m.config.Node:   m.inquired,
		"testimonies." + m.config.Node: m.testified,
	} {
		stop, err := m.c.bus.Receive(subject, fn)
		if err != nil {
			return fmt.Errorf("listen to other regions: %w", err)
		}
		m.stops = append(m.stops, stop)
	}
	if err := m.joinWAN(ctx); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(m.c.dir.Peers))
	if err := m.c.patiently(ctx, func() error { return m.lookRemoved(ctx, names) }); err != nil {
		return err
	}
	m.begun.Store(true)
	m.known = m.c.dir.Peers
	for region, addrs := range m.known {
		m.meet(region, addrs)
	}
	m.awaitViews(ctx)
	return nil
}

// meta is what this node tells other regions' nodes about itself.
func (m *mesh) meta() gossip.Meta {
	cfg, c := m.config.Mesh, m.c
	meta := gossip.Meta{
		Region: m.config.Region, Route: m.link(), State: c.State(), Owns: c.owns(), Shards: m.config.Shards,
		Founded: c.dir.Incarnation, Endpoint: *c.endpoint.Load(), Connections: (*c.connections.Load())(),
	}
	for _, region := range slices.Sorted(maps.Keys(cfg.AdvertiseLinkTo)) {
		if meta.Links != "" {
			meta.Links += ","
		}
		meta.Links += region + "=" + cfg.AdvertiseLinkTo[region]
	}
	return meta
}

// link is the address under which other regions reach this node's links.
func (m *mesh) link() string {
	cfg := m.config.Mesh
	if cfg.AdvertiseLink != "" {
		return cfg.AdvertiseLink
	}
	_, port, _ := net.SplitHostPort(cfg.Link)
	host, err := firstHost(cfg.Link, cfg.AdvertiseWAN, cfg.WANGossip)
	if err != nil {
		return cfg.Link
	}
	return net.JoinHostPort(host, port)
}

// run keeps other regions told of this node, and this node linked to them, until ctx
// ends.
func (m *mesh) run(ctx context.Context) {
	tell, look := time.NewTicker(meshTellEvery), time.NewTicker(removedEvery)
	defer tell.Stop()
	defer look.Stop()
	m.discover(ctx)
	for {
		select {
		case <-tell.C:
			m.tell()
			if m.unmet {
				m.discover(ctx)
			}
		case <-m.news:
			m.discover(ctx)
		case <-look.C:
			if err := m.lookRemoved(ctx, m.names()); err != nil && ctx.Err() == nil {
				m.logger.Debug("not known which regions were removed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// runBeats gives signs of life until ctx ends; nothing else may keep them waiting.
func (m *mesh) runBeats(ctx context.Context) {
	beat := time.NewTicker(meshBeatEvery)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			m.beat()
		case <-ctx.Done():
			return
		}
	}
}

func (m *mesh) tell() {
	if err := m.gossip.Update(m.meta()); err != nil {
		m.logger.Error("other regions can't be told of this node", "error", err)
	}
	if m.c.region == nil {
		return
	}
	var addrs []string
	for _, other := range m.c.region.others() {
		if other.WAN != "" {
			addrs = append(addrs, other.WAN)
		}
	}
	m.gossip.Join(addrs)
}

// discover takes in what gossip tells of other regions.
func (m *mesh) discover(ctx context.Context) {
	links := make(map[string][]string)
	var wan []string
	for _, member := range m.gossip.Members() {
		if member.Region == m.config.Region || member.Region == "" {
			continue
		}
		// One that failed may come back: a list that changes costs the links that stand.
		if addr := member.LinkFor(m.config.Region); addr != "" {
			links[member.Region] = append(links[member.Region], addr)
		}
		if member.Alive {
			wan = append(wan, member.Addr)
		}
	}
	m.unmet = false
	for region, addrs := range links {
		slices.Sort(addrs)
		if m.mayMeet(ctx, region) {
			m.meet(region, addrs)
		}
	}
	if err := m.c.dir.rememberPeers(m.addresses(), wan); err != nil {
		m.logger.Error("other regions' addresses are not remembered", "error", err)
	}
}

// meet links to a region, or learns where it is now.
func (m *mesh) meet(region string, addrs []string) {
	if protocol.CheckRegion("region", region) != nil || !m.begun.Load() {
		return
	}
	m.mu.Lock()
	if m.removed[region] {
		m.mu.Unlock()
		return
	}
	p := m.peers[region]
	if p == nil && len(m.peers) >= peersMax {
		m.mu.Unlock()
		m.logger.Error("more regions than a mesh can have", "region", region, "max", peersMax+1)
		return
	}
	if p == nil {
		p = newPeer(m, region)
		_, p.known = m.known[region]
		m.peers[region] = p
		m.rights.begin(region)
		m.sort()
		m.c.running.Go(func() { p.run(p.ctx) })
		m.logger.Info("another region was found", "region", region, "links", strings.Join(addrs, ","))
	}
	p.addrs = addrs
	m.mu.Unlock()
	// The region whose name is less dials: two links between the same two would be a loop.
	if err := m.c.bus.Link(bus.Peer{Region: region, Addrs: addrs, Dial: m.config.Region < region}); err != nil {
		m.logger.Error("no link to another region", "region", region, "error", err)
	}
}

// sort keeps the names at hand for the owner; mu is held.
func (m *mesh) sort() {
	m.sorted.Store(new(slices.Sorted(maps.Keys(m.peers))))
}

func (m *mesh) addresses() map[string][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := make(map[string][]string, len(m.peers))
	for name, p := range m.peers {
		addrs[name] = p.addrs
	}
	return addrs
}

// awaitViews waits until the rows that this region holds of others are shown.
func (m *mesh) awaitViews(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	for _, p := range m.all() {
		select {
		case <-p.shown:
		case <-ctx.Done():
			m.logger.Warn("this node serves without other regions' rows for now", "region", p.name)
		}
	}
}

func (m *mesh) peer(region string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[region]
}

// all lists the peers in order of their names.
func (m *mesh) all() []*peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Collect(maps.Values(m.peers))
	slices.SortFunc(list, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	return list
}

func (m *mesh) names() (list []string) {
	for _, p := range m.all() {
		list = append(list, p.name)
	}
	return list
}

// regions implements exchange.
func (m *mesh) regions() []string { return *m.sorted.Load() }

// beatMessage is an owner's sign of life to other regions.
type beatMessage struct {
	Shard int      `json:"shard"`
	Seq   uint64   `json:"seq"`
	Node  string   `json:"node"`
	Hears []string `json:"hears,omitzero"` // regions that it hears of
}

func (m *mesh) beat() {
	peers := m.all()
	var hears []string
	for _, p := range peers {
		if p.silence() < reachableFor {
			hears = append(hears, p.name)
		}
	}
	for _, n := range m.c.owns() {
		data := protocol.AppendJSON(nil, beatMessage{Shard: n, Seq: m.c.shards[n].replica.seq(), Node: m.config.Node, Hears: hears})
		for _, p := range peers {
			p.send(subjectBeat, data)
		}
	}
}

// tellAll sends a message about rows to every other region.
func (m *mesh) tellAll(data []byte) {
	for _, p := range m.all() {
		p.send(subjectNews, data)
	}
}

func (m *mesh) heardBeat(from, _ string, data []byte) {
	var b beatMessage
	p := m.peer(from)
	if p == nil {
		return
	}
	if err := protocol.UnmarshalJSON(data, &b); err != nil {
		m.logger.Error("a sign of life of another region can't be read", "region", from, "error", err)
		return
	}
	p.heardBeat(&b)
}

// reachable implements exchange.
func (m *mesh) reachable(region string) bool {
	p := m.peer(region)
	return p != nil && p.silence() < reachableFor && p.hearsThis()
}

func (m *mesh) anyReachable() bool { return slices.ContainsFunc(m.regions(), m.reachable) }

// reached is how far a log of another region goes, as far as is known.
func (m *mesh) reached(component string) uint64 {
	region, _, _ := strings.Cut(component, ".")
	if p := m.peer(region); p != nil {
		return p.reached(component)
	}
	return 0
}

// deal implements exchange.
func (m *mesh) deal(region string, d *deal) {
	if p := m.peer(region); p != nil {
		m.rights.deal(region, d)
		p.send(subjectRights, protocol.AppendJSON(nil, d))
	}
}

// heardRights hands what another region says about rights to the shards that this node
// decides for. Every node of the region hears it; one of them decides.
func (m *mesh) heardRights(from, _ string, data []byte) {
	p := m.peer(from)
	if p == nil {
		return
	}
	var d deal
	if err := protocol.UnmarshalJSON(data, &d); err != nil {
		m.logger.Error("a message about rights can't be read", "region", from, "error", err)
		return
	}
	p.heard.Store(m.config.elapsed())
	p.showStored(d.Rows)
	deals := make(map[int]*deal)
	of := func(sku string) *deal {
		n := place(sku, len(m.c.shards))
		if deals[n] == nil {
			deals[n] = new(deal)
		}
		return deals[n]
	}
	for _, a := range d.Asks {
		part := of(a.SKU)
		part.Asks = append(part.Asks, a)
	}
	for _, a := range d.Answers {
		part := of(a.SKU)
		part.Answers = append(part.Answers, a)
	}
	for n, part := range deals {
		m.c.shards[n].hear(from, part)
	}
}

// hear takes another region's message about rights, where this node decides.
func (s *shard) hear(from string, d *deal) {
	if owner, _ := s.desk.ownerKnown(); owner != s.config.Node {
		return
	}
	if s.owner.trade.tell(from, *d) {
		s.queue.signal()
	}
}

// learn takes other regions' rows.
func (s *shard) learn(region string, forget bool, rows []ledger.PeerRow) {
	owed := s.replica.learn(region, forget, rows, func(err error) {
		s.logger.Error("a row of another region can't be used", "error", err)
	})
	if owner, _ := s.desk.ownerKnown(); owed && owner == s.config.Node {
		s.queue.signal()
	}
}

// watch calls fn when rows of other regions were shown up to a place of their log.
func (m *mesh) watch(fn func(component string, n uint64)) (stop func()) {
	w := &markWatcher{fn}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[w] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, w)
	}
}

func (m *mesh) marked(component string, n uint64) {
	m.mu.Lock()
	watchers := slices.Collect(maps.Keys(m.watchers))
	m.mu.Unlock()
	for _, w := range watchers {
		w.fn(component, n)
	}
}

// cursor adds to v how far the picture of other regions reaches.
func (m *mesh) cursor(v protocol.Vector) protocol.Vector {
	for _, p := range m.all() {
		for _, c := range p.marks() {
			v = v.With(c.Region, c.N)
		}
	}
	return v
}

// close ends what open began. The peers end with the node.
func (m *mesh) close() error {
	for _, stop := range m.stops {
		stop()
	}
	if m.gossip == nil {
		return nil
	}
	return m.gossip.Close()
}

// look makes the mesh look at what gossip knows.
func (m *mesh) look() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}
