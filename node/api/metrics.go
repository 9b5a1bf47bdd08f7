package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  prometheus.Gauge
}

// newMetrics registers nothing where reg is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "stockmesh_http_requests_total",
			Help: "HTTP requests answered, by route and status code.",
		}, []string{"route", "code"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "stockmesh_http_request_duration_seconds",
			Help:    "Time from a request's head to the end of its answer, streams left out.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route", "code"}),
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "stockmesh_http_streams",
			Help: "Server-sent event streams open now.",
		}),
	}
}

func (m *metrics) observe(rt *route, w *recorder, start time.Time) {
	code := strconv.Itoa(w.status)
	m.requests.WithLabelValues(rt.label(), code).Inc()
	if rt == nil || !rt.stream() {
		m.duration.WithLabelValues(rt.label(), code).Observe(time.Since(start).Seconds())
	}
}
