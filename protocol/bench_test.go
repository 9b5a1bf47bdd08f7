package protocol

import (
	"testing"
)

func BenchmarkDecodeSell(b *testing.B) {
	msg := []byte(`{"op":"sell","id":12345,"key":"c3-00000012345","lines":[{"sku":"85123A","quantity":1}]}`)
	b.ReportAllocs()
	for b.Loop() {
		vs, err := Split(msg, CommandsMax)
		if err != nil {
			b.Fatal(err)
		}
		var c Command
		if err := c.Decode(vs[0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendReply(b *testing.B) {
	call := &Call{Command: Command{ID: []byte("12345")}, Result: Result{Kind: KindItems, Items: []Item{{
		SKU: "85123A", Location: "main", Available: 12345, OnHand: 12345, Version: "local:987654", UpdatedAt: 1_700_000_000_000}}}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendReply(buf[:0], call)
	}
}

func BenchmarkDecodeSellCBOR(b *testing.B) {
	msg := fields("op", "sell", "id", 12345, "key", "c3-00000012345", "lines", list(fields("sku", "85123A", "quantity", 1)))
	b.ReportAllocs()
	for b.Loop() {
		vs, err := CBOR.Split(msg, CommandsMax)
		if err != nil {
			b.Fatal(err)
		}
		var c Command
		if err := CBOR.Decode(&c, vs[0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendItem(b *testing.B) {
	it := Item{SKU: "85123A", Location: "main", Available: 12345, OnHand: 12345, Version: "local:987654", UpdatedAt: 1_700_000_000_000}
	for _, c := range []Codec{JSON, CBOR} {
		b.Run(c.Subprotocol(), func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = c.AppendItem(buf[:0], &it)
			}
			b.ReportMetric(float64(len(buf)), "bytes")
		})
	}
}
