package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/bench/fault"
	"github.com/stockmesh/stockmesh/protocol"
)

var soakLength = flag.Duration("soak", 0, "soak meshes of several sizes for `TIME` each")

// TestSoak carries out a plan by hand on one region, which ends nodes in every way that
// takes no time.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a region of three processes")
	}
	plan := filepath.Join(t.TempDir(), "plan")
	text := "0s for 100ms kill 0.0\n100ms for 200ms stop 0.1\n"
	if err := os.WriteFile(plan, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	result, err := runScenario(t, "soak", "--spawn", "3", "--plan", plan, "--rate", "300", "--connections", "12", "--duration", "100ms")
	if err != nil {
		t.Fatal(err)
	}
	metrics := result["metrics"].(map[string]any)
	for _, name := range []string{"acked_per_second", "kill_recovery_max_ms", "stop_recovery_max_ms", "kill_pause_max_ms"} {
		if v, ok := metrics[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v", name, metrics[name])
		}
	}
	if metrics["faults"] != 2.0 || metrics["lost_commands"] != 0.0 || metrics["oversold_units"] != 0.0 {
		t.Errorf("%v", metrics)
	}
}

// TestLongSoak is the scenario as people run it.
func TestLongSoak(t *testing.T) {
	if *soakLength == 0 {
		t.Skip("-soak TIME runs it")
	}
	for _, spawn := range []string{"1", "3", "3x1", "2x3"} {
		t.Run(spawn, func(t *testing.T) {
			if _, err := runScenario(t, "soak", "--spawn", spawn, "--rate", "500", "--duration", soakLength.String()); err != nil {
				t.Error(err)
			}
		})
	}
}

// testSoak is a soak without nodes.
func testSoak(t *testing.T, args string) *soakTrial {
	t.Helper()
	o, err := parseOptions(strings.Fields("soak "+args), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.dir = t.TempDir()
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close() })
	gen, err := newGenerator()
	if err != nil {
		t.Fatal(err)
	}
	s := newRound(o, 1, &target{each: o.each}, newProgress(said)).newSoak(gen)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if s.target.wires != nil {
			s.target.wires.close()
		}
		s.disks.close()
	})
	return s
}

