package cluster

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	simSchedules = flag.Int("sim.schedules", 0, "histories of TestSim; 0: as many as fit into some seconds")
	simSeed      = flag.Uint64("sim.seed", 1, "first seed of TestSim")
)

// simTime is how long TestSim goes on in the plain form.
const simTime = 8 * time.Second

// TestSim runs histories of a mesh, each from a seed of its own, and checks every
// invariant after every step. The long form:
//
//	go test ./cluster -run 'TestSim$' -timeout 0 -sim.schedules=100000 -sim.seed=1
func TestSim(t *testing.T) {
	const batch = 20
	figures := newMetrics(prometheus.NewRegistry())
	begin, done, rounds := time.Now(), 0, 0
	for more := true; more && !t.Failed(); {
		n := batch
		if *simSchedules > 0 {
			n = min(batch, *simSchedules-done)
		}
		inSimTime(t, func(t *testing.T) {
			for i := range n {
				rounds += simOnce(t, *simSeed+uint64(done+i), figures)
			}
		})
		done += n
		more = done < *simSchedules || *simSchedules == 0 && time.Since(begin) < simTime
	}
	took := time.Since(begin)
	t.Logf("%d schedules (from seed %d) with %d rounds in %v: %.0f a second", done, *simSeed, rounds, took.Round(time.Millisecond), float64(done)/took.Seconds())
}

// inSimTime runs a test where waiting takes no time.
func inSimTime(t *testing.T, do func(*testing.T)) {
	t.Helper()
	synctest.Test(t, do)
}

func simOnce(t *testing.T, seed uint64, figures *metrics) (rounds int) {
	t.Helper()
	s := newSimSchedule(seed)
	w := s.run(simMutant{}, figures)
	if w.err != nil {
		t.Error(s.report(w.err, simMutant{}, figures))
	}
	for _, r := range w.regions {
		rounds += len(r.log)
	}
	return rounds
}

// One seed is one history: without that no failure could be looked into.
func TestSimRepeats(t *testing.T) {
	figures := newMetrics(prometheus.NewRegistry())
	inSimTime(t, func(t *testing.T) {
		for seed := range uint64(20) {
			s := newSimSchedule(seed)
			first, second := s.tellStory(simMutant{}, figures), newSimSchedule(seed).tellStory(simMutant{}, figures)
			if first != second {
				t.Fatalf("two histories of seed %d:\n%s\n\n%s", seed, first, second)
			}
		}
	})
}
