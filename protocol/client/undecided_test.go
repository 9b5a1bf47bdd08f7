package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// undecided is what a node says of a token whose key it doesn't know yet.
const undecided = `{"code":"unauthorized","message":"the token is signed with an unknown key","retryable":true,"retry_after_ms":20}`

// cantTell has a fake node refuse the next handshakes and pages so.
func cantTell(n *fakeNode, times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	left := atomic.Int64{}
	left.Store(int64(times))
	n.handshake = func(w http.ResponseWriter) bool {
		if left.Add(-1) < 0 {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, undecided)
		return true
	}
}

func TestHandshakeThatIsUndecidedIsTriedAgain(t *testing.T) {
	const times = 2 * refusalsMax
	n := newFakeNode(t, "a")
	cantTell(n, times)
	source := &tokens{next: "t"}
	cfg := quick(n.addr)
	cfg.Token, cfg.Wait = source.Token, true
	start := time.Now()
	c := dial(t, cfg)
	if took := time.Since(start); took < times*20*time.Millisecond {
		t.Errorf("it took %v: the pauses that the node asked for were not made", took)
	}
	if got := source.times(); got != times+1 {
		t.Errorf("the token was asked for %d times", got)
	}
	cantTell(n, times)
	n.drop()
	eventually(t, "connected again", func() bool { return c.Reconnects() == 1 && c.Endpoint() != "" })
	if c.refusals.Load() != 0 || c.reason() != nil {
		t.Errorf("%d refusals, ended with %v", c.refusals.Load(), c.reason())
	}
}

// Nodes read the keys each for itself: another one may know the token's.
func TestAnotherNodeMayKnowTheToken(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	cantTell(a, 1000)
	cfg := quick(a.addr)
	cfg.Token = StaticToken("t")
	_, err := Dial(within(t), cfg)
	wantCode(t, err, protocol.CodeUnauthorized)
	var refused *protocol.Error
	if !errors.As(err, &refused) || !refused.Retryable || !errors.Is(err, ErrUnreachable) {
		t.Errorf("error is %v", err)
	}
	cfg.Endpoints = append(cfg.Endpoints, b.addr)
	if c := dial(t, cfg); c.Hello().Node != "b" {
		t.Errorf("connected to %s", c.Hello().Node)
	}
}

// hesitant has a fake node's gate not tell the first times what it thinks of a token.
func hesitant(n *fakeNode, g *gate, times int) {
	left := atomic.Int64{}
	left.Store(int64(times))
	n.answer = func(c *fakeConn, cmd protocol.Command) string {
		if cmd.Op == protocol.OpAuth && left.Add(-1) >= 0 {
			return `"error":` + undecided
		}
		return g.answer(c, cmd)
	}
}

func TestRenewalThatIsUndecidedIsTriedAgain(t *testing.T) {
	bothCodecs(t, func(t *testing.T) {
		const times = 2 * refusalsMax
		n, g := guarded(t, "good")
		hesitant(n, g, times)
		source := &tokens{next: "good"}
		cfg := quick(n.addr)
		cfg.Token = source.Token
		c := dial(t, cfg)
		if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
			t.Fatal(err)
		}
		if got := source.times(); got < 1+times+1 {
			t.Errorf("the token was asked for %d times", got)
		}
		if c.refusals.Load() != 0 || c.Reconnects() != 0 {
			t.Errorf("%d refusals, %d reconnects", c.refusals.Load(), c.Reconnects())
		}
	})
}

// A node closes connections that have no good token in time. That is no refusal either
// where it could not tell.
func TestCloseOfAnUndecidedConnection(t *testing.T) {
	n, g := guarded(t, "good")
	auths := atomic.Int64{}
	n.answer = func(c *fakeConn, cmd protocol.Command) string {
		if cmd.Op != protocol.OpAuth {
			return g.answer(c, cmd)
		}
		switch nth := auths.Add(1); {
		case nth > 4*refusalsMax:
			return g.answer(c, cmd)
		case nth%2 == 1:
			return `"error":` + undecided
		}
		n.closeAll(protocol.CloseUnauthorized, "no good token within 5s")
		return "-"
	}
	cfg := quick(n.addr)
	cfg.Token = StaticToken("good")
	c := dial(t, cfg)
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
		t.Fatal(err)
	}
	if c.refusals.Load() != 0 || c.Reconnects() == 0 {
		t.Errorf("%d refusals, %d reconnects", c.refusals.Load(), c.Reconnects())
	}
}

func TestFailFastReturnsWhatIsUndecided(t *testing.T) {
	n, g := guarded(t, "good")
	hesitant(n, g, 1_000_000)
	cfg := quick(n.addr)
	cfg.Token, cfg.FailFast = StaticToken("good"), true
	c := dial(t, cfg)
	_, err := c.Adjust(within(t), "A", "", 1)
	wantCode(t, err, protocol.CodeUnauthorized)
	var refused *protocol.Error
	if !errors.As(err, &refused) || !refused.Retryable || c.reason() != nil {
		t.Errorf("error is %v; the client ended with %v", err, c.reason())
	}
}

func TestPagesWaitForAnUndecidedNode(t *testing.T) {
	n := newFakeNode(t, "a")
	cfg := quick(n.addr)
	cfg.Token = StaticToken("t")
	c := dial(t, cfg)
	n.set("1", 1)
	cantTell(n, 2*refusalsMax)
	start := time.Now()
	for _, err := range c.Items(within(t), protocol.Selector{}, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 2*refusalsMax*20*time.Millisecond {
		t.Errorf("it took %v: the pauses that the node asked for were not made", took)
	}
}

// net/http itself would pass the token on to another port of the host.
func TestTokenStaysWithItsHost(t *testing.T) {
	other := newFakeNode(t, "other")
	moved := httptest.NewServer(http.RedirectHandler("http://"+other.addr+"/v1/ws", http.StatusTemporaryRedirect))
	defer moved.Close()
	cfg := quick(moved.URL)
	cfg.Token = StaticToken("secret")
	_, err := Dial(within(t), cfg)
	if err == nil {
		t.Fatal("the redirect was followed")
	}
	wantContains(t, err.Error(), "a redirect to another host")
	other.mu.Lock()
	defer other.mu.Unlock()
	if len(other.tokens) != 0 {
		t.Errorf("the other node was sent %q", other.tokens)
	}
}

func TestRedirectWithinAHostIsFollowed(t *testing.T) {
	n := newFakeNode(t, "a")
	moved := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !moved {
			moved = true
			http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
			return
		}
		n.ServeHTTP(w, r)
	}))
	defer server.Close()
	cfg := quick(server.URL)
	cfg.Token = StaticToken("secret")
	if err := dial(t, cfg).Ping(within(t)); err != nil {
		t.Fatal(err)
	}
	if !moved {
		t.Error("nothing was redirected")
	}
}
