package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEverythingFitsOrTakesItsOwn(t *testing.T) {
	asked, err := parseOptions(strings.Fields("all --spawn 3x1 --short --seed 7 --connections 5"), nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := everything(strings.Fields("all --spawn 3x1 --short --seed 7 --connections 5"), asked)
	if err != nil {
		t.Fatal(err)
	}
	spawns := make(map[string]string)
	for _, e := range list {
		if e.err != nil {
			t.Errorf("%s: %v", e.scenario, e.err)
			continue
		}
		spawns[e.scenario] = e.options.spawn
		if e.options.seed != 7 || e.options.connections != 5 || !e.options.short {
			t.Errorf("%s: %+v", e.scenario, e.options)
		}
		if want := "go run ./bench " + e.scenario; !strings.HasPrefix(e.options.command, want) || !strings.Contains(e.options.command, "--seed=7") {
			t.Errorf("%s", e.options.command)
		}
	}
	if len(list) != len(scenarios) || spawns["hot-sku"] != "3x1" || spawns["cut"] != "3x1" || spawns["failover"] != "3" {
		t.Errorf("%v", spawns)
	}
}

func TestRunningNodesAreLeftAlone(t *testing.T) {
	args := strings.Fields("all --endpoints ws://:secret@127.0.0.1:1/v1/ws --short")
	asked, err := parseOptions(args, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := everything(args, asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if own := e.scenario == "failover" || e.scenario == "cut"; own != (e.err != nil) && (own || e.scenario == "hot-sku") {
			t.Errorf("%s: %v", e.scenario, e.err)
		}
		if e.err == nil && (e.options.spawn != "" || strings.Contains(e.options.command+fmt.Sprint(e.options.effective), "secret")) {
			t.Errorf("%s: %s, %v", e.scenario, e.options.command, e.options.effective)
		}
	}
}

func TestFlagsThatFitNothing(t *testing.T) {
	args := strings.Fields("all --depth 300")
	asked, err := parseOptions(args, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := everything(args, asked); err == nil || !strings.Contains(err.Error(), "--depth 300") {
		t.Errorf("%v", err)
	}
}

// madeUp has a scenario for each way that one may end.
func madeUp(t *testing.T) []entry {
	t.Helper()
	o := func() *options {
		return &options{scenario: "hot-sku", rounds: 1, endpoints: []string{"ws://127.0.0.1:1/v1/ws"}}
	}
	gone := o() // nobody listens there
	return []entry{
		{"cut", nil, errors.New("cut takes\na mesh")},
		{"hot-sku", gone, nil},
	}
}

func TestOneThatFailsDoesNotStopTheOthers(t *testing.T) {
	p, said := logFile(t)
	kept := 0
	reports, err := measureAll(t.Context(), madeUp(t), p, func(r []*report) error { kept = len(r); return nil })
	if err != nil || len(reports) != 2 || kept != 2 {
		t.Fatalf("%d reports, %d kept, %v", len(reports), kept, err)
	}
	if reports[0].NotRun != "cut takes; a mesh" || reports[1].Error == "" || reports[1].NotRun != "" {
		t.Errorf("%q, %q", reports[0].NotRun, reports[1].Error)
	}
	if !strings.Contains(said(), "1/2 cut: not run: cut takes; a mesh") {
		t.Errorf("%s", said())
	}
	var out bytes.Buffer
	printAll(&out, reports)
	for _, want := range []string{"cut: NOT RUN cut takes", "hot-sku: FAILED"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if err := verdictOf(reports); err == nil || !strings.Contains(err.Error(), "1 of 2 scenarios: hot-sku (failed)") {
		t.Errorf("%v", err)
	}
	if err := verdictOf(reports[:1]); err != nil {
		t.Errorf("%v", err)
	}
}

func TestWhatIsMissingIsNoFailure(t *testing.T) {
	r := newReport(&options{})
	lacks := fmt.Errorf("round 1/1: %w", missing("/dev/fuse is missing"))
	r.finish(lacks)
	r.settle(lacks)
	if r.NotRun != "/dev/fuse is missing" || r.Failed() {
		t.Errorf("%+v", r.Run)
	}
}

// TestFailuresAreNotHiddenByWhatIsMissing: only what was missing, and nothing else, is
// no failure.
func TestFailuresAreNotHiddenByWhatIsMissing(t *testing.T) {
	lacks := missing("/dev/fuse is missing")
	crash := errors.New("eu-1 has crashed")
	for name, c := range map[string]struct {
		failed     error
		violations []string
		notRun     bool
	}{
		"joined with nothing":      {fmt.Errorf("round 1/1: %w", errors.Join(errors.Join(lacks, nil), nil)), nil, true},
		"joined with a failure":    {fmt.Errorf("round 1/1: %w", errors.Join(lacks, crash)), nil, false},
		"a failure all the way":    {errors.Join(fmt.Errorf("closing: %w", crash), fmt.Errorf("round 1/1: %w", lacks)), nil, false},
		"after a violation":        {lacks, []string{"lost"}, false},
		"a failure and no lack":    {crash, nil, false},
		"nothing was wrong at all": {nil, nil, false},
	} {
		r := newReport(&options{})
		r.Violations = c.violations
		r.finish(c.failed)
		r.settle(c.failed)
		failed := c.failed != nil && !c.notRun
		if (r.NotRun != "") != c.notRun || (r.Error != "") != failed || r.Failed() != failed {
			t.Errorf("%s: not run %q, error %q, failed %v", name, r.NotRun, r.Error, r.Failed())
		}
	}
}

func TestInterruptedKeepsWhatIsThere(t *testing.T) {
	p, _ := logFile(t)
	ctx, cancel := context.WithCancel(t.Context())
	kept := func([]*report) error { cancel(); return nil }
	reports, err := measureAll(ctx, madeUp(t), p, kept)
	if err != nil || len(reports) != 1 {
		t.Errorf("%d reports, %v", len(reports), err)
	}
}

func TestFilesOfAll(t *testing.T) {
	dir := t.TempDir()
	o := &options{json: filepath.Join(dir, "r.json"), html: filepath.Join(dir, "r.html")}
	if err := o.keep([]*report{testReport(), testReport()}, true); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.json)
	if err != nil || !bytes.HasPrefix(b, []byte("[")) {
		t.Errorf("%.20s, %v", b, err)
	}
	b, err = os.ReadFile(o.html)
	if err != nil || !bytes.Contains(b, []byte("2 of 2 scenarios failed")) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
