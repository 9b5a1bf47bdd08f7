package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/bench/powerfs"
)

func needDisks(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts nodes, each on a disk of its own")
	}
	if err := powerfs.Available(); err != nil {
		t.Skipf("no disk can be mounted: %v", err)
	}
}

func TestPower(t *testing.T) {
	needDisks(t)
	testRuns(t, []spawnedRun{
		{"power --spawn 3 --losses 1 --seed 1 --connections 6 --rate 300 --duration 200ms", "losses recovery_p50_ms dropped_bytes acked_per_second eio_recovery_ms eio_unready_ms acked_after_eio", "failed_commands lost_commands oversold_units"},
		{"power --spawn 1 --losses 1 --connections 4 --rate 300 --duration 200ms", "recovery_max_ms eio_unready_ms", "acked_after_eio_by_node lost_commands oversold_units"},
	})
}

// TestPowerOfDisksThatLie: a scenario that can't fail shows nothing.
func TestPowerOfDisksThatLie(t *testing.T) {
	needDisks(t)
	args := "power --no-sync --spawn 1 --losses 2 --connections 4 --rate 300 --duration 500ms"
	result, err := runScenario(t, strings.Fields(args)...)
	if err == nil || result == nil {
		t.Fatalf("%v, %v", result, err)
	}
	metrics, _ := result["metrics"].(map[string]any)
	if lost, known := metrics["lost_commands"].(float64); !known || lost == 0 {
		t.Errorf("lost nothing, but failed: %v; %v", err, metrics)
	}
}

