package client

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stockmesh/stockmesh/protocol"
)

func optional[T any](g *rapid.Generator[T]) *rapid.Generator[*T] { return rapid.Ptr(g, true) }

func commands() *rapid.Generator[protocol.Command] {
	return rapid.Custom(func(t *rapid.T) protocol.Command {
		text := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9 /.*-]{0,8}`), rapid.String())
		number := optional(rapid.Int64())
		texts := rapid.OneOf(rapid.Just[[]string](nil), rapid.SliceOfN(text, 1, 4))
		s := func(name string) string { return text.Draw(t, name) }
		c := protocol.Command{Op: protocol.OpSell, Key: s("key"), Home: s("home"), Reason: s("reason"), Reference: s("reference"),
			SKU: s("sku"), Location: s("location"), User: s("user"), Reservation: s("reservation"), From: s("from"), To: s("to"),
			AtLeast: s("at_least"), Region: s("region"), Before: s("before"), Token: s("token"), Traceparent: s("traceparent")}
		c.Delta, c.Quantity, c.IntervalMS = rapid.Int64().Draw(t, "delta"), rapid.Int64().Draw(t, "quantity"), rapid.Int64().Draw(t, "interval")
		c.OnHand, c.TTLMS = number.Draw(t, "on_hand"), number.Draw(t, "ttl")
		c.SafetyStock, c.BackorderLimit, c.LowStock = number.Draw(t, "safety"), number.Draw(t, "backorder"), number.Draw(t, "low")
		c.IfVersion, c.Since = optional(text).Draw(t, "if_version"), optional(text).Draw(t, "since")
		c.SKUs, c.Prefixes, c.Locations, c.Users = texts.Draw(t, "skus"), texts.Draw(t, "prefixes"), texts.Draw(t, "locations"), texts.Draw(t, "users")
		c.All, c.Limit = rapid.Bool().Draw(t, "all"), rapid.Int().Draw(t, "limit")
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			c.Lines = append(c.Lines, protocol.Line{SKU: s("line"), Location: s("at"), Quantity: rapid.Int64().Draw(t, "n")})
			c.Have = append(c.Have, protocol.Have{SKU: s("have"), Location: s("at"), Version: s("version")})
		}
		return c
	})
}

func TestAppendCommandEqualsTheStructTags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := commands().Draw(t, "command")
		id := rapid.Uint64().Draw(t, "id")
		var got protocol.Command
		b := appendCommand(nil, &want, id)
		if err := protocol.UnmarshalJSON(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		want.ID = fmt.Append(nil, id)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s (-want +got):\n%s", b, d)
		}
		if tagged := protocol.AppendJSON(nil, want); len(tagged) != len(b) {
			t.Fatalf("%s\nis not\n%s", b, tagged)
		}
	})
}

func TestPeek(t *testing.T) {
	for msg, want := range map[string]head{
		`{"id":7,"ok":{}}`:                            {isReply: true, hasID: true, id: 7},
		`{"ok":{}, "id" : 7}`:                         {isReply: true, hasID: true, id: 7},
		`{"id":18446744073709551615,"ok":{}}`:         {isReply: true, hasID: true, id: 1<<64 - 1},
		`{"id":null,"error":{"code":"bad_request"}}`:  {isReply: true},
		`{"op":"stock","items":[]}`:                   {op: "stock"},
		`{"items":[],"op":"stock","snapshot":true}`:   {op: "stock"},
		`{"op":"cursor","cursor":"eu:1"}`:             {op: "cursor"},
		` {"op":"something-new","id":null,"more":{}}`: {op: "something-new"},
	} {
		if got, err := (message{body: []byte(msg)}).peek(); err != nil || got != want {
			t.Errorf("%s: %+v, %v", msg, got, err)
		}
	}
	for _, msg := range []string{``, `7`, `{`, `{"id":"x","ok":{}}`, `{"id":-1,"ok":{}}`} {
		if got, err := (message{body: []byte(msg)}).peek(); err == nil {
			t.Errorf("%s: %+v", msg, got)
		}
	}
}

func BenchmarkAppendCommand(b *testing.B) {
	cmd := protocol.Command{Op: protocol.OpSell, Key: "c3-00000012345", Lines: []protocol.Line{{SKU: "85123A", Location: "main", Quantity: 1}}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendCommand(buf[:0], &cmd, 12345)
	}
}

func BenchmarkDecodeReply(b *testing.B) {
	msg := message{body: []byte(`{"id":12345,"ok":{"items":[{"sku":"85123A","location":"main","available":12345,"on_hand":12345,"reserved":0,"version":"local:987654","updated_at":"2026-01-02T03:04:05.678Z"}]}}`)}
	b.ReportAllocs()
	for b.Loop() {
		var r Reply
		if _, err := decodeReply(msg, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendCommandCBOR(b *testing.B) {
	cmd := protocol.Command{Op: protocol.OpSell, Key: "c3-00000012345", Lines: []protocol.Line{{SKU: "85123A", Location: "main", Quantity: 1}}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendCommandCBOR(buf[:0], &cmd, 12345)
	}
}

func BenchmarkDecodeReplyCBOR(b *testing.B) {
	call := protocol.Call{Command: protocol.Command{ID: protocol.Raw{0x19, 0x30, 0x39}}, Result: protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{{
		SKU: "85123A", Location: "main", Available: 12345, OnHand: 12345, Version: "local:987654", UpdatedAt: 1_700_000_000_000}}}}
	msg := message{protocol.CBOR, protocol.CBOR.AppendReply(nil, &call)}
	b.ReportAllocs()
	for b.Loop() {
		var r Reply
		if _, err := decodeReply(msg, &r); err != nil {
			b.Fatal(err)
		}
	}
}
