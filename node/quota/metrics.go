package quota

import "github.com/prometheus/client_golang/prometheus"

// refusals count what was not let through.
type refusals struct{ commands, connections, subscriptions prometheus.Counter }

func newRefusals(r prometheus.Registerer) *refusals {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_quota_refused_total", Help: "What subjects were refused by their limits, by what it was.",
	}, []string{"what"})
	r.MustRegister(v)
	return &refusals{
		commands:      v.WithLabelValues("commands"),
		connections:   v.WithLabelValues("connections"),
		subscriptions: v.WithLabelValues("subscriptions"),
	}
}

func registerSubjects(r prometheus.Registerer, t *table) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stockmesh_quota_subjects", Help: "Subjects whose use this node counts, those of other nodes included.",
	}, func() float64 { return float64(t.subjects()) }))
}
