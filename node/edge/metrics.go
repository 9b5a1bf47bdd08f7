package edge

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the edge's figures.
type metrics struct {
	open       prometheus.Gauge
	handshakes prometheus.Counter
	messagesIn prometheus.Counter
	itemsOut   prometheus.Counter
	conflated  prometheus.Counter
	bytesOut   prometheus.Counter
	rejected   *prometheus.CounterVec
	closes     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	m := &metrics{
		open:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "stockmesh_sessions", Help: "Open WebSocket sessions."}),
		handshakes: counter("stockmesh_handshakes_total", "WebSocket handshakes that succeeded."),
		messagesIn: counter("stockmesh_messages_received_total", "WebSocket messages received."),
		itemsOut:   counter("stockmesh_items_pushed_total", "Items put into outboxes, snapshots included."),
		conflated:  counter("stockmesh_items_conflated_total", "Item states not pushed because a newer one took their place."),
		bytesOut:   counter("stockmesh_sent_bytes_total", "Bytes written to WebSocket clients."),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockmesh_connections_rejected_total", Help: "Connections turned away before they were sessions, by reason.",
		}, []string{"reason"}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockmesh_sessions_closed_total", Help: "Sessions ended, by close code (0: the peer just went).",
		}, []string{"code"}),
	}
	r.MustRegister(m.open, m.rejected, m.closes)
	return m
}

func (m *metrics) gauges(r prometheus.Registerer, e *Edge) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stockmesh_connections", Help: "Open connections of the public port, HTTP's included.",
	}, func() float64 { return float64(e.connections.Load()) }))
}

func (m *metrics) closed(code int) {
	m.closes.WithLabelValues(strconv.Itoa(code)).Inc()
}
