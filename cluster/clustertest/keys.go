package clustertest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// Keys are the key material of a secured region: files that its nodes read again when
// they change, and what its clients are given. All its methods may be called while the
// region serves.
type Keys struct {
	t   testing.TB
	dir string

	mu      sync.Mutex
	cas     []*certPair // trusted; the last one signs
	members []member
	tokens  []tokenKey // in the JWKS; the one of signer signs
	signer  int
	gossip  []string // base64, the first encrypts
	rolled  int      // how often those were changed
	ttl     time.Duration
}

type certPair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

type tokenKey struct {
	id  string
	key ed25519.PrivateKey
}

// member is a node that has certificates.
type member struct{ region, name string }

const (
	keysIssuer   = "https://id.clustertest"
	keysAudience = "stockmesh"
)

// Secured gives every node tokens to check, TLS on its public port, mutual TLS on its
// routes and encrypted membership. Clients get tokens, which live for ttl only and grant
// everything but admin.
func Secured(ttl time.Duration) Option {
	return func(s *setup) { s.tokens = ttl }
}

// Keys of a region that is Secured.
func (r *Region) Keys() *Keys {
	r.t.Helper()
	if r.keys == nil {
		r.t.Fatal("the region is not Secured")
	}
	return r.keys
}

// Secure does for a mesh, none of whose nodes has been started, what Secured does for a
// region. All regions have the same keys.
func (m *Mesh) Secure(ttl time.Duration) *Keys {
	m.t.Helper()
	k := newKeys(m.t, filepath.Join(m.t.TempDir(), "keys"), ttl)
	for _, r := range m.regions {
		r.keys = k
		r.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: k.trust()}
		for _, n := range r.nodes {
			n.Change(k.join)
			n.Endpoint, n.HTTP = "wss://"+n.config.Listen, "https://"+n.config.Listen
		}
	}
	return k
}

func newKeys(t testing.TB, dir string, ttl time.Duration) *Keys {
	t.Helper()
	k := &Keys{t: t, dir: dir, ttl: ttl}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k.addCA()
	k.addTokenKey()
	k.addGossipKey()
	k.write()
	return k
}

// join makes a node's certificates and names the files in its configuration.
func (k *Keys) join(c *server.Config) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.members = append(k.members, member{c.Region, c.Name})
	file := func(name string) string { return filepath.Join(k.dir, name) }
	own := c.Region + "-" + c.Name
	c.Insecure = false
	c.JWKS, c.JWTIssuer, c.JWTAudience = file("jwks.json"), keysIssuer, keysAudience
	c.TLSCert, c.TLSKey = file(own+".pem"), file(own+"-key.pem")
	c.MeshCert, c.MeshKey, c.MeshCA = c.TLSCert, c.TLSKey, file("ca.pem")
	c.GossipKey = file("gossip.key")
	k.certify()
}

// write puts what all nodes share into files.
func (k *Keys) write() {
	k.t.Helper()
	var pool []byte
	for _, ca := range k.cas {
		pool = append(pool, pemOf("CERTIFICATE", ca.cert.Raw)...)
	}
	k.put("ca.pem", pool)
	type key struct {
		KTY string `json:"kty"`
		CRV string `json:"crv"`
		ALG string `json:"alg"`
		Use string `json:"use"`
		KID string `json:"kid"`
		X   string `json:"x"`
	}
	set := struct {
		Keys []key `json:"keys"`
	}{}
	for _, t := range k.tokens {
		x := base64.RawURLEncoding.EncodeToString(t.key.Public().(ed25519.PublicKey))
		set.Keys = append(set.Keys, key{"OKP", "Ed25519", "EdDSA", "sig", t.id, x})
	}
	k.put("jwks.json", protocol.AppendJSON(nil, set))
	k.put("gossip.key", []byte(strings.Join(k.gossip, "\n")+"\n"))
}

// put replaces a file whole: a node may be reading it.
func (k *Keys) put(name string, data []byte) {
	k.t.Helper()
	name = filepath.Join(k.dir, name)
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		k.t.Fatal(err)
	}
}

// certify makes every member's certificate anew, with the newest CA.
func (k *Keys) certify() {
	k.t.Helper()
	for _, m := range k.members {
		pair := k.sign(k.cas[len(k.cas)-1], &x509.Certificate{
			Subject:     pkix.Name{CommonName: m.name},
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			URIs:        []*url.URL{{Scheme: "stockmesh", Host: m.region, Path: "/" + m.name}},
		})
		key, err := x509.MarshalPKCS8PrivateKey(pair.key)
		if err != nil {
			k.t.Fatal(err)
		}
		// Between the two a reader finds a key that doesn't fit, and keeps what it has.
		k.put(m.region+"-"+m.name+"-key.pem", pemOf("PRIVATE KEY", key))
		k.put(m.region+"-"+m.name+".pem", pemOf("CERTIFICATE", pair.cert.Raw))
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// sign completes a certificate; without a CA it signs itself.
func (k *Keys) sign(ca *certPair, c *x509.Certificate) *certPair {
	k.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		k.t.Fatal(err)
	}
	if ca == nil {
		ca = &certPair{c, key}
	}
	c.SerialNumber, c.BasicConstraintsValid = big.NewInt(time.Now().UnixNano()), true
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, key.Public(), ca.key)
	if err != nil {
		k.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		k.t.Fatal(err)
	}
	return &certPair{cert, key}
}

func (k *Keys) addCA() {
	k.t.Helper()
	k.cas = append(k.cas, k.sign(nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: fmt.Sprintf("CA %d", len(k.cas))}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}))
}

func (k *Keys) addTokenKey() {
	k.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		k.t.Fatal(err)
	}
	k.tokens = append(k.tokens, tokenKey{rand.Text(), key})
}

