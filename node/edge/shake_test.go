package edge_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
)

// slotsMax is more than there are slots for handshakes that compute.
var slotsMax = 8 * runtime.GOMAXPROCS(0)

// gate keeps handshakes computing until it is opened.
type gate struct {
	*fixture
	open    func()
	entered atomic.Int64
}

// startGated starts an edge with one loop, all of whose slots are taken, behind a gate.
func startGated(t *testing.T, tune ...func(*edge.Config)) *gate {
	t.Helper()
	g := &gate{}
	closed := make(chan struct{})
	g.open = sync.OnceFunc(func() { close(closed) })
	g.fixture = startTLS(t, append(tune, func(c *edge.Config) {
		c.Loops = 1
		c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			g.entered.Add(1)
			<-closed
			return nil, nil
		}
	})...)
	t.Cleanup(g.open)
	hello := clientHello(t)
	for range slotsMax {
		g.say(hello)
	}
	eventually(t, "all came", func() bool { return g.edge.Connections() == slotsMax })
	eventually(t, "slots taken", func() bool { return g.entered.Load() > 0 })
	return g
}

// say connects and says no more than that.
func (f *fixture) say(first string) net.Conn {
	f.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, first); err != nil {
		f.Fatal(err)
	}
	return c
}

// clientHello is what a client says first.
func clientHello(t testing.TB) string {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer near.Close()
	wg.Go(func() { _ = tls.Client(near, &tls.Config{InsecureSkipVerify: true}).Handshake() })
	b := make([]byte, 16<<10)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// wantEnd waits until the node closes.
func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("not closed: %v", err)
	}
}

// Handshakes beyond the slots begin when others end, and all are served.
func TestHandshakesQueue(t *testing.T) {
	g := startGated(t, func(c *edge.Config) { c.HandshakeTimeout = time.Minute })
	var wg sync.WaitGroup
	defer wg.Wait()
	const n = 20
	var served atomic.Int64
	for range n {
		c := tls.Client(g.say(""), g.tls)
		wg.Go(func() {
			if err := c.Handshake(); err != nil {
				t.Error(err)
			}
			served.Add(1)
		})
	}
	eventually(t, "all came", func() bool { return g.edge.Connections() == slotsMax+n })
	if got := g.entered.Load(); int(got) >= slotsMax || served.Load() > 0 {
		t.Errorf("%d handshakes began, %d clients were served", got, served.Load())
	}
	g.open()
	wg.Wait()
	if got := int(g.entered.Load()); got != slotsMax+n {
		t.Errorf("%d handshakes began, want %d", got, slotsMax+n)
	}
}

// Nobody waits for ever: six times as long as a handshake may take.
func TestHandshakesQueueTimeout(t *testing.T) {
	const timeout = 50 * time.Millisecond
	begin := time.Now()
	g := startGated(t, func(c *edge.Config) { c.HandshakeTimeout = timeout })
	wantEnd(t, g.say(clientHello(t)))
	if waited := time.Since(begin); waited < 6*timeout {
		t.Errorf("closed after %v", waited)
	}
	eventually(t, "all closed", func() bool { return g.edge.Connections() == 0 })
	if got := int(g.metric("stockmesh_connections_rejected_total")); got != slotsMax+1 {
		t.Errorf("%d counted, want %d", got, slotsMax+1)
	}
	g.open()
	g.dial().ok(`{"op":"ping"}`)
}

// Whoever says nothing, or half a hello, or nothing after it, holds up nobody.
func TestHandshakesStalled(t *testing.T) {
	f := startTLS(t, func(c *edge.Config) { c.HandshakeTimeout = time.Minute })
	hello := clientHello(t)
	for range slotsMax {
		f.say("")
		f.say(hello[:len(hello)/2])
		answered := f.say(hello)
		if err := answered.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := answered.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	f.dial().ok(`{"op":"ping"}`)
	if open := f.edge.Connections(); open != 3*slotsMax+1 {
		t.Errorf("%d connections are left", open)
	}
}

// A hello that was read with its PROXY header waits as well.
func TestHandshakesQueueProxied(t *testing.T) {
	g := startGated(t, func(c *edge.Config) {
		c.HandshakeTimeout = time.Minute
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	c := tls.Client(&prefixConn{Conn: g.say(""), prefix: "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"}, g.tls)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Handshake(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "it came", func() bool { return g.edge.Connections() == slotsMax+1 })
	g.open()
	wg.Wait()
}

// prefixConn puts something before what is written first.
type prefixConn struct {
	net.Conn
	prefix string
}

func (c *prefixConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(append([]byte(c.prefix), b...))
	n = max(0, n-len(c.prefix))
	c.prefix = ""
	return n, err
}

// Who has not begun a handshake doesn't hold up a drain.
func TestHandshakesDrain(t *testing.T) {
	g := startGated(t, func(c *edge.Config) { c.HandshakeTimeout = time.Minute })
	silent, queued := g.say(""), g.say(clientHello(t))
	eventually(t, "all came", func() bool { return g.edge.Connections() == slotsMax+2 })
	var wg sync.WaitGroup
	wg.Go(func() { g.edge.Drain(t.Context(), 0, nil) })
	wantEnd(t, silent)
	wantEnd(t, queued)
	g.open()
	if err := g.edge.Close(); err != nil { // those that began are somebody's to wait for
		t.Error(err)
	}
	wg.Wait()
}
