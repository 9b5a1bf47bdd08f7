package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// jwtOf looks like a token as far as a client looks: nobody signed it.
func jwtOf(name string, expires time.Time) string {
	claims := fmt.Sprintf(`{"sub":%q,"exp":%d.5}`, name, expires.Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + name
}

// tokens is a Config.Token that tests tell what to return.
type tokens struct {
	mu    sync.Mutex
	next  string
	err   error
	asked int
}

func (s *tokens) Token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.next, s.err
}

func (s *tokens) set(token string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.err = token, err
}

func (s *tokens) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// gate has a fake node let nobody in but the bearers of one token.
type gate struct {
	mu    sync.Mutex
	good  string
	known map[*fakeConn]string // by auth
	life  time.Duration        // told in the answer of an auth; 0: an hour
}

func guarded(t *testing.T, good string) (*fakeNode, *gate) {
	n := newFakeNode(t, "a")
	g := &gate{good: good, known: map[*fakeConn]string{}}
	n.answer = g.answer
	return n, g
}

func (g *gate) open(good string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.good = good
}

const refusedReply = `"error":{"code":"unauthorized","message":"token expired"}`

func (g *gate) answer(c *fakeConn, cmd protocol.Command) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case cmd.Op == protocol.OpPing:
		return ""
	case cmd.Op == protocol.OpAuth && cmd.Token != g.good:
		return refusedReply
	case cmd.Op == protocol.OpAuth:
		g.known[c] = cmd.Token
		life := g.life
		if life == 0 {
			life = time.Hour
		}
		return fmt.Sprintf(`"ok":{"subject":"s","expires_at":%q}`, time.Now().Add(life).UTC().Format(time.RFC3339Nano))
	case g.known[c] != g.good:
		return refusedReply
	}
	return ""
}

// bothCodecs runs a test over JSON and over CBOR.
func bothCodecs(t *testing.T, test func(t *testing.T)) {
	t.Run("json", test)
	overCBOR = true
	defer func() { overCBOR = false }()
	t.Run("cbor", test)
}

func TestTokenIsRenewedInBand(t *testing.T) {
	var log safeBuffer
	n, _ := guarded(t, "second")
	first := jwtOf("first", time.Now().Add(4*time.Second))
	source := &tokens{next: first}
	cfg := quick(n.addr)
	cfg.Token, cfg.Logger = source.Token, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := dial(t, cfg)
	source.set("second", nil)
	eventually(t, "the second token was sent", func() bool { return len(n.seenOf(protocol.OpAuth)) == 1 })
	eventually(t, "it was taken", func() bool { return strings.Contains(log.String(), "token renewed") })
	if c.Reconnects() != 0 || n.connections() != 1 {
		t.Errorf("%d reconnects", c.Reconnects())
	}
	if s := log.String(); strings.Contains(s, first) || strings.Contains(s, "second") {
		t.Errorf("logged %s", s)
	}
}

func TestLifeOfATokenIsWhatTheNodeSays(t *testing.T) {
	bothCodecs(t, func(t *testing.T) {
		n, _ := guarded(t, "good")
		cfg := quick(n.addr)
		cfg.Token = StaticToken("good")
		l := dial(t, cfg).link
		have, err := l.authenticate(l.credential, true)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(have.expires); left < 50*time.Minute || left > time.Hour {
			t.Errorf("it lasts %v", left)
		}
	})
}

// safeBuffer may be written to by many.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestUnauthorizedCommandsAreSentAgainWithAToken(t *testing.T) {
	bothCodecs(t, func(t *testing.T) {
		n, g := guarded(t, "good")
		source := &tokens{next: "good"}
		cfg := quick(n.addr)
		cfg.Token, cfg.FailFast = source.Token, true
		c := dial(t, cfg)
		for round, token := range []string{"good", "better", "best"} {
			source.set(token, nil)
			g.open(token)
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// One that was asked for while another was answered may come too.
			if auths := len(n.seenOf(protocol.OpAuth)); auths < round+1 || auths > 2*(round+1) {
				t.Errorf("round %d: %d tokens were sent", round, auths)
			}
		}
		items, err := c.Get(within(t), []string{"A"})
		if err != nil || items[0].OnHand != 150 || c.Reconnects() != 0 {
			t.Errorf("%+v, %v, %d reconnects", items, err, c.Reconnects())
		}
	})
}

