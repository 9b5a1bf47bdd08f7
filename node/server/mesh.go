package server

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	wanGossipDefault  = ":7947"
	linkListenDefault = ":7422"

	// rightsTimeoutMax keeps a command below the time clients wait for an answer.
	rightsTimeoutMax = 5 * time.Second
)

// bindMesh makes the fields of links between regions settable by flags.
func (c *Config) bindMesh(f *pflag.FlagSet) {
	f.StringVar(&c.WANGossip, "wan-gossip", c.WANGossip, "membership `ADDR` between regions (TCP and UDP); this option, --join-region or --link-listen links the region to others")
	f.StringSliceVar(&c.JoinRegion, "join-region", c.JoinRegion, "--wan-gossip `ADDR,...` of nodes of other regions; any one of the mesh is enough (empty: waits for others to name it)")
	f.StringVar(&c.LinkListen, "link-listen", c.LinkListen, "`ADDR` of the links between regions")
	f.StringVar(&c.AdvertiseWAN, "advertise-wan", c.AdvertiseWAN, "membership `ADDR` told to other regions (empty: from --wan-gossip)")
	f.StringVar(&c.AdvertiseLink, "advertise-link", c.AdvertiseLink, "link `ADDR` told to other regions; REGION=ADDR,... tells a region one of its own (empty: from --link-listen)")
	f.StringVar(&c.LinkSecret, "link-secret", c.LinkSecret, "keyring `FILE` of the links' passwords, the same in all regions (stockctl certs link-secret makes one); read again when it changes (empty: links have no password)")
	f.DurationVar(&c.RightsTimeout, "rights-timeout", c.RightsTimeout, "how long a sale waits for units that other regions hold, at most 5s (0: not at all)")
	for _, name := range []string{"wan-gossip", "join-region", "link-listen"} {
		flag := f.Lookup(name)
		flag.Value = noticed{flag.Value, &c.Mesh}
	}
	f.Lookup("join-region").DefValue = "" // "[]" is no default to show
}

// noticed is a flag's value that tells when it was given, also as what is the default.
type noticed struct {
	pflag.Value
	given *bool
}

// Set implements pflag.Value. An empty value, as a template leaves behind, is not given.
func (n noticed) Set(v string) error {
	*n.given = *n.given || v != ""
	return n.Value.Set(v)
}

// meshed reports whether the region is linked to others.
func (c *Config) meshed() bool {
	given := func(v, usual string) bool { return v != "" && v != usual }
	return c.Mesh || len(c.JoinRegion) > 0 || given(c.WANGossip, wanGossipDefault) || given(c.LinkListen, linkListenDefault)
}

func (c *Config) checkMesh() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.RightsTimeout < 0 || c.RightsTimeout > rightsTimeoutMax {
		bad("--rights-timeout %v is not within 0s and %v", c.RightsTimeout, rightsTimeoutMax)
	}
	if !c.meshed() {
		for flag, v := range map[string]string{"--advertise-wan": c.AdvertiseWAN, "--advertise-link": c.AdvertiseLink, "--link-secret": c.LinkSecret} {
			if v != "" {
				bad("%s is for a region that is linked to others: --wan-gossip, --join-region or --link-listen says that it is", flag)
			}
		}
		return errs
	}
	if c.MeshCert == "" && !c.Insecure {
		bad("--wan-gossip, --join-region or --link-listen without --mesh-cert, --mesh-key and --mesh-ca would send stock in the clear, and to anybody who answers for another region: make certificates with `stockctl certs`, or use --insecure if the network is closed")
	}
	for flag, addr := range map[string]string{"--wan-gossip": c.WANGossip, "--link-listen": c.LinkListen} {
		if !fixedAddress(addr) {
			bad("%s %q: want host:port or :port", flag, addr)
		}
	}
	for _, addr := range c.JoinRegion {
		if !reachableAddress(addr) {
			bad("--join-region %q: want host:port", addr)
		}
	}
	if c.AdvertiseWAN != "" && !reachableAddress(c.AdvertiseWAN) {
		bad("--advertise-wan %q: want host:port", c.AdvertiseWAN)
	}
	if _, _, err := c.advertisedLink(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// fixedAddress tells whether addr is host:port with a port that others can be told.
func fixedAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && n > 0
}

// reachableAddress tells whether another machine can dial addr: on it, ":7422" would be
// that machine itself.
func reachableAddress(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	return host != "" && fixedAddress(addr)
}

// advertisedLink takes --advertise-link apart: one address for all regions, "" where
// none is given, and those for the nodes of one region.
func (c *Config) advertisedLink() (all string, only map[string]string, err error) {
	if c.AdvertiseLink == "" {
		return "", nil, nil
	}
	bad := func(format string, args ...any) (string, map[string]string, error) {
		return "", nil, fmt.Errorf("--advertise-link %q: %w", c.AdvertiseLink, fmt.Errorf(format, args...))
	}
	only = make(map[string]string)
	for part := range strings.SplitSeq(c.AdvertiseLink, ",") {
		region, addr, named := strings.Cut(part, "=")
		if !named {
			region, addr = "", part
		} else if err := protocol.CheckRegion("REGION", region); err != nil {
			return bad("%s, not %q", err.Message, region)
		}
		if !reachableAddress(addr) {
			return bad("%q: want host:port", part)
		}
		if _, twice := only[region]; twice || !named && all != "" {
			return bad("%w", errors.New("two addresses for the same region"))
		}
		if named {
			only[region] = addr
		} else {
			all = addr
		}
	}
	return all, only, nil
}

// mesh is how the node takes part in a mesh of regions, nil where its region is the
// only one.
func (s *Server) mesh() (*cluster.Mesh, error) {
	c := &s.config
	if !c.meshed() {
		return nil, nil
	}
	secure, err := s.linkTLS()
	if err != nil {
		return nil, err
	}
	var secrets func() []string
	if c.LinkSecret != "" {
		file, err := newLinkSecrets(c.LinkSecret, s.logger)
		if err != nil {
			return nil, err
		}
		secrets = file.current
	}
	all, only, err := c.advertisedLink()
	if err != nil {
		return nil, err
	}
	return &cluster.Mesh{
		WANGossip: c.WANGossip, AdvertiseWAN: c.AdvertiseWAN, JoinRegion: c.JoinRegion, GossipKey: c.GossipKey,
		Link: c.LinkListen, AdvertiseLink: all, AdvertiseLinkTo: only,
		TLS: secure, Secrets: secrets, RightsTimeout: c.RightsTimeout,
	}, nil
}
