package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Times of a message to the collector. While one is on its way commands wait, and are
// dropped once there are too many: so it is given up early.
const (
	exportWait  = 5 * time.Second
	retryFirst  = 500 * time.Millisecond
	retryWithin = 4 * time.Second
)

// newExporter sends spans to a collector.
func newExporter(endpoint string) (sdk.SpanExporter, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces" // as the specification of OTLP says of an address alone
	}
	// Of its own, so that no connection outlives the node.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(u.String()),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: exportWait}),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryWithin, MaxElapsedTime: retryWithin,
		}))
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	return &closing{exporter, transport}, nil
}

// closing is an exporter that closes its connections at the end.
type closing struct {
	sdk.SpanExporter
	transport *http.Transport
}

// Shutdown implements sdk.SpanExporter.
func (c *closing) Shutdown(ctx context.Context) error {
	err := c.SpanExporter.Shutdown(ctx)
	c.transport.CloseIdleConnections()
	return err
}

// run makes spans of what waits and sends them, now and then, until ctx ends. It looks by
// the clock, not at each command: waking up for one would cost its node more than the rest.
func (t *Tracer) run(ctx context.Context) {
	tick := time.NewTicker(t.config.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		t.sendAll(ctx)
	}
	last, cancel := context.WithTimeout(context.Background(), t.within)
	defer cancel()
	t.sendAll(last)
	t.drop()
	t.dropped.Add(float64(len(t.waiting)))
	if err := t.exporter.Shutdown(last); err != nil {
		t.config.Logger.Debug("closing the way to the collector of traces", "error", err)
	}
}

// sendAll sends what waits now, as many messages as it takes.
func (t *Tracer) sendAll(ctx context.Context) {
	for left := len(t.waiting); ctx.Err() == nil && left > 0 || t.commands > 0; {
		for left > 0 && t.commands < batchMax {
			t.make(<-t.waiting)
			left--
			t.commands++
		}
		if !t.send(ctx) {
			return
		}
	}
}

// send sends the spans there are. It reports whether there is a point in sending more.
func (t *Tracer) send(ctx context.Context) bool {
	err := t.exporter.ExportSpans(ctx, t.spans)
	if rejected, got := complaint(err); got {
		t.dropped.Add(float64(min(rejected, t.commands))) // whose they are, it doesn't say
		t.outage.warn("the collector got traces, and complains", err)
		err = nil
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return false // the node stops: once more, at the end
	}
	if err != nil {
		t.drop()
	}
	t.outage.note(err)
	clear(t.spans)
	t.spans, t.commands = t.spans[:0], 0
	return err == nil
}

// complained is how the library tells that a collector got a message and is not content
// with all of it. That error's type is internal, so there is only its text.
var complained = regexp.MustCompile(`^traces export: OTLP partial success: (?s:.*) \((-?\d+) spans rejected\)`)

// complaint returns how many spans a collector rejected of those that it got, perhaps none.
func complaint(err error) (rejected int, got bool) {
	if err == nil {
		return 0, false
	}
	text := complained.FindStringSubmatch(err.Error())
	if text == nil {
		return 0, false
	}
	n, err := strconv.Atoi(text[1])
	return max(n, 0), err == nil
}

// drop gives up what was not sent.
func (t *Tracer) drop() {
	t.dropped.Add(float64(t.commands))
	t.spans, t.commands = nil, 0
}

// collected keeps the spans that end. The library's own batches say neither how many they
// dropped nor why, but to a logger of the whole process.
type collected struct{ tracer *Tracer }

func (collected) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (c collected) OnEnd(s sdk.ReadOnlySpan)                 { c.tracer.spans = append(c.tracer.spans, s) }
func (collected) Shutdown(context.Context) error             { return nil }
func (collected) ForceFlush(context.Context) error           { return nil }

// outage says when the collector gets no spans, and when it does again: at most once a
// minute each.
type outage struct {
	logger *slog.Logger
	down   bool
	said   time.Time
}

const outageLines = time.Minute

func (o *outage) note(err error) {
	switch {
	case err != nil && o.warn("the collector gets no traces; they are dropped", err):
		o.down = true
	case err == nil && o.down:
		o.logger.Info("the collector gets traces again")
		o.down = false
	}
}

// warn reports whether there was a line: a minute may have only one.
func (o *outage) warn(text string, err error) bool {
	now := time.Now()
	if now.Sub(o.said) < outageLines {
		return false
	}
	o.logger.Warn(text, "error", brief(err))
	o.said = now
	return true
}

// errorBytes is how much of an error goes to the log: a collector's may be a whole page.
const errorBytes = 200

func brief(err error) string {
	text := err.Error()
	if len(text) <= errorBytes {
		return text
	}
	return strings.ToValidUTF8(text[:errorBytes], "") + "…"
}
