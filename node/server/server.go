package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/node/quota"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/node/trace"
	"github.com/stockmesh/stockmesh/protocol"
)

// Time limits of the HTTP servers, and of the last steps of stopping.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	stopTimeout       = 10 * time.Second
)

// Server is one node.
type Server struct {
	config   Config
	logger   *slog.Logger
	registry *prometheus.Registry

	guard *token.Guard // nil: nobody is asked who they are
	quota *quota.Quota // nil: no limits of users

	ready   chan struct{}
	admin   net.Listener
	metrics net.Listener // nil where there is none
	cluster atomic.Pointer[cluster.Cluster]
	edge    atomic.Pointer[edge.Edge]
	api     atomic.Pointer[api.API]
	front   atomic.Pointer[front]
	tracer  *trace.Tracer          // nil: no command is followed
	phase   atomic.Pointer[string] // while cluster is nil
}

// New checks the configuration and returns a node that is not running yet.
func New(config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		config: config, logger: config.Logger,
		registry: prometheus.NewRegistry(), ready: make(chan struct{}),
	}
	s.phase.Store(new("starting"))
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.registerOwn()
	return s, nil
}

// Ready is closed once the node serves.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the public address; only after Ready.
func (s *Server) Addr() netip.AddrPort { return s.edge.Load().Addr() }

// AdminAddr is the admin address; only after Ready.
func (s *Server) AdminAddr() string { return s.admin.Addr().String() }

// Run serves until ctx ends, then hands over, stops in order and returns nil. It
// returns an error if the node could not start, or could not go on.
func (s *Server) Run(ctx context.Context) (err error) {
	var stops stack
	defer func() { err = errors.Join(err, stops.unwind()) }()

	for _, w := range s.config.Warnings() {
		s.logger.Warn(w)
	}
	// Who gets in must be known before anybody is let in.
	if err := s.startGuard(ctx, &stops); err != nil {
		return err
	}
	// These early, and closed last: they tell how far the rest is.
	if err := s.startMetrics(&stops); err != nil {
		return err
	}
	if err := s.startAdmin(&stops); err != nil {
		return err
	}
	if err := s.startCluster(ctx, &stops); err != nil {
		return err
	}
	if s.cluster.Load() == nil {
		return nil // told to stop before it was up
	}
	failed, err := s.startPublic(&stops)
	if err != nil {
		return err
	}
	close(s.ready)
	s.logger.Info("serving", "listen", s.Addr().String(), "admin", s.AdminAddr(), "region", s.config.Region, "node", s.config.Name)
	select {
	case <-ctx.Done():
		s.logger.Info("stopping")
	case err := <-failed:
		return err
	}
	return nil
}

// stack holds what has to be stopped, last started first.
type stack struct{ stops []func() error }

func (s *stack) push(stop func() error) { s.stops = append(s.stops, stop) }

func (s *stack) unwind() error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i]())
	}
	return errors.Join(errs...)
}

func (s *Server) startAdmin(stops *stack) (err error) {
	if s.admin, err = net.Listen("tcp", s.config.Admin); err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	s.serveAside(stops, s.admin, &http.Server{Handler: s.adminHandler()})
	return nil
}

