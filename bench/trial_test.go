package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childBench is bench itself, for the test that kills it.
const childBench = "child-bench"

// TestStockIsHeldAgainstTheAnswers gives an account that nodes do not match.
func TestStockIsHeldAgainstTheAnswers(t *testing.T) {
	for _, c := range []struct {
		onHand         int64
		lost, oversold int64
		want           string
	}{
		{7, 0, 0, "[]"},
		{8, 1, 0, "n has 8 of x: want 7 after 3 acknowledged units in and 6 out, from 10"},
		{5, 2, 0, "n has 5 of x"},
		{-2, 9, 2, "n has -2 of x"},
	} {
		r := newRound(&options{}, 1, &target{}, nil)
		tr := &trial{round: r, crowd: &crowd{accounts: []*account{{sku: "x", opening: 10, added: 3, sold: 6}}}}
		lost, oversold := tr.compare(&node{name: "n"}, map[string]int64{"x": c.onHand})
		if said := fmt.Sprint(r.violations); lost != c.lost || oversold != c.oversold || !strings.Contains(said, c.want) {
			t.Errorf("%d on hand: %d lost, %d oversold: %s", c.onHand, lost, oversold, said)
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values        []float64
		half, highest float64
	}{
		{nil, 0, 0},
		{[]float64{3}, 3, 3},
		{[]float64{4, 1, 3, 2}, 2, 4},
		{[]float64{5, 4, 1, 3, 2}, 3, 5},
	} {
		if half, highest := quantile(c.values, 0.5), quantile(c.values, 0.99); half != c.half || highest != c.highest {
			t.Errorf("%v: %v, %v", c.values, half, highest)
		}
	}
}

func TestRegions(t *testing.T) {
	if testing.Short() {
		t.Skip("starts regions of three processes")
	}
	testRuns(t, []spawnedRun{
		{"hot-sku --spawn 3 --connections 6 --depth 8 --no-half --duration 200ms", "acked_per_second p50_ms p99_ms", ""},
		{"replay --spawn 3 --connections 12 --kills 1 --file testdata/sales.csv", "invoices_per_second lines_per_second acked_per_second reserve_p99_ms confirm_p50_ms push_p50_ms sold refused released kills failover_max_ms", "differences failed_commands oversold_units"},
		{"failover --spawn 3 --connections 12 --rate 300 --kills 1 --duration 200ms", "failover_p50_ms failover_p99_ms failover_max_ms acked_per_second before_acked_per_second after_acked_per_second ready_max_ms", "failed_commands lost_commands oversold_units"},
		{"drain --spawn 3 --watchers 300 --over 1s --connections 12 --rate 300 --duration 200ms", "acked_per_second connection_moves stop_max_ms", "failed_commands lost_commands oversold_units"},
	})
}

func TestMeshes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts meshes of processes")
	}
	testRuns(t, []spawnedRun{
		{"hot-sku --spawn 2x1 --connections 6 --depth 8 --no-half --duration 200ms", "acked_per_second p50_ms p99_ms", ""},
		{"fanout --spawn 2x1 --subscribers 10 --burst 4 --duration 200ms", "delivered_per_second p50_ms p99_ms", ""},
		{"replay --spawn 2x1 --connections 8 --file testdata/sales.csv", "invoices_per_second sold push_p50_ms", "differences failed_commands oversold_units"},
		{"cut --spawn 3x1 --connections 18 --rate 300 --duration 500ms", "acked_per_second eu_before_p99_ms us_during_p99_ms asia_during_p99_ms p99_during_ratio converge_ms", "failed_commands lost_commands oversold_units"},
		{"cut --spawn 2x1 --cut all --connections 12 --rate 300 --duration 500ms", "eu_during_p99_ms us_during_p99_ms converge_ms", "failed_commands lost_commands oversold_units"},
		{"mesh --spawn 2x1 --connections 6 --rate 500 --duration 500ms", "p50_ms p99_ms p50_ratio many_p99_ratio freshness_p50_ms many_freshness_p99_ms link_out_bytes_per_command", ""},
	})
}

// spawnedRun is a scenario on nodes of its own.
type spawnedRun struct {
	args    string
	metrics string // that must be above zero
	zero    string
}

func testRuns(t *testing.T, runs []spawnedRun) {
	for _, c := range runs {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			result, err := runScenario(t, strings.Fields(c.args)...)
			if spawn := fmt.Sprint(result["spawn"]); err != nil || !strings.Contains(c.args, "--spawn "+spawn+" ") {
				t.Fatalf("spawn %v, %v", spawn, err)
			}
			metrics := result["metrics"].(map[string]any)
			for name := range strings.FieldsSeq(c.metrics + " verified_items") {
				if v, ok := metrics[name].(float64); !ok || v <= 0 {
					t.Errorf("%s is %v", name, metrics[name])
				}
			}
			for name := range strings.FieldsSeq(c.zero) {
				if v, ok := metrics[name].(float64); !ok || v != 0 {
					t.Errorf("%s is %v", name, metrics[name])
				}
			}
		})
	}
}

// TestNothingStaysOfAKilledBench kills a bench while its region is up.
func TestNothingStaysOfAKilledBench(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a region of three processes")
	}
	killBench(t, "failover", "--duration", "1m", "--rate", "100")
}

// killBench kills a bench once its nodes are under load, and waits until nothing is left
// of them.
func killBench(t *testing.T, args ...string) {
	t.Helper()
	dir := t.TempDir()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(binary, append([]string{childBench, "--dir", dir}, args...)...)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the first phase", func() bool {
		b, err := os.ReadFile(said.Name())
		return err == nil && bytes.Contains(b, []byte("before"))
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	await(t, "an empty directory", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(late) {
			t.Fatalf("not within a minute: %s", what)
		}
		_ = pause(t.Context(), 10*time.Millisecond)
	}
}
