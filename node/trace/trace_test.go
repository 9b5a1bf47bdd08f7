package trace

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/stockmesh/stockmesh/protocol"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// at is a time so many milliseconds into the test.
func at(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)) }

// kept returns a tracer whose spans stay here, once it is closed.
func kept(t *testing.T, config Config) (*Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	config.Every = time.Hour // all at the end
	tr := open(config, keeper{spans})
	tr.within = time.Minute // however busy the machine is
	t.Cleanup(tr.Close)
	return tr, spans
}

// keeper is the library's exporter, which would forget all at the end.
type keeper struct{ *tracetest.InMemoryExporter }

func (keeper) Shutdown(context.Context) error { return nil }

func droppedBy(t *testing.T, tracer *Tracer) float64 {
	t.Helper()
	var m dto.Metric
	if err := tracer.dropped.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// described is what a span is about, by name.
func described(spans tracetest.SpanStubs) map[string]map[string]any {
	all := make(map[string]map[string]any)
	for _, s := range spans {
		about := map[string]any{"from": s.StartTime.UnixMilli() - at(0).UnixMilli(), "to": s.EndTime.UnixMilli() - at(0).UnixMilli()}
		for _, a := range s.Attributes {
			about[strings.TrimPrefix(string(a.Key), "stockmesh.")] = a.Value.AsInterface()
		}
		all[strings.TrimPrefix(s.Name, "stockmesh.")] = about
	}
	return all
}

func byName(spans tracetest.SpanStubs, name string) tracetest.SpanStub {
	for _, s := range spans {
		if s.Name == name {
			return s
		}
	}
	return tracetest.SpanStub{}
}

func sold(tr *protocol.Trace) *protocol.Call {
	return &protocol.Call{Trace: tr, Command: protocol.Command{Op: protocol.OpSell, Lines: make([]protocol.Line, 3)}}
}

func TestSpansOfACommand(t *testing.T) {
	tracer, spans := kept(t, Config{Region: "eu", Node: "eu-1", Version: "1.2"})
	tr := tracer.Begin("ws", parent, false, at(0))
	tr.Submitted, tr.Taken, tr.Committed = at(1), at(3), at(7)
	tr.Shard, tr.Sequence, tr.Commands = 2, 77, 9
	tracer.End(sold(tr))
	tracer.Close()

	got := described(spans.GetSpans())
	delete(got["command"], "to")
	want := map[string]map[string]any{
		"command": {"from": int64(0), "op": "sell", "skus": int64(3), "code": "ok", "replayed": false, "via": "ws"},
		"queue":   {"from": int64(1), "to": int64(3), "shard": int64(2)},
		"commit":  {"from": int64(3), "to": int64(7), "shard": int64(2), "round.sequence": int64(77), "round.commands": int64(9)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	root := byName(spans.GetSpans(), spanCommand)
	if p := root.Parent; !p.IsRemote() || p.SpanID().String() != "b7ad6b7169203331" || p.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the command's parent is %v", p)
	}
	for _, s := range spans.GetSpans() {
		if s.SpanContext.TraceID() != root.Parent.TraceID() || s.Name != spanCommand && s.Parent.SpanID() != root.SpanContext.SpanID() {
			t.Errorf("%s is elsewhere: %v under %v", s.Name, s.SpanContext, s.Parent)
		}
	}
	if about := root.Resource.String(); !strings.Contains(about, "service.instance.id=eu.eu-1") || !strings.Contains(about, "stockmesh.region=eu") {
		t.Errorf("the resource is %s", about)
	}
}

// The owner's spans hang below the span of the node that handed over, of which they know
// only what came with the command.
func TestSpansOfAHandover(t *testing.T) {
	here, spans := kept(t, Config{Ratio: 1})
	tr := here.Begin("http", "", here.Drawn(), at(0))
	tr.Submitted, tr.Returned, tr.Owner = at(1), at(9), "eu-2"
	call := sold(tr)
	call.Err = protocol.NewError(protocol.CodeUnavailable, "")
	here.End(call)
	here.Close()

	owner, theirs := kept(t, Config{})
	owner.Decided(sold(&protocol.Trace{
		Context:  protocol.TraceContext{Trace: tr.Context.Trace, Span: tr.Handover, Sampled: true},
		Received: at(3), Submitted: at(3), Taken: at(4), Committed: at(6),
	}))
	owner.Close()

	root, handover := byName(spans.GetSpans(), spanCommand), byName(spans.GetSpans(), spanHandover)
	if root.Status.Code != codes.Error || root.Parent.IsValid() || handover.Parent.SpanID() != root.SpanContext.SpanID() || len(spans.GetSpans()) != 2 {
		t.Errorf("here: %v", spans.GetSpans())
	}
	got := theirs.GetSpans()
	if len(got) != 2 {
		t.Fatalf("%d spans at the owner's", len(got))
	}
	for _, s := range got {
		if s.Parent.SpanID() != handover.SpanContext.SpanID() || s.SpanContext.TraceID() != root.SpanContext.TraceID() || !s.Parent.IsRemote() {
			t.Errorf("%s hangs below %v", s.Name, s.Parent)
		}
	}
}

func TestWhatIsFollowed(t *testing.T) {
	tracer, _ := kept(t, Config{AskedMax: 3, DrawnMax: 2})
	unsampled := strings.TrimSuffix(parent, "01") + "00"
	begin := func(said string, drawn bool) bool { return tracer.Begin("ws", said, drawn, at(0)) != nil }
	for name, followed := range map[string]bool{
		"not drawn":             begin("", false),
		"drawn, its caller not": begin(unsampled, true),
		"malformed":             begin("nonsense", false),
	} {
		if followed {
			t.Errorf("%s, and followed", name)
		}
	}
	if !begin("nonsense", true) || !begin("", true) || begin("", true) {
		t.Error("not as many drawn ones are followed as may be")
	}
	for i := range 4 {
		if begin(parent, false) != (i < 3) {
			t.Errorf("asked for %d times: followed %v", i+1, i >= 3)
		}
	}
}

func TestGapsFitTheRatio(t *testing.T) {
	for ratio, want := range map[float64]uint64{0: math.MaxUint64, 1: 0} {
		if got := (&Tracer{config: Config{Ratio: ratio}}).Gap(); got != want {
			t.Errorf("ratio %v: a gap of %d", ratio, got)
		}
	}
	const n, ratio = 100_000, 0.02
	tracer, sum := &Tracer{config: Config{Ratio: ratio}}, 0.0
	for range n {
		sum += 1 + float64(tracer.Gap())
	}
	if share := n / sum; math.Abs(share-ratio) > ratio/20 { // fifteen standard deviations
		t.Errorf("one in %.1f is drawn, want one in %v", 1/share, 1/ratio)
	}
}

// A collector that does not answer costs spans, and neither commands nor the node's stop.
func TestCollectorThatHangs(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	tracer, err := Open(Config{Endpoint: srv.URL, Ratio: 1, DrawnMax: 1 << 20, Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	const more = waitingMax + 3*batchMax
	for range more {
		tracer.End(sold(tracer.Begin("ws", "", true, time.Now())))
	}
	tracer.within = 200 * time.Millisecond
	began := time.Now()
	tracer.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("closing took %v", took)
	}
	if n := droppedBy(t, tracer); n != more {
		t.Errorf("%v dropped, of %d that nobody got", n, more)
	}
}

func TestCollectorGetsProtobuf(t *testing.T) {
	spans := make(chan int, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &got) != nil {
			t.Errorf("%s %v", r.URL.Path, err)
		}
		for _, rs := range got.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans <- len(ss.Spans)
			}
		}
	}))
	defer srv.Close()
	tracer, err := Open(Config{Endpoint: srv.URL, Ratio: 1, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	tracer.within = time.Minute
	tracer.End(sold(tracer.Begin("ws", "", true, time.Now())))
	tracer.Close()
	select {
	case n := <-spans:
		if n != 1 || droppedBy(t, tracer) != 0 {
			t.Errorf("%d spans", n)
		}
	default:
		t.Error("it got none")
	}
}

// answered follows three commands, whose collector answers as given, and returns how many
// count as dropped and what the log says.
func answered(t *testing.T, answer http.HandlerFunc) (dropped float64, log string) {
	t.Helper()
	srv := httptest.NewServer(answer)
	defer srv.Close()
	var lines bytes.Buffer
	tracer, err := Open(Config{Endpoint: srv.URL, Ratio: 1, Every: time.Hour, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	tracer.within = time.Minute
	for range 3 {
		tracer.End(sold(tracer.Begin("ws", "", true, time.Now())))
	}
	tracer.Close()
	return droppedBy(t, tracer), lines.String()
}

// A collector that took a message has it, whatever it says of it.
func TestCollectorThatComplains(t *testing.T) {
	for rejected, dropped := range map[int64]float64{0: 0, 2: 2, 9: 3, -1: 0} {
		got, log := answered(t, func(w http.ResponseWriter, _ *http.Request) {
			b, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{
				RejectedSpans: rejected, ErrorMessage: "old\nattributes (7 spans rejected)",
			}})
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(b)
		})
		if got != dropped || !strings.Contains(log, "attributes") || strings.Contains(log, "gets no traces") {
			t.Errorf("%d spans rejected: %v commands dropped, and said %q", rejected, got, log)
		}
	}
}

// A collector's error may be a whole page, and may look like praise.
func TestCollectorThatFails(t *testing.T) {
	got, log := answered(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "OTLP partial success: (0 spans rejected)"+strings.Repeat("é", 10_000), http.StatusBadRequest)
	})
	if got != 3 || !strings.Contains(log, "gets no traces") || !utf8.ValidString(log) {
		t.Errorf("%v dropped, and said %q", got, log)
	}
	if n := len(log); n > 2*errorBytes+100 {
		t.Errorf("a line of %d bytes", n)
	}
}

// BenchmarkFollow is what a followed command costs beside its stamps, spans included.
func BenchmarkFollow(b *testing.B) {
	tracer := open(Config{Ratio: 1, DrawnMax: math.MaxInt, Every: time.Hour}, nowhere{})
	defer tracer.Close()
	b.ReportAllocs()
	for b.Loop() {
		tr := tracer.Begin("ws", "", true, at(0))
		tr.Submitted, tr.Taken, tr.Committed = at(1), at(2), at(3)
		tracer.End(sold(tr))
		tracer.make(<-tracer.waiting)
		tracer.spans = tracer.spans[:0]
	}
}

// nowhere gets spans and forgets them.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                        { return nil }
