package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// node runs the program to its end.
func node(t *testing.T, environ []string, args ...string) (out, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), args, environ, &stdout, &stderr); err != nil {
		said = err.Error()
	}
	if stderr.Len() > 0 {
		t.Errorf("%v: on stderr\n%s", args, &stderr)
	}
	return stdout.String(), said
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args      []string
		out, said string // parts
	}{
		{[]string{"--help"}, "--max-connections int", ""},
		{[]string{"--help"}, "\nLimits:\n", ""},
		{[]string{"drain", "--help"}, "--delay TIME", ""},
		{[]string{"version"}, "node ", ""},
		{[]string{"--version"}, " commit ", ""},
		{[]string{"--bogus"}, "", "unknown flag: --bogus (--help lists the flags)"},
		{[]string{"drain", "--bogus"}, "", "unknown flag: --bogus (--help lists the flags)"},
		{[]string{"here"}, "", `unexpected argument "here" (--help lists the flags)`},
		{[]string{"helth"}, "", `unexpected argument "helth", did you mean "health"? (--help lists the flags)`},
		{[]string{"version", "here"}, "", `unexpected argument "here" (--help lists the flags)`},
		{[]string{"config"}, "", "config check or config show?"},
		{[]string{"--drain", "soon"}, "", `invalid argument "soon" for "--drain" flag`},
		{[]string{"--region", "EU"}, "", "--region must be"},
		{[]string{"--log-level", "loud"}, "", `--log-level "loud": want debug, info, warn or error`},
		{[]string{"--listen", "0.0.0.0:0"}, "", "--insecure"},
		{[]string{"--name", "drain", "config", "show", "--changed"}, "name: \"drain\" ", ""}, // no command
		{[]string{"config", "show", "--trace-endpoint", "https://me:sesame@traces"}, "", "--trace-endpoint: want no user"},
		{[]string{"config", "show", "--trace-endpoint", "https://me:%zsesame@traces"}, `# trace-endpoint: "https://..."`, "--trace-endpoint: want http"},
		{[]string{"config", "show", "--trace-endpoint", "https://me:sesame word@traces"}, `# trace-endpoint: "https://..."`, "--trace-endpoint: want http"},
		{[]string{"config", "show", "--trace-endpoint", "https://tr:aces/?k=sesame"}, `# trace-endpoint: "https://..."`, "--trace-endpoint: want http"},
		{[]string{"config", "show", "--trace-endpoint", "https://me:pa#sesame@traces"}, `# trace-endpoint: "https://..."`, "--trace-endpoint: want http"},
		{[]string{"config", "show", "--trace-endpoint", "me:sesame@traces:4318"}, `# trace-endpoint: "..."`, "--trace-endpoint: want http"},
		{[]string{"config", "show", "--jwks", "https://keys:bad/jwks?key=sesame"}, `# jwks: "https://..."`, ""},
	} {
		out, said := node(t, nil, c.args...)
		if !strings.Contains(out, c.out) || !strings.Contains(said, c.said) || c.said == "" && said != "" || strings.Contains(out+said, "sesame") {
			t.Errorf("%v: %q\n%s", c.args, said, out)
		}
	}
	if _, said := node(t, []string{"STOCKMESH_REGOIN=eu"}); said != "STOCKMESH_REGOIN: no option has this variable, did you mean STOCKMESH_REGION?" {
		t.Error(said)
	}
}

func TestBuildIsStamped(t *testing.T) {
	version, commit, date = "1.4.0", "abc", "2026-11-21T10:00:00Z"
	defer func() { version, commit, date = "", "", "" }()
	if out, _ := node(t, nil, "version"); !strings.HasPrefix(out, "node 1.4.0 commit abc of 2026-11-21T10:00:00Z go1.") {
		t.Error(out)
	}
	if c := newApp(nil, nil, nil).config; c.Version != "1.4.0" || c.Commit != "abc" || c.Date != "2026-11-21T10:00:00Z" {
		t.Errorf("%+v", c)
	}
}

