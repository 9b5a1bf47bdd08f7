package protocol

import (
	"bytes"
	"encoding/hex"
	"runtime"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// raw is CBOR in hexadecimal, to be put into a message as it is.
func raw(digits string) cbor.RawMessage {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

// fields encodes a map of names and values in this order.
func fields(pairs ...any) cbor.RawMessage {
	b := cborHead(nil, cborMap, uint64(len(pairs)/2))
	return put(b, pairs)
}

func list(values ...any) cbor.RawMessage {
	return put(cborHead(nil, cborArray, uint64(len(values))), values)
}

func put(b []byte, values []any) []byte {
	for _, v := range values {
		if r, ok := v.(cbor.RawMessage); ok {
			b = append(b, r...) // unread: it may be wrong
		} else {
			b = CBOR.AppendMessage(b, v)
		}
	}
	return b
}

func TestSplitCBOR(t *testing.T) {
	ping := fields("op", "ping")
	for _, c := range []struct {
		name string
		msg  []byte
		want int
		code Code
	}{
		{"one", ping, 1, ""},
		{"array of one", list(ping), 1, ""},
		{"array of three", list(ping, ping, ping), 3, ""},
		{"array of four", list(ping, ping, ping, ping), 0, CodeTooLarge},
		{"array without length", raw("9f" + hex.EncodeToString(ping) + "a0ff"), 2, ""},
		{"empty", nil, 0, CodeBadRequest},
		{"empty array", list(), 0, CodeBadRequest},
		{"empty array without length", raw("9fff"), 0, CodeBadRequest},
		{"cut array", raw("82a0"), 0, CodeBadRequest},
		{"cut array without length", raw("9fa0"), 0, CodeBadRequest},
		{"cut array that is too long", raw("85a0a0a0a0"), 0, CodeBadRequest},
		{"two arrays", raw("81a081a0"), 0, CodeBadRequest},
		{"array of numbers", list(7), 0, CodeBadRequest},
		{"array of arrays", list(list(ping)), 0, CodeBadRequest},
		{"duplicate in an array", list(fields("a", 1, "a", 2)), 0, CodeBadRequest},
		{"bad UTF-8 in an array", raw("81a16161" + "61ff"), 0, CodeBadRequest},
		{"huge array", raw("9bffffffffffffffff"), 0, CodeBadRequest},
		{"text", CBOR.AppendMessage(nil, "ping"), 0, CodeBadRequest},
		{"number", raw("07"), 0, CodeBadRequest},
		{"negative", raw("26"), 0, CodeBadRequest},
		{"bytes", raw("4101"), 0, CodeBadRequest},
		{"null", raw("f6"), 0, CodeBadRequest},
		{"tagged", raw("d9d9f7a0"), 0, CodeBadRequest},
		{"break", raw("ff"), 0, CodeBadRequest},
		{"JSON", []byte(`{"op":"ping"}`), 0, CodeBadRequest},
		{"nested arrays", bytes.Repeat([]byte{0x81}, 60_000), 0, CodeBadRequest},
		{"nested arrays without length", bytes.Repeat([]byte{0x9f}, 60_000), 0, CodeBadRequest},
		{"nested maps", append([]byte{0x81}, bytes.Repeat([]byte{0xa1, 0x60}, 30_000)...), 0, CodeBadRequest},
	} {
		values, err := CBOR.Split(c.msg, 3)
		if len(values) != c.want || codeOf(err) != c.code {
			t.Errorf("%s: %d commands, %v", c.name, len(values), err)
		}
	}
}

// readCBOR splits and decodes a message of one command.
func readCBOR(msg []byte) (Command, *Error) {
	values, err := CBOR.Split(msg, CommandsMax)
	if err != nil {
		return Command{}, err
	}
	var c Command
	err = CBOR.Decode(&c, values[0])
	return c, err
}

func TestDecodeCBORTable(t *testing.T) {
	x := strings.Repeat("x", 300)
	adjust := func(delta any) []byte { return fields("op", "adjust", "id", 7, "key", "k", "sku", "A", "delta", delta) }
	with := func(v any) []byte { return fields("op", "ping", "id", 7, "new", v) }
	deep := func(n int) any { return raw(strings.Repeat("81", n) + "00") }
	many := make([]any, 2*(cborFieldsMax+1))
	for i := range many {
		many[i] = strings.Repeat("x", i/2)
	}
	for _, c := range []struct {
		name           string
		msg            []byte
		id, code, says string
	}{
		{"number id", fields("op", "ping", "id", 7), "07", "", ""},
		{"negative id", fields("op", "ping", "id", -1), "20", "", ""},
		{"long head kept", fields("op", "ping", "id", raw("1b0000000000000007")), "1b0000000000000007", "", ""},
		{"largest id", fields("op", "ping", "id", raw("1bffffffffffffffff")), "1bffffffffffffffff", "", ""},
		{"string id", fields("op", "ping", "id", `a"b`), "63612262", "", ""},
		{"fraction id", fields("op", "ping", "id", 1.5), "fb3ff8000000000000", "", ""},
		{"half id", fields("op", "ping", "id", raw("f93e00")), "f93e00", "", ""},
		{"null id", fields("op", "ping", "id", nil), "f6", "", ""},
		{"undefined id", fields("op", "ping", "id", raw("f7")), "", "", ""},
		{"no id", fields("op", "ping"), "", "", ""},
		{"no fields", fields(), "", "bad_request", "op is missing"},
		{"id after what is wrong", fields("op", "adjust", "delta", "x", "id", 7), "07", "bad_request", "delta"},
		{"boolean id", fields("op", "ping", "id", true), "", "bad_request", "id must be"},
		{"map id", fields("op", "ping", "id", fields()), "", "bad_request", "id must be"},
		{"array id", fields("op", "ping", "id", list(1)), "", "bad_request", "id must be"},
		{"bytes id", fields("op", "ping", "id", []byte("7")), "", "bad_request", "id must be"},
		{"tagged id", fields("op", "ping", "id", raw("c24101")), "", "bad_request", "tag"},
		{"long id", fields("op", "ping", "id", x), "", "bad_request", "id must be"},
		{"NaN id", fields("op", "ping", "id", raw("f97e00")), "", "bad_request", "not finite"},
		{"infinite id", fields("op", "ping", "id", raw("fa7f800000")), "", "bad_request", "not finite"},
		{"-infinite id", fields("op", "ping", "id", raw("fbfff0000000000000")), "", "bad_request", "not finite"},
		{"unknown op", fields("op", "explode", "id", 7), "07", "bad_request", "explode"},
		{"no op", fields("id", 7), "07", "bad_request", "op is missing"},
		{"null op", fields("op", nil, "id", 7), "07", "bad_request", "op is missing"},
		{"op of wrong type", fields("op", 7, "id", 7), "07", "bad_request", "at op"},
		{"op in bytes", fields("op", []byte("ping"), "id", 7), "07", "bad_request", "at op"},
		{"name in capitals", fields("OP", "ping", "id", 7), "07", "bad_request", "op is missing"},
		{"name in bytes", fields([]byte("op"), "ping", "id", 7), "", "bad_request", "name is not text"},
		{"name a number", fields(7, "ping"), "", "bad_request", "name is not text"},
		{"field of wrong type", fields("op", "get", "id", 7, "skus", "A"), "07", "bad_request", "at skus"},
		{"bytes in a list", fields("op", "get", "id", 7, "skus", list([]byte("A"))), "07", "bad_request", "at skus"},
		{"bytes for a list", fields("op", "get", "id", 7, "skus", []byte("A")), "07", "bad_request", "at skus"},
		{"line of wrong type", fields("op", "sell", "id", 7, "key", "k", "lines", list(fields("sku", "A", "quantity", "1"))), "07", "bad_request", "at lines"},
		{"line an array", fields("op", "sell", "id", 7, "key", "k", "lines", list(list("A", "main", 1))), "07", "bad_request", "at lines"},
		{"line null", fields("op", "sell", "id", 7, "key", "k", "lines", list(nil)), "07", "bad_request", "sku is missing"},
		{"good", adjust(-1), "07", "", ""},
		{"long head", adjust(raw("1b0000000000000001")), "07", "", ""},
		{"fraction", adjust(1.5), "07", "bad_request", "at delta"},
		{"integral float", adjust(2.0), "07", "bad_request", "at delta"},
		{"boolean for a number", adjust(true), "07", "bad_request", "at delta"},
		{"beyond 2^53", adjust(1 << 53), "07", "bad_request", "delta"},
		{"beyond int64", adjust(raw("1b8000000000000000")), "07", "bad_request", "at delta"},
		{"below int64", adjust(raw("3b8000000000000000")), "07", "bad_request", "at delta"},
		{"null number", adjust(nil), "07", "bad_request", "delta must be"},
		{"undefined number", adjust(raw("f7")), "07", "bad_request", "delta must be"},
		{"number for a boolean", fields("op", "subscribe", "id", 7, "all", 1), "07", "bad_request", "at all"},
		{"missing key", fields("op", "adjust", "id", 7, "sku", "A", "delta", 1), "07", "missing_key", "adjust"},
		{"null field", fields("op", "get", "id", 7, "skus", list("A"), "locations", nil), "07", "", ""},
		{"map without length", raw("bf" + "626f70" + "6470696e67" + "626964" + "07" + "ff"), "07", "", ""},
		{"list without length", fields("op", "get", "id", 7, "skus", raw("9f6141ff")), "07", "", ""},
		{"text in chunks", fields("op", raw("7f6470696e67ff"), "id", 7), "", "bad_request", "chunks"},
		{"name in chunks", raw("a1" + "7f626f70ff" + "6470696e67"), "", "bad_request", "chunks"},
		{"duplicate name", fields("op", "ping", "op", "ping", "id", 7), "", "bad_request", "duplicate"},
		{"duplicate id", fields("op", "ping", "id", 7, "id", 8), "", "bad_request", "duplicate"},
		{"duplicate unknown name", fields("op", "ping", "x", 1, "id", 7, "x", 1), "", "bad_request", "duplicate"},
		{"duplicate within", with(fields("a", 1, "b", 1, "a", 1)), "", "bad_request", "duplicate"},
		{"duplicate long name", with(fields("a long name", 1, "a long noun", 1, "a long name", 1)), "", "bad_request", "duplicate"},
		{"alike names", with(fields("a long name", 1, "a long noun", 1, "a long", 1, "a long\x00", 1)), "07", "", ""},
		{"the same name elsewhere", with(fields("op", 1, "in", fields("op", 1), "new", 1)), "07", "", ""},
		{"too many fields", fields(many...), "", "bad_request", "too many fields"},
		{"many unknown fields", with(fields(many[8:]...)), "07", "", ""},
		{"unknown bytes", with([]byte{0xff}), "07", "", ""},
		{"unknown fraction", with(1.5), "07", "", ""},
		{"unknown bad UTF-8", with(raw("61ff")), "", "bad_request", "UTF-8"},
		{"unknown name bad UTF-8", raw("a1" + "61ff" + "00"), "", "bad_request", "UTF-8"},
		{"bad UTF-8", fields("op", "get", "id", 7, "skus", list(raw("61ff"))), "", "bad_request", "UTF-8"},
		{"surrogate", fields("op", "get", "id", 7, "skus", list(raw("63eda080"))), "", "bad_request", "UTF-8"},
		{"time tag", with(raw("c11a00000000")), "", "bad_request", "tag"},
		{"simple value", with(raw("e0")), "", "bad_request", "simple"},
		{"long simple value", with(raw("f8ff")), "", "bad_request", "simple"},
		{"reserved head", with(raw("1c")), "", "bad_request", "head"},
		{"number without length", with(raw("1f")), "", "bad_request", "head"},
		{"break for a value", with(raw("ff")), "", "bad_request", "head"},
		{"break for a field's value", raw("bf" + "626f70" + "ff"), "", "bad_request", "head"},
		{"deep", with(deep(cborDepthMax - 1)), "07", "", ""},
		{"too deep", with(deep(cborDepthMax)), "", "bad_request", "deep"},
		{"trailing bytes", append(with(1), 0), "", "bad_request", "follows"},
		{"half a map", with(1)[:12], "", "bad_request", "too early"},
		{"half a head", raw("a1" + "6161" + "1900"), "", "bad_request", "too early"},
		{"long text cut", raw("a1" + "6161" + "7bffffffffffffffff"), "", "bad_request", "too early"},
		{"huge map", raw("bbffffffffffffffff"), "", "bad_request", "too early"},
	} {
		got, err := readCBOR(c.msg)
		if string(codeOf(err)) != c.code || hex.EncodeToString(got.ID) != c.id {
			t.Errorf("%s: id %x, error %v; want id %s, %q", c.name, []byte(got.ID), err, c.id, c.code)
		}
		if err != nil && !strings.Contains(err.Message, c.says) {
			t.Errorf("%s: says %q, want %q in it", c.name, err.Message, c.says)
		}
	}
}

// TestDecodeIsTheSameInBothCodecs: equal commands, equal refusals.
func TestDecodeIsTheSameInBothCodecs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := commands().Draw(t, "command")
		if rapid.Bool().Draw(t, "good") {
			c = good()[c.Op]
			c.Lines = append(c.Lines, Line{text().Draw(t, "sku"), text().Draw(t, "location"), numbers().Draw(t, "quantity")})
		}
		var a, b Command
		refusedA := JSON.Decode(&a, JSON.AppendMessage(nil, &c))
		refusedB := CBOR.Decode(&b, CBOR.AppendMessage(nil, &c))
		if d := cmp.Diff(refusedA, refusedB); d != "" {
			t.Fatalf("refusal (-JSON +CBOR):\n%s", d)
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Fatalf("command (-JSON +CBOR):\n%s", d)
		}
	})
}

