package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an API over a fake ledger.
type fixture struct {
	*testing.T
	ledger *fakeLedger
	api    *API
}

func newFixture(t *testing.T, tune ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{T: t, ledger: newFakeLedger()}
	cfg := Config{Ledger: f.ledger}
	for _, fn := range tune {
		fn(&cfg)
	}
	f.api = New(cfg)
	t.Cleanup(f.api.Drain)
	return f
}

// serve starts a real server, for what a recorder can't show.
func (f *fixture) serve() *httptest.Server {
	srv := httptest.NewServer(f.api)
	f.Cleanup(srv.Close)
	f.Cleanup(f.api.Drain) // first, or Close would wait for streams
	return srv
}

// do sends a request; headers are "Name: value".
func (f *fixture) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	f.Helper()
	r := newTestRequest(f.T, method, target, body)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	return w
}

// newTestRequest takes every target, also those that httptest refuses but a
// server would hand over.
func newTestRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = query
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL = u
	return r
}

// wantCode checks a problem document and returns it.
func wantCode(t *testing.T, w *httptest.ResponseRecorder, code protocol.Code) problem {
	t.Helper()
	var p problem
	if err := protocol.UnmarshalJSON(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	if p.Code != code || w.Code != code.Status() || p.Status != w.Code {
		t.Fatalf("got status %d, body %s; want %s", w.Code, w.Body, code)
	}
	want := map[string]string{"type": "urn:stockmesh:error:" + string(code), "detail": p.Message,
		"title": titles()[code], "content": mediaProblem, "cache": cacheWrite}
	got := map[string]string{"type": p.Type, "detail": p.Detail, "title": p.Title,
		"content": w.Header().Get("Content-Type"), "cache": w.Header().Get("Cache-Control")}
	if d := cmp.Diff(want, got); d != "" || p.Title == "" {
		t.Fatal(d)
	}
	return p
}

func get(t *testing.T, target string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fetchItem(t *testing.T, c *http.Client, r *http.Request) protocol.Item {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got itemReply
	if err := protocol.UnmarshalJSON(body, &got); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %d %s %v", r.URL, res.StatusCode, body, err)
	}
	return got.Item
}

// write runs commands from inside a test, each with a key of its own.
func (l *fakeLedger) write(cmds ...protocol.Command) {
	for _, c := range cmds {
		l.mu.Lock()
		n := l.log
		l.mu.Unlock()
		c.Key = fmt.Sprintf("%s-%s-%d", c.Op, c.SKU, n)
		if err := c.Check(); err != nil {
			panic(err)
		}
		call := &protocol.Call{Command: c, Done: func(*protocol.Call) {}}
		l.mu.Lock()
		l.execute(call)
		l.mu.Unlock()
		if call.Err != nil {
			panic(call.Err)
		}
	}
}

func adjust(sku string, delta int64) protocol.Command {
	return protocol.Command{Op: protocol.OpAdjust, SKU: sku, Delta: delta}
}
