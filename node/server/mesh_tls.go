package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// meshIdentity is the scheme of the URI by which a node's certificate names it:
// stockmesh://REGION/NAME, as `stockctl certs node` makes it.
const meshIdentity = "stockmesh"

// meshTLS is mutual TLS between the nodes of a region; nil where no certificates are
// given. Certificates are read again when they change, the CAs at the next start.
func (s *Server) meshTLS() (*tls.Config, error) {
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
		VerifyConnection:     func(state tls.ConnectionState) error { return checkPeer(state.PeerCertificates, s.config.Region) },
	}, nil
}

// checkPeer refuses a node whose certificate names another region: one CA may serve
// several.
func checkPeer(chain []*x509.Certificate, region string) error {
	if len(chain) == 0 {
		return errors.New("the other node shows no certificate")
	}
	for _, u := range chain[0].URIs {
		if u.Scheme == meshIdentity && !strings.EqualFold(u.Host, region) {
			return fmt.Errorf("the other node's certificate is for region %q, not %q", u.Host, region)
		}
	}
	return nil
}
