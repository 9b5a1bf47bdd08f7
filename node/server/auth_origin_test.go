package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/node/server"
)

const (
	foreignPage = "https://evil.example"
	partnerPage = "https://shop.example"
)

// A page of another site can't open a WebSocket, whatever its visitor's browser knows.
func TestForeignPagesOpenNoWebSocket(t *testing.T) {
	ca := newAuthority(t)
	l := openLodge(t, ca.tls(), func(c *server.Config) { c.Origins = []string{partnerPage} })
	token := l.keys.token(everything)
	till := l.as(ca.till("till-1", "store-1"))
	own := l.url("")
	for _, who := range []struct {
		name  string
		node  *lodge
		token string
	}{{"nobody", l.as(nil), ""}, {"a token", l.as(nil), token}, {"a client certificate", till, ""}, {"both", till, token}} {
		for origin, want := range map[string]int{
			foreignPage: 403, "null": 403, "https://127.0.0.1:1": 403, own + ".evil.example": 403, "": 101, own: 101, partnerPage: 101,
		} {
			var headers []string
			if origin != "" {
				headers = []string{"Origin", origin}
			}
			if _, res := who.node.dial("/v1/ws", who.token, headers...); res.StatusCode != want {
				t.Errorf("%s, origin %q: %s, want %d", who.name, origin, res.Status, want)
			}
		}
	}
}

// A page of another site can't use HTTP either, and its browser is told so before.
func TestForeignPagesSendNothing(t *testing.T) {
	l := openLodge(t, func(c *server.Config) { c.Origins = []string{partnerPage} })
	token := l.keys.token(everything)
	l.seed("tee-1", "store-1", 7)
	const sale = `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization"}
	for origin, want := range map[string]struct{ read, sale, preflight int }{
		foreignPage: {403, 403, 403},
		"null":      {403, 403, 403},
		partnerPage: {200, 200, 204},
	} {
		from := []string{"Origin", origin}
		read := l.get("/v1/stock/tee-1?location=store-1", token, from...)
		sold := l.ask(http.MethodPost, l.url("/v1/sales"), token, sale, append(from, "Idempotency-Key", l.key())...)
		asked := l.ask(http.MethodOptions, l.url("/v1/sales"), "", "", append(from, preflight...)...)
		if read.status != want.read || sold.status != want.sale || asked.status != want.preflight {
			t.Errorf("origin %s: read %d, sale %d, preflight %d, want %v", origin, read.status, sold.status, asked.status, want)
		}
		for _, a := range []answered{read, sold, asked} {
			if got, let := a.header.Get("Access-Control-Allow-Origin"), want.read == 200; let && got != origin || !let && got != "" {
				t.Errorf("origin %s: Access-Control-Allow-Origin %q", origin, got)
			}
			// Without it a browser sends no cookies and no client certificate along.
			if got := a.header.Get("Access-Control-Allow-Credentials"); got != "" {
				t.Errorf("origin %s: Access-Control-Allow-Credentials %q", origin, got)
			}
		}
		may := strings.Contains(asked.header.Get("Access-Control-Allow-Headers"), "Authorization")
		if may != (want.preflight == 204) {
			t.Errorf("origin %s: Access-Control-Allow-Headers %q", origin, asked.header.Get("Access-Control-Allow-Headers"))
		}
	}
	if a := l.get("/v1/stock/tee-1?location=store-1", token); !strings.Contains(a.body, `"on_hand":6`) {
		t.Errorf("only the partner's page may have sold one: %s", a.body)
	}
}

// Nor can it operate the node through its visitor.
func TestForeignPagesOperateNothing(t *testing.T) {
	l := openLodge(t)
	from := []string{"Origin", foreignPage, "Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"}
	if a := l.ask(http.MethodPost, l.adminURL("/revocations"), "", `{"subject":"everybody"}`, from...); a.status != http.StatusForbidden {
		t.Errorf("revoking was answered %d %s", a.status, a.body)
	}
	if a := l.ask(http.MethodGet, l.adminURL("/revocations"), "", ""); strings.Contains(a.body, "everybody") {
		t.Errorf("it was done: %s", a.body)
	}
	if a := l.ask(http.MethodGet, l.adminURL("/readyz"), "", "", from...); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another site's page may read the admin port: %v", a.header)
	}
}
