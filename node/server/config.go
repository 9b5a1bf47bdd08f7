package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

// Config is a node's configuration. The flags' texts say what each field means.
type Config struct {
	File string // that options were read from; "" is none

	Data      string
	Listen    string
	Admin     string
	Region    string
	Name      string
	Advertise string
	Expect    int
	Shards    int

	Gossip           string
	AdvertiseGossip  string
	Join             []string
	GossipKey        string
	ClusterListen    string
	AdvertiseCluster string
	MeshCert         string
	MeshKey          string
	MeshCA           string
	RaftHeartbeat    time.Duration
	RaftElection     time.Duration

	// Mesh links the region to others, also where all of the addresses below are the
	// defaults. Flags set it; another WANGossip or LinkListen, or a JoinRegion, does too.
	Mesh          bool
	WANGossip     string
	AdvertiseWAN  string
	JoinRegion    []string
	LinkListen    string
	AdvertiseLink string // host:port, or REGION=host:port for one region, joined by commas
	LinkSecret    string
	RightsTimeout time.Duration

	Origins []string
	TLSCert string
	TLSKey  string
	TLSCA   string

	MaxConnections      int
	MaxConnectionsPerIP int

	RateLimit              int
	RateLimitPerConnection int
	RateBurst              int

	// Of one token's subject, over all nodes of the region.
	RateLimitPerUser        int
	MaxConnectionsPerUser   int
	MaxSubscriptionsPerUser int

	JWKS        string // URL or file; "" means that nobody is asked who he is
	JWTIssuer   string
	JWTAudience string

	TrustedProxies []string // addresses or prefixes

	Heartbeat time.Duration
	Drain     time.Duration
	KeyWindow time.Duration
	History   time.Duration
	Insecure  bool

	Metrics       string  // ADDR of health and metrics only; "" is off
	TraceEndpoint string  // URL that spans are sent to; "" is off
	TraceRatio    float64 // of commands, 0..1

	// Of the program's own Logger; who sets another one keeps to them or not.
	LogFormat string // text or json
	LogLevel  string
	LogBurst  int

	// Of the build: Version as 1.4.0, Commit as git names it, Date as RFC 3339.
	Version string
	Commit  string
	Date    string

	LogDropped prometheus.Collector `json:"-"` // of lines that Logger left out; nil is none

	Clock  func() time.Time `json:"-"` // of the region's stock; nil means time.Now
	Logger *slog.Logger     // nil drops the lines
}

// Default returns the configuration of a node started without any flag.
func Default() Config {
	return Config{
		Data: "./data", Listen: "127.0.0.1:8080", Admin: "127.0.0.1:8081",
		Region: "local", Name: hostName(), Expect: 1, Shards: 1,
		Gossip: ":7946", ClusterListen: ":6222",
		RaftHeartbeat: 150 * time.Millisecond, RaftElection: 500 * time.Millisecond,
		WANGossip: wanGossipDefault, LinkListen: linkListenDefault, RightsTimeout: 300 * time.Millisecond,
		Heartbeat: 25 * time.Second, Drain: 30 * time.Second,
		KeyWindow: 24 * time.Hour, History: 30 * 24 * time.Hour,
		TraceRatio: 0.01, LogFormat: "text", LogLevel: "info", LogBurst: 20,
	}
}

