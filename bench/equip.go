package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// equip gives spawned nodes what the options ask for besides.
func (t *target) equip(o *options) error {
	if o.scenario == scenarioDrain && o.watchers > 0 {
		first := t.nodes[0]
		first.args = append(first.args, "--drain", o.over.String()) // the last one counts
		first.grace = o.over
	}
	var flags []string
	if o.scenario == scenarioAbuse {
		// Or the keys of honest commands would be most of what an hour adds to its memory.
		flags = append(flags, "--key-window", abuseKeyWindow.String(), "--history", "1m")
	}
	if o.tls {
		cert, key, err := t.certify()
		if err != nil {
			return err
		}
		flags = append(flags, "--tls-cert", cert, "--tls-key", key)
	}
	if o.grants {
		jwks, err := t.issue()
		if err != nil {
			return err
		}
		flags = append(flags, "--jwks", jwks)
	}
	if o.observed {
		more, err := t.observe()
		if err != nil {
			return err
		}
		flags = append(flags, more...)
	}
	flags = append(flags, o.flags...)
	for _, n := range t.nodes {
		n.args = append(n.args, flags...)
	}
	return nil
}

// reach finds out how the nodes are reached, once they serve.
func (t *target) reach(ctx context.Context) error {
	for _, n := range t.nodes {
		addr := n.Public
		if t.secure != nil {
			w, err := openTunnel(ctx, addr, t.secure)
			if err != nil {
				return err
			}
			t.tunnels = append(t.tunnels, w)
			addr = w.addr()
		}
		endpoint, err := withToken("ws://"+addr+"/v1/ws", t.token)
		if err != nil {
			return err
		}
		t.endpoints = append(t.endpoints, endpoint)
	}
	return nil
}

// certify writes a certificate for loopback that only we trust.
func (t *target) certify() (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	made := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return "", "", err
	}
	t.secure = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	t.secure.RootCAs.AddCert(leaf)
	certFile, keyFile = filepath.Join(t.dir, "node.pem"), filepath.Join(t.dir, "node.key")
	if err := writePEM(certFile, "CERTIFICATE", der, 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, writePEM(keyFile, "PRIVATE KEY", private, 0o600)
}

func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// tunnel leads plain connections to a node that speaks TLS, so that the generator,
// which reads bare sockets, can be its client.
type tunnel struct {
	listener net.Listener
	wg       sync.WaitGroup
	cancel   context.CancelFunc
}

func openTunnel(ctx context.Context, to string, config *tls.Config) (*tunnel, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &tunnel{listener: l, cancel: cancel}
	t.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return // closed
			}
			t.wg.Go(func() { lead(ctx, nc, to, config) })
		}
	})
	return t, nil
}

func (t *tunnel) addr() string { return t.listener.Addr().String() }

// lead copies both ways until one side ends it.
func lead(ctx context.Context, from net.Conn, to string, config *tls.Config) {
	defer from.Close()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	secure, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return // who dials sees that it ends
	}
	defer secure.Close()
	forget := context.AfterFunc(ctx, func() {
		_ = from.Close() // which ends both copies
		_ = secure.Close()
	})
	defer forget()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, secure)
		_ = from.Close()
	})
	_, _ = io.Copy(secure, from)
	_ = secure.Close()
	back.Wait()
}

func (t *tunnel) close() {
	_ = t.listener.Close() // nothing to be done about it
	t.cancel()
	t.wg.Wait()
}
