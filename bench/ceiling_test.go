package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCeilingIsMeasuredOnce has two rounds of a run ask for it.
func TestCeilingIsMeasuredOnce(t *testing.T) {
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	o, err := parseOptions([]string{"hot-sku", "--duration", "100ms"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shared, drives := &ceiling{}, 0
	drive := func(ctx context.Context, one *round, gen *generator) error {
		drives++
		if one.duration > ceilingLength || one.meshed() || one.target == nil {
			t.Errorf("%+v", one.options)
		}
		one.violate("of no importance")
		one.numbers["x"] = 1000
		return nil
	}
	for i, c := range []struct{ measured, share float64 }{{500, 0.5}, {900, 0.9}} {
		r := newRound(o, i+1, &target{}, newProgress(said))
		r.ceiling, r.numbers["x"] = shared, c.measured
		if err := r.putCeiling(t.Context(), "x", drive); err != nil {
			t.Fatal(err)
		}
		if n := r.numbers; n["generator_share"] != c.share || n["generator_ceiling_per_second"] != 1000 || len(r.violations) > 0 {
			t.Errorf("%v, violations %q", n, r.violations)
		}
	}
	b, err := os.ReadFile(said.Name())
	if notes := strings.Count(string(b), "may be the limit"); drives != 1 || notes != 1 || err != nil {
		t.Errorf("measured %d times, %d notes, %v: %s", drives, notes, err, b)
	}
}

// BenchmarkCeiling is the most that hot-sku could measure on this machine.
func BenchmarkCeiling(b *testing.B) {
	o, err := parseOptions([]string{"hot-sku"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := newRound(o, 1, &target{}, newProgress(os.Stderr))
	for b.Loop() {
		found, err := r.driveNull(b.Context(), driveHotSKU)
		if err != nil {
			b.Fatal(err)
		}
		for name, v := range found {
			b.ReportMetric(v, name)
		}
	}
}
