package token_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

// certificate makes one as it comes over the wire.
func certificate(t *testing.T, name string, uris ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: name},
		NotBefore: fixed().Add(-time.Hour), NotAfter: fixed().Add(time.Hour),
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	key := newEd25519(t, "").secret
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificate(t *testing.T) {
	g := newGuard(t, token.Config{ClientCertificates: true, Region: "eu", Now: fixed})
	c := g.Certificate(certificate(t, "POS-7", "https://example.com", "urn:stockmesh:location:store-12", "urn:stockmesh:location:L%C3%A4ger%2Fs%C3%BCd%20%3F"))
	if c == nil {
		t.Fatal("a till's certificate is not taken")
	}
	if c.Subject != "cert:POS-7" || c.TokenID != "cert:abc" || !c.IssuedAt.Equal(fixed().Add(-time.Hour)) || !c.ExpiresAt.Equal(fixed().Add(time.Hour)) {
		t.Errorf("caller %+v", c)
	}
	for location, want := range map[string]bool{"store-12": true, "Läger/süd ?": true, "store-1": false, "main": false} {
		if got := c.Access.Sees("any", location); got != want {
			t.Errorf("sees %s: %v", location, got)
		}
		sell := &protocol.Command{Op: protocol.OpSell, Lines: []protocol.Line{{SKU: "any", Location: location, Quantity: 1}}}
		if got := c.Access.Check(sell) == nil; got != want {
			t.Errorf("sells at %s: %v", location, got)
		}
	}
	for _, right := range protocol.Rights() {
		want := right != protocol.RightMove && right != protocol.RightConfigure && right != protocol.RightAdmin
		if c.Access.May(right) != want {
			t.Errorf("may %s: %v", right, !want)
		}
	}
	for _, v := range []token.Revocation{{TokenID: "cert:abc"}, {Subject: "cert:POS-7", Before: fixed()}} {
		g.Revoke([]token.Revocation{v})
		if g.Valid(c) || g.Certificate(certificate(t, "POS-7", "urn:stockmesh:location:store-12")) != nil {
			t.Errorf("taken though revoked by %+v", v)
		}
	}
}

func TestCertificatesNotTaken(t *testing.T) {
	const here = "urn:stockmesh:location:store-12"
	g := newGuard(t, token.Config{ClientCertificates: true, Now: fixed})
	for name, cert := range map[string]*x509.Certificate{
		"none":                   nil,
		"no location":            certificate(t, "POS-7"),
		"another URN":            certificate(t, "POS-7", "urn:stockmesh:region:eu", "spiffe://stockmesh/location/x"),
		"empty location":         certificate(t, "POS-7", "urn:stockmesh:location:"),
		"one good, one empty":    certificate(t, "POS-7", here, "urn:stockmesh:location:"),
		"with a control":         certificate(t, "POS-7", here+"%0A"),
		"bad UTF-8":              certificate(t, "POS-7", here+"%FF"),
		"with a query":           certificate(t, "POS-7", here+"?x"),
		"with an empty query":    certificate(t, "POS-7", here+"?"),
		"with a fragment":        certificate(t, "POS-7", here+"#x"),
		"long location":          certificate(t, "POS-7", here+strings.Repeat("x", 128)),
		"no name":                certificate(t, "", here),
		"name with a line end":   certificate(t, "POS\n7", here),
		"long name":              certificate(t, strings.Repeat("x", 252), here),
		"badly escaped location": {SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "POS-7"}, NotAfter: fixed().Add(1), URIs: []*url.URL{{Scheme: "urn", Opaque: "stockmesh:location:%zz"}}},
	} {
		if c := g.Certificate(cert); c != nil {
			t.Errorf("%s: taken as %+v", name, c)
		}
	}
	good := certificate(t, "POS-7", here)
	for name, now := range map[string]time.Time{"not yet": good.NotBefore.Add(-1), "expired": good.NotAfter} {
		g := newGuard(t, token.Config{ClientCertificates: true, Now: func() time.Time { return now }})
		if g.Certificate(good) != nil {
			t.Errorf("%s: taken", name)
		}
	}
	if fileGuard(t, fixed, newEd25519(t, "")).Certificate(good) != nil {
		t.Error("taken where certificates aren't asked for")
	}
	if g.Certificate(good) == nil {
		t.Error("the good one isn't taken")
	}
}
