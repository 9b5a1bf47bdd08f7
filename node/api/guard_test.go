package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// fakeGuard takes the tokens it is told of. A caller ends by the clock or by revoke.
type fakeGuard struct {
	mu      sync.Mutex
	tokens  map[string]*protocol.Caller
	revoked map[*protocol.Caller]bool
	noKeys  bool
}

func newFakeGuard() *fakeGuard {
	return &fakeGuard{tokens: make(map[string]*protocol.Caller), revoked: make(map[*protocol.Caller]bool)}
}

// give makes a token for a caller with the grants.
func (g *fakeGuard) give(token, grants string) *protocol.Caller {
	var list []protocol.Grant
	if err := json.Unmarshal([]byte(grants), &list); err != nil {
		panic(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &protocol.Caller{Subject: "sub-" + token, Access: protocol.NewAccess("eu", list)}
	g.tokens[token] = c
	return c
}

func (g *fakeGuard) revoke(c *protocol.Caller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked[c] = true
}

func (g *fakeGuard) Token(_ context.Context, token string) (*protocol.Caller, *protocol.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.noKeys {
		return nil, protocol.RetryLater(protocol.CodeUnavailable, 2500, "no keys yet")
	}
	c, ok := g.tokens[token]
	if !ok {
		return nil, protocol.NewError(protocol.CodeUnauthorized, "signature")
	}
	return c, nil
}

func (g *fakeGuard) Certificate(cert *x509.Certificate) *protocol.Caller {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tokens[cert.Subject.CommonName]
}

func (g *fakeGuard) Valid(c *protocol.Caller) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.revoked[c] && (c.ExpiresAt.IsZero() || time.Now().Before(c.ExpiresAt))
}

// guarded is a fixture that wants tokens.
func guarded(t *testing.T, tune ...func(*Config)) (*fixture, *fakeGuard) {
	t.Helper()
	g := newFakeGuard()
	return newFixture(t, append([]func(*Config){func(c *Config) { c.Guard = g }}, tune...)...), g
}

func bearing(token string) string { return "Authorization: Bearer " + token }

// everything is all rights but admin.
const everything = `"do":["watch","history","adjust","count","reserve","sell","move","configure"]`

// stocked has tee-1 and cap at shop and at main, ten of each, two of them reserved by
// u, and a key and a reservation for each: as the cells of the matrix name them.
func (f *fixture) stocked() {
	n := 0
	for _, sku := range []string{"tee-1", "cap"} {
		for _, location := range []string{"shop", "main"} {
			n++
			f.ledger.write(protocol.Command{Op: protocol.OpAdjust, SKU: sku, Location: location, Delta: 10},
				protocol.Command{Op: protocol.OpReserve, User: "u", Lines: []protocol.Line{{SKU: sku, Location: location, Quantity: 2}}})
			f.do("POST", "/v1/adjustments", fmt.Sprintf(`{"key":"k-%s-%s","sku":"%[1]s","location":"%[2]s","delta":1}`, sku, location),
				bearing("root"))
		}
	}
}

func reservationOf(sku, location string) string {
	return map[string]string{"tee-1shop": "eu.1", "tee-1main": "eu.2", "capshop": "eu.3", "capmain": "eu.4"}[sku+location]
}

// cell is how the matrix uses a route: on one item, and what that is answered with where
// the item is outside of the caller's grants.
type cell struct {
	target  string // %s: the SKU, %l: the location, %r: its reservation
	body    string
	outside int
}

// matrix has each route once.
func matrix() map[string]cell {
	return map[string]cell{
		"GET /v1/stock":                      {"/v1/stock?sku=%s&location=%l", "", 403},
		"GET /v1/stock/{sku}":                {"/v1/stock/%s?location=%l", "", 403},
		"GET /v1/stock/{sku}/history":        {"/v1/stock/%s/history?location=%l", "", 403},
		"GET /v1/stream":                     {"/v1/stream?sku=%s&location=%l", "", 403},
		"GET /v1/reservations/{id}":          {"/v1/reservations/%r", "", 404},
		"GET /v1/outcomes/{key}":             {"/v1/outcomes/k-%s-%l", "", 403},
		"GET /v1/mesh":                       {"/v1/mesh", "", 200},
		"PUT /v1/stock/{sku}/settings":       {"/v1/stock/%s/settings?location=%l", `{"key":"m","low_stock":5}`, 403},
		"POST /v1/adjustments":               {"/v1/adjustments", `{"key":"m","sku":"%s","location":"%l","delta":1}`, 403},
		"POST /v1/counts":                    {"/v1/counts", `{"key":"m","sku":"%s","location":"%l","on_hand":9}`, 403},
		"POST /v1/sales":                     {"/v1/sales", `{"key":"m","lines":[{"sku":"%s","location":"%l","quantity":1}]}`, 403},
		"POST /v1/moves":                     {"/v1/moves", `{"key":"m","sku":"%s","from":"%l","to":"store","quantity":1}`, 403},
		"POST /v1/reservations":              {"/v1/reservations", `{"key":"m","user":"u","lines":[{"sku":"%s","location":"%l","quantity":1}]}`, 403},
		"POST /v1/reservations/{id}/confirm": {"/v1/reservations/%r/confirm", `{"key":"m"}`, 404},
		"POST /v1/reservations/{id}/release": {"/v1/reservations/%r/release", `{"key":"m"}`, 404},
		"POST /v1/reservations/{id}/extend":  {"/v1/reservations/%r/extend", `{"key":"m","ttl_ms":5000}`, 404},
		"POST /v1/batch":                     {"/v1/batch", `[{"op":"sell","key":"m","lines":[{"sku":"%s","location":"%l","quantity":1}]}]`, 403},
		"GET /openapi.json":                  {"/openapi.json", "", 200},
		"GET /asyncapi.json":                 {"/asyncapi.json", "", 200},
	}
}

func (c cell) on(s, sku, location string) string {
	return strings.NewReplacer("%s", sku, "%l", location, "%r", reservationOf(sku, location)).Replace(s)
}

func TestEveryRouteChecksItsCaller(t *testing.T) {
	columns := []struct {
		name, token, sku, location string
		status                     int // 0: what the row says of items outside, 2: success
	}{
		{"no token", "", "tee-1", "shop", 401},
		{"bad token", "forged", "tee-1", "shop", 401},
		{"no grant", "none", "tee-1", "shop", 403},
		{"grant of another right", "other", "tee-1", "shop", 403},
		{"wrong SKU", "mine", "cap", "shop", 0},
		{"wrong location", "mine", "tee-1", "main", 0},
		{"right", "mine", "tee-1", "shop", 2},
	}
	rows := matrix()
	for _, rt := range Routes() {
		label := rt.Method + " " + rt.Pattern
		row, ok := rows[label]
		if !ok {
			t.Errorf("%s has no row", label)
			continue
		}
		delete(rows, label)
		for _, col := range columns {
			t.Run(label+"/"+col.name, func(t *testing.T) {
				f, g := guarded(t)
				g.give("root", `[{`+everything+`}]`)
				g.give("none", `[]`)
				g.give("other", otherRights(rt.Right))
				g.give("mine", `[{`+everything+`,"skus":["tee-*"],"locations":["shop","store"]},{"do":["admin"]}]`)
				f.stocked()
				logged := f.ledger.log
				headers := []string{bearing(col.token)}
				if col.token == "" {
					headers = nil
				}
				status, body := f.cellAnswer(rt, row.on(row.target, col.sku, col.location), row.on(row.body, col.sku, col.location), headers)
				want := col.status
				switch {
				case rt.Public, want == 2:
					want = 200
				case want == 0:
					want = row.outside
				}
				if status/100 == 2 {
					status = 200
				}
				if status != want {
					t.Fatalf("got %d, want %d: %s", status, want, body)
				}
				if status >= 400 && f.ledger.log != logged {
					t.Error("it was done")
				}
				if status >= 400 && strings.Contains(body, `"details"`) {
					t.Errorf("details: %s", body)
				}
			})
		}
	}
	for label := range rows {
		t.Errorf("%s is no route", label)
	}
}

// otherRights grants all but one right. A batch has none of its own: the one of the
// command in it is left out.
func otherRights(but protocol.Right) string {
	if but == "" {
		but = protocol.RightSell
	}
	var do []string
	for _, r := range protocol.Rights() {
		if r != but {
			do = append(do, `"`+string(r)+`"`)
		}
	}
	return `[{"do":[` + strings.Join(do, ",") + `]}]`
}

// cellAnswer sends one request; what a batch answers its one command counts as its own.
func (f *fixture) cellAnswer(rt RouteInfo, target, body string, headers []string) (status int, answer string) {
	f.Helper()
	r := newTestRequest(f.T, rt.Method, target, body)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := newPipeWriter(f.T)
	f.api.ServeHTTP(w, r)
	if rt.Pattern == "/v1/stream" && w.Body.Len() == 0 {
		return http.StatusOK, w.take()
	}
	var results struct {
		Results []struct {
			Error *protocol.Error `json:"error"`
		} `json:"results"`
	}
	if rt.Pattern == "/v1/batch" && w.Code == 200 {
		if err := protocol.UnmarshalJSON(w.Body.Bytes(), &results); err != nil || len(results.Results) != 1 {
			f.Fatal(w.Body, err)
		}
		if e := results.Results[0].Error; e != nil {
			return e.Code.Status(), w.Body.String()
		}
	}
	if challenge := w.Header().Get("WWW-Authenticate"); (challenge == "Bearer") != (w.Code == 401) {
		f.Errorf("status %d with WWW-Authenticate %q", w.Code, challenge)
	}
	return w.Code, w.Body.String()
}

func TestRoutesTellTheirRight(t *testing.T) {
	for _, rt := range Routes() {
		if rt.Right == "" && !rt.Public && rt.Pattern != "/v1/batch" {
			t.Errorf("%s %s needs nothing", rt.Method, rt.Pattern)
		}
		if rt.Public && (rt.Right != "" || rt.Op != "") {
			t.Errorf("%s %s is public and needs %q for %q", rt.Method, rt.Pattern, rt.Right, rt.Op)
		}
	}
}

func TestHowACallerIsNamed(t *testing.T) {
	till := &x509.Certificate{}
	till.Subject.CommonName = "till"
	stranger := &x509.Certificate{}
	stranger.Subject.CommonName = "stranger"
	for _, c := range []struct {
		name    string
		target  string
		cert    *x509.Certificate
		headers []string
		want    int
	}{
		{"bearer", "/v1/stock/A", nil, []string{bearing("good")}, 200},
		{"scheme in any case", "/v1/stock/A", nil, []string{"Authorization: bEARER   good"}, 200},
		{"scheme alone", "/v1/stock/A", nil, []string{"Authorization: Bearer"}, 401},
		{"empty token", "/v1/stock/A", nil, []string{"Authorization: Bearer "}, 401},
		{"empty header", "/v1/stock/A", nil, []string{"Authorization: "}, 401},
		{"token alone", "/v1/stock/A", nil, []string{"Authorization: good"}, 401},
		{"another scheme", "/v1/stock/A", nil, []string{"Authorization: Basic good"}, 401},
		{"two tokens", "/v1/stock/A", nil, []string{bearing("good"), bearing("good")}, 400},
		{"two tokens in one", "/v1/stock/A", nil, []string{bearing("good, Bearer good")}, 401},
		{"revoked", "/v1/stock/A", nil, []string{bearing("revoked")}, 401},
		{"certificate", "/v1/stock/A", till, nil, 200},
		{"certificate of nobody", "/v1/stock/A", stranger, nil, 401},
		{"good certificate, bad token", "/v1/stock/A", till, []string{bearing("bad")}, 401},
		{"no route", "/v1/nothing", nil, nil, 401},
		{"no route, token", "/v1/nothing", nil, []string{bearing("good")}, 404},
		{"document", "/openapi.json", nil, nil, 200},
		{"document, bad token", "/openapi.json", nil, []string{bearing("bad")}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, g := guarded(t, func(cfg *Config) {
				cfg.Certificates = func(*http.Request) *x509.Certificate { return c.cert }
			})
			g.give("good", `[{"do":["watch"]}]`)
			g.give("till", `[{"do":["watch"]}]`)
			g.revoke(g.give("revoked", `[{"do":["watch"]}]`))
			w := f.do("GET", c.target, "", c.headers...)
			if w.Code != c.want || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
			}
			if public := c.target == "/openapi.json"; public == (w.Header().Get("Vary") == "Authorization") {
				t.Errorf("Vary is %q", w.Header().Get("Vary"))
			}
		})
	}
}

