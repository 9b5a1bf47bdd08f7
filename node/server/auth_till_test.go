package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// sell sells one over HTTP and returns "ok" or the error's code.
func (l *lodge) sell(sku, location, token string) string {
	l.t.Helper()
	body := fmt.Sprintf(`{"lines":[{"sku":%q,"location":%q,"quantity":1}]}`, sku, location)
	a := l.ask(http.MethodPost, l.url("/v1/sales"), token, body, "Idempotency-Key", l.key())
	if a.status == http.StatusOK {
		return "ok"
	}
	return string(a.problem().Code)
}

// tillSale sells one over a WebSocket.
func tillSale(s *session, key, location string) string {
	s.t.Helper()
	reply, _ := s.ask(`{"op":"sell","key":%q,"lines":[{"sku":"tee-1","location":%q,"quantity":1}]}`, key, location)
	return reply.code()
}

// A till sells at its location without any token, and nowhere else.
func TestTill(t *testing.T) {
	ca := newAuthority(t)
	l := openLodge(t, ca.tls())
	l.http = l.as(nil).http
	l.seed("tee-1", "store 1/ä", 10)
	l.seed("tee-1", "store-2", 10)
	cert := ca.till("till-1", url.PathEscape("store 1/ä"))
	till := l.as(cert)
	ws := till.open("")
	for location, want := range map[string]string{"store 1/ä": "ok", "store-2": "forbidden", "main": "forbidden"} {
		if got := till.sell("tee-1", location, ""); got != want {
			t.Errorf("HTTP, %s: %s, want %s", location, got, want)
		}
		if got := tillSale(ws, "till-"+location, location); got != want {
			t.Errorf("WebSocket, %s: %s, want %s", location, got, want)
		}
	}
	m := l.movements("tee-1", url.QueryEscape("store 1/ä"))
	if len(m) != 3 || m[0].Subject != "cert:till-1" || m[1].Subject != "cert:till-1" || m[0].Address != "127.0.0.1" {
		t.Errorf("the history says %+v", m)
	}
	// A till can't operate the node, move units away or see other shops.
	for _, command := range []string{
		`{"op":"move","key":"m","sku":"tee-1","from":"store 1/ä","to":"store-2","quantity":1}`,
		`{"op":"configure","key":"c","sku":"tee-1","location":"store 1/ä","low_stock":1}`,
		`{"op":"subscribe","locations":["store-2"]}`,
	} {
		if reply, _ := ws.ask("%s", command); reply.code() != "forbidden" {
			t.Errorf("%s: %s", command, reply.raw)
		}
	}
	if a := till.get("/v1/mesh", ""); a.status != http.StatusForbidden {
		t.Errorf("the mesh: %d %s", a.status, a.body)
	}
	// A token is what the client chose to send: it counts, and a bad one isn't passed over.
	if got := till.sell("tee-1", "store-2", l.keys.token(everything)); got != "ok" {
		t.Errorf("with a token: %s", got)
	}
	if got := till.sell("tee-1", "store 1/ä", newIssuer(t).token(everything)); got != "unauthorized" {
		t.Errorf("with a forged token: %s", got)
	}
	if s, res := till.dial("/v1/ws", newIssuer(t).token(everything)); s != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("WebSocket with a forged token: %s", res.Status)
	}

	other := l.as(ca.till("till-2", "store-2"))
	second := other.open("")
	if a := l.ask(http.MethodPost, l.adminURL("/revocations"), "", fmt.Sprintf(`{"token_id":"cert:%x"}`, cert.Leaf.SerialNumber)); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ws.awaitClosed(4001, goneWithin)
	if got := till.sell("tee-1", "store 1/ä", ""); got != "unauthorized" {
		t.Errorf("HTTP after it was revoked: %s", got)
	}
	again := till.open("") // it may still show a token
	if got := tillSale(again, "again", "store 1/ä"); got != "unauthorized" {
		t.Errorf("WebSocket after it was revoked: %s", got)
	}
	if got := tillSale(second, "second", "store-2"); got != "ok" {
		t.Errorf("the other till: %s", got)
	}
}

// Certificates that are expired, of another CA, or bound to nothing let nobody in.
func TestTillsThatAreNone(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	l := openLodge(t, ca.tls())
	l.http = l.as(nil).http
	l.seed("tee-1", "store-1", 10)
	for name, c := range map[string]struct {
		cert *tls.Certificate
		tls  bool // whether TLS lets it in
	}{
		"expired":     {ca.till("a", "store-1", valid(-2*time.Hour, -time.Hour)), false},
		"not yet":     {ca.till("a", "store-1", valid(time.Hour, 2*time.Hour)), false},
		"foreign CA":  {foreign.till("a", "store-1"), false},
		"for servers": {ca.till("a", "store-1", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), false},
		"nowhere":     {ca.till("a", "store-1", func(c *x509.Certificate) { c.URIs = nil }), true},
		"half bound": {ca.till("a", "store-1", func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "urn", Opaque: "stockmesh:location:a%00"})
		}), true},
		"nameless": {ca.till("", "store-1"), true},
	} {
		t.Run(name, func(t *testing.T) {
			till := l.as(c.cert)
			body := `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`
			a, err := till.tryAsk(http.MethodPost, l.url("/v1/sales"), "", body, "Idempotency-Key", l.key())
			if !c.tls {
				if err == nil {
					t.Errorf("HTTP: %d %s", a.status, a.body)
				}
				_, _, err = websocket.Dial(t.Context(), l.url("/v1/ws"), &websocket.DialOptions{HTTPClient: till.http})
				if err == nil {
					t.Error("the handshake went through")
				}
				return
			}
			if err != nil || a.status != http.StatusUnauthorized {
				t.Errorf("HTTP: %d %s %v", a.status, a.body, err)
			}
			if got := tillSale(till.open(""), l.key(), "store-1"); got != "unauthorized" {
				t.Errorf("WebSocket: %s", got)
			}
		})
	}
	if n := len(l.movements("tee-1", "store-1")); n != 1 {
		t.Errorf("%d movements, want that of the seed", n)
	}
}

func valid(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// A till's session ends with its certificate.
func TestTillExpires(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	l := openLodge(t, ca.tls())
	l.http = l.as(nil).http
	until := time.Now().Add((2 + slow) * time.Second)
	s := l.as(ca.till("till-1", "store-1", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), until })).open("")
	s.must(`{"op":"subscribe","locations":["store-1"]}`)
	s.awaitClosed(4001, time.Until(until)+goneWithin)
}
