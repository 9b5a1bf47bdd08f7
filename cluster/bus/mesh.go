package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// The server tries again after this and up to as much more at random.
	linkRedial = 500 * time.Millisecond
	// A link whose other end swallows bytes is closed when the third of these finds
	// two unanswered. It also goes for the in-process connections, which answer.
	linkPing     = 3 * time.Second
	linkPingsOut = 2
	// For the handshake, the first word of the other side, and the log-in.
	linkWait = 5 * time.Second
	// A link without any traffic, though both sides say twice a second that they are
	// there, is cut and dialled again: the last resort, should the server have
	// forgotten it.
	linkSilence = 15 * time.Second
	// How often links are looked after, and a sign of life is sent over them.
	linkWatch    = 500 * time.Millisecond
	subjectAlive = "alive"
)

// Mesh links this region to others. Each region is a JetStream domain of its own.
type Mesh struct {
	// Region is this region's name, made of A-Z a-z 0-9 - and _. In a cluster
	// Config.Region.Name must be the same.
	Region    string
	Listen    string // host:port for links of other regions' nodes; port 0 picks a free one
	Advertise string // host:port told to peers; "" means Listen

	// TLS secures the links both ways, as Region.TLS the routes. A certificate with
	// a URI stockmesh://REGION/NODE speaks for that region only. nil means plain TCP.
	TLS *tls.Config

	// Secrets is the keyring the regions share: a link's password is made of the
	// first, one made of any is accepted. It is asked at each log-in and before each
	// redial, so keys roll without a restart. nil or empty: no password.
	Secrets func() []string

	// Buckets are the Tables that other regions may mirror; nil means "stock".
	Buckets []string
}

// Peer is another region, to be linked to.
type Peer struct {
	Region string
	Addrs  []string // host:port of its nodes' links; used where this side dials
	Dial   bool     // this side dials: exactly one side of a pair does, on all of its nodes
}

// LinkState is how well this server is linked to a region.
type LinkState struct {
	Connected         int           // live connections of this server with that region
	RTT               time.Duration // of one of them; 0 until it is known
	BytesIn, BytesOut uint64        // of all connections this server has had with it
}

var errNoMesh = errors.New("bus: not a member of a mesh")

func (m *Mesh) validate(r *Region) error {
	if m == nil {
		return nil
	}
	if err := nameValid(m.Region); err != nil {
		return fmt.Errorf("bus: Mesh.Region: %w", err)
	}
	if r != nil && r.Name != m.Region {
		// The engine refuses links between clusters of the same name.
		return fmt.Errorf("bus: Mesh.Region %q differs from Region.Name %q", m.Region, r.Name)
	}
	if _, _, err := splitAddr(m.Listen); err != nil {
		return fmt.Errorf("bus: Mesh.Listen: %w", err)
	}
	for _, bucket := range m.Buckets {
		if err := nameValid(bucket); err != nil {
			return fmt.Errorf("bus: Mesh.Buckets: %w", err)
		}
	}
	return nil
}

func (m *Mesh) buckets() []string {
	if m.Buckets == nil {
		return []string{"stock"}
	}
	return m.Buckets
}

func (m *Mesh) secrets() []string {
	if m.Secrets == nil {
		return nil
	}
	return m.Secrets()
}

