package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
)

// writeCertificate puts a certificate with the given serial number, and its key,
// into files.
func writeCertificate(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		name = filepath.Join(dir, name)
		// Under another name first, so that nobody reads half a file.
		if err := os.WriteFile(name+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// A certificate is rolled without a restart, and a broken one leaves the old one
// standing.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	c := server.Default()
	c.Data, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	c.TLSCert, c.TLSKey = writeCertificate(t, dir, 1)
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-s.Ready()
	serial := func() int64 {
		conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Fatalf("serial %d", n)
	}
	writeCertificate(t, dir, 2)
	deadline := time.Now().Add(10 * time.Second)
	for serial() != 2 {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served")
		}
	}
	if err := os.WriteFile(c.TLSCert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(1500 * time.Millisecond); time.Now().Before(until); {
		if n := serial(); n != 2 {
			t.Fatalf("serial %d", n)
		}
	}
}

func TestBadTLSMaterial(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, 1)
	for name, c := range map[string]struct {
		tune func(*server.Config)
		want string
	}{
		"no key":      {func(c *server.Config) { c.TLSCert = cert }, "go together"},
		"ca alone":    {func(c *server.Config) { c.TLSCA = cert }, "--tls-ca needs"},
		"no file":     {func(c *server.Config) { c.TLSCert, c.TLSKey = "nowhere.pem", key }, "nowhere.pem"},
		"key as cert": {func(c *server.Config) { c.TLSCert, c.TLSKey = key, key }, "certificate"},
		"key as ca":   {func(c *server.Config) { c.TLSCert, c.TLSKey, c.TLSCA = cert, key, key }, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			config := server.Default()
			config.Data, config.Listen, config.Admin = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
			c.tune(&config)
			s, err := server.New(config)
			if err == nil {
				err = s.Run(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