func TestTokensInTheURLAreRefused(t *testing.T) {
	f, g := guarded(t)
	g.give("secret", `[{"do":["watch","admin"]}]`)
	for _, api := range []*fixture{f, newFixture(t)} {
		for _, target := range []string{"/v1/stock", "/v1/stream", "/v1/mesh", "/openapi.json", "/v1/nothing"} {
			for _, name := range []string{"token", "access_token", "jwt", "authorization", "Token", "JWT", "acc%65ss_token"} {
				w := api.do("GET", target+"?all&"+name+"=secret", "", bearing("secret"))
				wantCode(t, w, protocol.CodeBadRequest)
				if strings.Contains(w.Body.String(), "secret") {
					t.Errorf("%s: the token is in the answer: %s", name, w.Body)
				}
			}
		}
	}
}

func TestNoKeysYet(t *testing.T) {
	f, g := guarded(t)
	g.noKeys = true
	w := f.do("GET", "/v1/stock/A", "", bearing("t"))
	if wantCode(t, w, protocol.CodeUnavailable); w.Header().Get("Retry-After") != "3" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
}

// A page of another site may ask what it may send without a token: browsers send none.
func TestPreflightNeedsNoToken(t *testing.T) {
	f, g := guarded(t, func(c *Config) { c.Origins = []string{"https://shop.example"} })
	g.give("good", `[{"do":["watch"]}]`)
	w := f.do("OPTIONS", "/v1/stock/A", "", "Origin: https://shop.example", "Access-Control-Request-Method: GET")
	if w.Code != 204 || !strings.Contains(w.Header().Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	// A token doesn't make another site welcome.
	wantCode(t, f.do("GET", "/v1/stock/A", "", "Origin: https://evil.example", bearing("good")), protocol.CodeForbidden)
	w = f.do("GET", "/v1/stock/A", "", "Origin: https://shop.example")
	if wantCode(t, w, protocol.CodeUnauthorized); w.Header().Get("Access-Control-Allow-Origin") == "" {
		t.Error("the site's script can't see why")
	}
}

func TestMovementsNameWhoAndWhere(t *testing.T) {
	f, g := guarded(t)
	g.give("clerk", `[{`+everything+`}]`)
	r := newTestRequest(t, "POST", "/v1/adjustments", `{"key":"1","sku":"A","delta":1}`)
	r.RemoteAddr = "[::ffff:10.1.2.3]:999"
	r.Header.Set("Authorization", "Bearer clerk")
	f.api.ServeHTTP(httptest.NewRecorder(), r)
	r = newTestRequest(t, "POST", "/v1/batch", `[{"op":"adjust","key":"2","sku":"A","delta":1}]`)
	r.RemoteAddr = "[2001:db8::1]:999"
	r.Header.Set("Authorization", "Bearer clerk")
	f.api.ServeHTTP(httptest.NewRecorder(), r)
	var who []string
	for _, m := range f.ledger.movements {
		who = append(who, m.Subject+" "+m.Address)
	}
	if got := strings.Join(who, ", "); got != "sub-clerk 10.1.2.3, sub-clerk 2001:db8::1" {
		t.Error(got)
	}
}
