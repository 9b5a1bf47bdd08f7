package server_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/node/server"
)

// The port for probes and metrics asks nobody for a token, and has nothing else.
func TestProbePort(t *testing.T) {
	l := openLodge(t, func(c *server.Config) {
		c.Metrics, c.Version, c.Commit = "127.0.0.1:0", "1.4.0", "abc"
	})
	base := "http://" + l.MetricsAddr()
	for path, want := range map[string]string{
		"/healthz": `{"status":"alive"}`,
		"/readyz":  `{"status":"ready"}`,
	} {
		if a := l.ask(http.MethodGet, base+path, "", ""); a.status != http.StatusOK || strings.TrimSpace(a.body) != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	a := l.ask(http.MethodGet, base+"/metrics", "", "")
	for _, want := range []string{
		"stockmesh_ready 1\n", `stockmesh_state{state="serving"} 1` + "\n", `stockmesh_state{state="draining"} 0` + "\n",
		`stockmesh_build_info{commit="abc",go="go`, `version="1.4.0"} 1` + "\n", "\nstockmesh_disk_used_ratio ", "go_goroutines",
	} {
		if a.status != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("%d, without %s", a.status, want)
		}
	}
	for _, path := range []string{"/", "/nodes", "/backup", "/drain", "/regions", "/revocations", "/debug/pprof/", "/debug/connections", "/v1/stock"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if a := l.ask(method, base+path, "", ""); a.status != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
			}
		}
	}
	if a := l.ask(http.MethodPost, base+"/readyz", "", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("%d %s", a.status, a.body)
	}
	addr := l.MetricsAddr()
	l.end()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("the port is open after the end")
	}
}

func TestNoProbePort(t *testing.T) {
	if addr := run(t).MetricsAddr(); addr != "" {
		t.Errorf("it listens on %s unasked", addr)
	}
}
