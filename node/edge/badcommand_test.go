package edge_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// repeat is s so many times, joined by commas.
func repeat(n int, s string) string {
	return strings.TrimSuffix(strings.Repeat(s+",", n), ",")
}

// badCommands are refused with the code, and nothing of them is done.
var badCommands = map[protocol.Code]map[string][]string{
	protocol.CodeBadRequest: {
		"not JSON":       {`{`, `x`, ``, ` `, `{"op":"ping"`, `{"op":"ping"}}`, `{'op':'ping'}`, `{"op":"ping",}`, `[`, `[{"op":"ping"}`},
		"not a command":  {`1`, `"ping"`, `null`, `true`, `[]`, `[1]`, `[[]]`, `[null]`, `[{"op":"ping"},2]`, `{"op":"ping"} {"op":"ping"}`},
		"unknown ops":    {`{}`, `{"op":""}`, `{"op":"Ping"}`, `{"op":"drop"}`, `{"op":"hello"}`, `{"op":"stock"}`, `{"op":" ping"}`, `{"op":"ping\u0000"}`, `{"op":"é"}`, `{"op":"` + strings.Repeat("x", 1000) + `"}`},
		"wrong types":    {`{"op":1}`, `{"op":null,"id":1}`, `{"op":["ping"]}`, `{"op":"get","skus":"A"}`, `{"op":"get","skus":[1]}`, `{"op":"sell","key":"k","lines":{}}`, `{"op":"sell","key":1,"lines":[]}`, `{"op":"adjust","key":"k","sku":"A","delta":"1"}`, `{"op":"subscribe","all":"yes"}`, `{"op":"ping","id":{}}`},
		"no integers":    {qty("1.5"), qty("1e400"), qty(`"2"`), qty("null"), qty("true"), qty("[]"), qty("0.1"), qty("1e-3"), qty("{}"), qty("9007199254740993.5")},
		"negative":       {qty("-1"), qty("0"), qty("-9007199254740991"), qty("-9223372036854775808"), `{"op":"count","key":"k","sku":"A","on_hand":-1}`, `{"op":"adjust","key":"k","sku":"A","delta":0}`, `{"op":"move","key":"k","sku":"A","from":"main","to":"x","quantity":-1}`, `{"op":"configure","key":"k","sku":"A","low_stock":-1}`, `{"op":"reserve","key":"k","lines":[{"sku":"A","quantity":1}],"ttl_ms":-1}`, `{"op":"subscribe","all":true,"interval_ms":-1}`},
		"huge":           {qty("9007199254740992"), qty("9223372036854775807"), qty("9223372036854775808"), qty("1e30"), `{"op":"count","key":"k","sku":"A","on_hand":9007199254740992}`, `{"op":"adjust","key":"k","sku":"A","delta":-9007199254740992}`, `{"op":"adjust","key":"k","sku":"A","delta":99999999999999999999}`, `{"op":"reserve","key":"k","lines":[{"sku":"A","quantity":1}],"ttl_ms":14400001}`, `{"op":"history","sku":"A","limit":501}`, `{"op":"configure","key":"k","sku":"A","safety_stock":9007199254740992}`},
		"bad names":      {sku(`\u0000`), sku(`a\nb`), sku(`\u007f`), sku(`\u0085`), sku(`\u009f`), sku(`\t`), sku(``), sku(strings.Repeat("x", 129)), sku(strings.Repeat("é", 65)), `{"op":"get","skus":["A"],"locations":["\u001b"]}`},
		"bad versions":   {since("eu"), since("eu:"), since("eu:0"), since("eu:01"), since("eu:-1"), since("us:1,eu:1"), since("EU:1"), since("eu:1,eu:2"), since("eu:99999999999999999999"), since(",")},
		"half a command": {`{"op":"subscribe"}`, `{"op":"get"}`, `{"op":"sell","key":"k"}`, `{"op":"sell","key":"k","lines":[]}`, `{"op":"count","key":"k","sku":"A"}`, `{"op":"confirm","key":"k"}`, `{"op":"move","key":"k","sku":"A","from":"x","to":"x","quantity":1}`, `{"op":"configure","key":"k","sku":"A"}`, `{"op":"outcome"}`, `{"op":"extend","key":"k","reservation":"eu.1"}`},
		"deep nesting":   {strings.Repeat("[", 60000), strings.Repeat(`{"a":`, 12000), `{"op":"ping","x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`, `[` + strings.Repeat(`{"op":`, 5000), `{"op":` + strings.Repeat("[", 20000) + `}`, strings.Repeat(`[{"op":"ping"},`, 3000), `{"id":` + strings.Repeat("[", 11000) + strings.Repeat("]", 11000) + `,"op":"ping"}`, strings.Repeat(" ", 60000) + "[", `{"op":"get","skus":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, strings.Repeat("[", 10001) + strings.Repeat("]", 10001)},
	},
	protocol.CodeMissingKey: {
		"no key": {`{"op":"adjust","sku":"A","delta":1}`, `{"op":"count","sku":"A","on_hand":1}`, `{"op":"reserve","lines":[{"sku":"A","quantity":1}]}`, `{"op":"confirm","reservation":"eu.1"}`, `{"op":"release","reservation":"eu.1"}`, `{"op":"extend","reservation":"eu.1","ttl_ms":1000}`, `{"op":"sell","lines":[{"sku":"A","quantity":1}]}`, `{"op":"move","sku":"A","from":"a","to":"b","quantity":1}`, `{"op":"configure","sku":"A","low_stock":1}`, `{"op":"adjust","key":"","sku":"A","delta":1}`},
	},
	protocol.CodeTooLarge: {
		"too much": {
			`{"op":"sell","key":"k","lines":[` + repeat(101, `{"sku":"A","quantity":1}`) + `]}`,
			`{"op":"reserve","key":"k","lines":[` + repeat(101, `{"sku":"A","quantity":1}`) + `]}`,
			`{"op":"sell","key":"k","lines":[` + repeat(1000, `{"sku":"A","quantity":1}`) + `]}`,
			`[` + repeat(257, `{"op":"ping"}`) + `]`,
			`[` + repeat(4000, `{"op":"ping"}`) + `]`,
			`{"op":"get","skus":[` + repeat(1001, `"A"`) + `]}`,
			`{"op":"get","skus":[` + repeat(150, `"A"`) + `],"locations":[` + repeat(150, `"x"`) + `]}`,
			`{"op":"subscribe","skus":[` + repeat(10001, `"A"`) + `]}`,
			`{"op":"subscribe","users":[` + repeat(10001, `"A"`) + `]}`,
			`{"op":"subscribe","skus":[` + repeat(150, `"A"`) + `],"locations":[` + repeat(150, `"x"`) + `]}`,
		},
	},
	protocol.CodeKeyReused: {
		"another body": {`{"op":"count","key":"used","sku":"B","on_hand":5}`, `{"op":"count","key":"used","sku":"A","on_hand":6}`, `{"op":"count","key":"used","sku":"A","on_hand":5,"location":"x"}`, `{"op":"adjust","key":"used","sku":"A","delta":5}`, `{"op":"count","key":"used","sku":"A","on_hand":5,"reason":"x"}`, `{"op":"count","key":"used","sku":"A","on_hand":5,"reference":"x"}`, `{"op":"count","key":"used","sku":"A","on_hand":5,"if_version":"eu:1"}`, `{"op":"sell","key":"used","lines":[{"sku":"A","quantity":1}]}`, `{"op":"configure","key":"used","sku":"A","low_stock":5}`, `{"op":"reserve","key":"used","lines":[{"sku":"A","quantity":1}]}`},
	},
	protocol.CodeNotFound: {
		"nobody's": {`{"op":"reservation","reservation":"eu.x"}`, `{"op":"reservation","reservation":"x"}`, `{"op":"confirm","key":"n","reservation":"eu.x"}`, `{"op":"release","key":"n","reservation":"eu.x"}`, `{"op":"extend","key":"n","reservation":"eu.x","ttl_ms":5000}`, `{"op":"history","sku":"A","region":"us"}`, `{"op":"adjust","key":"n","home":"us","sku":"A","delta":1}`, `{"op":"outcome","key":"n","home":"us"}`, `{"op":"sell","key":"n","home":"us","lines":[{"sku":"A","quantity":1}]}`, `{"op":"reservation","reservation":"\ud83d\ude00"}`},
	},
}

func qty(n string) string {
	return `{"op":"sell","key":"k","lines":[{"sku":"A","quantity":` + n + `}]}`
}
func sku(s string) string   { return `{"op":"adjust","key":"k","delta":1,"sku":"` + s + `"}` }
func since(s string) string { return `{"op":"subscribe","all":true,"since":"` + s + `"}` }

func TestBadCommands(t *testing.T) {
	f := startReal(t)
	honest := f.dial()
	honest.ok(`{"op":"count","key":"used","sku":"A","on_hand":5}`)
	honest.subscribe(`"all":true`)
	for code, kinds := range badCommands {
		for kind, commands := range kinds {
			t.Run(string(code)+"/"+kind, func(t *testing.T) {
				if len(commands) != 10 {
					t.Errorf("%d commands", len(commands))
				}
				p := f.dial()
				before := measure(t)
				for _, c := range commands {
					p.send(c)
					if m := p.next(); m.Error == nil || m.Error.Code != code || m.Error.Message == "" {
						t.Errorf("%.120s: got %.200s", c, m.raw)
					}
				}
				if rest := p.settle(); len(rest) > 0 {
					t.Errorf("one command, more than one reply: %v", rest)
				}
				before.backTo(t, 2<<20)
				p.conn.Close()
			})
		}
	}
	if changes := items(honest.settle()); len(changes) > 0 {
		t.Fatalf("something was done: %v", changes)
	}
	if got := items([]message{{Op: "stock", Items: get(t, honest, "A")}}); fmt.Sprint(got) != "[A@main=5]" {
		t.Fatal(got)
	}
}
