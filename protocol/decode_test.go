package protocol

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		msg  string
		want []string
		code Code
	}{
		{`{"op":"ping"}`, []string{`{"op":"ping"}`}, ""},
		{" \r\n\t{\"op\":\"ping\"} \n", []string{`{"op":"ping"}`}, ""},
		{`[{"op":"ping"}]`, []string{`{"op":"ping"}`}, ""},
		{` [ {"a":[1,{"b":"]"}]} , {} ] `, []string{`{"a":[1,{"b":"]"}]}`, `{}`}, ""},
		{`[{},{},{}]`, []string{`{}`, `{}`, `{}`}, ""},
		{`[{},{},{},{}]`, nil, CodeTooLarge},
		{``, nil, CodeBadRequest},
		{" \n ", nil, CodeBadRequest},
		{`[]`, nil, CodeBadRequest},
		{`[{}`, nil, CodeBadRequest},
		{`[{},]`, nil, CodeBadRequest},
		{`[{}] {}`, nil, CodeBadRequest},
		{`[{},{},{},{}`, nil, CodeBadRequest},
		{`[7]`, nil, CodeBadRequest},
		{`[[{}]]`, nil, CodeBadRequest},
		{`[{} {}]`, nil, CodeBadRequest},
		{`[{"a":1,"a":2}]`, nil, CodeBadRequest},
		{`"ping"`, nil, CodeBadRequest},
		{`7`, nil, CodeBadRequest},
		{`null`, nil, CodeBadRequest},
		{`true`, nil, CodeBadRequest},
		{"\x00\xff", nil, CodeBadRequest},
		{"[\"\xff\"]", nil, CodeBadRequest},
		{strings.Repeat("[", 100_000), nil, CodeBadRequest},
		{`[` + strings.Repeat(`{"a":`, 100_000), nil, CodeBadRequest},
		{`[` + nested(jsonDepthMax-1) + `]`, []string{nested(jsonDepthMax - 1)}, ""},
		{`[` + nested(jsonDepthMax) + `]`, nil, CodeBadRequest},
		{nested(jsonDepthMax + 1), nil, CodeBadRequest},
		{`{"a":"\\\"` + strings.Repeat("{[", 100) + `"}`, []string{`{"a":"\\\"` + strings.Repeat("{[", 100) + `"}`}, ""},
	} {
		values, err := Split([]byte(c.msg), 3)
		var got []string
		for _, v := range values {
			got = append(got, string(v))
		}
		if d := cmp.Diff(c.want, got); d != "" || codeOf(err) != c.code {
			t.Errorf("%.60q: %v, %v", c.msg, err, d)
		}
	}
}

// nested is an object of so many levels.
func nested(levels int) string {
	return strings.Repeat(`{"a":`, levels) + "7" + strings.Repeat("}", levels)
}

func codeOf(err *Error) Code {
	if err == nil {
		return ""
	}
	return err.Code
}

// read splits and decodes a message of one command.
func read(msg string) (Command, *Error) {
	values, err := Split([]byte(msg), CommandsMax)
	if err != nil {
		return Command{}, err
	}
	var c Command
	err = c.Decode(values[0])
	return c, err
}

