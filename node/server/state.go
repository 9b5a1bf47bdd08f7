package server

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// states are what a node can be in, as stockmesh_state tells it.
var states = []string{"starting", "catching_up", "serving", "draining", "no_quorum", "unhealthy"}

// stateCollector tells how the node stands when somebody asks.
type stateCollector struct {
	readiness    func() Readiness
	state, ready *prometheus.Desc
}

func newStateCollector(readiness func() Readiness) *stateCollector {
	return &stateCollector{
		readiness: readiness,
		state:     prometheus.NewDesc("stockmesh_state", "What the node is doing: 1 for that, 0 for the others.", []string{"state"}, nil),
		ready:     prometheus.NewDesc("stockmesh_ready", "Whether clients should be sent to this node: 1 or 0, as /readyz says.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) { out <- c.state; out <- c.ready }

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, is bool, labels ...string) {
		v := 0.0
		if is {
			v = 1
		}
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	r := c.readiness()
	ready := r.Status == "ready"
	gauge(c.ready, ready)
	for _, state := range states {
		gauge(c.state, r.Status == state || ready && state == "serving", state)
	}
}

// registerOwn registers what is known before the node runs.
func (s *Server) registerOwn() {
	s.registry.MustRegister(
		newStateCollector(s.readiness),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stockmesh_build_info", Help: "Always 1; the labels say what runs.",
			ConstLabels: prometheus.Labels{"version": s.config.Version, "commit": s.config.Commit, "go": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	if s.config.LogDropped != nil {
		s.registry.MustRegister(s.config.LogDropped)
	}
}
