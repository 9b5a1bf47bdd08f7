package server

import (
	"strings"

	"github.com/spf13/pflag"
)

// groupAnnotation is the annotation of a flag that holds its group's title.
const groupAnnotation = "stockmesh_group"

// Bind makes the fields settable by flags, in the order in which they are documented.
func (c *Config) Bind(f *pflag.FlagSet) {
	f.SortFlags = false
	for _, group := range []struct {
		title string
		bind  func(*pflag.FlagSet)
	}{
		{"The node", c.bindNode},
		{"Listeners", c.bindListeners},
		{"Nodes of one region", c.bindRegion},
		{"Links to other regions", c.bindMesh},
		{"Keys between nodes", c.bindKeys},
		{"Who is let in", c.bindClients},
		{"Limits", c.bindLimits},
		{"Times", c.bindTimes},
		{"Logs and traces", c.bindObserved},
	} {
		part := pflag.NewFlagSet(group.title, pflag.ContinueOnError)
		part.SortFlags = false
		group.bind(part)
		part.VisitAll(func(flag *pflag.Flag) {
			flag.Annotations = map[string][]string{groupAnnotation: {group.title}}
			if flag.Value.Type() == "duration" {
				flag.DefValue = shortDuration(flag.DefValue)
			}
			f.AddFlag(flag)
		})
	}
	f.Lookup("name").DefValue = "" // another on each machine: the text says whose
}

// Option is one option as documents show it.
type Option struct {
	Group    string // title of those it belongs to
	Flag     string // as --max-connections
	Value    string // what stands for its value, as ADDR; "" where it needs none
	Variable string // in the environment
	Default  string // as text; "" where Usage says it, or where it is empty
	Usage    string // unit, and meaning of zero and empty
}

// Group is the title of the options that a flag belongs to, "" if Bind didn't make it.
func Group(flag *pflag.Flag) string {
	if title := flag.Annotations[groupAnnotation]; len(title) > 0 {
		return title[0]
	}
	return ""
}

// Options lists the flags that Bind made, in its order.
func Options(f *pflag.FlagSet) (list []Option) {
	f.VisitAll(func(flag *pflag.Flag) {
		group := Group(flag)
		if group == "" {
			return
		}
		value, usage := pflag.UnquoteUsage(flag)
		option := Option{
			Group: group, Flag: "--" + flag.Name, Value: value,
			Variable: variable(flag.Name), Default: flag.DefValue, Usage: usage,
		}
		if option.Default == "[]" {
			option.Default = ""
		}
		list = append(list, option)
	})
	return list
}

