// Package gossip knows who is in the mesh: the nodes that are alive, where they
// are, and what each tells about itself. It wraps hashicorp/memberlist, is the
// only package that imports it, and no type of it is part of the API.
//
// Gossip informs, late and at times wrongly: a member shown as alive may be dead
// for seconds, one shown as dead may be cut off and well. No decision about stock
// may rest on it.
package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	nameBytesMax = 128

	// wanLabel stands before every message between regions. Without it one node that is
	// given a wrong address to join would make one pool of two, for ever.
	wanLabel = "stockmesh-wan"
)

// ErrClosed is returned by calls after, or interrupted by, Close and Leave.
var ErrClosed = errors.New("gossip: closed")

// Config says who this node is and where it finds the others.
type Config struct {
	Name string // unique in the pool, at most 128 bytes

	// Listen is host:port, used for TCP and UDP. No host, 0.0.0.0 or :: means all
	// interfaces, port 0 a free one.
	Listen string

	// Advertise is the host:port told to the others; a name is looked up once, at
	// Open; port 0 means the port listened on. "" means Listen's, and when that is
	// all interfaces the address the machine uses towards its default route.
	Advertise string

	// Join are host:port of nodes to join by; any one is enough, and our own may be
	// among them. A name stands for all its addresses. They are tried until another
	// member (with WAN: one of another region) is seen, every 1 to 10 s, and again
	// when none is alive any more; after that those which are not members' addresses
	// are tried every 10 s.
	Join []string

	// KeyFile holds base64 keys of 16, 24 or 32 bytes, one a line, # begins a
	// comment. The first encrypts, all decrypt. It is read again each second, and a
	// change counts when it was read twice; a broken file keeps the old keys and is
	// logged. "" means that nothing is encrypted or authenticated.
	KeyFile string

	Meta Meta // see Update

	// WAN is for the pool between regions: a failure is seen within some 10 to 20 s
	// instead of 3, and members of several regions are expected and not warned about.
	// Such a pool and one within a region never mix, whoever joins which address.
	WAN bool

	Logger *slog.Logger // nil drops; memberlist's lines come as Debug and Warn

	// Clock is what this node tells as its time, and compares others' with; nil means
	// time.Now. See ClockOffsets.
	Clock func() time.Time

	// OnChange is called after members, their Metas or conflicts changed, several
	// changes at once, from one goroutine. It must not call Close or Leave, which
	// wait for it. May be nil.
	OnChange func()
}

func (c Config) validate() error {
	if c.Name == "" || len(c.Name) > nameBytesMax {
		return fmt.Errorf("config: Name must have 1 to %d bytes", nameBytesMax)
	}
	if _, _, err := splitHostPort(c.Listen); err != nil {
		return fmt.Errorf("config: Listen: %w", err)
	}
	if c.Advertise != "" {
		if _, _, err := splitHostPort(c.Advertise); err != nil {
			return fmt.Errorf("config: Advertise: %w", err)
		}
	}
	for _, j := range c.Join {
		if _, _, err := splitHostPort(j); err != nil {
			return fmt.Errorf("config: Join: %w", err)
		}
	}
	return nil
}

// timing are the times which tests shorten.
type timing struct {
	keyLook     time.Duration // between two looks at the key file
	updateEvery time.Duration // at least between two Metas sent
	keepFailed  time.Duration // how long a failed member is shown
}

func normalTiming() timing {
	return timing{keyLook: time.Second, updateEvery: 200 * time.Millisecond, keepFailed: 10 * time.Minute}
}

// Gossip is this node's place in the mesh. All methods may be called from several
// goroutines.
type Gossip struct {
	name   string
	addr   string
	wan    bool
	log    *slog.Logger
	timing timing
	keys   *keyFile // nil: plain
	list   *memberlist.Memberlist
	clocks *clocks

	loops     sync.WaitGroup
	stop      context.CancelFunc // ends the loops
	hangUp    context.CancelFunc // ends outgoing connections
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error

	updateKick, changeKick, conflictKick, joinKick chan struct{}

	mu        sync.Mutex // memberlist's lock is taken before it, never after
	table     table
	join      []string // of Config
	learned   []string // by Join, the newest last
	region    string
	meta      []byte        // encoded
	changed   chan struct{} // closed and replaced at each change
	conflicts map[string]*conflict
	disputed  time.Time // when our name was last seen elsewhere
}

// Open starts listening, and joins the others in the background. It fails when
// the configuration is wrong, it can't listen, Advertise or Listen can't be
// resolved, the key file can't be used, or the Meta can't be sent (ErrMeta).
func Open(c Config) (*Gossip, error) { return open(c, normalTiming()) }

func open(c Config, t timing) (*Gossip, error) {
	g, err := newGossip(c, t)
	if err == nil {
		err = g.start(c)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: open %s: %w", c.Name, err)
	}
	return g, nil
}

func newGossip(c Config, t timing) (*Gossip, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	meta, err := c.Meta.encode()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		name: c.Name, join: slices.Clone(c.Join), wan: c.WAN, log: c.Logger, timing: t,
		closed:       make(chan struct{}),
		updateKick:   make(chan struct{}, 1),
		changeKick:   make(chan struct{}, 1),
		conflictKick: make(chan struct{}, 1),
		joinKick:     make(chan struct{}, 1),
		table:        table{keep: t.keepFailed, records: make(map[string]*record)},
		region:       c.Meta.Region,
		meta:         meta,
		changed:      make(chan struct{}),
		conflicts:    make(map[string]*conflict),
		clocks:       newClocks(c.Clock),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if c.KeyFile != "" {
		g.keys, err = openKeyFile(c.KeyFile)
	}
	return g, err
}

