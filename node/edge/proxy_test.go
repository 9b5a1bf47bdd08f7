package edge_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	proxiedV1 = "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"
	proxiedV2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xc0\x00\x02\x07" + "\x0a\x00\x00\x01" + "\xdc\x04\x01\xbb" // the same
)

func trustLoopback(c *edge.Config) {
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
}

// behind connects as a proxy would: its header comes before TLS.
func (f *fixture) behind(header string) *peer {
	f.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := io.WriteString(c, header); err != nil {
		f.Fatal(err)
	}
	if f.tls != nil {
		c = tls.Client(c, f.tls)
	}
	return newPeer(f, c)
}

// turnedAway expects a status, or under TLS an end without a word where the handshake
// was not yet done.
func (p *peer) turnedAway(secured bool, status int, code protocol.Code) {
	p.Helper()
	if _, ok := p.conn.(*tls.Conn); !ok || secured {
		p.wantStatus(status, code)
		return
	}
	p.setDeadline()
	var slow net.Error
	if _, err := p.in.ReadByte(); err == nil || errors.As(err, &slow) && slow.Timeout() {
		p.Fatalf("got %v, want an end", err)
	}
}

func eachWire(t *testing.T, test func(t *testing.T, tune func(*edge.Config))) {
	t.Run("plain", func(t *testing.T) { test(t, func(c *edge.Config) { c.TLS = nil }) })
	t.Run("TLS", func(t *testing.T) { test(t, func(c *edge.Config) { c.TLS = testCertificate(t) }) })
}

// The client's address counts, not the proxy's, whoever of both tells it.
func TestClientsBehindAProxyAreCounted(t *testing.T) {
	eachWire(t, func(t *testing.T, wire func(*edge.Config)) {
		f := start(t, trustLoopback, wire, func(c *edge.Config) { c.MaxConnectionsPerIP = 2 })
		open := func(header string, lines ...string) *peer {
			p := f.behind(header)
			p.raw(handshake(f.addr, lines...))
			p.upgraded()
			return p
		}
		a := open(proxiedV1)
		open(proxiedV2)
		f.behind(proxiedV1).turnedAway(false, 429, protocol.CodeRateLimited)
		for range 5 {
			open("") // a proxy's own are not counted
		}
		p := f.behind("")
		p.raw(handshake(f.addr, "X-Forwarded-For: 1.1.1.1, 192.0.2.7", "X-Forwarded-For: 10.0.0.9"))
		p.turnedAway(true, 429, protocol.CodeRateLimited)
		open("", "X-Forwarded-For: 192.0.2.8")
		// A client's own word is not believed.
		open("PROXY TCP4 192.0.2.9 10.0.0.1 56324 443\r\n", "X-Forwarded-For: 192.0.2.7")
		a.conn.Close()
		eventually(t, "gone", func() bool { return f.edge.Connections() == 8 })
		open("", "X-Forwarded-For: 192.0.2.7")
	})
}

// Whoever has an IPv6 address has 2^64 of them.
func TestNetworksBehindAProxyAreCounted(t *testing.T) {
	f := start(t, trustLoopback, func(c *edge.Config) { c.MaxConnectionsPerIP = 2 })
	open := func(from string) *peer {
		p := f.behind("PROXY TCP6 " + from + " ::1 56324 443\r\n")
		p.raw(handshake(f.addr))
		return p
	}
	open("2001:db8:0:1::1").upgraded()
	first := open("2001:db8:0:1::2")
	first.upgraded()
	f.behind("PROXY TCP6 2001:db8:0:1:ffff::3 ::1 56324 443\r\n").turnedAway(false, 429, protocol.CodeRateLimited)
	open("2001:db8:0:2::1").upgraded()
	first.conn.Close()
	eventually(t, "gone", func() bool { return f.edge.Connections() == 2 })
	open("2001:db8:0:1::4").upgraded()
}