// said is what a soak has told so far.
func (s *soakTrial) said(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(s.progress.out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestASeedLaysOutASoak(t *testing.T) {
	s := testSoak(t, "--spawn 3x3 --seed 5 --duration 3m --faults kill,cut,oneway,upgrade")
	if err := s.layOut(); err != nil {
		t.Fatal(err)
	}
	want := fault.Plan(5, 3*time.Minute, fault.Cluster{Regions: 3, Each: 3}, []fault.Kind{fault.Kill, fault.Cut, fault.Oneway})
	if fmt.Sprint(s.plan) != fmt.Sprint(want) || len(want) == 0 {
		t.Errorf("got %v\nwant %v", s.plan, want)
	}
	if said := s.said(t); !strings.Contains(said, "upgrade: skipped, no other version") || !strings.Contains(said, "seed 5") {
		t.Errorf("said:\n%s", said)
	}
	if len(s.target.nodes) != 9 || !strings.Contains(strings.Join(s.target.nodes[0].args, " "), "--advertise-link us=") {
		t.Errorf("%d nodes, the first with %v", len(s.target.nodes), s.target.nodes[0].args)
	}
	// What is written down is the same once more.
	again := testSoak(t, "--spawn 3x3 --seed 6 --duration 1s --plan "+s.planPath())
	if err := again.layOut(); err != nil || fmt.Sprint(again.plan) != fmt.Sprint(want) || again.duration < want[len(want)-1].End() {
		t.Errorf("read again, for %v: %v, %v", again.duration, again.plan, err)
	}
}

func TestPlansThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{"1s for 1s kill 0.3": "counted from 0", "soon": "line 1"} {
		plan := filepath.Join(dir, "plan")
		if err := os.WriteFile(plan, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s := testSoak(t, "--spawn 3 --plan "+plan)
		if err := s.layOut(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestASoakWithoutAnyFaultIsNone: it would find nothing wrong.
func TestASoakWithoutAnyFaultIsNone(t *testing.T) {
	plan := filepath.Join(t.TempDir(), "plan")
	if err := os.WriteFile(plan, []byte("1s for 1s upgrade 0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, c := range map[string]struct {
		lacks bool
		want  string
	}{
		"--spawn 3 --faults cut,upgrade":           {true, "cut: there are no links between regions; upgrade: no other version"},
		"--spawn 3 --plan " + plan:                 {true, "upgrade: no other version"},
		"--spawn 3 --faults kill --plan " + plan:   {false, "no faults of the kinds"},
		"--spawn 3 --faults kill --duration 100ms": {false, "--duration has to be longer"},
	} {
		s := testSoak(t, args)
		err := s.layOut()
		if err == nil || onlyMissing(err) != c.lacks || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", args, err)
		}
		if s.target.dir != "" {
			t.Errorf("%s: %s stays", args, s.target.dir)
		}
	}
}

func TestWhatASoakKeeps(t *testing.T) {
	s := testSoak(t, "--spawn 3 --seed 9")
	if err := s.layOut(); err != nil {
		t.Fatal(err)
	}
	dir := s.target.dir
	if err := s.keep(); err != nil || s.target.dir != "" {
		t.Fatalf("%q is removed, %v", s.target.dir, err)
	}
	said := s.said(t)
	for _, want := range []string{"kept in " + dir, "seed 9", "bench soak --spawn 3 --plan " + filepath.Join(dir, planFile)} {
		if !strings.Contains(said, want) {
			t.Errorf("it doesn't say %q:\n%s", want, said)
		}
	}
	for _, name := range []string{planFile, journalFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTheJournalOfAClient(t *testing.T) {
	name := filepath.Join(t.TempDir(), journalFile)
	gen := &generator{now: 1_512_044_000}
	c := newCrowd(gen, []string{"a", "b"})
	c.patient = true
	var err error
	if c.journal, err = createJournal(name, "run", []string{"eu-1", "eu-2"}, gen); err != nil {
		t.Fatal(err)
	}
	m := newMember(c, 7, 2, &account{}, -1, `{"id":#}`)
	m.does = "sell"
	on := &conn{receiver: m}
	m.land(1, on)
	m.offer(0)
	m.received(on, fmt.Appendf(nil, `{"id":%d,"error":{"code":"unavailable","retryable":true}}`, numberMin+3))
	gen.now += int64(time.Second)
	c.retryDue()
	m.received(on, fmt.Appendf(nil, `{"id":%d,"ok":{}}`, numberMin+3))
	if err := c.journal.close(); err != nil {
		t.Fatal(err)
	}
	if c.failed > 0 || c.retried != 1 || len(c.faults) > 0 || c.acked != 1 {
		t.Errorf("%d failed, %d retried, %d acknowledged, faults %q", c.failed, c.retried, c.acked, c.faults)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"ms":1512.044,"key":"run-7-1000000003","do":"sell","node":"eu-2","sent":"first"}
{"ms":1512.044,"key":"run-7-1000000003","do":"sell","node":"eu-2","got":"unavailable"}
{"ms":2512.044,"key":"run-7-1000000003","do":"sell","node":"eu-2","sent":"again"}
{"ms":2512.044,"key":"run-7-1000000003","do":"sell","node":"eu-2","got":"ok"}
`
	if string(b) != want {
		t.Errorf("got\n%swant\n%s", b, want)
	}
	for line := range bytes.Lines(b) {
		if !json.Valid(line) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

// TestWhatAnOnlookerSees feeds one with what a node must not show.
func TestWhatAnOnlookerSees(t *testing.T) {
	item := func(version string, onHand int64) protocol.Item {
		return protocol.Item{SKU: "x", Version: version, OnHand: onHand}
	}
	for _, c := range []struct {
		shown []protocol.Item
		want  string
	}{
		{[]protocol.Item{item("", 0), item("eu:1", 1), item("eu:1,us:1", 2), item("eu:10,us:1", 3), item("eu:10,us:1", 3)}, ""},
		{[]protocol.Item{item("eu:10", 1), item("eu:9", 2)}, "eu:9 after eu:10"},
		{[]protocol.Item{item("eu:1,us:2", 1), item("eu:2,us:1", 2)}, "goes back"},
		{[]protocol.Item{item("eu:1,us:2", 1), item("us:3", 2)}, "goes back"},
		{[]protocol.Item{item("eu:1", 1), item("eu:1", 2)}, "two states"},
	} {
		g := newGallery(nil)
		o := &onlooker{gallery: g, fresh: make(map[string]protocol.Item), last: make(map[string]protocol.Item)}
		for _, it := range c.shown {
			o.show(it)
		}
		if said := strings.Join(g.faults, "\n"); (said == "") != (c.want == "") || !strings.Contains(said, c.want) {
			t.Errorf("%v: %q", c.shown, said)
		}
		last := c.shown[len(c.shown)-1]
		if o.lacks([]protocol.Item{last}) != "" || o.lacks([]protocol.Item{item("eu:99", 1)}) != "x" {
			t.Errorf("shown %v last", last)
		}
	}
}

// TestAFaultIsOverForTheClients follows a fault by the successes of its region.
func TestAFaultIsOverForTheClients(t *testing.T) {
	const second = int64(time.Second)
	s := testSoak(t, "--spawn 3x1")
	s.held = &account{}
	s.target.nodes = make([]*node, 3)
	a := &awaited{kind: fault.Kill, region: 1, since: 10 * second, struck: 11 * second, last: 10 * second}
	s.awaiting = []*awaited{a}
	success := func(region int, at, due int64) {
		s.crowd.gen.now = at * second
		s.acked(&member{at: region}, (at-due)*second)
	}
	success(0, 12, 12) // elsewhere
	success(1, 13, 9)  // due before
	if len(s.recovery) > 0 || len(s.awaiting) != 1 {
		t.Fatalf("recovered: %v", s.recovery)
	}
	success(1, 15, 14)
	a.undone = 20 * second
	success(1, 22, 19)
	success(1, 23, 21)
	success(1, 90, 90)
	if fmt.Sprint(s.recovery, s.pauses) != "map[kill:[5000]] map[kill:[7000]]" || len(s.awaiting) > 0 {
		t.Errorf("recovery %v, pauses %v, %d wait", s.recovery, s.pauses, len(s.awaiting))
	}
	if s.gaps[0] != 0 || s.gaps[1] != 67*second {
		t.Errorf("gaps %v", s.gaps)
	}
}

func TestAWardBearsAMinority(t *testing.T) {
	w := newWard(3)
	over, err := w.admit(t.Context(), fault.Event{Kind: fault.Kill, Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	admitted := make(chan func())
	go func() {
		end, err := w.admit(t.Context(), fault.Event{Kind: fault.Region})
		if err != nil {
			t.Error(err)
		}
		admitted <- end
	}()
	select {
	case <-admitted:
		t.Fatal("the region goes down while a node is")
	case <-time.After(aShortWhile):
	}
	over()
	end := <-admitted
	end()
}

func TestTellingOfFaults(t *testing.T) {
	s := testSoak(t, "--spawn 3x3 --faults kill")
	if err := s.layOut(); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"1s for 2s kill 1.2":           "kill us-3 for 2s",
		"1s for 2s region 2":           "region asia, all its nodes for 2s",
		"1s for 2s cut 0":              "cut eu off for 2s",
		"1s for 2s slow 0>2":           "slow link between eu and asia for 2s",
		"1s for 2s oneway 1>0":         "oneway link, nothing from us to eu for 2s",
		"1s for 2s clock 0.0 by -7m0s": "clock of eu-1 off by -7m0s for 2s",
		"1s for 2s upgrade 0.1":        "upgrade eu-2 for 2s",
	} {
		e, err := fault.ParseEvent(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.tell(e); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestANodeWhoseClockIsWrong(t *testing.T) {
	n := newNode(t.TempDir(), "bench-1")
	args := n.withClock(-7 * time.Minute)
	config, err := nodeConfig(args[2:])
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Until(config.Clock()); off > -6*time.Minute || off < -8*time.Minute {
		t.Errorf("its clock is off by %v", off)
	}
	if config, err := nodeConfig(n.args[2:]); err != nil || config.Clock != nil {
		t.Errorf("a node like any other has a clock of its own, or %v", err)
	}
}
