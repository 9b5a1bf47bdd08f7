package relay

import "github.com/stockmesh/stockmesh/protocol"

// appendTrace appends where another node goes on with a trace: the trace, the span that
// stands for the other node's part, and 1 as somebody keeps it.
func appendTrace(b []byte, t *protocol.Trace) []byte {
	b = append(b, t.Context.Trace[:]...)
	b = append(b, t.Handover[:]...)
	return append(b, 1)
}

func (r *batchReader) trace() *protocol.Trace {
	t := new(protocol.Trace)
	copy(t.Context.Trace[:], r.bytes(len(t.Context.Trace)))
	copy(t.Handover[:], r.bytes(len(t.Handover)))
	if r.byte() != 1 {
		r.fail("a trace that nobody keeps")
	}
	t.Context.Span, t.Context.Sampled = t.Handover, true
	return t
}

// bytes reads n bytes, which stay the message's.
func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("ends early")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}