func TestRequestsBehindAProxy(t *testing.T) {
	eachWire(t, func(t *testing.T, wire func(*edge.Config)) {
		f := start(t, trustLoopback, wire)
		for header, want := range map[string]string{
			proxiedV1: "192.0.2.7:0", proxiedV2: "192.0.2.7:0",
			"": "127.0.0.1:", "PROXY UNKNOWN\r\n": "127.0.0.1:",
		} {
			p := f.behind(header)
			p.raw("GET /here HTTP/1.1\r\nHost: x\r\n\r\n")
			if from := p.response().Header.Get("X-From"); !strings.HasPrefix(from, want) {
				t.Errorf("after %q: from %s", header, from)
			}
		}
	})
}

func TestAllowGoesByTheClient(t *testing.T) {
	f := start(t, trustLoopback, func(c *edge.Config) { c.CommandsPerIP, c.CommandsBurst = 1, 100 })
	for from, list := range map[string][]string{
		"192.0.2.1:1": {"192.0.2.2"}, // not of a proxy
		"127.0.0.1:1": {"192.0.2.3"},
		"127.0.0.2:1": {"192.0.2.4", "10.0.0.1"},
		"127.0.0.3:1": nil,
	} {
		r := &http.Request{RemoteAddr: from, Header: http.Header{"X-Forwarded-For": list}}
		if allowed, _ := f.edge.Allow(r, 100); allowed != 100 {
			t.Errorf("%s %v: %d allowed", from, list, allowed)
		}
	}
	r := &http.Request{RemoteAddr: "127.0.0.9:1", Header: http.Header{"X-Forwarded-For": {"192.0.2.4"}}}
	if allowed, _ := f.edge.Allow(r, 100); allowed > 60 {
		t.Errorf("by another proxy %d allowed", allowed)
	}
}

// A header may come in pieces, together with what follows it.
func TestProxyHeaderInPieces(t *testing.T) {
	plainOnly(t)
	f := start(t, trustLoopback)
	all := proxiedV2 + handshake(f.addr, "X-Pad: "+strings.Repeat("x", 100))
	p := f.tcp()
	for i := range all {
		p.raw(all[i : i+1])
	}
	p.upgraded()
	p = f.tcp()
	p.raw(proxiedV1 + handshake(f.addr) + frameBytes(fin|text, `{"op":"ping","id":1}`))
	p.upgraded()
	if hello, reply := p.next(), p.reply(); hello.Op != "hello" || string(reply.ID) != "1" {
		t.Errorf("got %s and %s", hello.raw, reply.raw)
	}
}

func TestBadProxyHeaders(t *testing.T) {
	eachWire(t, func(t *testing.T, wire func(*edge.Config)) {
		f := start(t, trustLoopback, wire)
		f.behind("PROXY TCP4 me you 1 2\r\n").turnedAway(false, 400, protocol.CodeBadRequest)
		f.behind(strings.Replace(proxiedV2, "\x21", "\x31", 1)).turnedAway(false, 400, protocol.CodeBadRequest)
		eventually(t, "counted", func() bool { return f.metric("stockmesh_connections_rejected_total") == 2 })
	})
	t.Run("not trusted", func(t *testing.T) {
		f := start(t, func(c *edge.Config) { c.TLS = nil })
		for _, header := range []string{proxiedV1, proxiedV2} {
			p := f.tcp()
			p.raw(header + handshake(f.addr))
			p.wantStatus(400, protocol.CodeBadRequest)
		}
	})
	t.Run("not trusted, over TLS", func(t *testing.T) {
		f := start(t, func(c *edge.Config) { c.TLS = testCertificate(t) })
		p := f.behind(proxiedV1)
		if err := p.conn.(*tls.Conn).Handshake(); err == nil {
			t.Error("served")
		}
	})
}

func TestSilentProxy(t *testing.T) {
	eachWire(t, func(t *testing.T, wire func(*edge.Config)) {
		f := start(t, trustLoopback, wire, func(c *edge.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
		f.behind("PROXY ").turnedAway(false, 408, protocol.CodeBadRequest)
		eventually(t, "gone", func() bool { return f.edge.Connections() == 0 })
	})
}
