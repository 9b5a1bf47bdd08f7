package trace

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	otel "go.opentelemetry.io/otel/trace"
)

// record is a followed command with its answer.
type record struct {
	*protocol.Trace
	op       protocol.Op
	skus     int
	code     protocol.Code
	replayed bool
	relayed  bool // for another node, which has the command's own span
	ended    time.Time
}

// codeOK stands where a command has no error, as in stockmesh_commands_total.
const codeOK = "ok"

// The names of spans.
const (
	spanCommand  = "stockmesh.command"
	spanQueue    = "stockmesh.queue"
	spanCommit   = "stockmesh.commit"
	spanHandover = "stockmesh.handover"
)

// make makes the spans of a command.
func (t *Tracer) make(r record) {
	inner := remote(r.Context.Trace, r.Context.Span)
	if !r.relayed {
		inner = t.command(&r)
	}
	if !r.Submitted.IsZero() && !r.Taken.IsZero() {
		t.span(inner, spanQueue, otel.SpanKindInternal, r.Submitted, r.Taken, attribute.Int("stockmesh.shard", r.Shard))
	}
	if !r.Taken.IsZero() && !r.Committed.IsZero() {
		t.span(inner, spanCommit, otel.SpanKindInternal, r.Taken, r.Committed, attribute.Int("stockmesh.shard", r.Shard),
			attribute.Int64("stockmesh.round.sequence", int64(r.Sequence)), attribute.Int("stockmesh.round.commands", r.Commands))
	}
	if !r.relayed && !r.Submitted.IsZero() && !r.Returned.IsZero() {
		t.handover(inner, &r)
	}
}

// command makes the span of the command itself.
func (t *Tracer) command(r *record) context.Context {
	ctx := context.Background()
	if r.Parent != [8]byte{} {
		ctx = remote(r.Context.Trace, r.Parent)
	}
	t.ids = nextIDs{trace: r.Context.Trace, span: r.Context.Span}
	ctx, span := t.tracer.Start(ctx, spanCommand, otel.WithTimestamp(r.Received), otel.WithSpanKind(otel.SpanKindServer), otel.WithAttributes(
		attribute.String("stockmesh.op", opName(r.op)), attribute.Int("stockmesh.skus", r.skus),
		attribute.String("stockmesh.code", string(r.code)), attribute.Bool("stockmesh.replayed", r.replayed),
		attribute.String("stockmesh.via", r.Via)))
	if r.code != codeOK && r.code.Status() >= 500 {
		span.SetStatus(codes.Error, string(r.code)) // a refusal is an answer, not a failure
	}
	span.End(otel.WithTimestamp(r.ended))
	return ctx
}

// opName keeps out what clients make up.
func opName(op protocol.Op) string {
	if slices.Contains(protocol.Ops(), op) {
		return string(op)
	}
	return "other"
}

// handover makes the span under which the other node's are.
func (t *Tracer) handover(ctx context.Context, r *record) {
	about := []attribute.KeyValue{attribute.String("stockmesh.owner", r.Owner)}
	if r.OwnerRegion != "" {
		about = append(about, attribute.String("stockmesh.owner.region", r.OwnerRegion))
	}
	t.ids = nextIDs{span: r.Handover}
	t.span(ctx, spanHandover, otel.SpanKindClient, r.Submitted, r.Returned, about...)
}

func (t *Tracer) span(ctx context.Context, name string, kind otel.SpanKind, from, to time.Time, about ...attribute.KeyValue) {
	_, span := t.tracer.Start(ctx, name, otel.WithTimestamp(from), otel.WithSpanKind(kind), otel.WithAttributes(about...))
	span.End(otel.WithTimestamp(to))
}

// remote is a span of somebody else.
func remote(trace [16]byte, span [8]byte) context.Context {
	return otel.ContextWithRemoteSpanContext(context.Background(), otel.NewSpanContext(otel.SpanContextConfig{
		TraceID: trace, SpanID: span, TraceFlags: otel.FlagsSampled, Remote: true,
	}))
}

// nextIDs gives the next span the IDs that were told to others before there was one.
type nextIDs struct {
	trace [16]byte
	span  [8]byte
}

// NewIDs implements sdk.IDGenerator.
func (n *nextIDs) NewIDs(ctx context.Context) (otel.TraceID, otel.SpanID) {
	return n.trace, n.NewSpanID(ctx, n.trace)
}

// NewSpanID implements sdk.IDGenerator.
func (n *nextIDs) NewSpanID(context.Context, otel.TraceID) otel.SpanID {
	span := n.span
	if n.span = [8]byte{}; span == n.span {
		return newSpanID()
	}
	return span
}

func newTraceID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], 1|rand.Uint64()) // all zero would be none
	return id
}

func newSpanID() (id [8]byte) {
	binary.LittleEndian.PutUint64(id[:], 1|rand.Uint64())
	return id
}
