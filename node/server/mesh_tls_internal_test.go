package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs nodes' certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}}
	a.key = newPrivateKey(t)
	a.write(t, "ca", a.cert, a.key)
	return a
}

func newPrivateKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write puts DIR/name.pem and DIR/name-key.pem in place.
func (a *authority) write(t *testing.T, name string, template *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// server is a node of region whose certificate names uris.
func (a *authority) server(t *testing.T, region string, uris ...string) *Server {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{"localhost"},
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	name := template.SerialNumber.String()
	a.write(t, name, template, newPrivateKey(t))
	c := Default()
	c.Region, c.Mesh = region, true
	c.MeshCA, c.MeshCert, c.MeshKey = filepath.Join(a.dir, "ca.pem"), filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) mustTLS(t *testing.T, of func(*Server) (*tls.Config, error)) *tls.Config {
	t.Helper()
	c, err := of(s)
	if err != nil {
		t.Fatal(err)
	}
	c = c.Clone()
	c.ServerName = "localhost"
	return c
}

// connected is two ends of a connection; those of a net.Pipe would block each other
// where both write, as with an alert in the middle of a handshake.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// shake returns what each end of a connection came to.
func shake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	near, far := connected(t)
	deadline := time.Now().Add(30 * time.Second)
	near.SetDeadline(deadline)
	far.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		s := tls.Server(far, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	// With TLS 1.3 a client learns by reading that its own certificate was refused.
	_, clientErr = tls.Client(near, client).Read(make([]byte, 1))
	near.Close()
	return clientErr, <-done
}

func TestTLSOfLinksAndRoutes(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	eu := a.server(t, "eu", "stockmesh://eu/n1")
	link, route := eu.mustTLS(t, (*Server).linkTLS), eu.mustTLS(t, (*Server).meshTLS)
	for name, c := range map[string]struct {
		other               *Server
		wantLink, wantRoute string // "" is let in
	}{
		"our region":     {a.server(t, "eu", "stockmesh://eu/n2"), "", ""},
		"another region": {a.server(t, "us", "stockmesh://us/n1"), "", `is for region "us", not "eu"`},
		"also a web URI": {a.server(t, "us", "https://us.example.com/n1", "stockmesh://us/n1"), "", `is for region "us"`},
		"no name":        {a.server(t, "us"), "names 0 nodes", "names 0 nodes"},
		"two names":      {a.server(t, "us", "stockmesh://eu/n2", "stockmesh://us/n1"), "names 2 nodes", "names 2 nodes"},
		"no node":        {a.server(t, "us", "stockmesh://us"), "want stockmesh://REGION/NAME", "want stockmesh://REGION/NAME"},
		"a path":         {a.server(t, "us", "stockmesh://us/n1/x"), "want stockmesh://REGION/NAME", "want stockmesh://REGION/NAME"},
		"odd region":     {a.server(t, "us", "stockmesh://US/n1"), "want stockmesh://REGION/NAME", "want stockmesh://REGION/NAME"},
		"another CA":     {stranger.server(t, "us", "stockmesh://us/n1"), "unknown authority", "unknown authority"},
	} {
		// Whoever checks the other's certificate first is the one with a reason; the
		// other learns of it only by a broken connection.
		open := &tls.Config{InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, GetCertificate: c.other.mustTLS(t, (*Server).linkTLS).GetCertificate,
			GetClientCertificate: c.other.mustTLS(t, (*Server).linkTLS).GetClientCertificate}
		for kind, ours := range map[string]struct {
			config *tls.Config
			want   string
		}{"link": {link, c.wantLink}, "route": {route, c.wantRoute}} {
			_, called := shake(t, open, ours.config)
			calling, _ := shake(t, ours.config, open)
			for side, err := range map[string]error{"called": called, "calling": calling} {
				if ours.want == "" && err != nil || ours.want != "" && (err == nil || !strings.Contains(err.Error(), ours.want)) {
					t.Errorf("%s, %s, %s: %v, want %q", name, kind, side, err, ours.want)
				}
			}
		}
	}
	if c, err := (&Server{}).linkTLS(); c != nil || err != nil {
		t.Errorf("without certificates: %v, %v", c, err)
	}
	// Nobody without a certificate.
	if _, err := shake(t, &tls.Config{InsecureSkipVerify: true}, link); err == nil {
		t.Error("let in without a certificate")
	}
}