// Validate says everything that is wrong with the configuration.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, v := range map[string]string{"region": c.Region, "name": c.Name} {
		if err := protocol.CheckRegion("--"+name, v); err != nil {
			bad("%s, not %q", err.Message, v)
		}
	}
	if c.Data == "" {
		bad("--data is empty")
	}
	if c.Expect != 1 && c.Expect != 3 && c.Expect != 5 {
		bad("--expect %d: a region has 1, 3 or 5 nodes", c.Expect)
	}
	errs = append(errs, c.checkMembers()...)
	errs = append(errs, c.checkMesh()...)
	if c.Shards < 1 || c.Shards > cluster.ShardsMax {
		bad("--shards %d: a region has 1 to %d logs", c.Shards, cluster.ShardsMax)
	}
	if c.Heartbeat < 100*time.Millisecond {
		bad("--heartbeat %v is below 100ms", c.Heartbeat)
	}
	if c.Drain < 0 {
		bad("--drain %v is negative", c.Drain)
	}
	if c.KeyWindow < time.Second {
		bad("--key-window %v is below 1s", c.KeyWindow)
	}
	if c.History != 0 && c.History < 2*c.KeyWindow {
		bad("--history %v is below twice --key-window (%v): both are kept in the log", c.History, 2*c.KeyWindow)
	}
	if c.MaxConnections < 0 || c.MaxConnectionsPerIP < 0 {
		bad("--max-connections and --max-connections-per-ip can't be negative")
	}
	errs = append(errs, c.checkLimits()...)
	errs = append(errs, c.checkObserved()...)
	_, err := c.trustedProxies()
	errs = append(errs, err)
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("--tls-cert and --tls-key go together")
	}
	if c.TLSCA != "" && c.TLSCert == "" {
		bad("--tls-ca needs --tls-cert and --tls-key")
	}
	if c.JWKS == "" && (c.JWTIssuer != "" || c.JWTAudience != "") {
		bad("--jwt-issuer and --jwt-audience need --jwks")
	}
	errs = append(errs, c.checkAddress("--listen", c.Listen), c.checkAddress("--admin", c.Admin), c.checkAdvertise())
	return errors.Join(errs...)
}

// clustered reports whether the node is one of several.
func (c *Config) clustered() bool { return c.Expect > 1 }

func (c *Config) checkMembers() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	given := 0
	for _, f := range []string{c.MeshCert, c.MeshKey, c.MeshCA} {
		if f != "" {
			given++
		}
	}
	if given != 0 && given != 3 {
		bad("--mesh-cert, --mesh-key and --mesh-ca go together")
	}
	if !c.clustered() {
		if len(c.Join) > 0 {
			bad("--join needs --expect 3 or 5: a node alone has nobody to join")
		}
		return errs
	}
	if given == 0 && !c.Insecure {
		bad("--expect %d without --mesh-cert, --mesh-key and --mesh-ca would let anybody who reaches the routes into the region: make certificates with `stockctl certs`, or use --insecure if the network is closed", c.Expect)
	}
	for flag, addr := range map[string]string{"--gossip": c.Gossip, "--cluster-listen": c.ClusterListen} {
		if !fixedAddress(addr) {
			bad("%s %q: want host:port", flag, addr)
		}
	}
	if c.RaftHeartbeat <= 0 || c.RaftElection < 3*c.RaftHeartbeat {
		bad("--raft-election %v is below three times --raft-heartbeat (%v)", c.RaftElection, c.RaftHeartbeat)
	}
	return errs
}

// trustedProxies takes prefixes, and addresses for themselves.
func (c *Config) trustedProxies() (list []netip.Prefix, err error) {
	for _, s := range c.TrustedProxies {
		p, bad := netip.ParsePrefix(s)
		if ip, badIP := netip.ParseAddr(s); badIP == nil {
			p, bad = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if bad != nil || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return nil, fmt.Errorf("--trusted-proxies %q: want addresses or prefixes, as 10.0.0.0/8", s)
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

// checkAddress refuses to serve more than this machine without authentication.
func (c *Config) checkAddress(flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q: want host:port", flag, addr)
	}
	if c.Insecure || c.JWKS != "" || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("%s %s would let anybody on the network in, as no clients are authenticated: use --jwks, a loopback address, or --insecure if the network is closed", flag, addr)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (c *Config) checkAdvertise() error {
	if c.Advertise == "" {
		return nil
	}
	u, err := url.Parse(c.Advertise)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return fmt.Errorf("--advertise %q: want ws://host:port or wss://host:port", c.Advertise)
	}
	return nil
}

// hostName returns the host's name in the form of a node's, "node" if it has none.
func hostName() string {
	name, _ := os.Hostname()
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	name = strings.Trim(name[:min(len(name), 32)], "-")
	if name == "" {
		return "node"
	}
	return name
}
