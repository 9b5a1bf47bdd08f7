package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/protocol"
)

// gate is a node that wants tokens, and the key they are signed with.
type gate struct {
	t          *testing.T
	server     *Server
	key, other ed25519.PrivateKey
	base, ws   string
	admin      string
	keys       int
}

func openGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{t: t}
	var err error
	if _, g.key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, g.other, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	x := base64.RawURLEncoding.EncodeToString(g.key.Public().(ed25519.PublicKey))
	jwks := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"k1","x":%q}]}`, x)
	c := Default()
	c.Data, c.Listen, c.Admin, c.Region = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", "eu"
	c.JWKS, c.JWTIssuer, c.JWTAudience = filepath.Join(dir, "jwks.json"), "https://id.example", "stockmesh"
	if err := os.WriteFile(c.JWKS, []byte(jwks), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	g.server = s
	g.base, g.ws, g.admin = "http://"+s.Addr().String(), "ws://"+s.Addr().String()+"/v1/ws", "http://"+s.AdminAddr()
	g.must(`{"op":"adjust","key":"seed-1","sku":"tee-1","location":"store-1","delta":1000000}`)
	g.must(`{"op":"adjust","key":"seed-2","sku":"cap","location":"store-2","delta":1000000}`)
	return g
}

// claims are those of a good token, changed.
func (g *gate) claims(grants string, change func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{
		"iss": "https://id.example", "aud": "stockmesh", "sub": "tester",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	if grants != "" {
		c["grants"] = json.RawMessage(grants)
	}
	if change != nil {
		change(c)
	}
	return c
}

func (g *gate) sign(key ed25519.PrivateKey, c jwt.MapClaims) string {
	g.t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	tok.Header["kid"] = "k1"
	s, err := tok.SignedString(key)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func everyRight() string {
	b, _ := json.Marshal(protocol.Rights())
	return string(b)
}

func (g *gate) full() string {
	return g.sign(g.key, g.claims(`[{"do":`+everyRight()+`}]`, nil))
}

// must carries out a command with a token that grants everything.
func (g *gate) must(command string) map[string]any {
	g.t.Helper()
	code, ok := g.command(g.full(), command)
	if code != "ok" {
		g.t.Fatalf("%s: %s", command, code)
	}
	return ok
}

// credentials are the columns of the matrix; a right that a row needs is in the last
// and missing in the one before.
var credentials = []string{"no token", "bad signature", "expired", "wrong audience", "wrong region", "wrong location", "wrong SKU", "missing grant", "right grant"}

func (g *gate) token(credential string, right protocol.Right) string {
	all := `"do":` + everyRight()
	switch credential {
	case "no token":
		return ""
	case "bad signature":
		return g.sign(g.other, g.claims(`[{`+all+`}]`, nil))
	case "expired":
		return g.sign(g.key, g.claims(`[{`+all+`}]`, func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }))
	case "wrong audience":
		return g.sign(g.key, g.claims(`[{`+all+`}]`, func(c jwt.MapClaims) { c["aud"] = "another" }))
	case "wrong region":
		return g.sign(g.key, g.claims(`[{`+all+`,"regions":["us"]}]`, nil))
	case "wrong location":
		return g.sign(g.key, g.claims(`[{`+all+`,"locations":["elsewhere"]}]`, nil))
	case "wrong SKU":
		return g.sign(g.key, g.claims(`[{`+all+`,"skus":["other*"]}]`, nil))
	case "missing grant":
		others, _ := json.Marshal(slices.DeleteFunc(protocol.Rights(), func(r protocol.Right) bool { return r == right }))
		return g.sign(g.key, g.claims(`[{"do":`+string(others)+`}]`, nil))
	}
	if right == protocol.RightAdmin { // which knows no items
		return g.sign(g.key, g.claims(`[{"do":["admin"],"regions":["eu"]}]`, nil))
	}
	return g.sign(g.key, g.claims(fmt.Sprintf(`[{"do":[%q],"skus":["tee-*"],"locations":["store-1","store-1b"],"regions":["eu"],"users":["u1"]}]`, right), nil))
}

// command authenticates a WebSocket, or doesn't, and sends one command. It returns "ok"
// or the error's code.
func (g *gate) command(token, command string) (code string, ok map[string]any) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, g.ws, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.CloseNow()
	if token != "" {
		g.write(ctx, conn, fmt.Sprintf(`{"op":"auth","id":1,"token":%q}`, token))
		if code, _ := g.reply(ctx, conn); code != "ok" {
			g.write(ctx, conn, command)
			if after, _ := g.reply(ctx, conn); after != code {
				g.t.Errorf("auth was answered %s, the command after it %s", code, after)
			}
			return code, nil
		}
	}
	g.write(ctx, conn, command)
	return g.reply(ctx, conn)
}

func (g *gate) write(ctx context.Context, conn *websocket.Conn, message string) {
	g.t.Helper()
	if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		g.t.Fatal(err)
	}
}

// reply reads up to the next reply. Items pushed before it are counted into "pushed".
func (g *gate) reply(ctx context.Context, conn *websocket.Conn) (code string, ok map[string]any) {
	g.t.Helper()
	pushed := 0
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			g.t.Fatal(err)
		}
		var m struct {
			Op    string
			Items []any
			OK    map[string]any
			Error *protocol.Error
		}
		if err := json.Unmarshal(data, &m); err != nil {
			g.t.Fatal(err)
		}
		switch {
		case m.Op != "":
			pushed += len(m.Items)
		case m.Error != nil:
			return string(m.Error.Code), nil
		default:
			m.OK["pushed"] = pushed
			return "ok", m.OK
		}
	}
}

// request asks a port over HTTP. It returns "ok" or the error's code, and the body.
func (g *gate) request(method, url, token, body string, header ...string) (code, answer string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return "ok", firstEvents(res.Body)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil && res.StatusCode < 300 {
		g.t.Fatal(err)
	}
	if res.StatusCode < 300 {
		return "ok", string(b)
	}
	var problem protocol.Error
	if err := json.Unmarshal(b, &problem); err != nil || problem.Code.Status() != res.StatusCode && res.StatusCode != http.StatusConflict {
		g.t.Errorf("%s %s: %d %s", method, url, res.StatusCode, b)
	}
	return string(problem.Code), string(b)
}

// firstEvents reads a stream up to its second event, or comment.
func firstEvents(r io.Reader) string {
	var all bytes.Buffer
	for part := make([]byte, 1024); strings.Count(all.String(), "\n\n") < 1; {
		n, err := r.Read(part)
		all.Write(part[:n])
		if err != nil {
			break
		}
	}
	return all.String()
}

func (g *gate) newKey() string {
	g.keys++
	return fmt.Sprintf("key-%d", g.keys)
}

// reservation makes one of tee-1, for user u1.
func (g *gate) reservation() string {
	ok := g.must(fmt.Sprintf(`{"op":"reserve","key":%q,"user":"u1","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`, g.newKey()))
	return ok["reservation"].(map[string]any)["id"].(string)
}

