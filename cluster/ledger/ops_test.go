package ledger

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Shorthands of the tables below: the answers' JSON without what never varies.
func shown(sku, rest string) string {
	return `{"sku":"` + sku + `","location":"main",` + rest + `,"updated_at":"1970-01-01T00:00:01.000Z"`
}

func short(line string) string {
	return `,"retryable":false,"retry_after_ms":0,"details":{"lines":[` + line + `]}}`
}

const (
	adjustA10 = `{"op":"adjust","sku":"A","delta":10}`
	plain     = `,"retryable":false,"retry_after_ms":0}`
	tooFar    = `{"code":"bad_request","message":"a total would leave +-(2^53-1)"` + plain
	maxA      = `{"op":"adjust","sku":"A","delta":9007199254740991}`
)

// TestOps gives each command after others, all in rounds of their own, and wants
// exactly the answer.
func TestOps(t *testing.T) {
	for _, tt := range []struct {
		name  string
		given []string
		do    string
		want  string
	}{
		// adjust
		{"adjust creates", nil, adjustA10,
			`{"item":` + shown("A", `"available":10,"on_hand":10,"reserved":0,"version":"eu:1"`) + `}}`},
		{"adjust out", []string{adjustA10}, `{"op":"adjust","sku":"A","delta":-10}`,
			`{"item":` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `}}`},
		{"adjust below zero", []string{adjustA10}, `{"op":"adjust","sku":"A","delta":-11}`,
			`{"code":"insufficient_stock","message":"11 of \"A\" at \"main\" requested, 10 available"` +
				short(`{"sku":"A","location":"main","requested":11,"available":10,"elsewhere":0}`)},
		{"adjust below what is reserved", []string{adjustA10, `{"op":"reserve","lines":[{"sku":"A","quantity":4}]}`},
			`{"op":"adjust","sku":"A","delta":-7}`,
			`{"code":"insufficient_stock","message":"7 of \"A\" at \"main\" requested, 6 available"` +
				short(`{"sku":"A","location":"main","requested":7,"available":6,"elsewhere":0}`)},
		{"adjust may take safety stock", []string{adjustA10, `{"op":"configure","sku":"A","safety_stock":8}`},
			`{"op":"adjust","sku":"A","delta":-10}`,
			`{"item":` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:3"`) + `}}`},
		{"adjust may not take on backorder", []string{adjustA10, `{"op":"configure","sku":"A","backorder_limit":8}`},
			`{"op":"adjust","sku":"A","delta":-11}`,
			`{"code":"insufficient_stock","message":"11 of \"A\" at \"main\" requested, 10 available"` +
				short(`{"sku":"A","location":"main","requested":11,"available":10,"elsewhere":0}`)},
		{"adjust to the limit", nil, maxA,
			`{"item":` + shown("A", `"available":9007199254740991,"on_hand":9007199254740991,"reserved":0,"version":"eu:1"`) + `}}`},
		{"adjust beyond the limit", []string{maxA}, `{"op":"adjust","sku":"A","delta":1}`, tooFar},

		// if_version
		{"only if it does not exist", nil, `{"op":"adjust","sku":"A","delta":1,"if_version":""}`,
			`{"item":` + shown("A", `"available":1,"on_hand":1,"reserved":0,"version":"eu:1"`) + `}}`},
		{"it does exist", []string{adjustA10}, `{"op":"adjust","sku":"A","delta":1,"if_version":""}`,
			`{"code":"version_conflict","message":"\"A\" at \"main\" is at version \"eu:1\", not \"\"","retryable":false,"retry_after_ms":0,"details":{"item":` +
				shown("A", `"available":10,"on_hand":10,"reserved":0,"version":"eu:1"`) + `}}}`},
		{"it does not exist", nil, `{"op":"count","sku":"A","on_hand":1,"if_version":"eu:1"}`,
			`{"code":"version_conflict","message":"\"A\" at \"main\" is at version \"\", not \"eu:1\"","retryable":false,"retry_after_ms":0,"details":{"item":` +
				`{"sku":"A","location":"main","available":0,"on_hand":0,"reserved":0,"version":""}}}`},
		{"the right version", []string{adjustA10}, `{"op":"count","sku":"A","on_hand":3,"if_version":"eu:1"}`,
			`{"item":` + shown("A", `"available":3,"on_hand":3,"reserved":0,"version":"eu:2"`) + `}}`},
		{"a conflict comes before a shortage", []string{adjustA10}, `{"op":"adjust","sku":"A","delta":-99,"if_version":"eu:2"}`,
			`{"code":"version_conflict","message":"\"A\" at \"main\" is at version \"eu:1\", not \"eu:2\"","retryable":false,"retry_after_ms":0,"details":{"item":` +
				shown("A", `"available":10,"on_hand":10,"reserved":0,"version":"eu:1"`) + `}}}`},

		// count
		{"count", []string{adjustA10}, `{"op":"count","sku":"A","on_hand":0}`,
			`{"item":` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `}}`},
		{"count finds what was expected", []string{adjustA10}, `{"op":"count","sku":"A","on_hand":10}`,
			`{"item":` + shown("A", `"available":10,"on_hand":10,"reserved":0,"version":"eu:2"`) + `}}`},
		{"count of nothing creates", nil, `{"op":"count","sku":"A","on_hand":0}`,
			`{"item":` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:1"`) + `}}`},
		{"count below what is reserved", []string{adjustA10, `{"op":"reserve","lines":[{"sku":"A","quantity":4}]}`},
			`{"op":"count","sku":"A","on_hand":3}`,
			`{"code":"insufficient_stock","message":"7 of \"A\" at \"main\" requested, 6 available"` +
				short(`{"sku":"A","location":"main","requested":7,"available":6,"elsewhere":0}`)},
		{"count where units are owed", []string{`{"op":"configure","sku":"A","backorder_limit":5}`, `{"op":"sell","lines":[{"sku":"A","quantity":5}]}`},
			`{"op":"count","sku":"A","on_hand":2}`,
			`{"item":` + shown("A", `"available":7,"on_hand":2,"reserved":0,"version":"eu:3"`) + `}}`},

		// sell
		{"sell", []string{adjustA10}, `{"op":"sell","lines":[{"sku":"A","quantity":10}]}`,
			`{"items":[` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `}]}`},
		{"sell sums lines and changes the item once", []string{adjustA10, `{"op":"adjust","sku":"B","delta":1}`},
			`{"op":"sell","lines":[{"sku":"A","quantity":4},{"sku":"B","quantity":1},{"sku":"A","quantity":6}]}`,
			`{"items":[` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `},` +
				shown("B", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `}]}`},
		{"sell is short of summed lines", []string{adjustA10, `{"op":"adjust","sku":"B","delta":1}`},
			`{"op":"sell","lines":[{"sku":"A","quantity":5},{"sku":"B","quantity":1},{"sku":"A","quantity":6},{"sku":"C","quantity":2}]}`,
			`{"code":"insufficient_stock","message":"11 of \"A\" at \"main\" requested, 10 available, and others"` +
				short(`{"sku":"A","location":"main","requested":11,"available":10,"elsewhere":0},{"sku":"C","location":"main","requested":2,"available":0,"elsewhere":0}`)},
		{"sell a hundred times the largest quantity", []string{maxA},
			`{"op":"sell","lines":[` + strings.Repeat(`{"sku":"A","quantity":9007199254740991},`, 99) + `{"sku":"A","quantity":9007199254740991}]}`,
			`{"code":"insufficient_stock","message":"900719925474099100 of \"A\" at \"main\" requested, 9007199254740991 available"` +
				short(`{"sku":"A","location":"main","requested":900719925474099100,"available":9007199254740991,"elsewhere":0}`)},
		{"sell keeps safety stock", []string{adjustA10, `{"op":"configure","sku":"A","safety_stock":8}`},
			`{"op":"sell","lines":[{"sku":"A","quantity":3}]}`,
			`{"code":"insufficient_stock","message":"3 of \"A\" at \"main\" requested, 2 available"` +
				short(`{"sku":"A","location":"main","requested":3,"available":2,"elsewhere":0}`)},
		{"safety stock above what is there", []string{adjustA10, `{"op":"configure","sku":"A","safety_stock":11}`},
			`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`,
			`{"code":"insufficient_stock","message":"1 of \"A\" at \"main\" requested, 0 available"` +
				short(`{"sku":"A","location":"main","requested":1,"available":0,"elsewhere":0}`)},
		{"sell on backorder", []string{`{"op":"configure","sku":"A","backorder_limit":5}`}, `{"op":"sell","lines":[{"sku":"A","quantity":5}]}`,
			`{"items":[` + shown("A", `"available":0,"on_hand":-5,"reserved":0,"version":"eu:2"`) + `}]}`},
		{"backorder behind safety stock", []string{adjustA10, `{"op":"configure","sku":"A","backorder_limit":5,"safety_stock":3}`},
			`{"op":"sell","lines":[{"sku":"A","quantity":13}]}`,
			`{"code":"insufficient_stock","message":"13 of \"A\" at \"main\" requested, 12 available"` +
				short(`{"sku":"A","location":"main","requested":13,"available":12,"elsewhere":0}`)},

		// configure
		{"configure creates", nil, `{"op":"configure","sku":"A","low_stock":3}`,
			`{"item":` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:1"`) + `,"low":true}}`},
		{"configure below what is held", []string{adjustA10, `{"op":"configure","sku":"A","backorder_limit":5}`, `{"op":"reserve","lines":[{"sku":"A","quantity":15}]}`},
			`{"op":"configure","sku":"A","backorder_limit":0,"safety_stock":9007199254740991}`,
			`{"item":` + shown("A", `"available":0,"on_hand":10,"reserved":15,"version":"eu:4"`) + `}}`},
		{"omitted settings stay", []string{adjustA10, `{"op":"configure","sku":"A","safety_stock":2,"low_stock":8}`}, `{"op":"configure","sku":"A","backorder_limit":1}`,
			`{"item":` + shown("A", `"available":9,"on_hand":10,"reserved":0,"version":"eu:3"`) + `}}`},
		{"low at its limit", []string{adjustA10}, `{"op":"configure","sku":"A","low_stock":10}`,
			`{"item":` + shown("A", `"available":10,"on_hand":10,"reserved":0,"version":"eu:2"`) + `,"low":true}}`},
		{"low never set", []string{adjustA10}, `{"op":"sell","lines":[{"sku":"A","quantity":10}]}`,
			`{"items":[` + shown("A", `"available":0,"on_hand":0,"reserved":0,"version":"eu:2"`) + `}]}`},
		{"shown available stays in range", []string{maxA}, `{"op":"configure","sku":"A","backorder_limit":9007199254740991}`,
			`{"item":` + shown("A", `"available":9007199254740991,"on_hand":9007199254740991,"reserved":0,"version":"eu:2"`) + `}}`},

		// move
		{"move", []string{adjustA10}, `{"op":"move","sku":"A","from":"main","to":"shop","quantity":4}`,
			`{"items":[` + shown("A", `"available":6,"on_hand":6,"reserved":0,"version":"eu:2"`) + `},` +
				strings.Replace(shown("A", `"available":4,"on_hand":4,"reserved":0,"version":"eu:1"`), "main", "shop", 1) + `}]}`},
		{"move more than is there", []string{adjustA10}, `{"op":"move","sku":"A","from":"main","to":"shop","quantity":11}`,
			`{"code":"insufficient_stock","message":"11 of \"A\" at \"main\" requested, 10 available"` +
				short(`{"sku":"A","location":"main","requested":11,"available":10,"elsewhere":0}`)},
		{"move beyond the limit", []string{maxA, `{"op":"adjust","sku":"A","location":"shop","delta":1}`},
			`{"op":"move","sku":"A","from":"shop","to":"main","quantity":1}`, tooFar},

		// reserve
		{"reserve", []string{adjustA10}, `{"op":"reserve","user":"u1","ttl_ms":5000,"lines":[{"sku":"A","quantity":2},{"sku":"A","quantity":3}]}`,
			`{"reservation":{"id":"` + firstReservation + `","state":"held","expires_at":"1970-01-01T00:00:06.000Z",` +
				`"lines":[{"sku":"A","location":"main","quantity":2},{"sku":"A","location":"main","quantity":3}],"user":"u1"}}`},
		{"reserve all or nothing", []string{adjustA10}, `{"op":"reserve","lines":[{"sku":"A","quantity":2},{"sku":"B","quantity":3}]}`,
			`{"code":"insufficient_stock","message":"3 of \"B\" at \"main\" requested, 0 available"` +
				short(`{"sku":"B","location":"main","requested":3,"available":0,"elsewhere":0}`)},
		{"confirm of nothing", nil, `{"op":"confirm","reservation":"eu.X"}`,
			`{"code":"not_found","message":"no reservation \"eu.X\""` + plain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newDesk(t)
			for _, c := range tt.given {
				if got := k.do(c); strings.Contains(got, `"code"`) {
					t.Fatalf("%s: %s", c, got)
				}
			}
			before := k.state.Digest()
			got := k.do(tt.do)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatalf("-want +got\n%s", diff)
			}
			if refused := strings.Contains(got, `"code"`); refused != (k.state.Digest() == before) {
				t.Fatalf("refused %v, but the state changed: %v", refused, k.state.Digest() != before)
			}
		})
	}
}
