package relay

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stockmesh/stockmesh/protocol"
)

const callSize = int(unsafe.Sizeof(protocol.Call{}))

// busyCalls is a batch as a shop sends it.
func busyCalls(n int) []*protocol.Call {
	calls := make([]*protocol.Call, n)
	for i := range calls {
		sku := fmt.Sprintf("SKU-%06d", i*7919%100000)
		c := &protocol.Call{Session: uint64(i % 512), Subject: "shop-backend"}
		key := fmt.Sprintf("0199f4c2-7b1e-7000-8000-%012d", i)
		switch i % 4 {
		case 0:
			c.Command = protocol.Command{Op: protocol.OpAdjust, Key: key, SKU: sku, Location: "main", Delta: 3}
		case 1:
			c.Command = protocol.Command{Op: protocol.OpReserve, Key: key, TTLMS: protocol.Ptr[int64](60000), User: "u-1234", Lines: []protocol.Line{{SKU: sku, Location: "main", Quantity: 1}}}
		default:
			c.Command = protocol.Command{Op: protocol.OpSell, Key: key, Lines: []protocol.Line{{SKU: sku, Location: "main", Quantity: 1}}}
		}
		c.Result = protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{{
			SKU: sku, Location: "main", Available: 1000, OnHand: 1200, Reserved: 200, Version: "eu:123456", UpdatedAt: 1790000000000,
		}}}
		calls[i] = c
	}
	return calls
}

func perCall(b *testing.B, calls, bytes int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(calls), "ns/call")
	b.ReportMetric(float64(bytes)/float64(calls), "B-wire/call")
	b.ReportAllocs()
}

var batchSizes = []int{1, 64, 4096}

func BenchmarkEncodeBatch(b *testing.B) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			calls := busyCalls(n)
			var buf []byte
			for b.Loop() {
				buf = appendBatch(buf[:0], "eu-1", 1<<60, 1, calls)
			}
			perCall(b, n, len(buf))
		})
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := appendBatch(nil, "eu-1", 1<<60, 1, busyCalls(n))
			for b.Loop() {
				if _, err := DecodeBatch(data); err != nil {
					b.Fatal(err)
				}
			}
			perCall(b, n, len(data))
		})
	}
}

func BenchmarkEncodeAnswers(b *testing.B) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			calls := busyCalls(n)
			var buf []byte
			for b.Loop() {
				buf = AppendAnswers(buf[:0], "eu-2", 1<<60, 1, 77, calls)
			}
			perCall(b, n, len(buf))
		})
	}
}

func BenchmarkDecodeAnswers(b *testing.B) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := AppendAnswers(nil, "eu-2", 1<<60, 1, 77, busyCalls(n))
			for b.Loop() {
				if _, err := DecodeAnswers(data); err != nil {
					b.Fatal(err)
				}
			}
			perCall(b, n, len(data))
		})
	}
}

// BenchmarkSender is the sender's whole part: Add, Next, Answer.
func BenchmarkSender(b *testing.B) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			calls := busyCalls(n)
			s := NewSender("eu-1", 1<<60, Options{BatchBytes: 1 << 20})
			var buf []byte
			for number := uint64(1); b.Loop(); number++ {
				s.Add(calls...)
				if _, ok := s.Next(1); !ok {
					b.Fatal("nothing to send")
				}
				buf = AppendAnswers(buf[:0], "eu-2", 1<<60, number, 77, calls)
				if d, err := s.Answer(buf, 2); err != nil || len(d.Calls) != n {
					b.Fatal(len(d.Calls), err)
				}
			}
			perCall(b, n, len(buf))
		})
	}
}