// options adds to o what makes the server take part in the mesh.
func (m *Mesh) options(o *server.Options) error {
	host, port, err := splitAddr(m.Listen)
	if err != nil {
		return err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o.JetStreamDomain = m.Region
	// Two nodes of the same name are told apart by their clusters' names, also where
	// there is no cluster. It is stored nowhere.
	o.Cluster.Name = m.Region
	o.PingInterval, o.MaxPingsOut = linkPing, linkPingsOut
	o.LeafNode = server.LeafNodeOpts{
		Host: host, Port: port,
		NoAdvertise:             true, // who is where is the caller's to tell
		ReconnectInterval:       linkRedial,
		DialTimeout:             linkWait,
		AuthTimeout:             linkWait.Seconds(),
		IsolateLeafnodeInterest: true,
		Compression:             server.CompressionOpts{Mode: server.CompressionOff},
	}
	if m.TLS != nil {
		o.LeafNode.TLSConfig, o.LeafNode.TLSTimeout = mutual(m.TLS), linkWait.Seconds()
		o.LeafNode.TLSHandshakeFirst = true
	}
	if o.FeatureFlags == nil {
		o.FeatureFlags = make(map[string]bool)
	}
	// Answers to a mirror's requests, and its flow control, name the domain that was
	// asked, so that a peer can be kept to its own.
	o.FeatureFlags[server.FeatureFlagJsAPIReplyFormatV2] = true
	o.FeatureFlags[server.FeatureFlagJsAckFormatV2] = true
	return nil
}

// mesh is what a Bus knows of its links.
type mesh struct {
	bus    *Bus
	config *Mesh
	base   *server.Options // as at the start, without remotes

	reload sync.Mutex // one change of the server's options at a time; before mu
	failed bool       // the last one; it is to be tried again

	mu        sync.Mutex
	peers     map[string]*linkedPeer
	receivers map[*receiver]struct{}
	mirrors   map[string]*Mirror // by stream
	wires     map[uint64]*wireCount
	past      map[string]wireBytes // of connections that are gone

	// Of the tasks: they end with ctx, and Close waits for them.
	ctx    context.Context
	end    context.CancelFunc
	tasks  sync.WaitGroup
	answer answerer
}

// linkedPeer is a region this one is linked to.
type linkedPeer struct {
	Peer
	password string // of the remote as the server has it, once keyed
	keyed    bool
	heard    time.Time
	states   map[string]*pong // newest answer to a ping, by bucket
	door     *nats.Subscription
}

// wireCount is one connection as last seen.
type wireCount struct {
	region   string
	in, out  int64
	messages int64     // that came in; an empty one has no bytes
	moved    time.Time // when something last came in
	solicits bool      // this side dialled
}

type wireBytes struct{ in, out uint64 }

func newMesh(b *Bus, config *Mesh) *mesh {
	m := &mesh{
		bus: b, config: config,
		peers: make(map[string]*linkedPeer), receivers: make(map[*receiver]struct{}),
		mirrors: make(map[string]*Mirror), wires: make(map[uint64]*wireCount), past: make(map[string]wireBytes),
	}
	m.answer.bus = b
	m.ctx, m.end = context.WithCancel(context.Background())
	return m
}

// close ends all tasks and waits for them.
func (m *mesh) close() {
	if m == nil {
		return
	}
	m.mu.Lock() // no mirror is opened from here on
	m.end()
	m.mu.Unlock()
	m.tasks.Wait()
}

// start begins to look after the links; the connections must be there.
func (m *mesh) start() error {
	if err := m.answerPings(); err != nil {
		return err
	}
	if _, err := m.bus.Receive(subjectAlive, func(string, string, []byte) {}); err != nil {
		return err
	}
	m.tasks.Go(m.watch)
	return nil
}

// Link adds a region, or changes what is known of it. It is cheap, and has no effect
// when nothing changed. A change of addresses closes this server's connection with
// the region and dials anew.
func (b *Bus) Link(p Peer) error {
	if b.mesh == nil {
		return errNoMesh
	}
	if err := b.mesh.valid(p); err != nil {
		return err
	}
	if err := b.mesh.link(p); err != nil {
		return fmt.Errorf("bus: link to %s: %w", p.Region, err)
	}
	return nil
}

func (m *mesh) valid(p Peer) error {
	if err := nameValid(p.Region); err != nil {
		return err
	}
	if p.Region == m.config.Region {
		return fmt.Errorf("bus: %w: a link of %s to itself", ErrName, p.Region)
	}
	for _, addr := range p.Addrs {
		if _, port, err := splitAddr(addr); err != nil || port == 0 {
			return fmt.Errorf("bus: link to %s: %w: %q is no host:port", p.Region, ErrName, addr)
		}
	}
	return nil
}

func (m *mesh) link(p Peer) error {
	p.Addrs = slices.Clone(p.Addrs)
	slices.Sort(p.Addrs)
	p.Addrs = slices.Compact(p.Addrs)
	m.reload.Lock()
	defer m.reload.Unlock()

	m.mu.Lock()
	old := m.peers[p.Region]
	if old != nil && old.Dial == p.Dial && (slices.Equal(old.Addrs, p.Addrs) || !p.Dial) {
		old.Addrs = p.Addrs
		m.mu.Unlock()
		return nil
	}
	now := &linkedPeer{Peer: p, states: make(map[string]*pong)}
	if old != nil {
		now.heard, now.states, now.door = old.heard, old.states, old.door
	}
	m.peers[p.Region] = now
	m.mu.Unlock()

	if old == nil {
		if err := m.meet(now); err != nil {
			return err
		}
	}
	if old == nil && !p.Dial {
		return nil
	}
	return m.redial()
}

// meet makes everybody here listen to a region.
func (m *mesh) meet(p *linkedPeer) error {
	door, err := m.openDoor(p.Region)
	if err != nil {
		return cause(err)
	}
	m.mu.Lock()
	p.door = door
	m.mu.Unlock()
	return m.hear(p.Region)
}

// Unlink ends the link with a region: it is not dialled any more, its log-ins are
// refused, its connections closed, its messages not received.
func (b *Bus) Unlink(region string) error {
	if b.mesh == nil {
		return errNoMesh
	}
	if err := b.mesh.unlink(region); err != nil {
		return fmt.Errorf("bus: unlink %s: %w", region, err)
	}
	return nil
}

func (m *mesh) unlink(region string) error {
	m.reload.Lock()
	defer m.reload.Unlock()
	m.mu.Lock()
	p := m.peers[region]
	if p == nil {
		m.mu.Unlock()
		return nil
	}
	delete(m.peers, region)
	delete(m.past, region)
	m.mu.Unlock()

	m.unhear(region)
	if p.door != nil {
		_ = p.door.Unsubscribe() // fails when the connection is closed, and so is this
	}
	var err error
	if p.Dial {
		err = m.redial()
	}
	for id, w := range m.look() {
		if w.region == region {
			_ = m.bus.srv.DisconnectClientByID(id) // gone already, if it fails
		}
	}
	return err
}

// redial gives the server the remotes that should be. It closes the links which are
// not among them; those which are stay untouched. The reload lock is held.
func (m *mesh) redial() error {
	o := m.base.Clone()
	m.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(m.peers)) {
		p := m.peers[name]
		if !p.Dial || len(p.Addrs) == 0 {
			continue
		}
		if !p.keyed {
			p.password, p.keyed = password(m.config.secrets(), m.config.Region, name), true
		}
		o.LeafNode.Remotes = append(o.LeafNode.Remotes, m.remote(p))
	}
	m.mu.Unlock()
	err := m.bus.srv.ReloadOptions(o)
	m.failed = err != nil
	return err
}

