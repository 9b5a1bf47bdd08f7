package bus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"log/slog"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestWireKeepsOrderAcrossServers(t *testing.T) {
	r := newRegion(t, 3)
	buses := r.buses()
	const n = 2000
	type inbox struct{ next, wrong, met atomic.Uint64 }
	inboxes := make([]inbox, len(buses))
	for i, b := range buses {
		in := &inboxes[i]
		stop, err := b.Subscribe("node.*.seq", func(subject string, data []byte) {
			switch {
			case subject == "node.hello.seq":
				in.met.Store(1)
			case subject != "node.x.seq" || binary.BigEndian.Uint64(data) != in.next.Load():
				in.wrong.Add(1)
			default:
				in.next.Add(1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	eventually(t, "all have met", func() bool {
		for i := range inboxes {
			if inboxes[i].met.Load() == 0 {
				return buses[0].Publish("node.hello.seq", nil) != nil
			}
		}
		return true
	})
	data := make([]byte, 8)
	for i := range uint64(n) {
		binary.BigEndian.PutUint64(data, i)
		if err := buses[0].Publish("node.x.seq", data); err != nil {
			t.Fatal(err)
		}
	}
	for i := range inboxes {
		eventually(t, "all messages", func() bool { return inboxes[i].next.Load() == n || inboxes[i].wrong.Load() > 0 })
		if w := inboxes[i].wrong.Load(); w > 0 {
			t.Fatalf("server %d: %d messages out of order", i, w)
		}
	}
}

func TestWireSubjects(t *testing.T) {
	b := openBus(t)
	for _, s := range []string{"", "$JS.API.INFO", "log.l", "site.a.b.x", "mirror.a.b.x", ">", "*.x", "a b", ".a"} {
		wantErr(t, b.Publish(s, nil), ErrName)
		_, err := b.Subscribe(s, func(string, []byte) {})
		wantErr(t, err, ErrName)
	}
}

func TestWireStops(t *testing.T) {
	b := openAt(t, t.TempDir())
	var got atomic.Uint64
	stop, err := b.Subscribe("a.>", func(string, []byte) { got.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("a.b.c", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a message", func() bool { return got.Load() == 1 })
	stop()
	stop()
	later, err := b.Subscribe("b", func(string, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	closeBus(t, b)
	later()
	wantErr(t, b.Publish("a.b.c", nil), ErrClosed)
}

func TestOnlyCertifiedServersJoin(t *testing.T) {
	ca := newAuthority(t)
	var complaints countingHandler // of either side
	r := newRegion(t, 3, func(c *Config) {
		c.Region.TLS, c.Logger = ca.server(t), slog.New(&complaints)
	})
	leader, _ := leading(t, r.logs("l"))
	fill(t, leader, 3)

	stranger := ca.server(t)
	stranger.Certificates = nil
	other := newAuthority(t).server(t)
	other.RootCAs = ca.pool
	for name, config := range map[string]*tls.Config{"none": nil, "no certificate": stranger, "foreign certificate": other} {
		t.Run(name, func(t *testing.T) {
			before := complaints.Load()
			b := openBus(t, func(c *Config) {
				c.Logger = slog.New(&complaints)
				c.Region = &Region{Name: "eu", Listen: "127.0.0.1:0", Replicas: 3, TLS: config,
					Routes: []string{leader.bus.RouteAddr()}}
			})
			eventually(t, "the server was turned away", func() bool { return complaints.Load() > before })
			if n := b.srv.NumRoutes(); n != 0 {
				t.Fatalf("%d routes", n)
			}
			wantErr(t, b.metaHealth(), ErrNoLeader)
		})
	}
	if peers := must[[]Member](t)(leader.bus.Peers(t.Context())); len(peers) != 3 {
		t.Fatal(peers)
	}
}

// authority signs the certificates of a region.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(der))
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}
}

func (a *authority) server(t *testing.T) *tls.Config {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key))
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      a.pool, MinVersion: tls.VersionTLS13,
	}
}

// countingHandler counts what is logged as an error.
type countingHandler struct{ atomic.Int64 }

func (h *countingHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (h *countingHandler) Handle(context.Context, slog.Record) error    { h.Add(1); return nil }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *countingHandler) WithGroup(string) slog.Handler                { return h }