// row is one line of the matrix. ok is what it takes for an answer to be "ok" and not
// "empty": something of what the node knows is in it.
type row struct {
	right     protocol.Right
	do        func(token string) string
	narrow    string // what a wrong location or SKU is answered with; "" forbidden
	narrowSKU string // what a wrong SKU is, if that differs
	open      string // what everybody is answered with, tokens aside; "" nothing is
}

// expect is what a credential should get.
func (r row) expect(credential string) string {
	if r.open != "" {
		return r.open
	}
	switch credential {
	case "no token", "bad signature", "expired", "wrong audience":
		return "unauthorized"
	case "wrong location", "wrong SKU":
		if credential == "wrong SKU" && r.narrowSKU != "" {
			return r.narrowSKU
		}
		if r.narrow != "" {
			return r.narrow
		}
	case "right grant":
		return "ok"
	}
	return "forbidden"
}

func check(t *testing.T, g *gate, rows map[string]row) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		for _, credential := range credentials {
			want := r.expect(credential)
			if got := r.do(g.token(credential, r.right)); got != want {
				t.Errorf("%s, %s: %s, want %s", name, credential, got, want)
			}
		}
	}
}

// emptyUnless is "empty" for an answer that went through and shows nothing.
func emptyUnless(code string, shows bool) string {
	if code == "ok" && !shows {
		return "empty"
	}
	return code
}