// remote is a link that this side dials.
func (m *mesh) remote(p *linkedPeer) *server.RemoteLeafOpts {
	r := &server.RemoteLeafOpts{
		LocalAccount:            accountData,
		IgnoreDiscoveredServers: true,
		LocalIsolation:          true,
		RequestIsolation:        true,
		DenyImports:             m.denied(),
		FirstInfoTimeout:        linkWait,
		DialTimeout:             linkWait,
		Compression:             server.CompressionOpts{Mode: server.CompressionOff},
	}
	for _, addr := range p.Addrs {
		r.URLs = append(r.URLs, &url.URL{Scheme: "nats-leaf", Host: addr, User: url.UserPassword(m.config.Region, p.password)})
	}
	if m.config.TLS != nil {
		r.TLS, r.TLSHandshakeFirst, r.TLSTimeout = true, true, linkWait.Seconds()
		r.TLSConfig = speaksFor(m.config.TLS, p.Region)
	}
	return r
}

// LinkAddr returns host:port that peers should dial, with the actual port; "" without
// a mesh.
func (b *Bus) LinkAddr() string {
	if b.mesh == nil {
		return ""
	}
	if a := b.mesh.config.Advertise; a != "" {
		return a
	}
	host, port, _ := splitAddr(b.mesh.config.Listen)
	if v, err := b.srv.Varz(nil); err == nil && v.LeafNode.Port > 0 {
		port = v.LeafNode.Port
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// Links returns the state of this server's links, by region, for all regions linked.
func (b *Bus) Links() map[string]LinkState {
	if b.mesh == nil {
		return nil
	}
	return b.mesh.states()
}

func (m *mesh) states() map[string]LinkState {
	live := m.liveWires()
	m.look()
	m.mu.Lock()
	defer m.mu.Unlock()
	states := make(map[string]LinkState, len(m.peers))
	for name := range m.peers {
		past := m.past[name]
		states[name] = LinkState{BytesIn: past.in, BytesOut: past.out}
	}
	for id, w := range m.wires {
		s, ok := states[w.region]
		l := live[id]
		if !ok || l == nil {
			continue
		}
		s.Connected++
		s.BytesIn += uint64(w.in)
		s.BytesOut += uint64(w.out)
		if rtt, err := time.ParseDuration(l.RTT); err == nil && (s.RTT == 0 || rtt < s.RTT) {
			s.RTT = rtt
		}
		states[w.region] = s
	}
	return states
}

func (m *mesh) liveWires() map[uint64]*server.LeafInfo {
	z, err := m.bus.srv.Leafz(&server.LeafzOptions{Subscriptions: true})
	if err != nil {
		return nil
	}
	live := make(map[uint64]*server.LeafInfo, len(z.Leafs))
	for _, l := range z.Leafs {
		live[l.ID] = l
	}
	return live
}

// look brings what is known of the connections up to date and returns a copy. The
// server does not say which region is at the other end of one it dialled, but its
// interest does: only that region listens to site.REGION.
func (m *mesh) look() map[uint64]wireCount {
	live, now := m.liveWires(), time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.wires {
		if live[id] == nil {
			past := m.past[w.region]
			m.past[w.region] = wireBytes{past.in + uint64(w.in), past.out + uint64(w.out)}
			delete(m.wires, id)
		}
	}
	for id, l := range live {
		w := m.wires[id]
		if w == nil {
			region := farEnd(l.Subs)
			if region == "" {
				continue // just connected
			}
			w = &wireCount{region: region, moved: now, solicits: l.IsSpoke}
			m.wires[id] = w
		}
		if l.InMsgs != w.messages {
			w.moved = now
		}
		w.messages, w.in, w.out = l.InMsgs, l.InBytes, l.OutBytes
	}
	all := make(map[uint64]wireCount, len(m.wires))
	for id, w := range m.wires {
		all[id] = *w
	}
	return all
}

func farEnd(subjects []string) string {
	for _, s := range subjects {
		if rest, ok := strings.CutPrefix(s, sitePrefix); ok {
			region, _, _ := strings.Cut(rest, ".")
			return region
		}
	}
	return ""
}

// watch cuts links that carry nothing, and gives the server a new password for those
// that are down when the keys have changed.
func (m *mesh) watch() {
	tick := time.NewTicker(linkWatch)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		m.live()
		connected := make(map[string]bool)
		for id, w := range m.look() {
			connected[w.region] = true
			if w.solicits && time.Since(w.moved) > linkSilence {
				m.bus.log.Warnf("link to %s carries nothing: dialled anew", w.region)
				_ = m.bus.srv.DisconnectClientByID(id) // gone already, if it fails
			}
		}
		if err := m.rekey(connected); err != nil {
			m.bus.log.Warnf("links: %v", err)
		}
	}
}

// live gives all regions a sign of life, so that a link without traffic is a broken one.
func (m *mesh) live() {
	m.mu.Lock()
	regions := slices.Collect(maps.Keys(m.peers))
	m.mu.Unlock()
	for _, region := range regions {
		_ = m.send(region, subjectAlive, nil) // at most once
	}
}

// rekey dials anew with the new password where a link is down and its key was replaced.
// A link which stands is left alone: it was let in. It also makes up for a redial that
// failed.
func (m *mesh) rekey(connected map[string]bool) error {
	secrets := m.config.secrets()
	m.reload.Lock()
	defer m.reload.Unlock()
	stale := m.failed
	m.mu.Lock()
	for name, p := range m.peers {
		if p.keyed && !connected[name] && p.password != password(secrets, m.config.Region, name) {
			p.keyed, stale = false, true
		}
	}
	m.mu.Unlock()
	if !stale {
		return nil
	}
	return m.redial()
}

// linked tells whether a region is a peer now.
func (m *mesh) linked(region string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[region] != nil
}