func (s *Server) startCluster(ctx context.Context, stops *stack) error {
	members, err := s.members()
	if err != nil {
		return err
	}
	mesh, err := s.mesh()
	if err != nil {
		return err
	}
	if err := s.startTrace(stops); err != nil {
		return err
	}
	c, err := cluster.Open(ctx, cluster.Config{
		Dir: s.config.Data, Region: s.config.Region, Node: s.config.Name, Shards: s.config.Shards,
		Members: members, Mesh: mesh,
		KeyWindow: s.config.KeyWindow, History: s.config.History,
		OnPhase: func(phase string) { s.phase.Store(&phase) },
		Traced:  s.traced(),
		Clock:   s.config.Clock, Logger: s.logger, Registerer: s.registry,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.followRevocations(c) // before anybody may ask for something
	s.cluster.Store(c)
	stops.push(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		return c.Close(ctx)
	})
	return nil
}

// members is how the node joins its region, nil where it is alone.
func (s *Server) members() (*cluster.Members, error) {
	if !s.config.clustered() {
		return nil, nil
	}
	secure, err := s.meshTLS()
	if err != nil {
		return nil, err
	}
	c := &s.config
	return &cluster.Members{
		Expect: c.Expect, Gossip: c.Gossip, AdvertiseGossip: c.AdvertiseGossip, Join: c.Join, GossipKey: c.GossipKey,
		Cluster: c.ClusterListen, AdvertiseCluster: c.AdvertiseCluster, TLS: secure,
		Raft: cluster.Timers{Heartbeat: c.RaftHeartbeat, ElectionMin: c.RaftElection, ElectionMax: 2 * c.RaftElection},
	}, nil
}

// startPublic opens the public port. An error on failed ends the node.
func (s *Server) startPublic(stops *stack) (failed <-chan error, err error) {
	c := s.cluster.Load()
	secure, err := s.publicTLS()
	if err != nil {
		return nil, err
	}
	proxies, err := s.config.trustedProxies()
	if err != nil {
		return nil, err
	}
	s.startQuota(c, stops)
	public := edge.Config{
		TLS: secure, Others: c.Elsewhere,
		Listen: s.config.Listen, Node: s.config.Name, Region: s.config.Region,
		Endpoints: s.advertised(), Origins: s.config.Origins,
		TrustedProxies: proxies, Heartbeat: s.config.Heartbeat,
		MaxConnections: s.config.MaxConnections, MaxConnectionsPerIP: s.config.MaxConnectionsPerIP,
		CommandsPerIP: s.config.RateLimit, CommandsPerConnection: s.config.RateLimitPerConnection, CommandsBurst: s.config.RateBurst,
		Ledger: c, Logger: s.logger.With("part", "edge"), Registerer: s.registry,
	}
	s.guardEdge(&public)
	s.observeEdge(&public)
	e, err := edge.Listen(public)
	if err != nil {
		return nil, err
	}
	s.edge.Store(e)
	c.Announce(e.Endpoint(), e.Connections)
	resources := api.Config{
		Ledger: ledger{c, s}, Logger: s.logger.With("part", "api"), Registerer: s.registry, Origins: s.config.Origins,
		Allow: e.Allow, Address: e.Address,
	}
	s.guardAPI(&resources)
	s.observeAPI(&resources, e)
	a := api.New(resources)
	s.api.Store(a)
	s.recheckRevoked(c, e, a)
	srv := &http.Server{
		Handler: s.publicHandler(a), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, ConnContext: withConn,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() {
		if err := srv.Serve(e.HTTP()); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			ended <- fmt.Errorf("public HTTP: %w", err)
		}
	}()
	f := &front{edge: e, api: a, http: srv, hurry: make(chan struct{})}
	s.front.Store(f)
	stops.push(func() error {
		s.drain(f, nil)
		return e.Close()
	})
	s.watchEngine(stops, c, e, a)
	return ended, nil
}

// publicTLS returns nil where the public port is plain.
func (s *Server) publicTLS() (*tls.Config, error) {
	if s.config.TLSCert == "" {
		return nil, nil
	}
	c, err := newCertificates(s.config.TLSCert, s.config.TLSKey, s.config.TLSCA, s.logger)
	if err != nil {
		return nil, err
	}
	return c.tlsConfig(), nil
}

// advertised is what clients are told as this node's endpoint where the address it
// listens on won't do.
func (s *Server) advertised() []string {
	if s.config.Advertise != "" {
		return []string{strings.TrimSuffix(s.config.Advertise, "/") + "/v1/ws"}
	}
	host, port, err := net.SplitHostPort(s.config.Listen)
	if ip, bad := netip.ParseAddr(host); err == nil && (host == "" || bad == nil && ip.IsUnspecified()) && port != "0" {
		if name, err := os.Hostname(); err == nil {
			scheme := "ws://"
			if s.config.TLSCert != "" {
				scheme = "wss://"
			}
			return []string{scheme + net.JoinHostPort(name, port) + "/v1/ws"}
		}
	}
	return nil
}

// ledger is the cluster as the HTTP interface sees it, with what only the server
// knows added to the mesh.
type ledger struct {
	*cluster.Cluster
	server *Server
}

// Mesh implements api.Ledger.
func (l ledger) Mesh() protocol.Mesh {
	m := l.Cluster.Mesh()
	for i := range m.Regions {
		for j := range m.Regions[i].Nodes {
			if n := &m.Regions[i].Nodes[j]; n.Name == l.server.config.Name {
				e := l.server.edge.Load()
				n.Endpoint, n.Connections = e.Endpoint(), e.Connections()
			}
		}
	}
	return m
}
