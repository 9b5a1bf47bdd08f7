package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever is sent, the answer is one of the contract's and never a panic.
func FuzzRequest(f *testing.F) {
	for _, x := range exchanges() {
		path, query, _ := strings.Cut(x.target, "?")
		f.Add(x.method, path, query, x.body, "k", `"eu:1"`)
	}
	f.Add("GET", "/v1/stream", "all", "", "", "eu:1")
	f.Add("GET", "/v1/stock/%2F%2f", "wait_ms=0&limit=1", "", "", `W/"`)
	f.Add("POST", "/v1/batch", "", `[{"op":"extend","ttl_ms":1e400,"lines":[null]}]`, "", "*")
	f.Fuzz(func(t *testing.T, method, path, query, body, key, tag string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || strings.Contains(query, "wait_ms") {
			return // not for us, or only slow
		}
		u.RawQuery = query
		r := &http.Request{Method: method, URL: u, Host: "node", ProtoMajor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		if u.Path == "/v1/stream" {
			r.Method = http.MethodHead // or it would not end
		}
		for _, h := range []string{"Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID"} {
			value := tag
			if h == "Idempotency-Key" {
				value = key
			}
			if value != "" {
				r.Header.Set(h, value)
			}
		}
		a := New(Config{Ledger: newFakeLedger()})
		defer a.Drain()
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Code < 200 {
			t.Fatalf("%s %s?%s: %d %s", method, path, query, w.Code, w.Body)
		}
	})
}
