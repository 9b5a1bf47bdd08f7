package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/node/token"
)

const (
	// checkLookupMax bounds the wait for a name, and for keys.
	checkLookupMax = 3 * time.Second

	// certificateSoon is how long before its end a certificate is told of.
	certificateSoon = 14 * 24 * time.Hour
)

// Findings are what Check found.
type Findings struct {
	Problems []string // a node with this configuration does not start, or can't do its work
	Warnings []string
}

// Check says everything that is wrong with the configuration that can be known without
// starting: values, files, the data directory, names of other machines. It changes
// nothing; a node may run with it meanwhile. It takes a few seconds at most, where names
// or the keys of --jwks are waited for.
func (c *Config) Check(ctx context.Context) Findings {
	k := &checker{config: c, now: time.Now()}
	k.problem("", c.Validate())
	k.found.Warnings = append(k.found.Warnings, c.Warnings()...)
	k.publicTLS()
	k.meshTLS()
	k.keyFiles()
	k.dataDir()
	k.listeners()
	k.names(ctx)
	k.tokenKeys(ctx)
	return k.found
}

type checker struct {
	config *Config
	now    time.Time
	found  Findings
}

// problem takes errors apart that were joined.
func (k *checker) problem(flag string, err error) {
	k.found.Problems = append(k.found.Problems, told(flag, err)...)
}

func (k *checker) warn(flag string, err error) {
	k.found.Warnings = append(k.found.Warnings, told(flag, err)...)
}

// told is what an error says of an option. Without one it says so itself.
func told(flag string, err error) []string {
	if err == nil || flag == "" {
		return Lines(err)
	}
	return []string{flag + ": " + oneLine(err)}
}

// Lines takes apart an error that joins others, as those of Validate and ReadOptions: a
// line for each.
func Lines(err error) (list []string) {
	if err == nil {
		return nil
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(many.Unwrap()...).Error() != err.Error() {
		return []string{oneLine(err)} // it says more than what it wraps
	}
	for _, e := range many.Unwrap() {
		list = append(list, Lines(e)...)
	}
	return list
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", ": ") }

func (k *checker) publicTLS() {
	c := k.config
	if c.TLSCert == "" || c.TLSKey == "" {
		return
	}
	own := k.pair("--tls-cert", c.TLSCert, c.TLSKey, c.TLSCA)
	if own == nil || c.Advertise == "" {
		return
	}
	if u, err := url.Parse(c.Advertise); err == nil && u.Hostname() != "" {
		k.warn("--tls-cert", own.Leaf.VerifyHostname(u.Hostname()))
	}
}

// meshTLS asks of the node's own certificate what other nodes and regions will.
func (k *checker) meshTLS() {
	c := k.config
	if c.MeshCert == "" || c.MeshKey == "" || c.MeshCA == "" {
		return
	}
	own := k.pair("--mesh-cert", c.MeshCert, c.MeshKey, "")
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(c.MeshCA)
	if err == nil && !roots.AppendCertsFromPEM(pem) {
		err = fmt.Errorf("%s: no certificate in it", c.MeshCA)
	}
	k.problem("--mesh-ca", err)
	if own == nil {
		return
	}
	if err := checkOwn(own.Leaf, c.Region); err != nil {
		k.problem("--mesh-cert", err)
	} else if name := strings.TrimPrefix(meshURI(own.Leaf).Path, "/"); name != c.Name {
		k.warn("--mesh-cert", fmt.Errorf("it names node %q, this is %q: others let it in, but can't tell the two apart", name, c.Name))
	}
	if err == nil {
		k.signed(own, roots)
	}
	k.namesHosts(own.Leaf)
}

// namesHosts asks whether the certificate is for where others are told to dial.
func (k *checker) namesHosts(leaf *x509.Certificate) {
	for _, p := range k.config.told() {
		host, _, err := net.SplitHostPort(p.addr)
		if err != nil || p.flag != "--advertise-cluster" && p.flag != "--advertise-link" {
			continue
		}
		if err := leaf.VerifyHostname(host); err != nil {
			k.warn("--mesh-cert", fmt.Errorf("%s sends others to %s, whom it isn't for: %w", p.flag, host, err))
		}
	}
}

// signed asks whether a CA of the mesh vouches for the certificate, whatever the time.
func (k *checker) signed(own *tls.Certificate, roots *x509.CertPool) {
	between := x509.NewCertPool()
	for _, der := range own.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	at := k.now
	if at.Before(own.Leaf.NotBefore) || at.After(own.Leaf.NotAfter) {
		at = own.Leaf.NotAfter // pair has told of it
	}
	// A node dials and is dialled.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := own.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			k.problem("--mesh-cert", fmt.Errorf("other nodes won't take it: %w", err))
			return
		}
	}
}

// checkOwn is checkPeer in words that fit the node's own certificate.
func checkOwn(leaf *x509.Certificate, region string) error {
	if err := checkNamed(leaf); err != nil {
		return fmt.Errorf("other nodes won't take it: %w", err)
	}
	if u := meshURI(leaf); u.Host != region {
		return fmt.Errorf("it is for region %q, not %q", u.Host, region)
	}
	return nil
}

// meshURI is the name of a certificate that checkNamed has let pass.
func meshURI(leaf *x509.Certificate) *url.URL {
	return leaf.URIs[slices.IndexFunc(leaf.URIs, func(u *url.URL) bool { return u.Scheme == meshIdentity })]
}

