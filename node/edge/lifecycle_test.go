package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestMaxConnections(t *testing.T) {
	plainOnly(t)
	f := start(t, func(c *edge.Config) { c.MaxConnections = 3 })
	times10(t, f, func(int) { // the honest one is the third
		a, b := f.dial(), f.dial()
		for range 2 {
			p := f.tcp()
			p.raw(handshake(f.addr))
			p.wantStatus(503, protocol.CodeOverloaded)
		}
		silent := f.tcp() // told even before it asks
		silent.wantStatus(503, protocol.CodeOverloaded)
		a.ok(`{"op":"ping"}`)
		a.conn.Close()
		eventually(t, "room again", func() bool { return f.edge.Connections() == 2 })
		f.dial().conn.Close()
		b.conn.Close()
		eventually(t, "gone", func() bool { return f.edge.Connections() == 1 })
	})
}

func TestMaxConnectionsPerIP(t *testing.T) {
	plainOnly(t)
	f := start(t, func(c *edge.Config) { c.MaxConnectionsPerIP = 2 })
	from := func(ip string) *peer {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", f.addr)
		if err != nil {
			t.Skip("no second loopback address here:", err)
		}
		p := newPeer(t, c)
		p.raw(handshake(f.addr))
		return p
	}
	a, b := from("127.0.0.2"), from("127.0.0.2")
	a.upgraded()
	b.upgraded()
	from("127.0.0.2").wantStatus(429, protocol.CodeRateLimited)
	from("127.0.0.3").upgraded()
	a.conn.Close()
	eventually(t, "gone", func() bool { return f.edge.Connections() == 2 })
	from("127.0.0.2").upgraded()
	from("127.0.0.2").wantStatus(429, protocol.CodeRateLimited)
}

func TestConnectionsLeaveNothingBehind(t *testing.T) {
	plainOnly(t)
	f := start(t)
	f.ledger.set(1, "A")
	visit := func(i int) {
		p := f.dial()
		p.subscribe(`"all":true,"skus":["A"],"prefixes":["x"],"users":["ann"]`)
		p.ok(`{"op":"reserve","key":"k","lines":[{"sku":"A","quantity":1}]}`)
		if i%2 == 0 {
			p.frame(fin|closeFrame, "\x03\xe8")
			p.wantClose(protocol.CloseNormal)
		}
		p.conn.Close()
	}
	for i := range 100 {
		visit(i)
	}
	eventually(t, "all gone", func() bool { return f.edge.Connections() == 0 })
	before := measure(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 250 {
				visit(i + j)
			}
		})
	}
	wg.Wait()
	eventually(t, "all gone", func() bool { return f.edge.Connections() == 0 })
	before.backTo(t, 2<<20) // what the fake remembers of 1,000 reservations
	if open := f.metric("stockmesh_sessions"); open != 0 {
		t.Errorf("%v sessions", open)
	}
}

func TestDrainIsPaced(t *testing.T) {
	f := start(t)
	const n, over = 20, 800 * time.Millisecond
	peers := make([]*peer, n)
	for i := range peers {
		peers[i] = f.dial()
	}
	unready := f.tcp()
	unready.raw("GET /v1/ws HTTP/1.1\r\n")
	begin := time.Now()
	drained := make(chan time.Duration, 1)
	go func() {
		f.edge.Drain(t.Context(), over, []string{"ws://eu-2/v1/ws"})
		drained <- time.Since(begin)
	}()
	times := make([]time.Duration, n)
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			m := p.next()
			if m.Op != "goaway" || m.Reason != "drain" || m.DeadlineMS != over.Milliseconds() || !slices.Equal(m.Endpoints, []string{"ws://eu-2/v1/ws"}) {
				t.Errorf("got %s", m.raw)
			}
			if time.Since(begin) > over/2 {
				t.Error("told late")
			}
			p.wantClose(protocol.CloseDrain)
			times[i] = time.Since(begin)
			p.conn.Close()
		})
	}
	wg.Wait()
	unready.wantStatus(503, protocol.CodeOverloaded)
	if took := <-drained; took < over-50*time.Millisecond || took > over+2*time.Second {
		t.Errorf("drained after %v", took)
	}
	slices.Sort(times)
	if half := times[n/2]; half < over/4 || half > over*3/4+time.Second {
		t.Errorf("half of them closed after %v", half)
	}
	if c, err := net.Dial("tcp", f.addr); err == nil {
		c.Close()
		t.Error("a draining node takes connections")
	}
	f.edge.Drain(t.Context(), over, nil) // a second time does nothing
}