func TestMatrixOfCommands(t *testing.T) {
	g := openGate(t)
	send := func(format string, args ...any) func(string) string {
		return func(token string) string {
			code, _ := g.command(token, strings.ReplaceAll(fmt.Sprintf(format, args...), "KEY", g.newKey()))
			return code
		}
	}
	reserved := func(format string) func(string) string {
		return func(token string) string { return send(format, g.reservation())(token) }
	}
	g.must(`{"op":"sell","key":"sold","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`)
	const item = `"sku":"tee-1","location":"store-1"`
	rows := map[string]row{
		"auth":        {do: send(`{"op":"auth","token":"x"}`), open: "unauthorized"},
		"ping":        {do: func(string) string { return send(`{"op":"ping"}`)("") }, open: "ok"},
		"subscribe":   {right: protocol.RightWatch, do: send(`{"op":"subscribe","skus":["tee-1"],"locations":["store-1"]}`)},
		"unsubscribe": {right: protocol.RightWatch, do: send(`{"op":"unsubscribe"}`), narrow: "ok"},
		"get":         {right: protocol.RightWatch, do: send(`{"op":"get","skus":["tee-1"],"locations":["store-1"]}`)},
		"adjust":      {right: protocol.RightAdjust, do: send(`{"op":"adjust","key":"KEY",` + item + `,"delta":1}`)},
		"count":       {right: protocol.RightCount, do: send(`{"op":"count","key":"KEY",` + item + `,"on_hand":1000000}`)},
		"reserve":     {right: protocol.RightReserve, do: send(`{"op":"reserve","key":"KEY","user":"u1","lines":[{` + item + `,"quantity":1}]}`)},
		"confirm":     {right: protocol.RightReserve, do: reserved(`{"op":"confirm","key":"KEY","reservation":%q}`), narrow: "not_found"},
		"release":     {right: protocol.RightReserve, do: reserved(`{"op":"release","key":"KEY","reservation":%q}`), narrow: "not_found"},
		"extend":      {right: protocol.RightReserve, do: reserved(`{"op":"extend","key":"KEY","ttl_ms":600000,"reservation":%q}`), narrow: "not_found"},
		"reservation": {right: protocol.RightWatch, do: reserved(`{"op":"reservation","reservation":%q}`), narrow: "not_found"},
		"sell":        {right: protocol.RightSell, do: send(`{"op":"sell","key":"KEY","lines":[{` + item + `,"quantity":1}]}`)},
		"move":        {right: protocol.RightMove, do: send(`{"op":"move","key":"KEY","sku":"tee-1","from":"store-1","to":"store-1b","quantity":1}`)},
		"configure":   {right: protocol.RightConfigure, do: send(`{"op":"configure","key":"KEY",` + item + `,"low_stock":5}`)},
		"history":     {right: protocol.RightHistory, do: send(`{"op":"history",` + item + `}`)},
		"outcome":     {right: protocol.RightReserve, do: send(`{"op":"outcome","key":"sold"}`)},
	}
	for _, op := range protocol.Ops() {
		if _, ok := rows[string(op)]; !ok {
			t.Errorf("no row for the command %s", op)
		}
	}
	check(t, g, rows)
}

