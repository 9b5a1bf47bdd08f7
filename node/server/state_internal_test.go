package server

import (
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Of the states one is the present one, whatever that is.
func TestStateMetric(t *testing.T) {
	for status, want := range map[string]string{
		"ready": "serving", "starting": "starting", "catching_up": "catching_up",
		"draining": "draining", "no_quorum": "no_quorum", "unhealthy": "unhealthy",
	} {
		r := prometheus.NewRegistry()
		r.MustRegister(newStateCollector(func() Readiness { return Readiness{Status: status} }))
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var present []string
		ready := -1.0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch {
				case f.GetName() == "stockmesh_ready":
					ready = m.GetGauge().GetValue()
				case m.GetGauge().GetValue() == 1:
					present = append(present, m.GetLabel()[0].GetValue())
				}
			}
		}
		if len(present) != 1 || present[0] != want || (ready == 1) != (status == "ready") {
			t.Errorf("%s: %q, ready %v", status, present, ready)
		}
	}
}

// Who shows no token learns what kind of problem there is, not where.
func TestBriefNamesKindsOnly(t *testing.T) {
	r := Readiness{
		Status: "unhealthy", Region: "eu", Node: "n1", Problems: []string{"the disk of /secret/place is full", "10.1.2.3: no", "x"},
		Warnings: []string{"https://keys.internal"}, Mesh: []string{"region us"}, kinds: []string{"disk", "commit", "disk"},
	}
	if got, want := string(protocol.AppendJSON(nil, r.brief())), `{"status":"unhealthy","problems":["commit","disk"]}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGlanceIsGoodForAWhile(t *testing.T) {
	now, looks := time.Unix(1_800_000_000, 0), 0
	look := glance(func() Readiness {
		looks++
		return Readiness{Status: strconv.Itoa(looks)}
	}, func() time.Time { return now })
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "1"}, {0, "1"}, {glanceFor - 1, "1"}, {1, "2"}, {0, "2"}, {time.Hour, "3"}} {
		now = now.Add(step.after)
		if got := look().Status; got != step.want {
			t.Errorf("after %v: look %s, want %s", step.after, got, step.want)
		}
	}
}