func TestConfigCheck(t *testing.T) {
	data := t.TempDir()
	out, said := node(t, nil, "config", "check", "--data", data, "--name", "a", "--insecure", "--metrics", "0.0.0.0:8082")
	if said != "" || !strings.Contains(out, "warning: clients are not authenticated") ||
		!strings.HasSuffix(out, "ok: node a of region local, data in "+data+", --listen 127.0.0.1:8080, --admin 127.0.0.1:8081, --metrics 0.0.0.0:8082\n") {
		t.Errorf("%q\n%s", said, out)
	}
	if _, err := os.Stat(filepath.Join(data, "stockmesh.json")); err == nil {
		t.Error("it made something")
	}
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("regoin: eu\ndrain: -5s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, said = node(t, []string{"STOCKMESH_NONSENSE=1", "STOCKMESH_TLS_CERT=/nowhere"}, "config", "check", "--config", file)
	for _, want := range []string{"problem: STOCKMESH_NONSENSE: no option", "problem: " + file + ":1: \"regoin\" is no option", "problem: --drain -5s is negative", "problem: --tls-cert and --tls-key go together"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "ok:") || said != "config check: problems found: 4" {
		t.Errorf("%q\n%s", said, out)
	}
}

// stub stands for a node's port.
func stub(t *testing.T, serve http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestDrain(t *testing.T) {
	var asked string
	status, answer := http.StatusOK, `{"status":"drained","connections":0}`
	admin := stub(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.String()
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	})
	_, port, _ := net.SplitHostPort(admin)
	out, said := node(t, []string{"STOCKMESH_ADMIN=:" + port}, "drain", "--delay", "3s")
	if out != "drained, 0 connections left\n" || said != "" || asked != "POST /drain?delay=3s" {
		t.Errorf("%q %q %q", asked, out, said)
	}
	for _, c := range []struct {
		status       int
		answer, want string
	}{
		{503, `{"status":503,"code":"unavailable","message":"the node has no clients yet"}`, "drain: the node answers 503: the node has no clients yet"},
		{401, `{"status":401,"message":"a token"}`, "drain: a token: an admin port that is open to others asks for a token"},
		{200, `<html>`, "answers 200, and nothing that a node says"},
	} {
		status, answer = c.status, c.answer
		if _, said := node(t, nil, "drain", "--admin", admin); !strings.Contains(said, c.want) {
			t.Errorf("%d: %q", c.status, said)
		}
	}
	for args, want := range map[string]string{
		"--delay 5s --timeout 5s": "--timeout 5s must be longer than --delay 5s",
		"--admin 127.0.0.1:0":     `--admin "127.0.0.1:0": its port is known to the node alone`,
		"--admin here":            `--admin "here": want host:port`,
	} {
		if _, said := node(t, nil, append([]string{"drain"}, strings.Fields(args)...)...); !strings.Contains(said, want) {
			t.Errorf("%s: %q", args, said)
		}
	}
}

// A node that drains on says nothing until it has. The time may be up before it was asked.
func TestDrainGivesUp(t *testing.T) {
	admin := stub(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, said := node(t, nil, "drain", "--admin", admin, "--delay", "0s", "--timeout", "50ms"); said != "not drained within 50ms; the node goes on with it" {
		t.Error(said)
	}
}

func TestDrainOfNobody(t *testing.T) {
	admin := loopback.Addresses(t, 1)[0]
	if _, said := node(t, nil, "drain", "--admin", admin); said != "drain: no node listens at http://"+admin {
		t.Error(said)
	}
}

func TestHealth(t *testing.T) {
	ready := `{"status":"ready"}`
	serve := func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /healthz":
			fmt.Fprint(w, `{"status":"alive"}`)
		case "GET /readyz":
			if !strings.Contains(ready, `"ready"`) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprint(w, ready)
		}
	}
	admin, metrics := stub(t, serve), stub(t, serve)
	dead := stub(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for _, args := range [][]string{{"--admin", admin}, {"--admin", dead, "--metrics", metrics}} {
		if out, said := node(t, nil, append(args, "health")...); out != "alive\n" || said != "" {
			t.Errorf("%v: %q %q", args, out, said)
		}
		if out, said := node(t, nil, append(args, "health", "--ready")...); out != "ready\n" || said != "" {
			t.Errorf("%v: %q %q", args, out, said)
		}
	}
	ready = `{"status":"unhealthy","problems":["disk"],"warnings":["old"],"mesh":["us is cut off"]}`
	if out, said := node(t, nil, "health", "--ready", "--admin", admin); out != "unhealthy\nproblem: disk\nwarning: old\nmesh: us is cut off\n" || said != "health: the node is unhealthy" {
		t.Errorf("%q %q", out, said)
	}
	if out, said := node(t, nil, "health", "--admin", dead); out != "" || !strings.HasPrefix(said, "health: ") {
		t.Errorf("%q %q", out, said)
	}
}

func TestWhereToDial(t *testing.T) {
	for addr, want := range map[string]string{
		":8081": "127.0.0.1:8081", "0.0.0.0:8081": "127.0.0.1:8081", "[::]:8081": "[::1]:8081", "127.0.0.1:1": "127.0.0.1:1", "node-1:8081": "node-1:8081", "[::1]:8081": "[::1]:8081",
	} {
		if got, err := dialled(addr); got != want || err != nil {
			t.Errorf("%s: %s, %v", addr, got, err)
		}
	}
}

// log keeps what a node says until somebody reads it.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// started runs the program, which logs JSON, until ctx ends, and returns when it serves.
func started(ctx context.Context, t *testing.T, environ []string, out *log) (ended <-chan error) {
	t.Helper()
	end := make(chan error, 1)
	go func() { end <- run(ctx, nil, environ, out, out) }()
	look, late := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer look.Stop()
	for {
		select {
		case err := <-end:
			t.Fatalf("%v\n%s", err, out)
		case <-late:
			t.Fatalf("not ready after a minute:\n%s", out)
		case <-look.C:
			var said bytes.Buffer
			ready := run(ctx, []string{"health", "--ready"}, environ, &said, &said) == nil
			// It is ready a moment before it can be drained.
			if ready && strings.Contains(out.String(), `"msg":"serving"`) {
				return end
			}
		}
	}
}

// The program as it is used: started by its options, asked by its commands, stopped.
func TestServeAskDrainStop(t *testing.T) {
	environ := []string{
		"STOCKMESH_DATA=" + t.TempDir(), "STOCKMESH_ADMIN=" + loopback.Addresses(t, 1)[0], "STOCKMESH_LISTEN=127.0.0.1:0", "STOCKMESH_LOG_FORMAT=json",
	}
	ctx, stop := context.WithCancel(t.Context())
	said := &log{}
	ended := started(ctx, t, environ, said)
	if out, said := node(t, environ, "drain", "--delay", "0s"); out != "drained, 0 connections left\n" || said != "" {
		t.Errorf("%q %q", out, said)
	}
	if out, said := node(t, environ, "health", "--ready"); !strings.HasPrefix(out, "draining\n") || said != "health: the node is draining" {
		t.Errorf("%q %q", out, said)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(said.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}