// start opens the sockets and starts the goroutines.
func (g *Gossip) start(c Config) error {
	dialing, hangUp := context.WithCancel(context.Background())
	g.hangUp = hangUp
	if err := g.create(dialing, c); err != nil {
		hangUp()
		return err
	}
	running, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.loops.Go(func() { g.joinLoop(running) })
	g.loops.Go(func() { g.updateLoop(running) })
	g.loops.Go(func() { g.conflictLoop(running) })
	if g.keys != nil {
		g.loops.Go(func() { g.keyLoop(running) })
	}
	if c.OnChange != nil {
		g.loops.Go(func() { g.changeLoop(running, c.OnChange) })
	}
	return nil
}

func (g *Gossip) create(ctx context.Context, c Config) error {
	at, err := listenAddr(ctx, c.Listen)
	if err != nil {
		return err
	}
	logger := log.New(lineWriter{g.log}, "", 0)
	t, at, err := listen(ctx, at, logger)
	if err != nil {
		return err
	}
	told, err := advertised(ctx, c.Advertise, at)
	if err == nil {
		g.addr = told.String()
		g.list, err = memberlist.Create(g.settings(t, told, logger))
	}
	if err != nil {
		return errors.Join(err, t.Shutdown())
	}
	return nil
}

func (g *Gossip) settings(t *transport, told netip.AddrPort, logger *log.Logger) *memberlist.Config {
	m := lanSettings()
	if g.wan {
		m = wanSettings()
	}
	// A restarted node may have another port. Whoever holds its name has been
	// found dead by then, so there is little to protect it from.
	m.DeadNodeReclaimTime = time.Second
	m.Name = g.name
	m.Transport = t
	m.AdvertiseAddr, m.AdvertisePort = told.Addr().String(), int(told.Port())
	m.Logger = logger
	m.Delegate, m.Events, m.Conflict = delegate{g}, delegate{g}, delegate{g}
	m.Ping = g.clocks
	if g.keys != nil {
		m.Keyring = g.keys.ring
	}
	return m
}

// lanSettings make a killed node seen within some 3 s, 5 at the worst.
func lanSettings() *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.ProbeInterval = 500 * time.Millisecond
	m.ProbeTimeout = 200 * time.Millisecond
	m.SuspicionMult = 3
	m.SuspicionMaxTimeoutMult = 2
	m.AwarenessMaxMultiplier = 2
	m.GossipInterval = 100 * time.Millisecond
	m.TCPTimeout = 3 * time.Second
	m.PushPullInterval = 10 * time.Second // a mesh is small, and this heals what got lost
	return m
}

// wanSettings make a killed node seen within some 10 s, 20 at the worst: memberlist's own
// take minutes, as if something rested on it. A probe's answer may take twice as long as
// between any two places on earth.
func wanSettings() *memberlist.Config {
	m := memberlist.DefaultWANConfig()
	m.Label = wanLabel
	m.ProbeInterval = 1500 * time.Millisecond
	m.ProbeTimeout = 800 * time.Millisecond
	m.SuspicionMult = 4
	m.SuspicionMaxTimeoutMult = 2
	m.AwarenessMaxMultiplier = 2
	m.GossipInterval = 100 * time.Millisecond // only while there is news; a goodbye takes some ten
	m.TCPTimeout = 5 * time.Second
	m.PushPullInterval = 15 * time.Second
	return m
}

// Addr returns the host:port told to the others.
func (g *Gossip) Addr() string { return g.addr }

// Members returns the nodes sorted by name: this one, all that are alive, and
// those which failed in the last 10 minutes. One that left is not among them.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.list(time.Now())
}

// Update tells the others a new Meta. It returns at once; at most 5 a second are
// sent, the newest replacing those before. Members shows it when it is sent. It
// returns an error that wraps ErrMeta, or ErrClosed.
func (g *Gossip) Update(meta Meta) error {
	encoded, err := meta.encode()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isClosed() {
		return ErrClosed
	}
	if !bytes.Equal(encoded, g.meta) {
		g.meta, g.region = encoded, meta.Region
		kick(g.updateKick)
	}
	return nil
}

func (g *Gossip) updateLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.updateKick:
		}
		// The others get it also when we don't wait for that, so the only error there
		// is, that the wait was too short, says nothing.
		_ = g.list.UpdateNode(time.Nanosecond)
		if !sleep(ctx, g.timing.updateEvery) {
			return
		}
	}
}

func (g *Gossip) keyLoop(ctx context.Context) {
	for sleep(ctx, g.timing.keyLook) {
		g.keys.look(g.log)
	}
}

func (g *Gossip) changeLoop(ctx context.Context, onChange func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.changeKick:
			onChange()
		}
	}
}

// changedLocked wakes whoever waits for a change; g.mu is held.
func (g *Gossip) changedLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
	kick(g.changeKick)
}

// Await waits until n members of our region are alive, this one included, and
// returns them. It calls progress, which may be nil, with their number at first
// and when that changes. The error wraps that of ctx, or is ErrClosed.
func (g *Gossip) Await(ctx context.Context, n int, progress func(have int)) ([]Member, error) {
	told := -1
	for {
		have, changed := g.aliveHere()
		if progress != nil && len(have) != told {
			told = len(have)
			progress(told)
		}
		if len(have) >= n {
			return have, nil
		}
		select {
		case <-changed:
		case <-g.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("gossip: %d of %d members are here: %w", len(have), n, ctx.Err())
		}
	}
}

// aliveHere returns our region's members alive, and what is closed at the next change.
func (g *Gossip) aliveHere() (have []Member, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.table.list(time.Now()) {
		if m.Alive && m.Region == g.region {
			have = append(have, m)
		}
	}
	return have, g.changed
}

func (g *Gossip) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// kick wakes a loop; one that is awake already will go round once more.
func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