func TestCBORTooLargeLikeJSON(t *testing.T) {
	for what, c := range map[string]Command{
		"lines": {Op: OpSell, Key: "k", Lines: manyLines(LinesMax + 1)},
		"skus":  {Op: OpSubscribe, SKUs: manyNames(SelectorsMax + 1)},
		"have":  {Op: OpSubscribe, All: true, Have: make([]Have, SelectorsMax+1)},
	} {
		var a, b Command
		refusedA, refusedB := JSON.Decode(&a, JSON.AppendMessage(nil, &c)), CBOR.Decode(&b, CBOR.AppendMessage(nil, &c))
		if codeOf(refusedA) != CodeTooLarge || codeOf(refusedB) != CodeTooLarge {
			t.Errorf("%s: %v, %v", what, refusedA, refusedB)
		}
	}
	got, err := readCBOR(fields("op", "subscribe", "skus", manyNames(SelectorsMax+1), "id", 7))
	if codeOf(err) != CodeTooLarge || !bytes.Equal(got.ID, []byte{7}) {
		t.Errorf("id %x, %v", []byte(got.ID), err)
	}
}

func TestDecodedCBORArrayKeepsItsOwnBytes(t *testing.T) {
	var all []any
	for i := range CommandsMax {
		all = append(all, fields("op", "get", "id", i, "skus", []string{strings.Repeat("s", i/3+1)}))
	}
	msg := list(all...)
	values, err := CBOR.Split(msg, CommandsMax)
	if err != nil || len(values) != CommandsMax {
		t.Fatal(len(values), err)
	}
	var reused Command
	for i, v := range values {
		reused = Command{ID: reused.ID[:0]}
		if err := CBOR.Decode(&reused, v); err != nil || !bytes.Equal(reused.ID, cborInt(nil, int64(i))) || len(reused.SKUs[0]) != i/3+1 {
			t.Errorf("%d: %+v, %v", i, reused, err)
		}
	}
	clear(msg)
	if reused.Op != OpGet || !bytes.Equal(reused.ID, cborInt(nil, CommandsMax-1)) {
		t.Errorf("the command changed with its message: %+v", reused)
	}
}

