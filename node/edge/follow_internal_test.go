package edge

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Every command has a place of its own, and what a client makes up shares one.
func TestTimedOps(t *testing.T) {
	seen := make(map[int]protocol.Op)
	for _, op := range protocol.Ops() {
		i := timedOp(op)
		if other, taken := seen[i]; taken || timedOps[i] != op {
			t.Errorf("%s is timed as %s, beside %q", op, timedOps[i], other)
		}
		seen[i] = op
	}
	if last := len(timedOps) - 1; timedOp("made up") != last || timedOp("") != last || len(seen) != last {
		t.Errorf("%d commands, %d places", len(seen), len(timedOps))
	}
}

func TestCommandTimes(t *testing.T) {
	h := newHistograms(prometheus.NewRegistry()) // which holds it once already
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(h.commands)
	l := h.forLoop()
	l.commands[timedOp(protocol.OpSell)].observe(300)
	l.commands[timedOp(protocol.OpGet)].observe(1)
	l.flush()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, m := range families[0].GetMetric() {
		if m.GetHistogram().GetSampleCount() == 1 {
			used = append(used, m.GetLabel()[0].GetValue())
		}
	}
	if want := []string{"get", "sell"}; !slices.Equal(used, want) || len(families[0].GetMetric()) != len(timedOps) {
		t.Errorf("%v were used, want %v, of %d", used, want, len(families[0].GetMetric()))
	}
}
