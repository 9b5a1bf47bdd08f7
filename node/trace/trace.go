// Package trace follows some commands from the edge to their commit and sends what it
// finds to a collector, OTLP over HTTP.
//
// Nothing on a command's way knows OpenTelemetry: the stages write times into a
// protocol.Trace, and only when the command has its answer does a goroutine of this package
// make spans of them. DESIGN.md says which, and why a collector can't hold up a node.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Config says what is followed and who is told. Zero values mean the stated defaults.
type Config struct {
	Endpoint string  // URL of the collector; without a path, /v1/traces is added
	Ratio    float64 // share of commands that are followed unasked, 0 to 1

	Region, Node, Version string // told with every span

	Every    time.Duration // between two messages to the collector; 1 s
	DrawnMax int           // commands a second followed unasked, at most; 200
	AskedMax int           // commands a second followed because their senders ask, at most; 100

	Logger     *slog.Logger          // nil drops the lines
	Registerer prometheus.Registerer // nil: nothing is shown
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = time.Second
	}
	if c.DrawnMax == 0 {
		c.DrawnMax = 200
	}
	if c.AskedMax == 0 {
		c.AskedMax = 100
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Bounds of what waits for the collector.
const (
	waitingMax = 4096 // commands
	batchMax   = 512  // commands of one message
	closeWait  = 2 * time.Second
)

// Tracer follows commands. Its methods may be called by any goroutine and, but for Close,
// never wait.
type Tracer struct {
	config  Config
	drawn   *rate.Limiter
	asked   *rate.Limiter
	waiting chan record
	dropped prometheus.Counter
	stop    context.CancelFunc
	within  time.Duration // of Close
	running sync.WaitGroup

	// Below, run's goroutine alone.
	exporter sdk.SpanExporter
	tracer   otel.Tracer
	ids      nextIDs
	spans    []sdk.ReadOnlySpan // ended, not sent yet
	commands int                // that spans are of
	outage   outage
}

// Open begins to follow commands. It does not wait for the collector, which may come later.
func Open(config Config) (*Tracer, error) {
	exporter, err := newExporter(config.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	return open(config, exporter), nil
}

func open(config Config, exporter sdk.SpanExporter) *Tracer {
	config = config.withDefaults()
	t := &Tracer{
		config: config, exporter: exporter, waiting: make(chan record, waitingMax),
		drawn:  rate.NewLimiter(rate.Limit(config.DrawnMax), config.DrawnMax),
		asked:  rate.NewLimiter(rate.Limit(config.AskedMax), config.AskedMax),
		outage: outage{logger: config.Logger},
		within: closeWait,
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stockmesh_traces_dropped_total",
			Help: "Commands that were followed and whose spans the collector did not get: it can't be reached, is too slow, or refused them.",
		}),
	}
	if config.Registerer != nil {
		config.Registerer.MustRegister(t.dropped)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // what comes here was chosen before
		sdk.WithIDGenerator(&t.ids),
		sdk.WithSpanProcessor(collected{t}),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "stockmesh"),
			attribute.String("service.namespace", config.Region),
			attribute.String("service.instance.id", config.Region+"."+config.Node),
			attribute.String("service.version", config.Version),
			attribute.String("stockmesh.region", config.Region),
			attribute.String("stockmesh.node", config.Node),
		)),
	)
	t.tracer = provider.Tracer("github.com/stockmesh/stockmesh/node/trace")
	ctx, cancel := context.WithCancel(context.Background())
	t.stop = cancel
	t.running.Go(func() { t.run(ctx) })
	return t
}

// Close sends what is left, for two seconds at most, and ends everything.
func (t *Tracer) Close() {
	t.stop()
	t.running.Wait()
}

// Gap draws how many commands pass before the next that is followed unasked.
func (t *Tracer) Gap() uint64 {
	switch p := t.config.Ratio; {
	case p <= 0:
		return math.MaxUint64
	case p >= 1:
		return 0
	default:
		// Evenly spaced ones would keep step with clients that repeat themselves.
		gap := math.Log(1-rand.Float64()) / math.Log1p(-p)
		return uint64(min(gap, 1<<62))
	}
}

// Drawn tells whether the next command is followed unasked, for who sees them one by one.
func (t *Tracer) Drawn() bool { return rand.Float64() < t.config.Ratio }

// Begin returns what the stages of a command write to, nil where it is not followed: via
// is how it came, traceparent what its sender said, drawn that it is followed if the sender
// said nothing, read when it was read.
func (t *Tracer) Begin(via, traceparent string, drawn bool, read time.Time) *protocol.Trace {
	caller, told := protocol.ParseTraceparent(traceparent)
	switch {
	case told && !(caller.Sampled && t.asked.Allow()):
		return nil
	case !told && !(drawn && t.drawn.Allow()):
		return nil
	}
	tr := &protocol.Trace{Via: via, Received: read}
	tr.Context = protocol.TraceContext{Trace: caller.Trace, Span: newSpanID(), Sampled: true}
	if told {
		tr.Parent = caller.Span
	} else {
		tr.Context.Trace = newTraceID()
	}
	tr.Handover = newSpanID()
	return tr
}

// End takes a command that has its answer. It keeps the Trace, not the call.
func (t *Tracer) End(call *protocol.Call) { t.take(call, false) }

// Decided takes a command that another node follows, once it was decided here.
func (t *Tracer) Decided(call *protocol.Call) { t.take(call, true) }

func (t *Tracer) take(call *protocol.Call, relayed bool) {
	r := record{
		Trace: call.Trace, op: call.Command.Op, skus: skusOf(&call.Command), code: codeOK,
		replayed: call.Replayed, relayed: relayed, ended: time.Now(),
	}
	if call.Err != nil {
		r.code = call.Err.Code
	}
	select {
	case t.waiting <- r:
	default:
		t.dropped.Inc()
	}
}

// skusOf is how many SKUs a command is about; one named twice counts twice.
func skusOf(c *protocol.Command) int {
	if n := max(len(c.Lines), len(c.SKUs)); n > 0 || c.SKU == "" {
		return n
	}
	return 1
}
