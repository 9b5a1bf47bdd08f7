package edge

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram takes over what the loops have counted in a pass, as the library's own
// would cost more than what it measures: it takes values one by one, each with
// atomics.
type histogram struct {
	desc   *prometheus.Desc
	bounds []int64 // upper ones, in microseconds or bytes
	unit   float64 // of those, in the unit that is shown
	labels []string
	counts [bucketsOfHistogram]atomic.Uint64
	sum    atomic.Int64
}

// bucketsOfHistogram has room for the most bounds, and one for what is above.
const bucketsOfHistogram = 16

// durations are in microseconds.
var durations = []int64{
	100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 10_000_000,
}

func newHistogram(name, help string, unit float64, bounds []int64) *histogram {
	return &histogram{desc: prometheus.NewDesc(name, help, nil, nil), bounds: bounds, unit: unit}
}

// Describe implements prometheus.Collector.
func (h *histogram) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *histogram) Collect(ch chan<- prometheus.Metric) {
	buckets, count := make(map[float64]uint64, len(h.bounds)), uint64(0)
	for i, bound := range h.bounds {
		count += h.counts[i].Load()
		buckets[float64(bound)*h.unit] = count
	}
	count += h.counts[len(h.bounds)].Load()
	ch <- prometheus.MustNewConstHistogram(h.desc, count, float64(h.sum.Load())*h.unit, buckets, h.labels...)
}

// samples are one loop's values of one pass.
type samples struct {
	of     *histogram
	counts [bucketsOfHistogram]uint32
	sum    int64
	n      int
}

func (s *samples) observe(v int64) {
	i := 0
	for i < len(s.of.bounds) && v > s.of.bounds[i] {
		i++
	}
	s.counts[i]++
	s.sum += v
	s.n++
}

// flush hands the values over.
func (s *samples) flush() {
	if s.n == 0 {
		return
	}
	for i, n := range s.counts {
		if n > 0 {
			s.of.counts[i].Add(uint64(n))
		}
	}
	s.of.sum.Add(s.sum)
	*s = samples{of: s.of}
}

// gauged is what a loop measures.
type gauged struct {
	pushAge, lag, outbox, handshake samples
	commands                        [len(timedOps)]samples
}

func (g *gauged) flush() {
	g.pushAge.flush()
	g.lag.flush()
	g.outbox.flush()
	g.handshake.flush()
	for i := range g.commands {
		g.commands[i].flush()
	}
}

// histograms are the loops' together.
type histograms struct {
	pushAge, lag, outbox, handshake *histogram
	commands                        *commandTimes
}

func newHistograms(r prometheus.Registerer) histograms {
	const us = 1e-6
	h := histograms{
		pushAge: newHistogram("stockmesh_push_age_seconds",
			"Time from a change's commit on this node to the end of its write to a client's socket: one value per write, of its oldest change. Slow readers count; intervals that clients ask for don't.", us, durations),
		lag: newHistogram("stockmesh_loop_lag_seconds",
			"Length of a loop's turn: the longest that what became ready in it had to wait.", us, durations),
		outbox: newHistogram("stockmesh_outbox_bytes",
			"Bytes that wait for a session's socket, looked at about once a second for each session.", 1,
			[]int64{0, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}),
		handshake: newHistogram("stockmesh_handshake_seconds",
			"Time from a connection's accept to its WebSocket session, TLS included.", us, durations),
		commands: newCommandTimes(),
	}
	r.MustRegister(h.pushAge, h.lag, h.outbox, h.handshake, h.commands)
	return h
}

func (h *histograms) forLoop() gauged {
	return gauged{samples{of: h.pushAge}, samples{of: h.lag}, samples{of: h.outbox}, samples{of: h.handshake}, h.commands.forLoop()}
}
