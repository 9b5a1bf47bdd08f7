package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// metrics are the figures of one region's node, in base units.
type metrics struct {
	commandsVec  *prometheus.CounterVec
	commit       prometheus.Histogram
	roundSize    prometheus.Histogram
	roundBytes   prometheus.Counter
	commitErrors prometheus.Counter
	flushedRows  prometheus.Counter
	flushErrors  prometheus.Counter
	snapshots    prometheus.Counter
	expired      prometheus.Counter
	quorumLosses prometheus.Counter
}

// commandCounters are the counters of commands that an owner keeps at hand: a look-up
// by label values costs more than deciding a sale.
type commandCounters map[commandLabels]prometheus.Counter

type commandLabels struct {
	op   protocol.Op
	code protocol.Code
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		r.MustRegister(h)
		return h
	}
	m := &metrics{
		commandsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockmesh_commands_total", Help: "Writes decided, by op and by error code (ok where it took effect, replayed where its key had before).",
		}, []string{"op", "code"}),
		commit:       histogram("stockmesh_commit_seconds", "Time from closing a round to its commit.", prometheus.ExponentialBuckets(0.0001, 2, 16)),
		roundSize:    histogram("stockmesh_round_commands", "Commands of a round.", prometheus.ExponentialBuckets(1, 4, 7)),
		roundBytes:   counter("stockmesh_log_written_bytes_total", "Bytes of rounds committed."),
		commitErrors: counter("stockmesh_commit_errors_total", "Appends to the log that failed or stayed without an answer."),
		flushedRows:  counter("stockmesh_flushed_rows_total", "Rows written to the stock bucket."),
		flushErrors:  counter("stockmesh_flush_errors_total", "Writes of rows that failed and are tried again."),
		snapshots:    counter("stockmesh_snapshots_total", "Snapshots written."),
		expired:      counter("stockmesh_reservations_expired_total", "Reservations that this node ended because their time was up."),
		quorumLosses: counter("stockmesh_quorum_losses_total", "Times that this node, while it served, found nobody deciding for a shard."),
	}
	r.MustRegister(m.commandsVec)
	for _, op := range protocol.Ops() {
		if op.IsWrite() {
			m.commandsVec.WithLabelValues(string(op), "ok") // a rate needs to have seen zero
		}
	}
	return m
}

func (m *metrics) round(d time.Duration, commands, bytes int) {
	m.commit.Observe(d.Seconds())
	m.roundSize.Observe(float64(commands))
	m.roundBytes.Add(float64(bytes))
}

// count counts an answered command.
func (cc commandCounters) count(m *metrics, c *protocol.Call) {
	l := commandLabels{c.Command.Op, "ok"}
	if c.Err != nil {
		l.code = c.Err.Code
	} else if c.Replayed {
		l.code = "replayed"
	}
	counter, ok := cc[l]
	if !ok {
		counter = m.commandsVec.WithLabelValues(string(l.op), string(l.code))
		cc[l] = counter
	}
	counter.Inc()
}

// gauges registers figures that are read when somebody asks.
func (c *Cluster) gauges(r prometheus.Registerer) {
	gauge := func(name, help string, read func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	sum := func(of func(*shard) float64) func() float64 {
		return func() (total float64) {
			for _, s := range c.shards {
				total += of(s)
			}
			return total
		}
	}
	sizes := func(pick func(items, reservations, keys int) int) func() float64 {
		return sum(func(s *shard) float64 {
			s.replica.mu.RLock()
			defer s.replica.mu.RUnlock()
			return float64(pick(s.replica.state.Sizes()))
		})
	}
	gauge("stockmesh_items", "Items that exist.", sizes(func(n, _, _ int) int { return n }))
	gauge("stockmesh_reservations", "Reservations that are held.", sizes(func(_, n, _ int) int { return n }))
	gauge("stockmesh_keys", "Idempotency keys that are remembered.", sizes(func(_, _, n int) int { return n }))
	gauge("stockmesh_queue_commands", "Commands on this node that wait for an owner's answer.", sum(func(s *shard) float64 { return float64(s.desk.len()) }))
	gauge("stockmesh_dirty_rows", "Rows changed since they were last written to the stock bucket.", sum(func(s *shard) float64 { return float64(s.pendingRows()) }))
	gauge("stockmesh_store_bytes", "Bytes the engine's streams hold.", func() float64 { return float64(c.bus.Used()) })
	gauge("stockmesh_owned_shards", "Shards that this node decides for.", func() float64 { return float64(len(c.owns())) })
	begun := c.terms()
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "stockmesh_leader_changes_total", Help: "Times that a shard's log got a new owner since this node serves.",
	}, func() float64 { return float64(c.terms() - begun) }), newVitals(c))
	gauge("stockmesh_behind_rounds", "Committed rounds that this node has heard of and not applied.", sum((*shard).lag))
}

// lag is how many rounds the replica is behind what the node has heard of.
func (s *shard) lag() float64 {
	have, head := s.desk.applied.Load(), s.desk.target()
	return float64(max(have, head) - have)
}
