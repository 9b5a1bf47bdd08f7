package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stockmesh/stockmesh/node/server"
)

// run starts a node in this process and stops it at the end of the test.
func run(t *testing.T, tune ...func(*server.Config)) *server.Server {
	t.Helper()
	c := server.Default()
	c.Data, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	for _, fn := range tune {
		fn(&c)
	}
	s, err := server.New(c)
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
	return s
}

// Two nodes live in one process: nothing is global.
func TestTwoNodesInOneProcess(t *testing.T) {
	a, b := run(t), run(t)
	for _, s := range []*server.Server{a, b} {
		if status, _, err := post("http://"+s.Addr().String()+"/v1/adjustments", "k", `{"sku":"A","delta":1}`); err != nil || status != 200 {
			t.Fatal(status, err)
		}
	}
}

// One port serves the console, HTTP and WebSockets.
func TestOnePortServesAll(t *testing.T) {
	s := run(t)
	base := s.Addr().String()
	res, err := http.Get("http://" + base + "/")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !strings.Contains(string(page), "<title>stockmesh</title>") {
		t.Fatalf("%s %v", page, err)
	}
	conn, _, err := websocket.Dial(t.Context(), "ws://"+base+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	_, hello, err := conn.Read(t.Context())
	if err != nil || !strings.HasPrefix(string(hello), `{"op":"hello"`) {
		t.Fatalf("%s %v", hello, err)
	}
	status, v, err := fetch("http://" + base + "/v1/mesh")
	node := v["regions"].([]any)[0].(map[string]any)["nodes"].([]any)[0].(map[string]any)
	if err != nil || status != 200 || node["state"] != "serving" || node["connections"].(float64) < 1 {
		t.Fatalf("%d %v %v", status, v, err)
	}
	if status, v, err := fetch("http://" + base + "/v1/nothing"); err != nil || status != 404 || v["code"] != "not_found" {
		t.Fatalf("%d %v %v", status, v, err)
	}
}

func TestAdminPort(t *testing.T) {
	s := run(t)
	for path, want := range map[string]string{
		"/healthz":      "alive",
		"/readyz":       `"status":"ready"`,
		"/metrics":      "stockmesh_items ",
		"/debug/pprof/": "goroutine",

		"/debug/connections":       `"slowest":[]`,
		"/debug/connections?top=1": `"connections":0`,
	} {
		res, err := http.Get("http://" + s.AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %.200s %v", path, res.StatusCode, b, err)
		}
	}
}

// Stopping tells clients where they stand, and closes them with 4200.
func TestStoppingClosesWith4200(t *testing.T) {
	c := server.Default()
	c.Data, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	s, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	conn, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr().String()+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	cancel()
	var last []byte
	for {
		_, msg, err := conn.Read(t.Context())
		if err != nil {
			var closed websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != 4200 {
				t.Fatalf("got %v", err)
			}
			break
		}
		last = msg
	}
	if !strings.HasPrefix(string(last), `{"op":"goaway","reason":"drain"`) {
		t.Fatalf("last message %s", last)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// The admin port tells of the regions, and refuses to change links where there are none.
func TestRegionsOfARegionAlone(t *testing.T) {
	s := run(t)
	base := "http://" + s.AdminAddr() + "/regions"
	status, v, err := fetch(base)
	if err != nil || status != 200 || v["region"] != "local" || len(v["regions"].([]any)) != 1 {
		t.Fatalf("%d %v %v", status, v, err)
	}
	for path, want := range map[string]int{"/us": http.StatusConflict, "/local": http.StatusBadRequest, "/US": http.StatusBadRequest} {
		for _, method := range []string{http.MethodDelete, http.MethodPut} {
			request, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s %s: %d, want %d", method, path, res.StatusCode, want)
			}
		}
	}
}

// A rate limit holds for WebSockets and HTTP of an address together.
func TestRateLimit(t *testing.T) {
	s := run(t, func(c *server.Config) { c.RateLimit, c.RateBurst = 1, 3 })
	res, limited := (*http.Response)(nil), false
	for range 200 { // more than a slow machine gets back
		var err error
		if res, err = http.Get("http://" + s.Addr().String() + "/v1/stock/A"); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if limited = res.StatusCode == http.StatusTooManyRequests; limited {
			break
		}
	}
	if !limited || res.Header.Get("Retry-After") != "1" {
		t.Fatalf("%d, %v", res.StatusCode, res.Header)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	for want, tune := range map[string]func(*server.Config){
		"--rate-limit -1":                 func(c *server.Config) { c.RateLimit = -1 },
		"--rate-limit-per-connection 1":   func(c *server.Config) { c.RateLimitPerConnection = 1e9 },
		"--trusted-proxies \"ten\"":       func(c *server.Config) { c.TrustedProxies = []string{"10.0.0.0/8", "ten"} },
		"--rate-burst needs --rate-limit": func(c *server.Config) { c.RateBurst = 7 },
	} {
		c := server.Default()
		tune(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Who comes by a trusted proxy has a budget of his own.
func TestTrustedProxies(t *testing.T) {
	s := run(t, func(c *server.Config) {
		c.RateLimit, c.RateBurst, c.TrustedProxies = 1, 1, []string{"127.0.0.1", "::1/128"}
	})
	for i := range 20 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String()+"/v1/stock/A", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("client %d: %s", i, res.Status)
		}
	}
}

func TestSlowestConnections(t *testing.T) {
	s := run(t)
	conn, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr().String()+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.AdminAddr() + "/debug/connections"
	status, v, err := fetch(base + "?top=5")
	if err != nil || status != 200 || len(v["slowest"].([]any)) != 1 {
		t.Fatalf("%d %v %v", status, v, err)
	}
	if first := v["slowest"].([]any)[0].(map[string]any); first["address"] != "127.0.0.1" || first["queued_bytes"] != float64(0) {
		t.Errorf("got %v", first)
	}
	for _, bad := range []string{"0", "x", "1001"} {
		if status, v, err := fetch(base + "?top=" + bad); err != nil || status != 400 || v["code"] != "bad_request" {
			t.Errorf("%s: %d %v %v", bad, status, v, err)
		}
	}
}
