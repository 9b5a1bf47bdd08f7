package main

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/bench/peer"
)

var peerModulesDir = flag.String("peer-modules", "", "directory with the npm modules ws and redis, for TestPusherBeside")

func TestChosenPeers(t *testing.T) {
	for args, want := range map[string]string{
		"hot-sku":                          "",
		"hot-sku --peers all":              "postgres redis redis-pipelined redis-replica nats-kv nats-kv-r3 ws",
		"hot-sku --peers ws,postgres":      "postgres ws",
		"many-skus --peers all":            "postgres redis redis-pipelined redis-replica nats-kv nats-kv-r3",
		"orders --peers all":               "postgres redis",
		"fanout --peers all":               "ws",
		"connections --peers ws,redis":     "ws",
		"failover --peers all":             "",
		"orders --lines 2 --peers nats-kv": "",
	} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		var names []string
		for _, k := range o.chosenPeers() {
			names = append(names, k.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"hot-sku --peers oracle":          "postgres, redis",
		"hot-sku --grants --peers all":    "--grants",
		"hot-sku --observed --peers all":  "--observed",
		"connections --tls --peers redis": "--tls",
	} {
		if _, err := parseOptions(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestSkippedPeers: what isn't there is said once, in a line, and is no failure.
func TestSkippedPeers(t *testing.T) {
	log, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	o, err := parseOptions(strings.Fields("fanout --peers all --peer-modules /nonexistent"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	r := newRound(o, 1, &target{}, newProgress(log))
	if err := r.beside(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = "no Node.js here: apt install nodejs"
	if r.skipped[peer.WebSocket] != want || len(r.peers) > 0 || len(r.violations) > 0 {
		t.Errorf("skipped %v, peers %v, violations %v", r.skipped, r.peers, r.violations)
	}
	if told, _ := os.ReadFile(log.Name()); !strings.Contains(string(told), "ws is left out: "+want+"\n") {
		t.Errorf("told: %s", told)
	}
	r.skip("redis", errors.New("it ended; its log ends with:\nmore"))
	if r.skipped["redis"] != "it ended; its log ends with:" {
		t.Errorf("%q", r.skipped["redis"])
	}
}

// TestNodesHaveEndedBesidePeers: whoever is compared with them has the machine as they
// had it.
func TestNodesHaveEndedBesidePeers(t *testing.T) {
	p, _ := logFile(t)
	o, err := parseOptions(strings.Fields("fanout --peers ws --peer-modules /nonexistent"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{name: "n", args: []string{childNull}}
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	one := n.process
	r := newRound(o, 1, &target{nodes: []*node{n}, each: 1}, p)
	if err := r.beside(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-one.ended:
	default:
		t.Error("the node runs on")
	}
	if n.running.Load() != 0 || r.skipped[peer.WebSocket] == "" {
		t.Errorf("process %d, skipped %v", n.running.Load(), r.skipped)
	}
	if err := r.target.close(); err != nil {
		t.Errorf("ended twice: %v", err)
	}
}

// peerIsThere skips the test where a peer is not installed.
func peerIsThere(t *testing.T, name string, c peer.Config) {
	t.Helper()
	for _, k := range peer.Kinds() {
		if err := k.Find(c); k.Name == name && err != nil {
			t.Skip(err)
		}
	}
}

func TestPeerBeside(t *testing.T) {
	peerIsThere(t, peer.Redis, peer.Config{})
	result, err := runScenario(t, strings.Fields("hot-sku --connections 4 --depth 4 --no-half --duration 200ms --peers redis")...)
	if err != nil {
		t.Fatal(err)
	}
	checkPeerFigures(t, result, peer.Redis, "acked_per_second p50_ms p99_ms connections ratio")
}

// TestPusherBeside has a WebSocket server do what nodes do.
func TestPusherBeside(t *testing.T) {
	peerIsThere(t, peer.WebSocket, peer.Config{Modules: []string{*peerModulesDir}})
	for args, want := range map[string]string{
		"hot-sku --connections 4 --depth 4 --no-half --duration 200ms": "acked_per_second p99_ms ratio",
		"fanout --subscribers 20 --burst 4 --duration 200ms":           "delivered_per_second ratio burst_ratio stream_ratio burst_stream_ratio",
	} {
		result, err := runScenario(t, append(strings.Fields(args), "--peers", "ws", "--peer-modules", *peerModulesDir)...)
		if err != nil {
			t.Fatal(err)
		}
		checkPeerFigures(t, result, peer.WebSocket, want)
	}
}

func checkPeerFigures(t *testing.T, result map[string]any, name, metrics string) {
	t.Helper()
	if v := result["violations"].([]any); len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
	figures, _ := result["peers"].(map[string]any)[name].(map[string]any)
	for metric := range strings.FieldsSeq(metrics) {
		if v, ok := figures[metric].(float64); !ok || v <= 0 {
			t.Errorf("%s: %s is %v", name, metric, figures[metric])
		}
	}
}
