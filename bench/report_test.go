package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{5}, spread{5, 5, 5}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{4, 1, 2, 9}, spread{3, 1, 9}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestLatencies(t *testing.T) {
	l := newLatencies()
	l.add(2_000_000, 98) // 2 ms
	l.add(-5, 1)
	l.add(1<<62, 1) // beyond the end
	n := numbers{}
	l.put(n, "half_")
	if n["half_p50_ms"] < 1.99 || n["half_p50_ms"] > 2.01 || n["half_p99_ms"] > 2.01 || l.h.TotalCount() != 100 {
		t.Errorf("%v of %d", n, l.h.TotalCount())
	}
}

func testReport() *report {
	r := newReport(&options{scenario: "fanout", spawn: "1", regions: 1, each: 1})
	for i, v := range []float64{3, 1, 2} {
		from := &round{name: "round", numbers: numbers{"delivered_per_second": v * 1000}, peers: map[string]numbers{}}
		from.peer(bareWrite)["delivered_per_second"] = v * 2000
		if i == 1 {
			from.violate("%d lost", 4)
		}
		r.add(from)
	}
	return r
}

// The names are the contract of protocol.md, "Benchmark results".
func TestReportFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	if err := writeRuns(file, runsOf([]*report{testReport()}), false); err != nil {
		t.Fatal(err)
	}
	got := readJSON(t, file)
	for _, varies := range []string{"machine", "version", "began", "took_s", "about"} {
		if _, ok := got[varies]; !ok {
			t.Errorf("no %s", varies)
		}
		delete(got, varies)
	}
	want := map[string]any{
		"scenario": "fanout", "spawn": "1", "seed": "0",
		"peer_rounds": map[string]any{"bare-write": map[string]any{"delivered_per_second": []any{6000.0, 2000.0, 4000.0}}},
		"metrics":     map[string]any{"delivered_per_second": 2000.0},
		"peers":       map[string]any{"bare-write": map[string]any{"delivered_per_second": 4000.0}},
		"violations":  []any{"round: 4 lost"},
		"rounds":      map[string]any{"delivered_per_second": []any{3000.0, 1000.0, 2000.0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReportTable(t *testing.T) {
	var out bytes.Buffer
	r := testReport()
	r.print(&out)
	for _, want := range []string{"fanout on a node, spawned", "cores", "2,000", "1,000", "bare-write delivered_per_second", "VIOLATION round: 4 lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "4 lost") {
		t.Errorf("verdict: %v", err)
	}
	r.Violations = nil
	if err := r.verdict(); err != nil {
		t.Errorf("verdict without violations: %v", err)
	}
}

func readJSON(t *testing.T, file string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
