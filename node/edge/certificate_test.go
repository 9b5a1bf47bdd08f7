package edge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// authority signs client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "authority"},
	}
	a.cert = a.sign(t, template, template, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t testing.TB, template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// client is a certificate for a name.
func (a *authority) client(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	cert := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// asks has an edge ask for certificates of this authority.
func (a *authority) asks(t testing.TB) func(*edge.Config) {
	return func(c *edge.Config) {
		c.TLS = testCertificate(t)
		c.TLS.ClientAuth, c.TLS.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
		c.TLS.ClientCAs.AddCert(a.cert)
	}
}

// showing has the next clients show a certificate.
func (f *fixture) showing(certs ...tls.Certificate) {
	f.tls = &tls.Config{InsecureSkipVerify: true, Certificates: certs}
}

func TestClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	f := startGuarded(t, ca.asks(t))
	f.guard.knows(t, "till-1", "till", onlyTees)
	f.showing(ca.client(t, "till-1"))
	p := f.dial() // its certificate is enough
	p.ok(`{"op":"adjust","key":"k","sku":"tee-1","location":"shop","delta":1}`)
	p.refused(`{"op":"adjust","key":"k","sku":"mug","location":"shop","delta":1}`, protocol.CodeForbidden)
	if u := f.quota.of("till"); u.connections != 1 {
		t.Errorf("it uses %+v", u)
	}
	p.authAs("all") // and may be replaced
	p.ok(`{"op":"adjust","key":"k","sku":"mug","location":"shop","delta":1}`)

	f.as("tees").refused(`{"op":"get","skus":["mug"]}`, protocol.CodeForbidden) // a token counts first
	bad := f.tcp()
	bad.raw(handshake(f.addr, "Authorization: Bearer bad"))
	bad.wantStatus(401, protocol.CodeUnauthorized)

	f.showing(ca.client(t, "a stranger"))
	f.dial().refused(`{"op":"get","skus":["tee-1"]}`, protocol.CodeUnauthorized)
	f.showing()
	f.dial().refused(`{"op":"get","skus":["tee-1"]}`, protocol.CodeUnauthorized)

	f.showing(ca.client(t, "till-1"))
	p = f.dial()
	f.guard.revoke("till")
	f.edge.Recheck()
	p.wantClose(protocol.CloseUnauthorized)
	f.dial().refused(`{"op":"get","skus":["tee-1"]}`, protocol.CodeUnauthorized)
}

// A certificate of another authority doesn't get through the TLS handshake.
func TestForeignCertificate(t *testing.T) {
	f := startGuarded(t, newAuthority(t).asks(t))
	f.showing(newAuthority(t).client(t, "till-1"))
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := tls.Client(c, f.tls).Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// HTTP servers learn of certificates by ConnContext, also over what the edge makes of a
// connection.
func TestPeerCertificates(t *testing.T) {
	ca := newAuthority(t)
	f := start(t, ca.asks(t))
	for want, config := range map[string]*tls.Config{
		"till-1": {InsecureSkipVerify: true, Certificates: []tls.Certificate{ca.client(t, "till-1")}},
		"":       {InsecureSkipVerify: true},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		res, err := client.Get("https://" + f.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("X-Certificate"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if edge.PeerCertificates(a) != nil {
		t.Error("a plain connection shows certificates")
	}
}