// A region that is granted, named in a field that the command doesn't have, opens
// nothing here.
func TestRegionsThatAreNamedInVain(t *testing.T) {
	g := openGate(t)
	g.must(`{"op":"sell","key":"sold","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`)
	us := g.token("wrong region", "")
	const item = `"sku":"tee-1","location":"store-1"`
	for _, command := range []string{
		`"op":"history",` + item,
		`"op":"adjust","key":"KEY",` + item + `,"delta":1`,
		`"op":"count","key":"KEY",` + item + `,"on_hand":1`,
		`"op":"sell","key":"KEY","lines":[{` + item + `,"quantity":1}]`,
		`"op":"reserve","key":"KEY","lines":[{` + item + `,"quantity":1}]`,
		`"op":"move","key":"KEY","sku":"tee-1","from":"store-1","to":"store-1b","quantity":1`,
		`"op":"configure","key":"KEY",` + item + `,"low_stock":5`,
		`"op":"outcome","key":"sold"`,
		`"op":"get","skus":["tee-1"]`,
		`"op":"subscribe","all":true`,
	} {
		for _, extra := range []string{`"reservation":"us.x"`, `"region":"us"`, `"home":"us"`} {
			if strings.Contains(command, "history") && strings.Contains(extra, "region") ||
				strings.Contains(extra, "home") && !strings.Contains(command, "history") && !strings.Contains(command, "get") && !strings.Contains(command, "subscribe") {
				continue // where the field counts it is another region that is asked
			}
			full := "{" + strings.ReplaceAll(command, "KEY", g.newKey()) + "," + extra + "}"
			if code, _ := g.command(us, full); code != "forbidden" {
				t.Errorf("%s: %s", full, code)
			}
		}
	}
}

func TestMatrixOfSubscriptions(t *testing.T) {
	g := openGate(t)
	sub := func(selectors string, users bool) func(string) string {
		return func(token string) string {
			code, ok := g.command(token, `{"op":"subscribe",`+selectors+`}`)
			return emptyUnless(code, code != "ok" || users || ok["pushed"].(int) > 0)
		}
	}
	check(t, g, map[string]row{
		"skus":                {right: protocol.RightWatch, do: sub(`"skus":["tee-1"],"locations":["store-1"]`, false)},
		"prefixes":            {right: protocol.RightWatch, do: sub(`"prefixes":["tee"]`, false), narrow: "empty"},
		"all":                 {right: protocol.RightWatch, do: sub(`"all":true`, false), narrow: "empty"},
		"resumed":             {right: protocol.RightWatch, do: sub(`"all":true,"since":""`, false), narrow: "empty"},
		"users":               {right: protocol.RightWatch, do: sub(`"users":["u1"]`, true), narrow: "ok"},
		"locations":           {right: protocol.RightWatch, do: sub(`"locations":["store-1"]`, false), narrowSKU: "empty"},
		"prefixes, locations": {right: protocol.RightWatch, do: sub(`"prefixes":["tee"],"locations":["store-1"]`, false), narrowSKU: "empty"},
	})
}

