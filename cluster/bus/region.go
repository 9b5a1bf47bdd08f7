package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	answerWaitRegion = time.Second
	// A dead route is found after three of these. Raft does not wait for it.
	routePing = 2 * time.Second
	// Seconds for a TLS handshake between two servers.
	routeTLSWait = 3
	// How often a condition of the cluster is looked at again.
	pollEvery = 20 * time.Millisecond
	// accountData holds all streams; it is the server's own default account.
	accountData = "$G"
	// systemUser marks the connection for cluster administration. It is no
	// secret: connections are made in process only.
	systemUser = "system"
)

// Region makes the engine one server of a cluster.
type Region struct {
	Name      string // of the cluster, the same on all servers
	Listen    string // host:port for the routes between servers; port 0 picks a free one
	Advertise string // host:port peers are told to dial; "" means Listen

	// Routes are the host:port of the other servers, at least one. A server that
	// joins a region needs one which is alive. The very first start needs all of
	// them: a region of five whose servers each know one other could become two.
	Routes []string

	// Replicas of the streams which this server creates: 1, 3 or 5.
	Replicas int

	// TLS secures the routes both ways: each side must show a certificate which
	// ClientCAs (or, when it is nil, RootCAs) vouches for, good for the address
	// dialled and for both usages. nil means plain TCP, where whoever reaches
	// Listen is a member of the region.
	TLS *tls.Config

	Timers Timers // zero fields mean the defaults
}

func (r *Region) validate() error {
	if r == nil {
		return nil
	}
	if r.Name == "" || strings.ContainsAny(r.Name, " \t\n") {
		return fmt.Errorf("bus: Region.Name %q is empty or has a space", r.Name)
	}
	if _, _, err := splitAddr(r.Listen); err != nil {
		return fmt.Errorf("bus: Region.Listen: %w", err)
	}
	if len(r.Routes) == 0 {
		return errors.New("bus: Region.Routes is empty")
	}
	for _, route := range r.Routes {
		if _, port, err := splitAddr(route); err != nil || port == 0 {
			return fmt.Errorf("bus: Region.Routes: %q is no host:port: %w", route, err)
		}
	}
	if err := replicasValid(r.Replicas); err != nil {
		return fmt.Errorf("bus: Region.%w", err)
	}
	if err := r.Timers.withDefaults().validate(); err != nil {
		return fmt.Errorf("bus: Region.%w", err)
	}
	return nil
}

func replicasValid(n int) error {
	if n != 1 && n != 3 && n != 5 {
		return fmt.Errorf("Replicas %d is not 1, 3 or 5", n)
	}
	return nil
}

func splitAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, int(n), err
}

// cluster adds to o what makes the server a member of r.
func (r *Region) cluster(o *server.Options) error {
	host, port, err := splitAddr(r.Listen)
	if err != nil {
		return err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o.Cluster = server.ClusterOpts{
		Name: r.Name, Host: host, Port: port, Advertise: r.Advertise,
		// A route learned from another server is given up after one failure by
		// default, and two servers which know each other that way stay apart.
		ConnectRetries: math.MaxInt32,
		PingInterval:   routePing,
		MaxPingsOut:    2,
		Compression:    server.CompressionOpts{Mode: server.CompressionOff},
	}
	for _, route := range r.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: route})
	}
	if r.TLS != nil {
		o.Cluster.TLSConfig, o.Cluster.TLSTimeout = mutual(r.TLS), routeTLSWait
	}
	// On by default in this version, and seen to cost replicated mirrors their
	// quorum for good.
	o.FeatureFlags = map[string]bool{server.FeatureFlagJsRaftDeleteRange: false}
	return nil
}

// mutual makes c demand a certificate of whoever dials in.
func mutual(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	return c
}

// route starts the routes. Start leaves that to a goroutine which first waits for
// the client listener; with DontListen there is none, so it waits for ever, and
// the server's own count of goroutines with it. This call does that one's work and
// is counted in its place, so Shutdown ends. The goroutine itself stays: one for
// each Bus of a region which a process has opened.
func (b *Bus) route() {
	if !b.Clustered() {
		return
	}
	ready := make(chan struct{})
	close(ready)
	b.srv.StartRouting(ready)
}

func asSystem() nats.Option { return nats.UserInfo(systemUser, "") }

// Clustered tells whether the Bus is one server of a region.
func (b *Bus) Clustered() bool { return b.region != nil }

// RouteAddr returns host:port where this server listens for its peers, with the
// host as configured and the actual port; "" when standalone.
func (b *Bus) RouteAddr() string {
	if !b.Clustered() {
		return ""
	}
	host, port, _ := splitAddr(b.region.Listen)
	if addr := b.srv.ClusterAddr(); addr != nil {
		port = addr.Port
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// AwaitQuorum waits until the region has a leader which knows its streams and
// this server has caught up with it. Standalone it returns at once. When ctx
// ends first the error is ErrNoLeader, with ctx's.
func (b *Bus) AwaitQuorum(ctx context.Context) error {
	return b.await(ctx, func() error {
		select {
		case <-b.closing:
			return ErrClosed
		default:
		}
		if err := b.log.fatal(); err != nil {
			return err
		}
		return b.metaHealth()
	})
}

// metaHealth is nil when this server is current with the group that knows the streams.
func (b *Bus) metaHealth() error {
	if !b.Clustered() {
		return nil
	}
	h := b.healthz(server.HealthzOptions{JSMetaOnly: true})
	if h.Error == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNoLeader, h.Error)
}

// await calls ready until it returns something else than an error which passes.
func (b *Bus) await(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready()
		if !passes(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// passes tells the errors of a region which has no leader just now.
func passes(err error) bool {
	return errors.Is(err, ErrNoLeader) || errors.Is(err, ErrBusy) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded)
}