// cborBombs are small messages that promise much, or make a reader keep much.
func cborBombs() map[string][]byte {
	nulls := bytes.Repeat([]byte{0xf6}, MessageBytesMax)
	return map[string][]byte{
		"huge array":         fields("op", "get", "skus", raw("9b7fffffffffffffff")),
		"huge text":          fields("op", raw("7b7fffffffffffffff")),
		"huge map":           raw("bb7fffffffffffffff"),
		"many nulls":         fields("op", "subscribe", "all", true, "have", cbor.RawMessage(append(raw("9f"), append(nulls[:SelectorsMax:SelectorsMax], 0xff)...))),
		"too many nulls":     fields("op", "subscribe", "all", true, "have", cbor.RawMessage(append(raw("9f"), append(nulls, 0xff)...))),
		"nested":             bytes.Repeat([]byte{0x9f}, MessageBytesMax),
		"nested maps":        bytes.Repeat([]byte{0xbf, 0x60}, MessageBytesMax/2),
		"array of small":     append(append([]byte{0x9f}, bytes.Repeat([]byte{0xa0}, MessageBytesMax)...), 0xff),
		"commands of nulls":  append(append([]byte{0x9f}, nulls...), 0xff),
		"unknown full lists": fields("op", "ping", "x", cbor.RawMessage(append([]byte{0x99, 0x20, 0}, bytes.Repeat([]byte{0x80}, 0x2000)...))),
	}
}

