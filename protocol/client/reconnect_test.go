package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestDialSaysWhatFailed(t *testing.T) {
	n := newFakeNode(t, "a")
	n.stop()
	_, err := Dial(within(t), quick(n.addr))
	if !errors.Is(err, ErrUnreachable) {
		t.Fatalf("error is %v", err)
	}
	wantContains(t, err.Error(), n.addr)
	n.start(n.addr)
}

func TestDialTriesTheNextEndpoint(t *testing.T) {
	gone, n := newFakeNode(t, "gone"), newFakeNode(t, "a")
	gone.stop()
	c := dial(t, quick("http://"+gone.addr, "http://"+n.addr))
	if c.Endpoint() != "ws://"+n.addr || c.Hello().Node != "a" {
		t.Errorf("connected to %s (%s)", c.Endpoint(), c.Hello().Node)
	}
	gone.start(gone.addr)
}

func TestDialGivesUpOnABadToken(t *testing.T) {
	n := newFakeNode(t, "a")
	n.handshake = func(w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"type":"urn:stockmesh:error:unauthorized","detail":"token expired","code":"unauthorized"}`)
		return true
	}
	cfg := quick(n.addr)
	cfg.Wait = true
	_, err := Dial(within(t), cfg)
	wantCode(t, err, protocol.CodeUnauthorized)
	wantContains(t, err.Error(), "token expired")
}

func TestTokenAndTLS(t *testing.T) {
	n := newFakeNode(t, "a")
	secure := httptest.NewTLSServer(n)
	defer secure.Close()
	cfg := quick(secure.URL)
	cfg.Token = StaticToken("secret")
	cfg.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if _, err := Dial(within(t), cfg); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("a certificate of nobody: %v", err)
	}
	cfg.TLS.RootCAs.AddCert(secure.Certificate())
	c := dial(t, cfg)
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Items(within(t), protocol.Selector{}, 0) {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := cmp.Diff([]string{"Bearer secret", "Bearer secret"}, n.tokens); d != "" {
		t.Error(d)
	}
}

func TestDialWaitsForABusyNode(t *testing.T) {
	n := newFakeNode(t, "a")
	refusals := 3
	n.handshake = func(w http.ResponseWriter) bool {
		if refusals--; refusals < 0 {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	cfg := quick(n.addr)
	cfg.Wait = true
	if err := dial(t, cfg).Ping(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestDialWaitEndsWithItsContext(t *testing.T) {
	n := newFakeNode(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	n.handshake = func(w http.ResponseWriter) bool {
		cancel()
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	cfg := quick(n.addr)
	cfg.Wait = true
	if _, err := Dial(ctx, cfg); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnreachable) {
		t.Fatalf("error is %v", err)
	}
}

func TestNodeThatNeverSaysHello(t *testing.T) {
	n := newFakeNode(t, "a")
	n.mute = true
	cfg := quick(n.addr)
	cfg.DialTimeout = 20 * time.Millisecond
	if _, err := Dial(within(t), cfg); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("error is %v", err)
	}
}

func TestCloseCodesThatForbidReconnecting(t *testing.T) {
	for _, code := range []int{protocol.CloseUnauthorized, protocol.CloseForbidden, protocol.CloseAbuse} {
		n := newFakeNode(t, "a")
		n.answer = func(c *fakeConn, _ protocol.Command) string { n.closeAll(code, "out"); return "-" }
		c := dial(t, quick(n.addr))
		err := c.Ping(within(t))
		var closed *CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Reason != "out" {
			t.Fatalf("%d: error is %v", code, err)
		}
		if code == protocol.CloseUnauthorized {
			wantCode(t, err, protocol.CodeUnauthorized)
		}
		c.Close()
		if n.connections() != 1 {
			t.Errorf("%d: connected %d times", code, n.connections())
		}
	}
}

func TestCloseCodesThatAllowReconnecting(t *testing.T) {
	for _, code := range []int{protocol.CloseGoingAway, protocol.CloseSlowConsumer, protocol.CloseIdle, protocol.CloseDrain} {
		n := newFakeNode(t, "a")
		first := true
		n.answer = func(c *fakeConn, _ protocol.Command) string {
			if !first {
				return ""
			}
			first = false
			n.closeAll(code, "")
			return "-"
		}
		c := dial(t, quick(n.addr))
		if err := c.Ping(within(t)); err != nil {
			t.Fatalf("%d: %v", code, err)
		}
		c.Close()
	}
}

func TestDrainMovesToAnEndpointLearntFromHello(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	a.hello.Endpoints = []string{"ws://" + a.addr, "ws://" + b.addr}
	c := dial(t, quick(a.addr))
	a.closeAll(protocol.CloseDrain, "drain")
	eventually(t, "moved to b", func() bool { return c.Hello().Node == "b" })
}

func TestGoawayConnectsElsewhereFirst(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	held := make(chan func(), 1)
	a.answer = func(c *fakeConn, cmd protocol.Command) string {
		held <- func() { c.say(`{"id":%s,"ok":{}}`, cmd.ID) }
		return "-"
	}
	c := dial(t, quick(a.addr))
	slow := make(chan error, 1)
	go func() { slow <- c.Ping(within(t)) }()
	release := <-held
	a.say(`{"op":"goaway","reason":"drain","deadline_ms":30000,"endpoints":["ws://%s","ws://%s"]}`, a.addr, b.addr)
	eventually(t, "moved to b", func() bool { return c.Hello().Node == "b" })
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
	release() // a still answers what it was sent
	if err := <-slow; err != nil {
		t.Fatal(err)
	}
	eventually(t, "a is left", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.conns) == 0
	})
	if len(b.seen()) != 1 {
		t.Errorf("b saw %v", b.seen())
	}
}

func TestGoawayDeadlineMovesWhatIsUnanswered(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	a.answer = func(c *fakeConn, _ protocol.Command) string {
		c.say(`{"op":"goaway","reason":"drain","deadline_ms":1,"endpoints":["ws://%s"]}`, b.addr)
		return "-"
	}
	c := dial(t, quick(a.addr))
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
		t.Fatal(err)
	}
	if cmds := b.seen(); len(cmds) != 1 || cmds[0].Home != "eu" || cmds[0].Key != a.seen()[0].Key {
		t.Errorf("b saw %+v", cmds)
	}
}

func TestGoawayOfTheOnlyNodeWaitsForItsEnd(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	n.say(`{"op":"goaway","reason":"drain","deadline_ms":1000,"endpoints":["ws://%s"]}`, n.addr)
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
	n.closeAll(protocol.CloseDrain, "drain")
	eventually(t, "connected again", func() bool { return c.Reconnects() == 1 && c.Endpoint() != "" })
}

func TestSilentNodeIsLeft(t *testing.T) {
	n := newFakeNode(t, "a")
	n.hello.HeartbeatMS = 10
	c := dial(t, quick(n.addr))
	eventually(t, "connected again", func() bool { return c.Reconnects() > 0 })
}

func TestParseEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"ws://a:1": "ws://a:1", "http://a:1/": "ws://a:1", "https://a": "wss://a", "wss://a:2/v1/ws": "wss://a:2",
		"a:1": "ws://a:1", "a": "ws://a:8080", "[::1]:9": "ws://[::1]:9", " 127.0.0.1 ": "ws://127.0.0.1:8080",
	} {
		if got, err := parseEndpoint(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "ftp://a", "ws://", "http://%zz"} {
		if got, err := parseEndpoint(in); err == nil {
			t.Errorf("%q was taken as %q", in, got)
		}
	}
}

func TestLearntEndpoints(t *testing.T) {
	e, err := newEndpoints([]string{"wss://a"})
	if err != nil {
		t.Fatal(err)
	}
	e.learn("wss://a", []string{"ws://plain", "wss://b", "wss://a", "wss://b", "nonsense://"})
	if d := cmp.Diff([]string{"wss://a", "wss://b"}, e.inOrder()); d != "" {
		t.Error(d)
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("wss://h", i))
	}
	e.learn("wss://a", many)
	if n := len(e.inOrder()); n != 1+learntMax {
		t.Errorf("%d endpoints", n)
	}
	if list := e.shuffled("wss://h3"); list[len(list)-1] != "wss://h3" {
		t.Errorf("the one to avoid is not last: %v", list)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Endpoints: []string{"ftp://a"}},
		{Endpoints: []string{"a"}, BackoffMin: time.Hour, BackoffMax: time.Second},
	} {
		if _, err := Dial(t.Context(), cfg); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("%+v: error is %v", cfg, err)
		}
	}
}

// A node that is cut off from its region answers, but can't serve.
func TestNodeThatCantServeIsLeft(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	a.answer = func(*fakeConn, protocol.Command) string {
		return `"error":{"code":"unavailable","message":"no quorum","retryable":true,"retry_after_ms":200}`
	}
	a.hello.Endpoints = []string{"ws://" + a.addr, "ws://" + b.addr}
	c := dial(t, quick(a.addr))
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
		t.Fatal(err)
	}
	if c.Hello().Node != "b" {
		t.Fatalf("at %s", c.Hello().Node)
	}
}