// shortDuration leaves out the zeros in 720h0m0s.
func shortDuration(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (c *Config) bindNode(f *pflag.FlagSet) {
	f.StringVar(&c.File, "config", c.File, "YAML `FILE` with options, as max-connections: 1000 (empty: none)")
	f.StringVar(&c.Data, "data", c.Data, "`DIR` for everything the node keeps; made where it is missing")
	f.StringVar(&c.Region, "region", c.Region, "`NAME` of the region, 1..32 of a-z 0-9 -; fixed at the first start")
	f.StringVar(&c.Name, "name", c.Name, "`NAME` of the node, 1..32 of a-z 0-9 -; fixed at the first start (default: the host's name)")
}

func (c *Config) bindListeners(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", c.Listen, "public `ADDR`: WebSocket and HTTP (port 0: any free one)")
	f.StringVar(&c.Admin, "admin", c.Admin, "admin `ADDR`: health, metrics, profiles, operations (port 0: any free one)")
	f.StringVar(&c.Metrics, "metrics", c.Metrics, "`ADDR` of health and metrics only, for probes and Prometheus; asks nobody for a token, and may be open to the network (empty: none; port 0: any free one)")
	f.StringVar(&c.Advertise, "advertise", c.Advertise, "`URL` told to clients as this node's endpoint, ws://host:port or wss://host:port (empty: from --listen)")
}

func (c *Config) bindRegion(f *pflag.FlagSet) {
	f.IntVar(&c.Expect, "expect", c.Expect, "nodes of the region, and copies of each log: 1, 3 or 5; above 1 starts clustered")
	f.IntVar(&c.Shards, "shards", c.Shards, "logs of the region, 1 to 64, each decided by one of its nodes; fixed at the first start")
	f.StringSliceVar(&c.Join, "join", c.Join, "membership `ADDR,...` of other nodes; any one of the region is enough (empty: waits for others to name it)")
	f.StringVar(&c.Gossip, "gossip", c.Gossip, "membership `ADDR` between the nodes of a region (TCP and UDP)")
	f.StringVar(&c.AdvertiseGossip, "advertise-gossip", c.AdvertiseGossip, "membership `ADDR` told to the others (empty: from --gossip)")
	f.StringVar(&c.ClusterListen, "cluster-listen", c.ClusterListen, "`ADDR` of the routes between the nodes of a region")
	f.StringVar(&c.AdvertiseCluster, "advertise-cluster", c.AdvertiseCluster, "route `ADDR` told to the others (empty: from --cluster-listen)")
	f.DurationVar(&c.RaftHeartbeat, "raft-heartbeat", c.RaftHeartbeat, "time between a log leader's signs of life to its replicas")
	f.DurationVar(&c.RaftElection, "raft-election", c.RaftElection, "silence after which, within twice that, a replica stands for leader; raise it where disks stall")
}

func (c *Config) bindKeys(f *pflag.FlagSet) {
	f.StringVar(&c.MeshCert, "mesh-cert", c.MeshCert, "`FILE` with this node's certificate for routes and links (PEM); read again when it changes (empty: they are in the clear, which needs --insecure)")
	f.StringVar(&c.MeshKey, "mesh-key", c.MeshKey, "`FILE` with its private key (PEM; empty only with --mesh-cert)")
	f.StringVar(&c.MeshCA, "mesh-ca", c.MeshCA, "`FILE` with the CAs of the other nodes' certificates (PEM; empty only with --mesh-cert)")
	f.StringVar(&c.GossipKey, "gossip-key", c.GossipKey, "keyring `FILE` that encrypts membership (stockctl certs gossip-key makes one); read again when it changes (empty: membership is in the clear)")
}

func (c *Config) bindClients(f *pflag.FlagSet) {
	f.StringVar(&c.TLSCert, "tls-cert", c.TLSCert, "`FILE` with the public port's certificate chain (PEM); read again when it changes (empty: no TLS)")
	f.StringVar(&c.TLSKey, "tls-key", c.TLSKey, "`FILE` with its private key (PEM; empty only with --tls-cert)")
	f.StringVar(&c.TLSCA, "tls-ca", c.TLSCA, "`FILE` with the CAs of client certificates (PEM); who shows none is still let in (empty: no client certificates)")
	f.StringVar(&c.JWKS, "jwks", c.JWKS, "`URL or FILE` with the public keys that sign clients' tokens (JWKS, a file also PEM); read again when they change (empty: nobody is asked for a token)")
	f.StringVar(&c.JWTIssuer, "jwt-issuer", c.JWTIssuer, "what tokens must say in iss (empty: not looked at)")
	f.StringVar(&c.JWTAudience, "jwt-audience", c.JWTAudience, "what tokens must name in aud (empty: not looked at)")
	f.StringSliceVar(&c.Origins, "origins", c.Origins, "`LIST` of allowed Origin headers (empty: only the node's own host, which always is)")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxies", c.TrustedProxies, "`CIDR,...` of proxies before the public port: their PROXY headers (v1, v2) and X-Forwarded-For say who the client is (empty: none is believed)")
	f.BoolVar(&c.Insecure, "insecure", c.Insecure, "allow what the defaults refuse: listening beyond loopback without authentication, routes and links in the clear")
}

func (c *Config) bindLimits(f *pflag.FlagSet) {
	f.IntVar(&c.MaxConnections, "max-connections", c.MaxConnections, "connections of the public port, above it 503 (0: as many as the file limit allows)")
	f.IntVar(&c.MaxConnectionsPerIP, "max-connections-per-ip", c.MaxConnectionsPerIP, "connections of one address or IPv6 /64, above it 429 (0: no limit)")
	f.IntVar(&c.MaxConnectionsPerUser, "max-connections-per-user", c.MaxConnectionsPerUser, "connections of one token's subject in the whole region, above it 429 or close code 4102 (0: no limit)")
	f.IntVar(&c.MaxSubscriptionsPerUser, "max-subscriptions-per-user", c.MaxSubscriptionsPerUser, "selectors that one token's subject may have subscribed to in the whole region (0: no limit)")
	f.IntVar(&c.RateLimit, "rate-limit", c.RateLimit, "commands per second of one address (IPv6: its /64), above it rate_limited or 429 (0: no limit); an HTTP request is a command, a batch as many as it holds")
	f.IntVar(&c.RateLimitPerConnection, "rate-limit-per-connection", c.RateLimitPerConnection, "commands per second of one WebSocket, above it rate_limited (0: no limit)")
	f.IntVar(&c.RateLimitPerUser, "rate-limit-per-user", c.RateLimitPerUser, "commands per second of one token's subject in the whole region (0: no limit)")
	f.IntVar(&c.RateBurst, "rate-burst", c.RateBurst, "commands at once within these rates (0: a second's worth)")
}

func (c *Config) bindTimes(f *pflag.FlagSet) {
	f.DurationVar(&c.Heartbeat, "heartbeat", c.Heartbeat, "time between pings, at least 100ms; a client silent for two is closed")
	f.DurationVar(&c.Drain, "drain", c.Drain, "time over which clients are sent elsewhere at the end (0, and a node without others: at once)")
	f.DurationVar(&c.KeyWindow, "key-window", c.KeyWindow, "how long an idempotency key is remembered at least, 1s or more; forgotten within twice that")
	f.DurationVar(&c.History, "history", c.History, "how long movements are kept at least, twice --key-window or more (0: for ever)")
}
