package edge_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
)

// testCertificate makes a certificate of its own for 127.0.0.1.
func testCertificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func startTLS(t testing.TB, tune ...func(*edge.Config)) *fixture {
	t.Helper()
	return start(t, append([]func(*edge.Config){func(c *edge.Config) { c.TLS = testCertificate(t) }}, tune...)...)
}

// One port serves WebSockets and HTTP over TLS, in every version allowed.
func TestTLS(t *testing.T) {
	f := startTLS(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		f.tls.MinVersion, f.tls.MaxVersion = version, version
		p := f.dial()
		p.ok(`{"op":"subscribe","skus":["A"]}`)
		p.ok(fmt.Sprintf(`{"op":"adjust","key":"k%d","sku":"A","delta":1}`, version))
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: f.tls, DisableKeepAlives: true}}
		res, err := client.Get("https://" + f.addr + "/v1/somewhere")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "http /v1/somewhere" {
			t.Fatalf("%s: got %q, %v", tls.VersionName(version), body, err)
		}
		client.CloseIdleConnections()
	}
}

// Large messages cross record boundaries both ways, and a reader that lags behind
// still gets everything.
func TestTLSLargeMessages(t *testing.T) {
	f := startTLS(t)
	p := f.dial()
	skus := make([]string, 400)
	for i := range skus {
		skus[i] = fmt.Sprintf(`"%s-%03d"`, strings.Repeat("S", 120), i)
	}
	for id := range 8 {
		p.sendf(`{"op":"subscribe","id":%d,"skus":[%s]}`, id, strings.Join(skus, ","))
	}
	for range 8 {
		if m := p.reply(); m.Error != nil {
			t.Fatalf("got %s", m.raw)
		}
	}
}

// What is no TLS, too old or too slow ends, and an honest client beside notices
// nothing.
func TestTLSRefusals(t *testing.T) {
	f := startTLS(t, func(c *edge.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	honest := f.dial()
	before := runtime.NumGoroutine()
	for name, first := range map[string]string{
		"plain HTTP":  "GET / HTTP/1.1\r\n\r\n",
		"garbage":     strings.Repeat("\xff\x00garbage", 100),
		"half record": "\x16\x03\x01\x02\x00\x01",
		"silence":     "",
	} {
		t.Run(name, func(t *testing.T) {
			conns := make([]net.Conn, 10)
			for i := range conns {
				c, err := net.Dial("tcp", f.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte(first)); err != nil {
					t.Fatal(err)
				}
				conns[i] = c
			}
			for _, c := range conns {
				if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatalf("not closed: %v", err)
				}
			}
		})
	}
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", f.addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	honest.ok(`{"op":"ping"}`)
	eventually(t, "handshake goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// A client that closes the TLS side in order is let go in order.
func TestTLSClose(t *testing.T) {
	f := startTLS(t)
	p := f.dial()
	p.frame(0x88, "\x03\xe8")
	p.wantClose(1000)
	p.wantEnd()
	eventually(t, "connection gone", func() bool { return f.edge.Connections() == 0 })
}

// A half-sent handshake follows by one byte at a time.
func TestTLSByteByByte(t *testing.T) {
	f := startTLS(t)
	raw, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(dripConn{raw}, f.tls)
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET /slowly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "http /slowly" {
		t.Fatalf("got %q, %v", b, err)
	}
}

// dripConn writes one byte at a time.
type dripConn struct{ net.Conn }

func (c dripConn) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}