// pair reads a certificate and its key; nil where they can't be used.
func (k *checker) pair(flag, certFile, keyFile, caFile string) *tls.Certificate {
	files, err := newCertificates(certFile, keyFile, caFile, slog.New(slog.DiscardHandler))
	if err != nil {
		k.problem(flag, err)
		return nil
	}
	own := &files.current().Certificates[0]
	leaf := own.Leaf
	switch left := leaf.NotAfter.Sub(k.now); {
	case left <= 0:
		k.problem(flag, fmt.Errorf("%s: expired at %s", certFile, leaf.NotAfter.Format(time.RFC3339)))
	case leaf.NotBefore.After(k.now):
		k.problem(flag, fmt.Errorf("%s: not valid before %s", certFile, leaf.NotBefore.Format(time.RFC3339)))
	case left < certificateSoon:
		k.warn(flag, fmt.Errorf("%s: expires at %s", certFile, leaf.NotAfter.Format(time.RFC3339)))
	}
	return own
}

func (k *checker) keyFiles() {
	if k.config.LinkSecret == "" {
		return
	}
	_, err := readLinkSecrets(k.config.LinkSecret)
	k.problem("--link-secret", err)
}

// dataDir asks whether the directory is this node's, and the keyring of those it talks to.
func (k *checker) dataDir() {
	c := k.config
	if c.Data == "" {
		return
	}
	disk := cluster.Config{Dir: c.Data, Region: c.Region, Node: c.Name, Shards: c.Shards}
	if c.clustered() {
		disk.Members = &cluster.Members{GossipKey: c.GossipKey}
	}
	if c.meshed() {
		disk.Mesh = &cluster.Mesh{GossipKey: c.GossipKey}
	}
	for _, err := range cluster.Check(disk) {
		k.problem("", err)
	}
}

// place is an address that an option names.
type place struct {
	flag, addr string
	must       bool // a node doesn't start without knowing where it is
}

// listening are the addresses that the node opens.
func (c *Config) listening() []place {
	list := []place{{"--listen", c.Listen, true}, {"--admin", c.Admin, true}}
	if c.Metrics != "" {
		list = append(list, place{"--metrics", c.Metrics, true})
	}
	if c.clustered() {
		list = append(list, place{"--gossip", c.Gossip, true}, place{"--cluster-listen", c.ClusterListen, true})
	}
	if c.meshed() {
		list = append(list, place{"--wan-gossip", c.WANGossip, true}, place{"--link-listen", c.LinkListen, true})
	}
	return list
}

// told are the addresses of others, and those that others are told.
func (c *Config) told() (list []place) {
	add := func(flag string, must bool, addrs ...string) {
		for _, a := range addrs {
			list = append(list, place{flag, a, must})
		}
	}
	if c.clustered() {
		add("--join", false, c.Join...)
		add("--advertise-gossip", true, c.AdvertiseGossip)
		add("--advertise-cluster", false, c.AdvertiseCluster)
	}
	if c.meshed() {
		add("--join-region", false, c.JoinRegion...)
		add("--advertise-wan", true, c.AdvertiseWAN)
		all, only, _ := c.advertisedLink() // Validate tells of its error
		add("--advertise-link", false, all)
		for _, addr := range only {
			add("--advertise-link", false, addr)
		}
	}
	if u, err := url.Parse(c.TraceEndpoint); err == nil && u.Host != "" {
		add("--trace-endpoint", false, net.JoinHostPort(u.Hostname(), u.Port()))
	}
	return list
}

// listeners tells of two that can't both be opened.
func (k *checker) listeners() {
	list := k.config.listening()
	for i, a := range list {
		for _, b := range list[:i] {
			if sameDoor(a.addr, b.addr) {
				k.problem("", fmt.Errorf("%s and %s are both %s", b.flag, a.flag, a.addr))
			}
		}
	}
}

func sameDoor(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	everywhere := func(host string) bool {
		ip := net.ParseIP(host)
		return host == "" || ip != nil && ip.IsUnspecified()
	}
	return errA == nil && errB == nil && portA == portB && portA != "0" && (hostA == hostB || everywhere(hostA) || everywhere(hostB))
}

// names looks up all hosts at once.
func (k *checker) names(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkLookupMax)
	defer cancel()
	places := append(k.config.listening(), k.config.told()...)
	errs := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		host, _, err := net.SplitHostPort(p.addr)
		if err != nil || host == "" || net.ParseIP(host) != nil {
			continue
		}
		wg.Go(func() { _, errs[i] = net.DefaultResolver.LookupNetIP(ctx, "ip", host) })
	}
	wg.Wait()
	for i, p := range places {
		if p.must {
			k.problem(p.flag, errs[i])
		} else {
			k.warn(p.flag, errs[i])
		}
	}
}

// tokenKeys reads the keys as a start does. Those of a URL may still come later.
func (k *checker) tokenKeys(ctx context.Context) {
	c := k.config
	if c.JWKS == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkLookupMax)
	defer cancel()
	g, err := token.New(ctx, token.Config{Keys: c.JWKS, Region: c.Region})
	if err != nil {
		k.problem("--jwks", err)
		return
	}
	defer g.Close()
	k.warn("--jwks", g.Health())
}

// Summary says in a line what a node with this configuration is.
func (c *Config) Summary() string {
	said := []string{fmt.Sprintf("node %s of region %s, data in %s", c.Name, c.Region, c.Data)}
	for _, p := range c.listening() {
		said = append(said, p.flag+" "+p.addr)
	}
	return strings.Join(said, ", ")
}