func TestSubscriptionWaitsForItsToken(t *testing.T) {
	n, _ := guarded(t, "good")
	n.set("A", 1)
	cfg := quick(n.addr)
	cfg.Token = StaticToken("good")
	c := dial(t, cfg)
	s, err := c.Subscribe(within(t), protocol.Selector{All: true}, SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := s.Next(within(t)); err != nil || len(u.Items) != 1 {
		t.Errorf("%+v, %v", u, err)
	}
}

// The earlier token is still good, whatever becomes of the next.
func TestFailedRenewalIsTriedAgain(t *testing.T) {
	n, g := guarded(t, "good")
	source := &tokens{next: "old"}
	cfg := quick(n.addr)
	cfg.Token = source.Token
	c := dial(t, cfg)
	fails := func(want error) {
		t.Helper()
		_, err := c.link.authenticate(c.link.credential, false)
		if !errors.Is(err, want) || c.link.notRenewed(err, false) || c.refusals.Load() != 0 {
			t.Fatalf("error is %v, %d refusals", err, c.refusals.Load())
		}
	}
	fails(errSameToken)
	down := errors.New("the issuer is down")
	source.set("", down)
	fails(down)
	source.set("", nil)
	fails(errSameToken)
	if auths := n.seenOf(protocol.OpAuth); len(auths) != 0 {
		t.Errorf("%d tokens were sent", len(auths))
	}
	source.set("bad", nil)
	for range 2 * refusalsMax {
		fails(&protocol.Error{Code: protocol.CodeUnauthorized})
	}
	source.set("good", nil)
	g.open("good")
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil || c.Reconnects() != 0 {
		t.Errorf("%v, %d reconnects", err, c.Reconnects())
	}
}

func TestTerminalAfterRefusedCommands(t *testing.T) {
	n, _ := guarded(t, "good")
	cfg := quick(n.addr)
	cfg.Token = StaticToken("bad")
	c := dial(t, cfg)
	_, err := c.Adjust(within(t), "A", "", 1)
	wantCode(t, err, protocol.CodeUnauthorized)
	eventually(t, "the client ended", func() bool { return c.reason() != nil })
	err = c.Ping(within(t))
	wantCode(t, err, protocol.CodeUnauthorized)
	wantContains(t, err.Error(), "no token was taken, 3 were refused in a row; the last one: unauthorized: token expired")
	if got := len(n.seenOf(protocol.OpAuth)); got != refusalsMax {
		t.Errorf("sent %d tokens", got)
	}
}

func TestClose4001AsksForAnotherToken(t *testing.T) {
	n := newFakeNode(t, "a")
	source := &tokens{next: "t1"}
	cfg := quick(n.addr)
	cfg.Token = source.Token
	c := dial(t, cfg)
	for i := range 2 * refusalsMax { // not in a row
		source.set(fmt.Sprint("next", i), nil)
		n.closeAll(protocol.CloseUnauthorized, "token expired")
		eventually(t, "connected again", func() bool { return c.Reconnects() == i+1 && c.Endpoint() != "" })
		if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
			t.Fatal(err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := n.tokens[len(n.tokens)-1]; got != "Bearer next5" {
		t.Errorf("sent %q", got)
	}
}

func TestTerminalAfterThreeCloses(t *testing.T) {
	n := newFakeNode(t, "a")
	n.answer = func(c *fakeConn, _ protocol.Command) string {
		n.closeAll(protocol.CloseUnauthorized, "token revoked")
		return "-"
	}
	cfg := quick(n.addr)
	cfg.Token = StaticToken("secret")
	c := dial(t, cfg)
	err := c.Ping(within(t))
	var closed *CloseError
	if !errors.As(err, &closed) || closed.Code != protocol.CloseUnauthorized {
		t.Fatalf("error is %v", err)
	}
	wantCode(t, err, protocol.CodeUnauthorized)
	wantContains(t, err.Error(), "3 were refused in a row")
	wantContains(t, err.Error(), "token revoked")
	if n.connections() != refusalsMax || strings.Contains(err.Error(), "secret") {
		t.Errorf("%d connections, %v", n.connections(), err)
	}
}

func TestTerminalAfterThreeHandshakes(t *testing.T) {
	n := newFakeNode(t, "a")
	refuse := false
	n.handshake = func(w http.ResponseWriter) bool {
		if refuse {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return refuse
	}
	source := &tokens{next: "secret"}
	cfg := quick(n.addr)
	cfg.Token = source.Token
	c := dial(t, cfg)
	n.mu.Lock()
	refuse = true
	n.mu.Unlock()
	n.drop()
	eventually(t, "the client ended", func() bool { return c.reason() != nil })
	wantContains(t, c.reason().Error(), "3 were refused in a row")
	wantCode(t, c.reason(), protocol.CodeUnauthorized)
	if got := source.times(); got != 1+refusalsMax {
		t.Errorf("asked %d times", got)
	}
}

func TestDialWithARefusedToken(t *testing.T) {
	n := newFakeNode(t, "a")
	refusals := 0
	n.handshake = func(w http.ResponseWriter) bool {
		refusals++
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	for wait, want := range map[bool]int{false: 1, true: refusalsMax} {
		refusals = 0
		cfg := quick(n.addr, n.addr)
		cfg.Token, cfg.Wait = StaticToken("secret"), wait
		_, err := Dial(within(t), cfg)
		wantCode(t, err, protocol.CodeUnauthorized)
		if refusals != want {
			t.Errorf("wait %v: %d attempts", wait, refusals)
		}
	}
}

func TestTooManyConnectionsIsWaitedFor(t *testing.T) {
	n := newFakeNode(t, "a")
	cfg := quick(n.addr)
	cfg.Token = StaticToken("good")
	c := dial(t, cfg)
	for i := range 2 * refusalsMax {
		n.closeAll(protocol.CloseTooManyConnections, "too many connections of this user")
		eventually(t, "connected again", func() bool { return c.Reconnects() == i+1 && c.Endpoint() != "" })
	}
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestTokenThatCantBeHad(t *testing.T) {
	n := newFakeNode(t, "a")
	down := errors.New("the issuer is down")
	for name, source := range map[string]*tokens{
		"error": {err: down}, "newline": {next: "se\ncret"}, "space": {next: "se cret"}, "no text": {next: "se\xffcret"},
		"huge": {next: strings.Repeat("s", tokenBytesMax+1)},
	} {
		cfg := quick(n.addr)
		cfg.Token = source.Token
		_, err := Dial(within(t), cfg)
		if !errors.Is(err, ErrNoToken) || errors.Is(err, ErrUnreachable) || name == "error" && !errors.Is(err, down) {
			t.Errorf("%s: error is %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "sss")) {
			t.Errorf("%s: the error holds the token: %v", name, err)
		}
	}
	if n.connections() != 0 {
		t.Error("a node was called without the token")
	}
}

func TestWaitOutlastsTheIssuer(t *testing.T) {
	n := newFakeNode(t, "a")
	source := &tokens{err: errors.New("the issuer is down")}
	cfg := quick(n.addr)
	cfg.Token, cfg.Wait = source.Token, true
	go func() {
		for source.times() < 2 {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		source.set(" good\n", nil)
	}()
	dial(t, cfg)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.tokens, []string{"Bearer good"}) {
		t.Errorf("sent %q", n.tokens)
	}
}

func TestPagesAskForAnotherToken(t *testing.T) {
	n := newFakeNode(t, "a")
	source := &tokens{next: "t"}
	cfg := quick(n.addr)
	cfg.Token = source.Token
	c := dial(t, cfg)
	n.set("1", 1)
	refusals := 2
	n.mu.Lock()
	n.handshake = func(w http.ResponseWriter) bool {
		if refusals--; refusals < 0 {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	n.mu.Unlock()
	for _, err := range c.Items(within(t), protocol.Selector{}, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	n.mu.Lock()
	refusals = 100
	n.mu.Unlock()
	for _, err := range c.Items(within(t), protocol.Selector{}, 0) {
		wantCode(t, err, protocol.CodeUnauthorized)
	}
	if got := 100 - refusals; got != refusalsMax {
		t.Errorf("asked for a page %d times", got)
	}
}

func TestOwnAuthIsAnsweredAsItIs(t *testing.T) {
	n, _ := guarded(t, "good")
	cfg := quick(n.addr)
	cfg.Token = StaticToken("good")
	c := dial(t, cfg)
	_, err := c.Do(within(t), protocol.Command{Op: protocol.OpAuth, Token: "secret\xff"})
	wantCode(t, err, protocol.CodeBadRequest)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error holds the token: %v", err)
	}
	_, err = c.Do(within(t), protocol.Command{Op: protocol.OpAuth, Token: "bad"})
	wantCode(t, err, protocol.CodeUnauthorized)
	if auths := n.seenOf(protocol.OpAuth); len(auths) != 1 {
		t.Errorf("%d tokens were sent", len(auths))
	}
}

func TestExpiryOf(t *testing.T) {
	at := time.Unix(1700000000, 500e6)
	if got := expiryOf(jwtOf("a", at)); !got.Equal(at) {
		t.Errorf("%v", got)
	}
	for _, text := range []string{`{}`, `{"exp":"soon"}`, `{"exp":-1}`, `{"exp":1e300}`, `[`, `{"exp":null}`} {
		if got := expiryOf("e30." + base64.RawURLEncoding.EncodeToString([]byte(text)) + ".x"); !got.IsZero() {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, token := range []string{"", "opaque", "a.b", "a.!.c", "a.b.c.d"} {
		if got := expiryOf(token); !got.IsZero() {
			t.Errorf("%q: %v", token, got)
		}
	}
}

func TestRenewalTimes(t *testing.T) {
	if renewalAfter(time.Time{}) != 0 || renewalAfter(time.Now().Add(-time.Hour)) != 0 || again(time.Time{}) != 0 {
		t.Error("an unknown end is not waited for")
	}
	if got := renewalAfter(time.Now().Add(time.Hour)); got < 40*time.Minute || got > 48*time.Minute {
		t.Errorf("after %v", got)
	}
	if got := again(time.Now().Add(time.Hour)); got != renewAgainMax {
		t.Errorf("again after %v", got)
	}
	if got := again(time.Now().Add(100 * time.Millisecond)); got != renewAgainMin && got != 0 {
		t.Errorf("again after %v", got)
	}
}

func TestTokenStaysWithinTLS(t *testing.T) {
	plain := newFakeNode(t, "a")
	secure := httptest.NewTLSServer(http.RedirectHandler("http://"+plain.addr+"/v1/ws", http.StatusTemporaryRedirect))
	defer secure.Close()
	cfg := quick(secure.URL)
	cfg.Token = StaticToken("secret")
	cfg.TLS = secure.Client().Transport.(*http.Transport).TLSClientConfig
	_, err := Dial(within(t), cfg)
	if err == nil {
		t.Fatal("the redirect was followed")
	}
	wantContains(t, err.Error(), "a redirect away from TLS")
	if len(plain.tokens) != 0 {
		t.Error("the plain node was called")
	}
}
