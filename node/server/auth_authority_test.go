package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
)

// authority makes certificates: of nodes and of tills.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	own := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true,
	})
	a.cert, a.key = own.Leaf, own.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign completes a certificate. The first is the authority's own.
func (a *authority) sign(c *x509.Certificate) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	a.n++
	c.SerialNumber = big.NewInt(0xABC0 + a.n) // letters: revocations name it in hex
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// till makes a client certificate bound to a location.
func (a *authority) till(name, location string, change ...func(*x509.Certificate)) *tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "urn", Opaque: "stockmesh:location:" + location}},
	}
	for _, fn := range change {
		fn(c)
	}
	return a.sign(c)
}

// tls gives a node a certificate, and lets those of tills in.
func (a *authority) tls() func(*server.Config) {
	a.t.Helper()
	dir := a.t.TempDir()
	put := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return name
	}
	node := a.sign(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	key, err := x509.MarshalPKCS8PrivateKey(node.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, secret, ca := put("cert.pem", "CERTIFICATE", node.Leaf.Raw), put("key.pem", "PRIVATE KEY", key), put("ca.pem", "CERTIFICATE", a.cert.Raw)
	return func(c *server.Config) { c.TLSCert, c.TLSKey, c.TLSCA = cert, secret, ca }
}

// as is the lodge as seen by a client with a certificate, or with none.
func (l *lodge) as(cert *tls.Certificate) *lodge {
	own := *l
	c := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // whom the client trusts isn't looked at here
	if cert != nil {
		// Whatever the node asks for: a thief would send it too.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	own.http = &http.Client{Timeout: hang, Transport: &http.Transport{TLSClientConfig: c}}
	l.t.Cleanup(own.http.CloseIdleConnections)
	return &own
}