func TestMatrixOfRoutes(t *testing.T) {
	g := openGate(t)
	g.must(`{"op":"sell","key":"sold","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`)
	ask := func(method, path, body, shows string) func(string) string {
		return func(token string) string {
			path, body := path, strings.ReplaceAll(body, "KEY", g.newKey())
			if strings.Contains(path, "{id}") {
				path = strings.ReplaceAll(path, "{id}", g.reservation())
			}
			code, answer := g.request(method, g.base+path, token, body)
			return emptyUnless(code, strings.Contains(answer, shows))
		}
	}
	const item = `"sku":"tee-1","location":"store-1"`
	const at = "?location=store-1"
	rows := map[string]row{
		"GET /v1/stock":                      {right: protocol.RightWatch, do: ask("GET", "/v1/stock", "", `"tee-1"`), narrow: "empty"},
		"GET /v1/stock/{sku}":                {right: protocol.RightWatch, do: ask("GET", "/v1/stock/tee-1"+at, "", "tee-1")},
		"GET /v1/stock/{sku}/history":        {right: protocol.RightHistory, do: ask("GET", "/v1/stock/tee-1/history"+at, "", "movements")},
		"GET /v1/stream":                     {right: protocol.RightWatch, do: ask("GET", "/v1/stream?sku=tee-1&location=store-1", "", "tee-1")},
		"GET /v1/reservations/{id}":          {right: protocol.RightWatch, do: ask("GET", "/v1/reservations/{id}", "", "tee-1"), narrow: "not_found"},
		"GET /v1/outcomes/{key}":             {right: protocol.RightReserve, do: ask("GET", "/v1/outcomes/sold", "", "tee-1")},
		"GET /v1/mesh":                       {right: protocol.RightAdmin, do: ask("GET", "/v1/mesh", "", "regions")},
		"PUT /v1/stock/{sku}/settings":       {right: protocol.RightConfigure, do: ask("PUT", "/v1/stock/tee-1/settings"+at, `{"key":"KEY","low_stock":1}`, "tee-1")},
		"POST /v1/adjustments":               {right: protocol.RightAdjust, do: ask("POST", "/v1/adjustments", `{"key":"KEY",`+item+`,"delta":1}`, "tee-1")},
		"POST /v1/counts":                    {right: protocol.RightCount, do: ask("POST", "/v1/counts", `{"key":"KEY",`+item+`,"on_hand":1000000}`, "tee-1")},
		"POST /v1/sales":                     {right: protocol.RightSell, do: ask("POST", "/v1/sales", `{"key":"KEY","lines":[{`+item+`,"quantity":1}]}`, "tee-1")},
		"POST /v1/moves":                     {right: protocol.RightMove, do: ask("POST", "/v1/moves", `{"key":"KEY","sku":"tee-1","from":"store-1","to":"store-1b","quantity":1}`, "tee-1")},
		"POST /v1/reservations":              {right: protocol.RightReserve, do: ask("POST", "/v1/reservations", `{"key":"KEY","user":"u1","lines":[{`+item+`,"quantity":1}]}`, "tee-1")},
		"POST /v1/reservations/{id}/confirm": {right: protocol.RightReserve, do: ask("POST", "/v1/reservations/{id}/confirm", `{"key":"KEY"}`, "tee-1"), narrow: "not_found"},
		"POST /v1/reservations/{id}/release": {right: protocol.RightReserve, do: ask("POST", "/v1/reservations/{id}/release", `{"key":"KEY"}`, "tee-1"), narrow: "not_found"},
		"POST /v1/reservations/{id}/extend":  {right: protocol.RightReserve, do: ask("POST", "/v1/reservations/{id}/extend", `{"key":"KEY","ttl_ms":600000}`, "tee-1"), narrow: "not_found"},
		"POST /v1/batch":                     {right: protocol.RightSell, do: g.batch(item)},
		"GET /openapi.json":                  {do: ask("GET", "/openapi.json", "", "openapi"), open: "ok"},
		"GET /asyncapi.json":                 {do: ask("GET", "/asyncapi.json", "", "asyncapi"), open: "ok"},
	}
	for _, r := range api.Routes() {
		if _, ok := rows[r.Method+" "+r.Pattern]; !ok {
			t.Errorf("no row for the route %s %s", r.Method, r.Pattern)
		}
	}
	rows["GET /v1/stock, named"] = row{right: protocol.RightWatch, do: ask("GET", "/v1/stock?sku=tee-1&location=store-1", "", "tee-1")}
	rows["GET /v1/stock/{sku}, long poll"] = row{right: protocol.RightWatch, do: ask("GET", "/v1/stock/tee-1"+at+"&wait_ms=1", "", "tee-1")}
	check(t, g, rows)
}

// batch sends one sale in a batch: refused as such, or inside.
func (g *gate) batch(item string) func(string) string {
	return func(token string) string {
		body := fmt.Sprintf(`[{"op":"sell","key":%q,"lines":[{%s,"quantity":1}]}]`, g.newKey(), item)
		code, answer := g.request("POST", g.base+"/v1/batch", token, body)
		if code != "ok" {
			return code
		}
		var results struct {
			Results []struct{ Error *protocol.Error }
		}
		if err := json.Unmarshal([]byte(answer), &results); err != nil || len(results.Results) != 1 {
			g.t.Fatal(answer, err)
		}
		if e := results.Results[0].Error; e != nil {
			return string(e.Code)
		}
		return "ok"
	}
}