// TestALyingDiskHasSomethingToLose cuts the power just after everything was made durable.
func TestALyingDiskHasSomethingToLose(t *testing.T) {
	l := &liar{disk: powerfs.New(powerfs.Config{Lies: true})}
	server := httptest.NewServer(l.goOnLying(diskSwitches(l.disk)))
	defer server.Close()
	d := &disk{process: &process{addresses: addresses{Admin: server.Listener.Addr().String()}}}
	for _, which := range []string{diskFreeze, diskArm} {
		l.keep()
		if err := d.turn(t.Context(), which, nil); err != nil {
			t.Fatal(err)
		}
		if lied := time.Since(l.kept); lied < lieAtLeast || !l.disk.Frozen() {
			t.Errorf("%s: frozen %v after %v", which, l.disk.Frozen(), lied)
		}
		for _, which := range []string{diskLose, diskOn} {
			if err := d.turn(t.Context(), which, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNothingStaysMountedOfAKilledBench kills a bench whose nodes lie on disks of
// their own.
func TestNothingStaysMountedOfAKilledBench(t *testing.T) {
	needDisks(t)
	killBench(t, "power", "--spawn", "1", "--duration", "1m", "--rate", "100")
}

// TestSwitches turns those of a disk that is not mounted.
func TestSwitches(t *testing.T) {
	store := powerfs.New(powerfs.Config{})
	server := httptest.NewServer(diskSwitches(store))
	defer server.Close()
	d := &disk{process: &process{addresses: addresses{Admin: server.Listener.Addr().String()}}}
	turn := func(which string, answer any) {
		t.Helper()
		if err := d.turn(t.Context(), which, answer); err != nil {
			t.Fatal(err)
		}
	}
	for _, which := range []string{diskFreeze, diskArm} {
		turn(which, nil)
		if !store.Frozen() {
			t.Errorf("%s: it goes on", which)
		}
		var loss powerfs.Loss
		turn(diskLose, &loss)
		turn(diskOn, nil)
		if store.Frozen() || loss != (powerfs.Loss{}) {
			t.Errorf("%s: %+v", which, loss)
		}
	}
	turn(diskFailSync, nil)
	if err := d.turn(t.Context(), "/unplug", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("no such switch: %v", err)
	}
}

// TestSwitchesOfADiskThatIsGone: who cuts the power must not believe it did.
func TestSwitchesOfADiskThatIsGone(t *testing.T) {
	server := httptest.NewServer(nil)
	d := &disk{process: &process{addresses: addresses{Admin: server.Listener.Addr().String()}}}
	server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := d.turn(ctx, diskFreeze, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

func TestPowerOptions(t *testing.T) {
	for args, want := range map[string]int{"power": 100, "power --short": 3, "power --short --losses 7 --spawn 1": 7} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || o.losses != want || o.rounds != 1 || o.disk != diskOrdered {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
	for args, want := range map[string]string{
		"power --losses 0":               "--losses",
		"power --disk floppy":            "ordered or posix",
		"power --endpoints ws://a/v1/ws": "have to be its own",
	} {
		if _, err := parseOptions(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// TestSuccessesOfABrokenDisk counts what was sent when a disk had failed.
func TestSuccessesOfABrokenDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		each  int
		at    int
		age   int64
		count int64
		fails bool
	}{
		{"sent before", 1, 0, 200, 0, false},
		{"sent later", 1, 0, 50, 1, true},
		{"others of the region", 3, 1, 50, 1, false},
		{"through the node, others form the quorum", 3, 0, 50, 1, false},
	} {
		p := &powerTrial{trial: &trial{round: newRound(&options{each: c.each}, 1, &target{}, nil), crowd: &crowd{gen: &generator{now: 1000}}}}
		b := &brokenDisk{since: 900}
		p.broken = b
		p.acked(&member{at: c.at}, c.age)
		p.putBroken(b)
		if b.acked != c.count || len(p.violations) > 0 != c.fails {
			t.Errorf("%s: %d, %v", c.name, b.acked, p.violations)
		}
	}
}

func TestEndOfAnOutage(t *testing.T) {
	o := &outageOfAll{since: 900, over: make(chan int64, 1)}
	p := &powerTrial{trial: &trial{crowd: &crowd{gen: &generator{now: 1000}}}, outage: o}
	p.acked(&member{}, 150)
	if p.outage == nil {
		t.Error("ended by what was due before")
	}
	p.acked(&member{}, 100)
	if at, err := p.await(t.Context(), o); err != nil || at != 1000 || p.outage != nil {
		t.Errorf("%d, %v", at, err)
	}
}

// TestNobodyLooksAtAProcessThatIsGone: its number may be somebody else's soon.
func TestNobodyLooksAtAProcessThatIsGone(t *testing.T) {
	n := &node{name: "n", args: []string{childNull}}
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	r := newRound(&options{}, 1, &target{nodes: []*node{n}, each: 1}, nil)
	p := &powerTrial{trial: &trial{round: r}, random: rand.New(rand.NewPCG(1, 1))}
	if _, err := p.cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.process != nil || n.running.Load() != 0 || r.live() != "" {
		t.Errorf("process %d runs on: %q", n.running.Load(), r.live())
	}
}

// TestFewCutsThatDropNothing prove nothing, which is no fault of the nodes.
func TestFewCutsThatDropNothing(t *testing.T) {
	log, said := logFile(t)
	p := &powerTrial{trial: &trial{round: newRound(&options{}, 1, &target{}, log)}, lost: make([]powerfs.Loss, provingCuts-1)}
	p.put()
	const want = "proves nothing: nothing was dropped by 9 power cuts"
	if len(p.violations) != 0 || !strings.Contains(p.skipped["proof"], want) || !strings.Contains(said(), want) {
		t.Errorf("violations %v, left out %v, said %s", p.violations, p.skipped, said())
	}
	p.lost[0].Bytes = 1
	clear(p.skipped)
	if p.put(); len(p.skipped) > 0 {
		t.Errorf("left out %v", p.skipped)
	}
}

func TestPutOfCuts(t *testing.T) {
	p := &powerTrial{trial: &trial{round: newRound(&options{}, 1, &target{}, nil)}, took: []float64{30, 10, 20}}
	for range provingCuts {
		p.lost = append(p.lost, powerfs.Loss{})
	}
	p.put()
	if len(p.violations) != 1 || p.numbers["recovery_p50_ms"] != 20 || p.numbers["recovery_max_ms"] != 30 {
		t.Errorf("%v, %v", p.violations, p.numbers)
	}
	p.violations = nil
	p.lost[3] = powerfs.Loss{Bytes: 7, Files: 1, Names: 2}
	p.put()
	if len(p.violations) != 0 || p.numbers["dropped_bytes"] != 7 || p.numbers["dropped_names_max"] != 2 {
		t.Errorf("%v, %v", p.violations, p.numbers)
	}
}