func TestCBORBombsStaySmall(t *testing.T) {
	for name, msg := range cborBombs() {
		if used := bytesAllocated(func() { decodeAll(t, msg) }); used > allowance(msg) {
			t.Errorf("%s: %d bytes made of %d", name, used, len(msg))
		}
	}
}

// allowance is what a message may make a node allocate: an element of have is a
// struct of three texts, and null on the wire.
func allowance(msg []byte) uint64 { return 64*uint64(len(msg)) + 64<<10 }

func bytesAllocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// decodeAll takes a message as a node would and returns what was accepted.
func decodeAll(t require, msg []byte) (accepted []Command) {
	values, err := CBOR.Split(msg, CommandsMax)
	if err != nil && (len(values) > 0 || err.Code.Status() >= 500) {
		t.Fatalf("%x: %d values beside %v", msg, len(values), err)
	}
	for _, v := range values {
		var c Command
		if err := CBOR.Decode(&c, v); err == nil {
			accepted = append(accepted, c)
		} else if err.Code.Status() >= 500 {
			t.Fatalf("%x: %v", v, err)
		}
	}
	return accepted
}

// FuzzCBORDecode feeds any bytes to the reader of commands. What it accepts must
// be CBOR for others too, with an id that can be echoed, and must read the same
// when it is written again, in CBOR and in JSON.
func FuzzCBORDecode(f *testing.F) {
	for _, c := range good() {
		f.Add([]byte(fields("op", string(c.Op), "id", 7)))
		f.Add(CBOR.AppendMessage(nil, c))
	}
	for _, msg := range cborBombs() {
		f.Add(msg[:min(len(msg), 200)])
	}
	f.Add([]byte(list(fields("op", "ping", "id", "x"), fields("op", "get", "skus", list("A"), "new", fields("a", 1.5)))))
	f.Add([]byte(raw("bf626f706470696e676269641b0000000000000007ff")))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var accepted []Command
		if used := bytesAllocated(func() { accepted = decodeAll(t, msg) }); used > allowance(msg) {
			t.Fatalf("%d bytes made of %d", used, len(msg))
		}
		if len(accepted) > 0 {
			if err := cbor.Wellformed(msg); err != nil {
				t.Fatalf("%x was accepted: %v", msg, err)
			}
		}
		for i := range accepted {
			c := &accepted[i]
			if err := cbor.Wellformed(CBOR.AppendReply(nil, &Call{Command: *c})); err != nil {
				t.Fatalf("id %x was accepted: %v", []byte(c.ID), err)
			}
			c.ID = nil // its bytes are CBOR's own
			for _, codec := range []Codec{JSON, CBOR} {
				var again Command
				if err := codec.Decode(&again, codec.AppendMessage(nil, c)); err != nil {
					t.Fatalf("%+v written as %s: %v", c, codec.Subprotocol(), err)
				}
				if d := cmp.Diff(*c, again); d != "" {
					t.Fatalf("written as %s:\n%s", codec.Subprotocol(), d)
				}
			}
		}
	})
}