// The admin port, from elsewhere. Here that is told by the header of a proxy.
func TestMatrixOfTheAdminPort(t *testing.T) {
	g := openGate(t)
	ask := func(method, path, body, want string) func(string) string {
		return func(token string) string {
			code, answer := g.request(method, g.admin+path, token, body, "X-Forwarded-For", "192.0.2.1", "Content-Type", "application/json")
			if code == want && (code != "ok" || answer != "") {
				return "ok" // it got through
			}
			return code
		}
	}
	admin := func(do func(string) string) row { return row{right: protocol.RightAdmin, do: do} }
	rows := map[string]row{
		"GET /healthz":             {do: ask("GET", "/healthz", "", "ok"), open: "ok"},
		"GET /readyz":              admin(ask("GET", "/readyz", "", "ok")),
		"GET /metrics":             admin(func(token string) string { return g.plain("/metrics", token) }),
		"GET /debug/connections":   admin(ask("GET", "/debug/connections", "", "ok")),
		"GET /debug/pprof/":        admin(func(token string) string { return g.plain("/debug/pprof/", token) }),
		"GET /debug/pprof/cmdline": admin(func(token string) string { return g.plain("/debug/pprof/cmdline", token) }),
		"GET /debug/pprof/profile": admin(func(token string) string { return g.plain("/debug/pprof/profile?seconds=1", token) }),
		"GET /debug/pprof/symbol":  admin(func(token string) string { return g.plain("/debug/pprof/symbol", token) }),
		"GET /debug/pprof/trace":   admin(func(token string) string { return g.plain("/debug/pprof/trace?seconds=0.1", token) }),
		"GET /backup":              admin(func(token string) string { return g.plain("/backup", token) }),
		"POST /drain":              admin(ask("POST", "/drain?delay=long", "", "bad_request")),
		"POST /activate":           admin(ask("POST", "/activate", "", "bad_request")),
		"GET /nodes":               admin(ask("GET", "/nodes", "", "bad_request")),
		"DELETE /nodes/{name}":     admin(ask("DELETE", "/nodes/other", "", "bad_request")),
		"PUT /replicas":            admin(ask("PUT", "/replicas", `{"replicas":2}`, "bad_request")),
		"GET /regions":             admin(ask("GET", "/regions", "", "ok")),
		"DELETE /regions/{name}":   admin(ask("DELETE", "/regions/us", "", "bad_request")),
		"PUT /regions/{name}":      admin(ask("PUT", "/regions/us", "", "bad_request")),
		"GET /revocations":         admin(ask("GET", "/revocations", "", "ok")),
		"POST /revocations":        admin(ask("POST", "/revocations", `{"token_id":"somebody"}`, "ok")),
	}
	for _, r := range g.server.adminRoutes() {
		if _, ok := rows[r.pattern]; !ok {
			t.Errorf("no row for %s", r.pattern)
		}
	}
	// A probe learns the status without a token, and nothing else.
	code, answer := g.request("GET", g.admin+"/readyz", "", "", "X-Forwarded-For", "192.0.2.1")
	if code != "ok" || strings.TrimSpace(answer) != `{"status":"ready"}` {
		t.Errorf("a probe was answered %s %s", code, answer)
	}
	probe := rows["GET /readyz"]
	rows["GET /readyz"] = row{right: protocol.RightAdmin, do: func(token string) string {
		if token == "" {
			return "unauthorized" // looked at above
		}
		return probe.do(token)
	}}
	check(t, g, rows)
}

// plain asks the admin port for what isn't JSON.
func (g *gate) plain(path, token string) string {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, g.admin+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "192.0.2.1")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return "ok"
	}
	var problem protocol.Error
	if err := json.Unmarshal(b, &problem); err != nil {
		g.t.Errorf("%s: %d %s", path, res.StatusCode, b)
	}
	return string(problem.Code)
}