func (k *Keys) addGossipKey() {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	k.gossip = append(k.gossip, base64.StdEncoding.EncodeToString(b[:]))
}

// change alters the key material and writes it.
func (k *Keys) change(alter func()) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	alter()
	k.write()
}

// The steps of rolling each key follow, in order. Between them all nodes must have read
// the files: Region.AwaitKeys. The CAs of routes are read at a node's start only.

// AddTokenKey publishes a new key that doesn't sign yet.
func (k *Keys) AddTokenKey() { k.t.Helper(); k.change(k.addTokenKey) }

// UseNewTokenKey signs with the newest key.
func (k *Keys) UseNewTokenKey() { k.t.Helper(); k.change(func() { k.signer = len(k.tokens) - 1 }) }

// DropOldTokenKeys leaves the key that signs.
func (k *Keys) DropOldTokenKeys() {
	k.t.Helper()
	k.change(func() { k.tokens, k.signer = k.tokens[k.signer:k.signer+1], 0 })
}

// AddCA has a new CA trusted beside the old one.
func (k *Keys) AddCA() { k.t.Helper(); k.change(k.addCA) }

// Recertify gives every node a new certificate of the newest CA.
func (k *Keys) Recertify() { k.t.Helper(); k.change(k.certify) }

// DropOldCAs leaves the newest.
func (k *Keys) DropOldCAs() { k.t.Helper(); k.change(func() { k.cas = k.cas[len(k.cas)-1:] }) }

// AddGossipKey has a new key accepted beside the one that encrypts.
func (k *Keys) AddGossipKey() { k.t.Helper(); k.change(func() { k.addGossipKey(); k.rolled++ }) }

// UseNewGossipKey encrypts with the newest.
func (k *Keys) UseNewGossipKey() {
	k.t.Helper()
	k.change(func() {
		last := len(k.gossip) - 1
		k.gossip = append([]string{k.gossip[last]}, k.gossip[:last]...)
		k.rolled++
	})
}

// DropOldGossipKeys leaves the one that encrypts.
func (k *Keys) DropOldGossipKeys() {
	k.t.Helper()
	k.change(func() { k.gossip = k.gossip[:1]; k.rolled++ })
}

// Token mints a token for a subject with grants as JSON, good for as long as the
// region's tokens are.
func (k *Keys) Token(subject, grants string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mint(k.tokens[k.signer], subject, grants)
}

// OldToken is one signed with the oldest key that is still published.
func (k *Keys) OldToken(subject, grants string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mint(k.tokens[0], subject, grants)
}

func (k *Keys) mint(by tokenKey, subject, grants string) string {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": keysIssuer, "aud": keysAudience, "sub": subject, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(k.ttl).Unix(), "grants": json.RawMessage(grants),
	})
	t.Header["kid"] = by.id
	s, err := t.SignedString(by.key)
	if err != nil {
		panic(err) // not from what this package makes
	}
	return s
}

// shopGrants is everything but admin.
const shopGrants = `[{"do":["watch","history","adjust","count","reserve","sell","move","configure"]}]`

// source is where a client gets its tokens.
func (k *Keys) source(subject string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return k.Token(subject, shopGrants), nil }
}

// trust lets a client in at nodes of every CA that is trusted now.
func (k *Keys) trust() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { //nolint:gosec // verified below, against what is trusted then
		k.mu.Lock()
		defer k.mu.Unlock()
		roots := x509.NewCertPool()
		for _, ca := range k.cas {
			roots.AddCert(ca.cert)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: s.ServerName})
		return err
	}}
}

// HTTP is a client that lets the nodes in, and sends no token by itself.
func (k *Keys) HTTP() *http.Client {
	return &http.Client{Timeout: readyWait, Transport: &http.Transport{TLSClientConfig: k.trust(), MaxIdleConnsPerHost: 16}}
}

// AwaitKeys waits until every running node has read what is in the files.
func (r *Region) AwaitKeys() {
	r.t.Helper()
	for _, n := range r.Running() {
		r.await(n.Name+" to read its keys", readyWait*Slow, func(ctx context.Context) error { return n.hasKeys(ctx) })
	}
}

func (n *Node) hasKeys(ctx context.Context) error {
	k := n.region.keys
	k.mu.Lock()
	rolled := k.rolled
	want, err := os.ReadFile(n.config.TLSCert)
	var tokens []string
	for _, by := range k.tokens {
		tokens = append(tokens, k.mint(by, "probe", shopGrants))
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if status, err := n.asked(ctx, token); err != nil || status != http.StatusOK {
			return fmt.Errorf("a token of each key: %d %w", status, err)
		}
	}
	if shown, err := n.certificate(ctx); err != nil || !bytes.Equal(pemOf("CERTIFICATE", shown.Raw), want) {
		return fmt.Errorf("it shows another certificate (%w)", err)
	}
	if have := strings.Count(n.Log(), "gossip: keys changed"); have < rolled {
		return fmt.Errorf("its membership's keys changed %d times of %d", have, rolled)
	}
	return nil
}

// asked reads a page of a node with a token.
func (n *Node) asked(ctx context.Context, token string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP+"/v1/stock?limit=1", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := n.region.http.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

func (n *Node) certificate(ctx context.Context) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: n.region.keys.trust()}
	conn, err := dialer.DialContext(ctx, "tcp", n.config.Listen)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// AwaitRefused waits until no running node takes a token any more.
func (r *Region) AwaitRefused(token string) {
	r.t.Helper()
	r.await("the token to be refused", readyWait*Slow, func(ctx context.Context) error {
		for _, n := range r.Running() {
			if status, err := n.asked(ctx, token); err != nil || status != http.StatusUnauthorized {
				return fmt.Errorf("%s: %d %w", n, status, err)
			}
		}
		return nil
	})
}
