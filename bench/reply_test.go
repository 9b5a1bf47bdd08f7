package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestScanReply(t *testing.T) {
	for _, c := range []struct {
		message string
		id      uint64
		want    outcome
	}{
		{`{"id":7,"ok":{}}`, 7, acked},
		{`{"id":7,"error":{"code":"x"}}`, 7, refused},
		{` { "ok" : {"id":[1,{"a":"}]\""}]} , "id" : 12 } `, 12, acked},
		{`{"id":null,"error":{}}`, 0, refused},
		{`{"id":"seven","ok":{}}`, 0, acked},
		{`{"op":"stock","items":[{"sku":"\"ok\":","location":"{"}]}`, 0, push},
		{`{"op":"ok"}`, 0, push},
		{`{}`, 0, push},
		{`{"replayed":true,"id":1,"ok":{}}`, 1, acked},
		{``, 0, malformed},
		{`[]`, 0, malformed},
		{`{"id"`, 0, malformed},
		{`{"id":7`, 0, malformed},
		{`{"a":"\`, 0, malformed},
		{`{"a":1 "b":2}`, 0, push}, // the scanner is no judge of JSON
	} {
		id, got := scanReply([]byte(c.message))
		if id != c.id || got != c.want {
			t.Errorf("%s: %d, %d; want %d, %d", c.message, id, got, c.id, c.want)
		}
	}
}

func TestScansWhatANodeWrites(t *testing.T) {
	call := protocol.Call{Command: protocol.Command{ID: []byte("1000000041")}, Replayed: true}
	call.Result = protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{{SKU: `a"b`, Location: "main", UpdatedAt: 1}}}
	if id, got := scanReply(protocol.AppendReply(nil, &call)); id != 1000000041 || got != acked {
		t.Errorf("ok: %d, %d", id, got)
	}
	call.Err = protocol.BadRequest("no")
	if id, got := scanReply(protocol.AppendReply(nil, &call)); id != 1000000041 || got != refused {
		t.Errorf("error: %d, %d", id, got)
	}
}

// FuzzScanReply holds the scanner to what encoding/json finds, where that finds
// one meaning: names written plainly and once.
func FuzzScanReply(f *testing.F) {
	f.Add([]byte(`{"id":7,"ok":{"items":[1,"a\"}"]},"replayed":true}`))
	f.Add([]byte(`{"error":{"code":"x"},"id":18446744073709551615}`))
	f.Add([]byte(`{"op":"stock","items":[{"sku":"A"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, got := scanReply(b)
		var m map[string]json.RawMessage
		if json.Unmarshal(b, &m) != nil || m == nil || ambiguous(b) {
			return
		}
		want := push
		if m["ok"] != nil {
			want = acked
		}
		if m["error"] != nil {
			want = refused
		}
		if got != want {
			t.Fatalf("%s: outcome %d, want %d", b, got, want)
		}
		if n, err := strconv.ParseUint(string(m["id"]), 10, 64); err == nil && n != id {
			t.Fatalf("%s: id %d, want %d", b, id, n)
		}
	})
}

// ambiguous reports names that are written twice or with escapes, and replies
// that are both: encoding/json takes the last one, the scanner the first.
func ambiguous(b []byte) bool {
	n := 0
	for _, name := range []string{`"ok"`, `"error"`} {
		n += bytes.Count(b, []byte(name))
	}
	return n > 1 || bytes.Count(b, []byte(`"id"`)) > 1 || bytes.ContainsRune(b, '\\')
}

func BenchmarkScanReply(b *testing.B) {
	message := []byte(`{"id":1000000041,"ok":{"items":[{"sku":"bench-hot-abcdefghij","location":"main","available":1099511627735,"on_hand":1099511627735,"reserved":0,"version":"local:1234","updated_at":"2026-01-02T03:04:05.678Z"}]}}`)
	for b.Loop() {
		scanReply(message)
	}
}
