package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	certDaysMax = 36500
	// commonNameBytesMax is X.509's limit (ub-common-name).
	commonNameBytesMax = 64
	// certBackdate lets a machine whose clock is behind accept a new certificate.
	certBackdate = 10 * time.Minute
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// identity is what a node's certificate says of it.
type identity struct {
	node, region string
	hosts        []string // DNS names and IP addresses
}

// madeFiles says where a pair was put.
type madeFiles struct {
	CA      string        `json:"ca"`
	Cert    string        `json:"cert"`
	Key     string        `json:"key"`
	Expires protocol.Time `json:"expires_at"`
}

// newCA may sign nodes' certificates but no further CA.
func newCA(name string, until time.Time) (*pair, error) {
	return sign(nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              until,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

// newNode makes a certificate for both ends of a route, which nodes use it at.
func newNode(ca *pair, id identity, until time.Time) (*pair, error) {
	if until.After(ca.cert.NotAfter) {
		until = ca.cert.NotAfter // nobody would accept it any longer than that
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: id.node},
		NotAfter:              until,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{{Scheme: "stockmesh", Host: id.region, Path: "/" + id.node}},
	}
	if err := addHosts(template, id.hosts); err != nil {
		return nil, err
	}
	return sign(ca, template)
}

// dnsName takes a name with or without a wildcard; a last label of digits would be
// a mistyped address.
var dnsName = regexp.MustCompile(`^(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

func addHosts(template *x509.Certificate, hosts []string) error {
	if len(hosts) == 0 {
		return errors.New("--host is empty: nobody could reach the node under any name")
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if len(h) > 253 || !dnsName.MatchString(h) {
			return fmt.Errorf("--host: %q is no DNS name and no IP address (leave out scheme and port)", h)
		}
		template.DNSNames = append(template.DNSNames, h)
	}
	return nil
}

// sign makes a key and completes the template for it; without a CA it signs itself.
func sign(ca *pair, template *x509.Certificate) (*pair, error) {
	// P-256 rather than Ed25519, which browsers don't accept.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if ca == nil {
		ca = &pair{template, key}
	}
	template.SerialNumber = serial()
	template.NotBefore = time.Now().Add(-certBackdate)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	// A certificate that can be made can't always be read: the parser checks more.
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &pair{cert, key}, nil
}

// serial returns 128 random bits: no two certificates of a CA may share one, and
// there is no counter to keep.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	return new(big.Int).SetBytes(b[:])
}

func readCA(dir string) (*pair, error) {
	certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s: %w\n  make one with: stockctl certs ca --dir %s", dir, err, shellWord(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("CA of %s and %s: %w", certFile, keyFile, err)
	}
	switch key, ok := loaded.PrivateKey.(crypto.Signer); {
	case !ok:
		return nil, fmt.Errorf("%s can't sign", keyFile)
	case !loaded.Leaf.IsCA:
		return nil, fmt.Errorf("%s is no CA's certificate", certFile)
	case time.Now().After(loaded.Leaf.NotAfter):
		return nil, fmt.Errorf("the CA of %s has expired on %s", certFile, timeText(protocol.TimeOf(loaded.Leaf.NotAfter)))
	default:
		return &pair{loaded.Leaf, key}, nil
	}
}

// write puts the pair into dir as name.pem and name-key.pem.
func (p *pair) write(dir, name string, force bool) (madeFiles, error) {
	m := madeFiles{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem"), Expires: protocol.TimeOf(p.cert.NotAfter)}
	if err := refuseExisting(force, m.Cert, m.Key); err != nil {
		return m, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return m, fmt.Errorf("key: %w", err)
	}
	// The key first: a certificate that is there has its key.
	if err := writeWhole(m.Key, pemText("PRIVATE KEY", key), 0o600); err != nil {
		return m, err
	}
	return m, writeWhole(m.Cert, pemText("CERTIFICATE", p.cert.Raw), 0o644)
}

func pemText(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
