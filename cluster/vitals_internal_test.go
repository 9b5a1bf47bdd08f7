//go:build unix

package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// reading is the value of a metric's series with these values of labels, in order of the
// labels' names.
func reading(t *testing.T, r prometheus.Gatherer, name string, labels ...string) (value float64, found bool) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) != len(labels) {
				continue
			}
			for i, l := range m.GetLabel() {
				if l.GetValue() != labels[i] {
					continue series
				}
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
		}
	}
	return 0, false
}

// What regions say of each other, and of their clocks: bb's is a minute and a half ahead.
func TestVitalsOfAMesh(t *testing.T) {
	const skew, tolerance = 90.0, 5.0
	figures := make(map[string]*prometheus.Registry)
	aa, bb := linkedRegions(t, func(c *Config) {
		r := prometheus.NewRegistry()
		figures[c.Region], c.Registerer = r, r
		if c.Region == "bb" {
			c.Clock = func() time.Time { return time.Now().Add(skew * time.Second) }
		}
	})
	is := func(region, name string, want float64, labels ...string) {
		t.Helper()
		if got, found := reading(t, figures[region], name, labels...); !found || got != want {
			t.Errorf("%s %s %q: %v %v, want %v", region, name, labels, got, found, want)
		}
	}
	is("bb", "stockmesh_rights_taken_units_total", 0, "aa") // before there is anything to count
	mustSubmit(t, aa, counted("k1", "mug", 10))
	awaitAvailable(t, bb, "mug", 10)
	mustSubmit(t, bb, sold("k2", "mug", 2))
	eventually(t, "units given and taken are counted", func() bool {
		moved := float64(rowOf(bb, "mug").Accepted["aa"]) // perhaps more by and by
		given, _ := reading(t, figures["aa"], "stockmesh_rights_given_units_total", "bb")
		taken, _ := reading(t, figures["bb"], "stockmesh_rights_taken_units_total", "aa")
		return moved >= 2 && given == moved && taken == moved
	})
	is("aa", "stockmesh_region_nodes", 1, "expected")
	is("aa", "stockmesh_region_nodes", 1, "serving")
	is("aa", "stockmesh_leader_changes_total", 0)

	total, _ := reading(t, figures["aa"], "stockmesh_disk_bytes", "total")
	free, _ := reading(t, figures["aa"], "stockmesh_disk_bytes", "free")
	used, _ := reading(t, figures["aa"], "stockmesh_disk_used_ratio")
	if free <= 0 || total < free || used < 0 || used >= 1 {
		t.Errorf("disk: %v of %v free, %v used", free, total, used)
	}
	for region, other := range map[string]string{"aa": "bb", "bb": "aa"} {
		want := skew
		if region == "bb" {
			want = -skew
		}
		eventually(t, region+" knows the other's clock", func() bool {
			d, known := reading(t, figures[region], "stockmesh_clock_offset_seconds", other+"-1", other)
			return known && d > want-tolerance && d < want+tolerance
		})
	}
}

func TestExpiredReservationsAreCounted(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	c, err := Open(t.Context(), Config{Dir: t.TempDir(), Region: "aa", Node: "aa-1", KeyWindow: time.Hour, Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	mustSubmit(t, c, counted("k1", "mug", 10))
	if n, found := reading(t, r, "stockmesh_reservations_expired_total"); n != 0 || !found {
		t.Fatalf("%v %v have expired before there were any", n, found)
	}
	mustSubmit(t, c, protocol.Command{
		Op: protocol.OpReserve, Key: "k2", TTLMS: protocol.Ptr[int64](1000), Lines: []protocol.Line{{SKU: "mug", Location: "main", Quantity: 1}},
	})
	eventually(t, "it has expired", func() bool {
		n, _ := reading(t, r, "stockmesh_reservations_expired_total")
		return n == 1
	})
}

func TestQuorumLossesAreCountedOnce(t *testing.T) {
	losses := prometheus.NewCounter(prometheus.CounterOpts{Name: "losses"})
	r := prometheus.NewRegistry()
	r.MustRegister(losses)
	q := quorumWatch{losses: losses}
	for i, step := range []struct {
		state string
		want  float64
	}{
		{"serving", 0}, {"no_quorum", 1}, {"no_quorum", 1}, {"catching_up", 1}, {"no_quorum", 2}, {"draining", 2}, {"serving", 2},
	} {
		q.look(step.state)
		if got, _ := reading(t, r, "losses"); got != step.want {
			t.Errorf("step %d, %s: %v, want %v", i, step.state, got, step.want)
		}
	}
}

func TestVolumeUsed(t *testing.T) {
	for _, c := range []struct {
		v    volume
		want float64
	}{{volume{}, 0}, {volume{total: 100, free: 100}, 0}, {volume{total: 100, free: 25}, 0.75}, {volume{total: 100}, 1}} {
		if got := c.v.used(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.v, got, c.want)
		}
	}
}