func TestDecodeTable(t *testing.T) {
	for _, c := range []struct{ name, msg, id, code, says string }{
		{"number id", `{"op":"ping","id":7}`, `7`, "", ""},
		{"string id", `{"op":"ping","id":"a\"b"}`, `"a\"b"`, "", ""},
		{"fraction id", `{"op":"ping","id":1.50}`, `1.50`, "", ""},
		{"huge id", `{"op":"ping","id":123456789012345678901234567890}`, `123456789012345678901234567890`, "", ""},
		{"null id", `{"op":"ping","id":null}`, `null`, "", ""},
		{"no id", `{"op":"ping"}`, ``, "", ""},
		{"id after what is wrong", `{"op":"adjust","delta":"x","id":7}`, `7`, "bad_request", "/delta"},
		{"boolean id", `{"op":"ping","id":true}`, ``, "bad_request", "id must be"},
		{"object id", `{"op":"ping","id":{}}`, ``, "bad_request", "id must be"},
		{"array id", `{"op":"ping","id":[1]}`, ``, "bad_request", "id must be"},
		{"long id", `{"op":"ping","id":"` + strings.Repeat("x", 300) + `"}`, ``, "bad_request", "id must be"},
		{"unknown field", `{"op":"ping","id":7,"colour":"red"}`, `7`, "", ""},
		{"unknown op", `{"op":"explode","id":7}`, `7`, "bad_request", "explode"},
		{"no op", `{"id":7}`, `7`, "bad_request", "op is missing"},
		{"op of wrong type", `{"op":7,"id":7}`, `7`, "bad_request", "/op"},
		{"field of wrong type", `{"op":"get","id":7,"skus":"A"}`, `7`, "bad_request", "/skus"},
		{"line of wrong type", `{"op":"sell","id":7,"key":"k","lines":[{"sku":"A","quantity":"1"}]}`, `7`, "bad_request", "/lines/0/quantity"},
		{"fraction", `{"op":"adjust","id":7,"key":"k","sku":"A","delta":1.5}`, `7`, "bad_request", "/delta"},
		{"exponent", `{"op":"adjust","id":7,"key":"k","sku":"A","delta":1e2}`, `7`, "bad_request", "/delta"},
		{"huge number", `{"op":"adjust","id":7,"key":"k","sku":"A","delta":99999999999999999999}`, `7`, "bad_request", "/delta"},
		{"beyond 2^53", `{"op":"adjust","id":7,"key":"k","sku":"A","delta":9007199254740992}`, `7`, "bad_request", "delta"},
		{"duplicate name", `{"op":"ping","op":"ping","id":7}`, ``, "bad_request", "duplicate"},
		{"trailing bytes", `{"op":"ping","id":7} x`, ``, "bad_request", "not valid JSON"},
		{"two objects", `{"op":"ping","id":7}{"op":"ping"}`, ``, "bad_request", "not valid JSON"},
		{"half an object", `{"op":"ping","id":7`, ``, "bad_request", "not valid JSON"},
		{"bad UTF-8", "{\"op\":\"get\",\"id\":7,\"skus\":[\"\xff\"]}", ``, "bad_request", "not valid JSON"},
		{"lone surrogate", `{"op":"get","id":7,"skus":["\ud800"]}`, ``, "bad_request", "not valid JSON"},
		{"surrogate pair", `{"op":"get","id":7,"skus":["\ud83d\ude00"]}`, `7`, "", ""},
		{"null field", `{"op":"get","id":7,"skus":["A"],"locations":null}`, `7`, "", ""},
		{"capitals in a name", `{"OP":"ping","id":7}`, `7`, "bad_request", "op is missing"},
		{"comment", `{"op":"ping"/* */}`, ``, "bad_request", "not valid JSON"},
		{"NaN", `{"op":"adjust","delta":NaN}`, ``, "bad_request", "not valid JSON"},
		{"missing key", `{"op":"adjust","id":7,"sku":"A","delta":1}`, `7`, "missing_key", "adjust"},
	} {
		got, err := read(c.msg)
		if string(codeOf(err)) != c.code || string(got.ID) != c.id {
			t.Errorf("%s: id %s, error %v; want id %s, %q", c.name, got.ID, err, c.id, c.code)
		}
		if err != nil && !strings.Contains(err.Message, c.says) {
			t.Errorf("%s: says %q, want %q in it", c.name, err.Message, c.says)
		}
	}
}

func TestDecodedArrayKeepsItsOwnBytes(t *testing.T) {
	var b strings.Builder
	for i := range CommandsMax {
		fmt.Fprintf(&b, `,{"op":"get","id":%d,"skus":["sku %d"]}`, i, i)
	}
	values, err := Split([]byte("["+b.String()[1:]+"]"), CommandsMax)
	if err != nil || len(values) != CommandsMax {
		t.Fatal(len(values), err)
	}
	for i, v := range values {
		var c Command
		if err := c.Decode(v); err != nil || string(c.ID) != fmt.Sprint(i) || c.SKUs[0] != fmt.Sprint("sku ", i) {
			t.Errorf("%d: %+v, %v", i, c, err)
		}
	}
}

func TestDecodeBody(t *testing.T) {
	for body, want := range map[string]Code{
		"": "", " ": "", `{}`: "", `{"sku":"A"}`: "", `{"nothing":1}`: "",
		`[]`: CodeBadRequest, `7`: CodeBadRequest, `{"sku":7}`: CodeBadRequest, `{`: CodeBadRequest, `{} x`: CodeBadRequest,
	} {
		var c Command
		if err := c.DecodeBody([]byte(body)); codeOf(err) != want {
			t.Errorf("%q: %v, want %q", body, err, want)
		}
	}
}

// FuzzSplitDecode feeds any bytes to the reader of commands. What it accepts
// must be valid JSON for others too, and must read the same when it is written
// again.
func FuzzSplitDecode(f *testing.F) {
	for _, c := range good() {
		c.ID = []byte("7")
		f.Add(AppendJSON(nil, c))
	}
	for _, s := range []string{`[{"op":"ping"},{"op":"get","skus":["A"]}]`, `[`, `{"op":"ping","id":1e999}`, "\xff", `{"id":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		values, err := Split(msg, CommandsMax)
		if err != nil {
			if len(values) > 0 {
				t.Fatalf("values beside %v", err)
			}
			return
		}
		for _, v := range values {
			var c Command
			if err := c.Decode(v); err != nil {
				if err.Code.Status() >= 500 {
					t.Fatalf("%s: %v", v, err)
				}
				continue
			}
			if !json.Valid(v) {
				t.Fatalf("%s was accepted", v)
			}
			var again Command
			if err := again.Decode(AppendJSON(nil, c)); err != nil {
				t.Fatalf("%s: written again: %v", v, err)
			}
			if string(again.AppendBody(nil)) != string(c.AppendBody(nil)) {
				t.Fatalf("%s: another body when written again", v)
			}
		}
	})
}
