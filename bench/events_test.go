package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

// logFile is a progress that can be read afterwards.
func logFile(t *testing.T) (p *progress, said func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return newProgress(f), func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestWhatHappenedIsToldAndDrawn(t *testing.T) {
	p, said := logFile(t)
	r := newRound(&options{rounds: 1}, 1, &target{}, p)
	r.phase("before", time.Second)
	r.happened("%s cut off", "eu")
	over := r.happening("us killed")
	r.timeline("commands").add(int64(time.Millisecond), 3)
	r.timeline("nothing")
	r.phase("after", time.Second)
	over()
	var run page.Run
	r.chronicle.draw(2, &run)
	if len(run.Events) != 2 || run.Events[0].Text != "eu cut off" || run.Events[0].EndS != 0 || run.Events[1].Round != 2 {
		t.Errorf("%+v", run.Events)
	}
	if len(run.Phases) != 2 || run.Phases[1].Text != "after" || run.Phases[1].EndS != 0 {
		t.Errorf("%+v", run.Phases)
	}
	if len(run.Timelines) != 1 || run.Timelines[0].Name != "commands" || run.Timelines[0].Count[0] != 3 || run.Timelines[0].MaxMS[0] != 1 {
		t.Errorf("%+v", run.Timelines)
	}
	if got, want := said(), "round 1/1: before, 1s\n  eu cut off\n  us killed\nround 1/1: after, 1s\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLongPhasesTellWhatGoesOn(t *testing.T) {
	p, said := logFile(t)
	p.part("3/14 orders")
	p.follow(func() string { return "commands 7/s" })
	for _, length := range []time.Duration{longPhase, 2 * longPhase} {
		p.phase("a phase", length)
		p.at(1)
		p.told = p.told.Add(-tellEvery)
		p.at(2)
		p.at(3)
	}
	if got := said(); strings.Count(got, "commands 7/s") != 1 || strings.Count(got, "3/14 orders: a phase") != 2 {
		t.Errorf("%s", got)
	}
}

func TestShortened(t *testing.T) {
	for text, want := range map[string]string{"short": "short", "twenty-five runes, or moré": "twenty-five runes, …", "": ""} {
		if got := shortened(text, 10); got != want {
			t.Errorf("%q", got)
		}
	}
}

func TestLiveLine(t *testing.T) {
	p, _ := logFile(t)
	r := newRound(&options{rounds: 1}, 1, &target{}, p)
	if got := r.live(); got != "" {
		t.Errorf("%q before anything was counted", got)
	}
	line := r.timeline("commands")
	if got := r.live(); got != "commands 0/s" {
		t.Errorf("%q", got)
	}
	line.began = line.began.Add(-5 * time.Second)
	at(line, 4500, 2*time.Millisecond, 100)
	if got := r.live(); !strings.HasPrefix(got, "commands 100/s, p50 2") || !strings.Contains(got, "p99") {
		t.Errorf("%q", got)
	}
}
