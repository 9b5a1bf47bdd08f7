package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestUnansweredCalls(t *testing.T) {
	var late []*protocol.Call
	f := newFixture(t, func(c *Config) { c.AnswerTimeout = time.Millisecond })
	f.ledger.intercept = func(c *protocol.Call) bool {
		late = append(late, c)
		return c.Command.Key != "quick"
	}
	p := wantCode(t, f.do("POST", "/v1/adjustments", `{"sku":"A","delta":1,"key":"k"}`), protocol.CodeUnavailable)
	if !p.Retryable || p.Details == nil || p.Details.Outcome != "unknown" {
		t.Errorf("got %+v", p)
	}
	w := f.do("GET", "/v1/stock/A", "")
	if p := wantCode(t, w, protocol.CodeUnavailable); p.Details != nil || w.Header().Get("Retry-After") != "1" {
		t.Errorf("a read has no outcome: %+v, Retry-After %q", p, w.Header().Get("Retry-After"))
	}
	w = f.do("POST", "/v1/batch", `[{"op":"adjust","id":1,"sku":"A","delta":1,"key":"quick"},{"op":"adjust","id":2,"sku":"A","delta":1,"key":"slow"}]`)
	if s := w.Body.String(); !strings.Contains(s, `{"id":1,"ok":`) || !strings.Contains(s, `{"id":2,"error":{"code":"unavailable"`) {
		t.Errorf("got %s", s)
	}
	// What comes after all that finds its buffers as they were.
	for _, c := range late {
		if c.Command.Key == "quick" {
			continue
		}
		if c.Command.Op == protocol.OpAdjust && c.Command.SKU != "A" {
			t.Errorf("got %+v", c.Command)
		}
		c.Done(c)
	}
}

func TestClientLeavesItsWrite(t *testing.T) {
	f := newFixture(t)
	arrived := make(chan *protocol.Call, 1)
	f.ledger.intercept = func(c *protocol.Call) bool {
		arrived <- c
		return true
	}
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/adjustments", strings.NewReader(`{"sku":"A","delta":3,"key":"k"}`))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.api.ServeHTTP(httptest.NewRecorder(), r)
	}()
	call := <-arrived
	leave()
	<-done
	f.ledger.execute(call)
	call.Done(call)
	if got := f.ledger.items[0]; got.SKU != "A" || got.OnHand != 3 {
		t.Fatalf("the write did not complete: %+v", got)
	}
}

func TestRetryAfter(t *testing.T) {
	for ms, want := range map[int64]string{0: "1", 1: "1", 1000: "1", 1001: "2", 30_000: "30"} {
		f := newFixture(t)
		f.ledger.intercept = func(c *protocol.Call) bool {
			c.Fail(protocol.RetryLater(protocol.CodeRateLimited, ms, "slower"))
			return true
		}
		w := f.do("GET", "/v1/stock/A", "")
		if p := wantCode(t, w, protocol.CodeRateLimited); p.RetryAfterMS != ms || w.Header().Get("Retry-After") != want {
			t.Errorf("%d ms: Retry-After is %q, want %q", ms, w.Header().Get("Retry-After"), want)
		}
	}
}

func TestPanicIsOneBrokenRequest(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	f.ledger.intercept = func(*protocol.Call) bool { panic("broken") }
	w := f.do("POST", "/v1/adjustments", `{"sku":"A","delta":1,"key":"k"}`)
	var p problem
	if err := protocol.UnmarshalJSON(w.Body.Bytes(), &p); err != nil || w.Code != 500 || p.Status != 500 || p.Details.Outcome != "unknown" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "broken") {
		t.Errorf("log: %s", &log)
	}
}

