package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// meshIdentity is the scheme of the URI by which a node's certificate names it:
// stockmesh://REGION/NAME, as `stockctl certs node` makes it.
const meshIdentity = "stockmesh"

// meshTLS is mutual TLS between the nodes of a region; nil where no certificates are
// given. Certificates are read again when they change, the CAs at the next start.
func (s *Server) meshTLS() (*tls.Config, error) {
	return s.mutualTLS(func(peer *x509.Certificate) error { return checkPeer(peer, s.config.Region) })
}

// linkTLS is mutual TLS between regions; nil where no certificates are given. Any region
// of the CA is let in: which one the certificate names is for the bus to hold against
// the region that the other side says it is.
func (s *Server) linkTLS() (*tls.Config, error) { return s.mutualTLS(checkNamed) }

func (s *Server) mutualTLS(check func(peer *x509.Certificate) error) (*tls.Config, error) {
	if s.config.MeshCert == "" {
		return nil, nil
	}
	own, err := newCertificates(s.config.MeshCert, s.config.MeshKey, "", s.logger)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	pem, err := os.ReadFile(s.config.MeshCA)
	if err != nil {
		return nil, fmt.Errorf("mesh CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("mesh CA %s: no certificate in it", s.config.MeshCA)
	}
	pair := func() (*tls.Certificate, error) { return &own.current().Certificates[0], nil }
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair() },
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the other node shows no certificate")
			}
			return check(state.PeerCertificates[0])
		},
	}, nil
}

// checkPeer refuses a certificate that isn't one of a node of this region: a CA may
// serve several regions, and tills.
func checkPeer(peer *x509.Certificate, region string) error {
	if err := checkNamed(peer); err != nil {
		return err
	}
	for _, u := range peer.URIs {
		if u.Scheme == meshIdentity && u.Host != region {
			return fmt.Errorf("the other node's certificate is for region %q, not %q", u.Host, region)
		}
	}
	return nil
}

// checkNamed refuses a certificate that doesn't say of which region and node it is, or
// says so of two.
func checkNamed(peer *x509.Certificate) error {
	named := 0
	for _, u := range peer.URIs {
		if u.Scheme != meshIdentity {
			continue
		}
		node := strings.TrimPrefix(u.Path, "/")
		if named++; protocol.CheckRegion("region", u.Host) != nil || protocol.CheckRegion("node", node) != nil {
			return fmt.Errorf("the other node's certificate names %q: want %s://REGION/NAME", u, meshIdentity)
		}
	}
	if named != 1 {
		return fmt.Errorf("the other node's certificate names %d nodes as %s://REGION/NAME, want one: make it with `stockctl certs node`", named, meshIdentity)
	}
	return nil
}