func TestDrainAtOnce(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := start(t)
		peers := []*peer{f.dialAs(form), f.dialAs(form), f.dialAs(form)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.edge.Drain(t.Context(), 0, []string{})
		}()
		for _, p := range peers {
			if m := p.next(); m.Op != "goaway" {
				t.Fatal(m.raw)
			}
			p.wantClose(protocol.CloseDrain)
			p.conn.Close()
		}
		<-done
	})
}

func TestDrainEndsWithItsContext(t *testing.T) {
	f := start(t)
	f.dial()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f.edge.Drain(ctx, time.Hour, nil)
}

func TestCloseEndsAll(t *testing.T) {
	plainOnly(t)
	f := start(t)
	open, unready, broken := f.dial(), f.tcp(), f.dial()
	unready.raw("GET / HT")
	_ = broken.conn.(*net.TCPConn).SetLinger(0)
	broken.conn.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.edge.Drain(context.Background(), time.Hour, nil)
	}()
	open.next() // the goaway
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := f.edge.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	<-drained
	open.wantClose(protocol.CloseGoingAway)
	if n := f.edge.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if _, err := io.ReadAll(unready.in); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log("the unready one was reset:", err)
	}
}

// Clients connect while the node closes: none may be left over.
func TestCloseWhileClientsConnect(t *testing.T) {
	files := openFiles()
	for range 20 {
		f := start(t, func(c *edge.Config) { c.Loops = 3 })
		var wg sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				for first := true; ; first = false {
					c, err := net.Dial("tcp", f.addr)
					if err != nil {
						return
					}
					c.Close()
					if first {
						begun <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-begun
		}
		if err := f.edge.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := f.edge.Connections(); n != 0 {
			t.Fatalf("%d connections are left", n)
		}
	}
	eventually(t, "files closed", func() bool { return openFiles() <= files })
}

func TestListenErrors(t *testing.T) {
	f := start(t)
	if _, err := edge.Listen(edge.Config{Listen: f.addr, Ledger: newLedger()}); err == nil {
		t.Fatal("two on one port")
	}
}

// A client that others wrote gets on with the node, compressing or not.
func TestAnotherImplementation(t *testing.T) {
	plainOnly(t)
	f := start(t)
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionNoContextTakeover, websocket.CompressionContextTakeover} {
		getsOn(t, f, mode)
	}
}

func getsOn(t *testing.T, f *fixture, mode websocket.CompressionMode) {
	c, res, err := websocket.Dial(t.Context(), "ws://"+f.addr+"/v1/ws", &websocket.DialOptions{
		Subprotocols: []string{protocol.SubprotocolJSON}, CompressionMode: mode, CompressionThreshold: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := res.Header.Get("Sec-WebSocket-Extensions"); (got != "") != (mode != websocket.CompressionDisabled) {
		t.Errorf("extensions %q", got)
	}
	read := func() string {
		t.Helper()
		_, b, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	read()
	write := func(message string) {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		write(fmt.Sprintf(`{"op":"ping","id":%d}`, i))
		if d := cmp.Diff(fmt.Sprintf(`{"id":%d,"ok":{}}`, i), read()); d != "" {
			t.Fatal(d)
		}
		write(`{"op":"get","skus":["a","b","c","d"]}`) // its answer is worth compressing
		if got := read(); strings.Count(got, `"sku"`) != 4 {
			t.Fatal(got)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
}
