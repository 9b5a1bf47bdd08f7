package edge

import (
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
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
	limited    *prometheus.CounterVec
	refused    *prometheus.CounterVec
	histograms histograms
	failures   failures
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
			Name: "stockmesh_sessions_closed_total", Help: "Sessions ended, by close code (0: the peer just went; other: a code of its own).",
		}, []string{"code"}),
	}
	m.limited, m.refused = newLimitedCounter(), newRefusedCounter()
	m.histograms, m.failures = newHistograms(r), newFailures(r)
	r.MustRegister(m.open, m.rejected, m.closes, m.limited, m.refused)
	m.prepare()
	return m
}

// prepare makes the rows that are known beforehand: what counts a row's rate misses the
// step that makes it.
func (m *metrics) prepare() {
	for _, reason := range []string{"connections", "files", "timeout", "head", "proxy", "http", "handshake", "tls", "token", "checks", "quota"} {
		m.rejected.WithLabelValues(reason)
	}
	for _, by := range []string{"connection", "address", "user"} {
		m.limited.WithLabelValues(by)
	}
	for _, code := range []protocol.Code{protocol.CodeForbidden, protocol.CodeUnauthorized} {
		m.refused.WithLabelValues(string(code))
	}
	for _, code := range ownCodes {
		m.closes.WithLabelValues(strconv.Itoa(code))
	}
	m.closes.WithLabelValues("0")
}

func (m *metrics) gauges(r prometheus.Registerer, e *Edge) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stockmesh_connections", Help: "Open connections of the public port, HTTP's included.",
	}, func() float64 { return float64(e.connections.Load()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stockmesh_connections_max", Help: "Connections that the public port takes: --max-connections, or as many as the file limit allows.",
	}, func() float64 { return float64(e.limit) }))
}

// tally is what a loop counts in one pass: shared counters cost more than what
// they would count.
type tally struct{ messages, items, conflated, bytes int }

// add takes a pass's figures over and sets them back.
func (m *metrics) add(t *tally) {
	if *t == (tally{}) {
		return
	}
	m.messagesIn.Add(float64(t.messages))
	m.itemsOut.Add(float64(t.items))
	m.conflated.Add(float64(t.conflated))
	m.bytesOut.Add(float64(t.bytes))
	*t = tally{}
}

// closed counts the end of a session. Codes that are the peer's own invention
// share one label, or a peer could make as many as it likes.
func (m *metrics) closed(code int) {
	label := "other"
	if code == 0 || code < 1012 || slices.Contains(ownCodes, code) {
		label = strconv.Itoa(code)
	}
	m.closes.WithLabelValues(label).Inc()
}

var ownCodes = []int{
	protocol.CloseUnauthorized, protocol.CloseForbidden, protocol.CloseAbuse, protocol.CloseSlowConsumer,
	protocol.CloseIdle, protocol.CloseTooManyConnections, protocol.CloseDrain,
}
