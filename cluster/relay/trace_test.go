package relay

import (
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// A node that runs an older version must get what it reads, whatever is followed.
func TestTracesGoOnlyToWhoReadsThem(t *testing.T) {
	for format, want := range map[byte]bool{0: false, batchFormat2: false, batchFormat3: true, batchFormat3 + 1: true} {
		s := NewSender("n", 1, Options{})
		s.Reads(format)
		call := &protocol.Call{Command: protocol.Command{Op: protocol.OpSell, Key: "k"}, Trace: &protocol.Trace{Handover: [8]byte{7}}}
		call.Trace.Context.Trace[0] = 9
		s.Add(call)
		data, _ := s.Next(0)
		b, err := DecodeBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		got := b.Calls[0].Trace
		if (got != nil) != want || data[0] > max(format, batchFormat) {
			t.Errorf("whoever reads %#x gets format %#x, trace %v", format, data[0], got)
		}
		if got != nil && (got.Context != protocol.TraceContext{Trace: [16]byte{9}, Span: [8]byte{7}, Sampled: true}) {
			t.Errorf("it goes on as %v", got.Context)
		}
	}
}
