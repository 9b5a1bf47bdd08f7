package ledger

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

const benchRound = 256

// sellBench decides, encodes and applies rounds of sells with keys of their own.
type sellBench struct {
	state *State
	draft *Draft
	calls []protocol.Call
	skus  []string
	next  int
	buf   []byte
	lines []protocol.Line
}

func newSellBench(skus int) *sellBench {
	s := NewState("eu", 0)
	sb := &sellBench{state: s, draft: NewDraft(s), calls: make([]protocol.Call, benchRound), lines: make([]protocol.Line, benchRound)}
	for i := range skus {
		sb.skus = append(sb.skus, fmt.Sprintf("sku-%06d", i))
	}
	for from := 0; from < skus; from += benchRound {
		sb.draft.Reset(1, 0)
		for i := from; i < min(skus, from+benchRound); i++ {
			c := protocol.Call{Command: protocol.Command{
				Op: protocol.OpAdjust, Key: "stock " + sb.skus[i], SKU: sb.skus[i],
				Location: protocol.DefaultLocation, Delta: protocol.QuantityMax,
			}}
			sb.draft.Decide(&c)
		}
		if _, err := s.Apply(sb.draft.Round(), s.Seq()+1); err != nil {
			panic(err)
		}
	}
	return sb
}

// prepare makes the commands of the next round: what the edge would have done.
func (sb *sellBench) prepare() {
	for i := range sb.calls {
		sb.next++
		sb.lines[i] = protocol.Line{SKU: sb.skus[sb.next*7919%len(sb.skus)], Location: protocol.DefaultLocation, Quantity: 1}
		sb.calls[i] = protocol.Call{Command: protocol.Command{
			Op: protocol.OpSell, Key: fmt.Sprintf("till-12-%012d", sb.next), Lines: sb.lines[i : i+1],
		}}
	}
}

func (sb *sellBench) decide(b *testing.B) {
	sb.draft.Reset(sb.state.At()+1, uint64(sb.next))
	for i := range sb.calls {
		sb.draft.Decide(&sb.calls[i])
		if sb.calls[i].Err != nil {
			b.Fatal(sb.calls[i].Err)
		}
	}
	sb.buf = sb.draft.Round().AppendTo(sb.buf[:0])
}

func (sb *sellBench) apply(b *testing.B, s *State, r *Round) {
	if _, err := s.Apply(r, s.Seq()+1); err != nil {
		b.Fatal(err)
	}
}

// rotateAt keeps the remembered keys, and so the memory, of a long run bounded.
const rotateAt = 1 << 20

func forget(s *State) {
	if _, _, keys := s.Sizes(); keys > rotateAt {
		s.rotate(s.generation+1, s.at)
	}
}

func perCommand(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchRound), "ns/command")
}

func BenchmarkDecideApply(b *testing.B) {
	for _, skus := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("skus=%d", skus), func(b *testing.B) {
			sb := newSellBench(skus)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				sb.prepare()
				forget(sb.state)
				b.StartTimer()
				sb.decide(b)
				sb.apply(b, sb.state, sb.draft.Round())
			}
			perCommand(b)
			b.ReportMetric(float64(len(sb.buf))/benchRound, "bytes/command")
		})
	}
}

// BenchmarkDecodeApply is what a replica does with a round, and a node that
// starts with the log's tail.
func BenchmarkDecodeApply(b *testing.B) {
	for _, skus := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("skus=%d", skus), func(b *testing.B) {
			sb, replica := newSellBench(skus), newSellBench(skus).state
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				sb.prepare()
				sb.decide(b)
				sb.apply(b, sb.state, sb.draft.Round())
				forget(sb.state)
				forget(replica)
				b.StartTimer()
				r, err := Decode(sb.buf)
				if err != nil {
					b.Fatal(err)
				}
				sb.apply(b, replica, r)
			}
			perCommand(b)
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	const items, keys = 100_000, 1_000_000
	sb := newSellBench(items)
	for range keys / benchRound {
		sb.prepare()
		sb.decide(b)
		sb.apply(b, sb.state, sb.draft.Round())
	}
	var buf bytes.Buffer
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			buf.Reset()
			if _, err := sb.state.Snapshot(func(p []byte) error { buf.Write(p); return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(buf.Len()))
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if _, err := Load(bytes.NewReader(buf.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("digest", func(b *testing.B) {
		for b.Loop() {
			sb.state.Digest()
		}
	})
}