func TestOrigins(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Origins = []string{"https://Shop.example"} })
	for _, c := range []struct {
		origin string
		want   int
		allow  string
	}{
		{"http://node.example:8080", 200, ""},
		{"http://NODE.example:8080", 200, ""},
		{"https://shop.example", 200, "https://shop.example"},
		{"http://shop.example", 403, ""},
		{"http://node.example", 403, ""},
		{"https://evil.example", 403, ""},
		{"null", 403, ""},
		{"%", 403, ""},
	} {
		w := f.do("GET", "/v1/mesh", "", "Origin: "+c.origin, "Host: node.example:8080")
		if w.Code != c.want || w.Header().Get("Access-Control-Allow-Origin") != c.allow {
			t.Errorf("%s: got %d, allow %q", c.origin, w.Code, w.Header().Get("Access-Control-Allow-Origin"))
		}
	}
	w := f.do("OPTIONS", "/v1/stock/A", "", "Origin: https://shop.example", "Access-Control-Request-Method: GET")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Methods") != "GET, HEAD" {
		t.Errorf("preflight: %d %v", w.Code, w.Header())
	}
	wantCode(t, f.do("OPTIONS", "/v1/nothing", "", "Origin: https://shop.example", "Access-Control-Request-Method: GET"), protocol.CodeNotFound)
	wantCode(t, f.do("OPTIONS", "/v1/stock/A", ""), protocol.CodeMethodNotAllowed)
	wantCode(t, f.do("POST", "/v1/adjustments", `{"sku":"A","delta":1,"key":"k"}`, "Origin: https://evil.example"), protocol.CodeForbidden)
	if len(f.ledger.items) > 0 {
		t.Error("a cross-site write was done")
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFixture(t, func(c *Config) { c.Registerer = reg })
	f.do("GET", "/v1/stock/A", "")
	f.do("GET", "/v1/stock/B", "")
	f.do("GET", "/nowhere/B", "")
	r := f.stream(f.serve(), "sku=A", "") // whose request is over, as far as net/http knows
	r.want("A  ")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"stockmesh_http_requests_total 200 GET /v1/stock/{sku}":           2,
		"stockmesh_http_requests_total 404 none":                          1,
		"stockmesh_http_request_duration_seconds 200 GET /v1/stock/{sku}": 2,
		"stockmesh_http_request_duration_seconds 404 none":                1,
		"stockmesh_http_requests_total 200 GET /v1/stream":                1,
		"stockmesh_http_streams":                                          1,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestStalledReaderIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.WriteTimeout = 7 * time.Second })
		f.ledger.write(adjust("A", 1))
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?all", ""))
		w.take()
		if took := <-w.closed; took < 22*time.Second || took > 23*time.Second {
			t.Errorf("left after %v, want a heartbeat and the time for writing it", took)
		}
		synctest.Wait()
		if n := f.api.hub.count.Load(); n != 0 {
			t.Errorf("%d followers are left", n)
		}
		f.api.Drain()
	})
}

func TestPanicAfterTheHeadBreaksTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := newFixture(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		f.ledger.write(adjust("A", 1))
		other := newPipeWriter(t)
		f.api.ServeHTTP(other, newTestRequest(t, "GET", "/v1/stream?all", ""))
		other.take()
		f.ledger.scanned = func() { panic("broken") }
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?all", ""))
		<-w.closed
		synctest.Wait()
		if n := f.api.hub.count.Load(); n != 1 || !strings.Contains(log.String(), "broken") {
			t.Errorf("%d followers are left, log: %s", n, &log)
		}
		f.ledger.write(adjust("A", 1))
		if got := other.take(); !strings.Contains(got, "eu:2") {
			t.Errorf("the other stream: %q", got)
		}
		f.api.Drain()
	})
}

// HTTP/2 has no connections to take over.
func TestStreamNeedsAConnection(t *testing.T) {
	f := newFixture(t)
	w := f.do("GET", "/v1/stream?all", "")
	wantCode(t, w, protocol.CodeBadRequest)
	if n := f.api.hub.count.Load(); n != 0 || w.Header().Get("Connection") != "" {
		t.Errorf("%d followers, %v", n, w.Header())
	}
}
