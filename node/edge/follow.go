package edge

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Tracer follows some commands, for whoever looks where their time goes. Its methods are
// called from any goroutine and don't block.
type Tracer interface {
	// Gap draws how many commands pass before the next that is followed unasked.
	Gap() uint64
	// Begin returns what the stages of a command write to, nil where it is not followed
	// after all: via is how it came, traceparent what its sender said, drawn that it is
	// the one after a Gap, read when it was read.
	Begin(via, traceparent string, drawn bool, read time.Time) *protocol.Trace
	// End takes a command that has its answer. It keeps the Trace, not the call.
	End(call *protocol.Call)
}

// viaWebSocket is how the edge's commands come.
const viaWebSocket = "ws"

// follow gives a command a Trace if it is its turn, or its sender, who is known, asks for it.
func (l *loop) follow(call *protocol.Call) {
	tracer, drawn := l.config.Tracer, l.gap == 0
	if drawn {
		l.gap = tracer.Gap()
	} else {
		l.gap--
	}
	if said := call.Command.Traceparent; drawn || said != "" {
		// Counted back from now: the clock may have been set since the edge began.
		ago := time.Duration(l.clock()-call.Came) * time.Microsecond
		call.Trace = tracer.Begin(viaWebSocket, said, drawn, time.Now().Add(-ago))
	}
}

// ended counts a command that has its answer. Both times are of loop's turns: looking at
// the clock for each command would cost more than most of what is done for it here.
func (l *loop) ended(call *protocol.Call) {
	l.gauged.commands[timedOp(call.Command.Op)].observe(l.answeredAt - call.Came)
	if call.Err != nil {
		l.edge.Failed(call.Err.Code)
	}
	if call.Trace != nil {
		l.config.Tracer.End(call)
	}
}

// timedOps are the commands by their place among the histograms, the most frequent first,
// as they are searched. Whatever else a client sends shares the last.
var timedOps = [...]protocol.Op{
	protocol.OpSell, protocol.OpReserve, protocol.OpConfirm, protocol.OpGet, protocol.OpAdjust, protocol.OpRelease,
	protocol.OpExtend, protocol.OpMove, protocol.OpCount, protocol.OpConfigure, protocol.OpReservation, protocol.OpOutcome,
	protocol.OpHistory, protocol.OpPing, protocol.OpSubscribe, protocol.OpUnsubscribe, protocol.OpAuth, "other",
}

func timedOp(op protocol.Op) int {
	if i := slices.Index(timedOps[:], op); i >= 0 {
		return i
	}
	return len(timedOps) - 1
}

// commandTimes is one histogram for each op, under one name.
type commandTimes struct {
	desc *prometheus.Desc
	ops  [len(timedOps)]*histogram
}

func newCommandTimes() *commandTimes {
	t := &commandTimes{desc: prometheus.NewDesc("stockmesh_command_seconds",
		"Time from a command's bytes being read on this node to its answer being ready to be sent, by op, WebSocket and HTTP. What the loop that answers a WebSocket is busy with in its turn does not count.",
		[]string{"op"}, nil)}
	for i, op := range timedOps {
		t.ops[i] = &histogram{desc: t.desc, bounds: durations, unit: 1e-6, labels: []string{string(op)}}
	}
	return t
}

// Describe implements prometheus.Collector.
func (t *commandTimes) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *commandTimes) Collect(ch chan<- prometheus.Metric) {
	for _, h := range t.ops {
		h.Collect(ch)
	}
}

// forLoop returns one loop's values, by op.
func (t *commandTimes) forLoop() (s [len(timedOps)]samples) {
	for i := range s {
		s[i].of = t.ops[i]
	}
	return s
}

// failures are the errors that are the node's and not the command's, by what is counted.
type failures map[protocol.Code]prometheus.Counter

func newFailures(r prometheus.Registerer) failures {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_commands_failed_total",
		Help: "Commands and HTTP requests answered with an error that is not about what they ask for, on the node their client talks to, by error code.",
	}, []string{"code"})
	r.MustRegister(vec)
	f := make(failures)
	for _, code := range []protocol.Code{protocol.CodeUnavailable, protocol.CodeOverloaded, protocol.CodeRegionUnreachable, protocol.CodeRateLimited} {
		f[code] = vec.WithLabelValues(string(code))
	}
	return f
}

// Failed adds an error to stockmesh_commands_failed_total, if it is one of those.
func (e *Edge) Failed(code protocol.Code) {
	if n, ok := e.metrics.failures[code]; ok {
		n.Inc()
	}
}

// Observe adds a command that came over HTTP to stockmesh_command_seconds.
func (e *Edge) Observe(op protocol.Op, took time.Duration) {
	s := samples{of: e.metrics.histograms.commands.ops[timedOp(op)]}
	s.observe(took.Microseconds())
	s.flush()
}
