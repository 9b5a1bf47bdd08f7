package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be started again as a child, as bench itself is.
func TestMain(m *testing.M) {
	children[childBench] = func(args []string) error { return run(context.Background(), args, os.Stdout, os.Stderr) }
	if child, ok := children[firstArgument()]; ok {
		exit(child(os.Args[2:]))
	}
	flag.Parse()
	if err := moreAtOnce(); err != nil {
		exit(err)
	}
	os.Exit(m.Run())
}

// testsAtOnce is how many run at the same time: they wait for their nodes far more than
// they compute.
const testsAtOnce = 4

// moreAtOnce lets that many run, unless -parallel says something else.
func moreAtOnce() error {
	asked := runtime.GOMAXPROCS(0) >= testsAtOnce
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if asked {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(testsAtOnce))
}

// sharedPorts keep tests that run at the same time from taking the same addresses.
type sharedPorts struct {
	mu    sync.Mutex
	taken ports
}

var testPorts = sharedPorts{taken: ports{}}

func (p *sharedPorts) pick(n int) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken.pick(n)
}

// runScenario runs bench and returns what it wrote for machines.
func runScenario(t *testing.T, args ...string) (map[string]any, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "result.json")
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args = append([]string{"--rounds", "1", "--duration", "1s", "--dir", dir, "--json", file}, args...)
	o, err := parseOptions(args, out)
	if err == nil {
		o.pick = testPorts.pick
		err = o.run(ctx, args, out, out)
	}
	entries, _ := filepath.Glob(filepath.Join(dir, "stockmesh-bench-*"))
	if len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	if text, _ := os.ReadFile(out.Name()); t.Failed() || err != nil {
		t.Logf("%s", text)
	}
	if _, missing := os.Stat(file); err != nil && missing != nil {
		return nil, err
	}
	return readJSON(t, file), err
}

func TestScenarios(t *testing.T) {
	for _, c := range []struct {
		args    string
		metrics string
		linux   string // metrics that need /proc
		peer    string
	}{
		{"hot-sku --connections 8 --depth 8", "acked_per_second p50_ms p99_ms half_acked_per_second half_p50_ms half_p99_ms", "node_cpu_us_per_command", ""},
		{"hot-sku --connections 8 --depth 8 --grants", "acked_per_second p99_ms grants_ratio", "", withoutTokens},
		{"hot-sku --connections 8 --depth 8 --observed", "acked_per_second p99_ms observed_ratio scrapes trace_messages", "", unobserved},
		{"fanout --subscribers 50 --burst 4 --duration 400ms", "delivered_per_second floor_ratio p50_ms p99_ms burst_delivered_per_second burst_floor_ratio stream_per_second stream_floor_ratio half_p99_ms burst_half_delivered_items", "", bareWrite},
		{"connections --count 300", "handshakes_per_second", "rss_bytes_per_connection", ""},
		{"connections --count 100 --tls", "handshakes_per_second", "rss_bytes_per_connection", ""},
		{"storm --count 1000", "handshakes_per_second handshake_p99_ms served crowded_served crowded_told", "node_cpu_us_per_handshake", ""},
		{"storm --count 100 --tls", "handshakes_per_second handshake_p99_ms", "", ""},
		{"abuse --duration 2s --connections 4", "attacks p99_ms push_p99_ms", "rss_growth_max_bytes", ""},
		{"abuse --duration 2s --connections 4 --tls --rate 50", "attacks p99_ms push_p99_ms", "", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			result, err := runScenario(t, strings.Fields(c.args)...)
			if err != nil {
				t.Fatal(err)
			}
			if v := result["violations"].([]any); len(v) > 0 {
				t.Errorf("violations: %v", v)
			}
			metrics := result["metrics"].(map[string]any)
			for name := range strings.FieldsSeq(c.metrics) {
				if v, ok := metrics[name].(float64); !ok || v <= 0 {
					t.Errorf("%s is %v", name, metrics[name])
				}
			}
			if _, err := cpuTime(ownPID); err == nil && c.linux != "" && metrics[c.linux] == nil {
				t.Errorf("no %s", c.linux)
			}
			if peers := result["peers"].(map[string]any); c.peer != "" && peers[c.peer] == nil {
				t.Errorf("no peer %s", c.peer)
			}
		})
	}
}
