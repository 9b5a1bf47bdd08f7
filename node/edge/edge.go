package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

// Ledger is what the edge needs of the node's stock.
type Ledger interface {
	// Submit takes calls and never blocks. Each call's Done is called exactly
	// once, from any goroutine, perhaps before Submit returns.
	Submit(calls []*protocol.Call)
	// Scan returns existing items in order and whether others may follow: then next is
	// the After to go on with. It may return fewer than the limit, even none.
	Scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool)
	// Items appends the present state of items to dst.
	Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item
	// Watch calls fn after each commit, in order, before the commands of that
	// round are answered.
	Watch(fn func(*protocol.Changes)) (stop func())
	// Cursor tells what the state holds.
	Cursor() protocol.Vector
}

// Config says how the edge serves. Zero values mean the stated defaults.
type Config struct {
	Listen    string // host:port
	Node      string
	Region    string
	Endpoints []string               // of this node, told in hello; empty: the address listened on
	Origins   []string               // allowed besides the request's own host
	Hosts     func(host string) bool // whether a request's Host is one of this node's names; nil: any is

	// TrustedProxies are believed when they say whom they speak for, in a PROXY header
	// or X-Forwarded-For.
	TrustedProxies []netip.Prefix

	Others func() []string // endpoints of other nodes, told in hello after this one's; nil: none

	TLS *tls.Config // nil: plain

	Guard       Guard         // nil: nobody is asked who they are, everybody may do everything
	Quota       Quota         // of the subjects that a Guard names; nil: no limits
	AuthTimeout time.Duration // 5 s until a session must have shown a good token, or 4001

	Heartbeat             time.Duration // 25 s
	HandshakeTimeout      time.Duration // 5 s; TLS handshakes wait six times that to begin, if they must
	SinceWait             time.Duration // 3 s; how long a resumed subscription waits for what its client has seen elsewhere
	SlowTimeout           time.Duration // 10 s without taking a byte that waits, then 4100
	MaxConnections        int           // by the fd limit
	MaxConnectionsPerIP   int           // 0: no limit; of IPv6 a /64 counts as one, here and below
	CommandsPerIP         int           // a second; 0: no limit. HTTP requests count too
	CommandsPerConnection int           // a second; 0: no limit
	CommandsBurst         int           // at once, of both; 0: a second's worth
	OutboxBytes           int           // 256 KiB; above it nothing more is read from the client
	Loops                 int           // half the CPUs, at least 1

	Tracer     Tracer // nil: no command is followed
	Ledger     Ledger
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Heartbeat == 0 {
		c.Heartbeat = 25 * time.Second
	}
	if c.SinceWait == 0 {
		c.SinceWait = 3 * time.Second
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.AuthTimeout == 0 {
		c.AuthTimeout = 5 * time.Second
	}
	if c.SlowTimeout == 0 {
		c.SlowTimeout = 10 * time.Second
	}
	if c.OutboxBytes == 0 {
		c.OutboxBytes = 256 << 10
	}
	if c.Loops == 0 {
		// A loop that waits in the kernel keeps its processor for a while, so
		// there should be fewer loops than processors.
		c.Loops = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if c.Others == nil {
		c.Others = func() []string { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// filesReserved is how many file descriptors are kept for everything but
// connections.
const filesReserved = 256

// Edge is a listening WebSocket server.
type Edge struct {
	config   Config
	limit    int // of connections
	listener *poll.Listener
	loops    []*loop
	http     *handover
	metrics  *metrics
	limits   *limits // nil: none
	start    time.Time
	logger   *slog.Logger

	connections atomic.Int64
	sessions    atomic.Uint64
	draining    atomic.Bool
	perIPMu     sync.Mutex
	perIP       map[netip.Addr]int // by addressKey

	checks  atomic.Int64   // tokens being checked
	churn   atomic.Int64   // connections that came, went, or got through TLS's handshake
	shaking sync.WaitGroup // the goroutines of handshakes, checks and collections

	stopWatch func()
	running   sync.WaitGroup
	closeOnce sync.Once
	closed    chan struct{}
}

// Listen opens the public port and starts the loops.
func Listen(config Config) (*Edge, error) {
	config = config.withDefaults()
	files, err := poll.RaiseFileLimit()
	if err != nil {
		return nil, fmt.Errorf("file limit: %w", err)
	}
	e := &Edge{
		config: config, logger: config.Logger, metrics: newMetrics(config.Registerer),
		limit: config.MaxConnections, perIP: make(map[netip.Addr]int), closed: make(chan struct{}),
		limits: newLimits(&config), start: time.Now(),
	}
	if room := int(min(files, 1<<30)) - filesReserved; e.limit == 0 || e.limit > room {
		e.limit = max(room, 1)
	}
	if e.listener, err = poll.Listen(config.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", config.Listen, err)
	}
	if len(config.Endpoints) == 0 {
		scheme := "ws://"
		if config.TLS != nil {
			scheme = "wss://"
		}
		e.config.Endpoints = []string{scheme + e.listener.Addr().String() + "/v1/ws"}
	}
	e.http = newHandover(net.TCPAddrFromAddrPort(e.listener.Addr()))
	for i := range config.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.bury()
			return nil, errors.Join(err, e.listener.Close())
		}
		e.loops = append(e.loops, l)
	}
	e.metrics.gauges(config.Registerer, e)
	e.begin()
	return e, nil
}

func (e *Edge) begin() {
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	e.stopWatch = e.config.Ledger.Watch(func(ch *protocol.Changes) {
		for _, l := range e.loops {
			l.inbox.changed(ch)
		}
	})
	e.loops[0].inbox.do(func(l *loop) { l.listen(e.listener) })
}

// Addr is the public address, with the real port.
func (e *Edge) Addr() netip.AddrPort { return e.listener.Addr() }

// Endpoint is how clients reach this node.
func (e *Edge) Endpoint() string { return e.config.Endpoints[0] }

// HTTP is the listener on which requests arrive that are no WebSocket handshake.
func (e *Edge) HTTP() net.Listener { return e.http }

// Connections returns how many connections are open, HTTP's included.
func (e *Edge) Connections() int { return int(e.connections.Load()) }

// Drain stops accepting, tells every client to go elsewhere and closes them with
// 4200, evenly spread over the given time. Zero closes them at once. It returns
// when all are closed, or ctx ends, or Close is done.
func (e *Edge) Drain(ctx context.Context, over time.Duration, elsewhere []string) {
	if e.draining.Swap(true) {
		return
	}
	e.loops[0].inbox.do(func(l *loop) { l.unlisten() })
	done := make(chan struct{}, len(e.loops))
	for _, l := range e.loops {
		l.inbox.do(func(l *loop) { l.drain(over, elsewhere, func() { done <- struct{}{} }) })
	}
	for range e.loops {
		select {
		case <-done:
		case <-ctx.Done():
			return
		case <-e.closed:
			return
		}
	}
}

// Close stops everything at once and waits for it.
func (e *Edge) Close() error {
	e.closeOnce.Do(func() {
		e.stopWatch()
		for _, l := range e.loops {
			l.inbox.do(func(l *loop) { l.stopped = true })
		}
		e.running.Wait()
		e.bury()
		e.shaking.Wait()
		close(e.closed)
	})
	return e.http.Close()
}

func (e *Edge) bury() {
	for _, l := range e.loops {
		l.bury()
	}
}

// admit counts a new connection, or says why there is no room for it.
func (e *Edge) admit(ip netip.Addr) (status int) {
	if int(e.connections.Add(1)) > e.limit {
		e.connections.Add(-1)
		return 503
	}
	if !e.admitAddress(ip) {
		e.connections.Add(-1)
		return 429
	}
	return 0
}

// full reports whether the next connection will be turned away.
func (e *Edge) full() bool { return int(e.connections.Load()) >= e.limit }

// admitAddress counts a connection of an address.
func (e *Edge) admitAddress(ip netip.Addr) bool {
	limit := e.config.MaxConnectionsPerIP
	if limit == 0 || e.trusts(ip) {
		return true
	}
	key := addressKey(ip)
	e.perIPMu.Lock()
	defer e.perIPMu.Unlock()
	if e.perIP[key] >= limit {
		return false
	}
	e.perIP[key]++
	return true
}

// dismiss undoes admit.
func (e *Edge) dismiss(ip netip.Addr) {
	e.connections.Add(-1)
	e.dismissAddress(ip)
}

// dismissAddress undoes admitAddress.
func (e *Edge) dismissAddress(ip netip.Addr) {
	if e.config.MaxConnectionsPerIP == 0 || e.trusts(ip) {
		return
	}
	key := addressKey(ip)
	e.perIPMu.Lock()
	defer e.perIPMu.Unlock()
	if e.perIP[key]--; e.perIP[key] <= 0 {
		delete(e.perIP, key)
	}
}
