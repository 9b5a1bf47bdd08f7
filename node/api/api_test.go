package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	itemA7   = `{"sku":"A","location":"main","available":7,"on_hand":7,"reserved":0,"version":"eu:1","updated_at":"2023-11-14T22:13:20.000Z"}`
	zeroNone = `{"sku":"none","location":"main","available":0,"on_hand":0,"reserved":0,"version":""}`
)

func TestRoutesAnswer(t *testing.T) {
	held := `{"reservation":{"id":"eu.1","state":"held","expires_at":"2023-11-14T22:23:20.000Z","lines":[{"sku":"A","location":"main","quantity":2}],"user":"u"}}`
	steps := []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		want                       string   // the body, or how it begins if it ends in ...
		wantHeaders                []string // "Name: value"
	}{
		{"adjust", "POST", "/v1/adjustments", `{"sku":"A","delta":7,"key":"k1"}`, nil, 200, `{"item":` + itemA7 + `}`,
			[]string{`ETag: "eu:1"`, "Cache-Control: no-store", "Content-Type: application/json", "Idempotent-Replayed: "}},
		{"replay", "POST", "/v1/adjustments", `{"sku":"A","delta":7}`, []string{"Idempotency-Key: k1"}, 200, `{"item":` + itemA7 + `}`,
			[]string{"Idempotent-Replayed: true"}},
		{"item", "GET", "/v1/stock/A", "", nil, 200, `{"item":` + itemA7 + `}`, []string{`ETag: "eu:1"`, "Cache-Control: no-cache"}},
		{"item, head", "HEAD", "/v1/stock/A", "", nil, 200, `{"item":` + itemA7 + `}`, []string{`ETag: "eu:1"`}},
		{"item, elsewhere", "GET", "/v1/stock/A?location=x", "", nil, 200, `{"item":{"sku":"A","location":"x","available":0,...`, []string{`ETag: ""`}},
		{"item, unchanged", "GET", "/v1/stock/A", "", []string{`If-None-Match: "us:4", W/"eu:1"`}, 304, "", []string{`ETag: "eu:1"`}},
		{"item, any", "GET", "/v1/stock/A", "", []string{`If-None-Match: *`}, 304, "", nil},
		{"item, none of any", "GET", "/v1/stock/none", "", []string{`If-None-Match: *`}, 200, `{"item":` + zeroNone + `}`, nil},
		{"item, behind", "GET", "/v1/stock/A?at_least=eu:2", "", nil, 200, `{"item":` + itemA7 + `,"behind":true}`, nil},
		{"page", "GET", "/v1/stock", "", nil, 200, `{"items":[` + itemA7 + `],"next":""}`, []string{"Cache-Control: no-cache"}},
		{"page of names", "GET", "/v1/stock?sku=none&sku=A&sku=A", "", nil, 200, `{"items":[` + itemA7 + "," + zeroNone + `],"next":""}`, nil},
		{"page, behind", "GET", "/v1/stock?sku=A&at_least=eu:9", "", nil, 200, `{"items":[` + itemA7 + `],"next":"","behind":true}`, nil},
		{"reserve", "POST", "/v1/reservations", `{"lines":[{"sku":"A","quantity":2}],"user":"u"}`, []string{"Idempotency-Key: k2"}, 201, held,
			[]string{"Location: /v1/reservations/eu.1"}},
		{"reserve again", "POST", "/v1/reservations", `{"lines":[{"sku":"A","quantity":2}],"user":"u"}`, []string{"Idempotency-Key: k2"}, 201, held,
			[]string{"Location: /v1/reservations/eu.1", "Idempotent-Replayed: true"}},
		{"reservation", "GET", "/v1/reservations/eu.1", "", nil, 200, held, nil},
		{"extend", "POST", "/v1/reservations/eu.1/extend", `{"ttl_ms":3600000,"key":"k3"}`, nil, 200,
			`{"reservation":{"id":"eu.1","state":"held","expires_at":"2023-11-14T23:13:20.000Z",...`, nil},
		{"confirm without a body", "POST", "/v1/reservations/eu.1/confirm", "", []string{"Idempotency-Key: k4"}, 200,
			`{"reservation":{"id":"eu.1","state":"confirmed",...`, nil},
		{"release", "POST", "/v1/reservations/eu.1/release", `{"key":"k5"}`, nil, 409, `{"type":"urn:stockmesh:error:reservation_ended",...`, nil},
		{"count", "POST", "/v1/counts", `{"sku":"B","on_hand":3,"key":"k6"}`, []string{`If-Match: ""`}, 200, `{"item":{"sku":"B",...`, []string{`ETag: "eu:1"`}},
		{"move", "POST", "/v1/moves", `{"sku":"B","from":"main","to":"shop","quantity":1,"key":"k7"}`, nil, 200, `{"items":[{"sku":"B","location":"main","available":2,...`, nil},
		{"sale", "POST", "/v1/sales", `{"lines":[{"sku":"B","quantity":1}],"key":"k8"}`, nil, 200, `{"items":[{"sku":"B","location":"main","available":1,...`, nil},
		{"settings", "PUT", "/v1/stock/B/settings?location=shop", `{"low_stock":5,"key":"k9"}`, nil, 200,
			`{"item":{"sku":"B","location":"shop","available":1,"on_hand":1,"reserved":0,"version":"eu:2","updated_at":"2023-11-14T22:13:20.000Z","low":true}}`, []string{`ETag: "eu:2"`}},
		{"history", "GET", "/v1/stock/B/history?limit=1", "", nil, 200, `{"movements":[{"sequence":"eu.0.000007.0",...`, nil},
		{"outcome", "GET", "/v1/outcomes/k1?home=eu", "", nil, 200, `{"known":true,"reply":{"ok":{"item":` + itemA7 + `}}}`, nil},
		{"outcome, none", "GET", "/v1/outcomes/a%2Fb", "", nil, 200, `{"known":false}`, nil},
		{"mesh", "GET", "/v1/mesh", "", nil, 200, `{"region":"eu","node":"eu-1",...`, nil},
		{"batch", "POST", "/v1/batch", `[{"op":"adjust","id":1,"sku":"C","delta":5,"key":"b1"},{"op":"sell","id":"x","lines":[{"sku":"C","quantity":6}],"key":"b2"},{"op":"subscribe","id":3,"all":true},{"op":"get","skus":["none"]},7e]`,
			nil, 400, `{"type":"urn:stockmesh:error:bad_request",...`, nil},
	}
	f := newFixture(t)
	for _, s := range steps {
		w := f.do(s.method, s.target, s.body, s.headers...)
		got := w.Body.String()
		if begin, cut := strings.CutSuffix(s.want, "..."); cut {
			got = got[:min(len(got), len(begin))]
			s.want = begin
		}
		if w.Code != s.status || got != s.want {
			t.Errorf("%s: got %d %s\nwant %d %s", s.name, w.Code, w.Body, s.status, s.want)
		}
		for _, h := range s.wantHeaders {
			name, value, _ := strings.Cut(h, ": ")
			if w.Header().Get(name) != value {
				t.Errorf("%s: %s is %q, want %q", s.name, name, w.Header().Get(name), value)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	key := "Idempotency-Key: k"
	long := strings.Repeat("x", protocol.MessageBytesMax+1)
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		want                       protocol.Code
	}{
		{"no route", "GET", "/v1/nothing", "", nil, protocol.CodeNotFound},
		{"no sku", "GET", "/v1/stock/", "", nil, protocol.CodeNotFound},
		{"wrong method", "DELETE", "/v1/stock/A", "", nil, protocol.CodeMethodNotAllowed},
		{"bad query", "GET", "/v1/stock?sku=%zz", "", nil, protocol.CodeBadRequest},
		{"empty sku", "GET", "/v1/stock?sku=", "", nil, protocol.CodeBadRequest},
		{"control character", "GET", "/v1/stock/a%00b", "", nil, protocol.CodeBadRequest},
		{"not UTF-8", "GET", "/v1/stock/%ff", "", nil, protocol.CodeBadRequest},
		{"limit word", "GET", "/v1/stock?limit=many", "", nil, protocol.CodeBadRequest},
		{"limit zero", "GET", "/v1/stock?limit=0", "", nil, protocol.CodeBadRequest},
		{"limit high", "GET", "/v1/stock?limit=1001", "", nil, protocol.CodeBadRequest},
		{"limit twice", "GET", "/v1/stock?limit=1&limit=2", "", nil, protocol.CodeBadRequest},
		{"after of another kind", "GET", "/v1/stock?after=xyz", "", nil, protocol.CodeBadRequest},
		{"at_least of nothing", "GET", "/v1/stock?at_least=eu:1", "", nil, protocol.CodeBadRequest},
		{"at_least", "GET", "/v1/stock/A?at_least=7", "", nil, protocol.CodeBadRequest},
		{"wait_ms", "GET", "/v1/stock/A?wait_ms=60001", "", nil, protocol.CodeBadRequest},
		{"wait_ms word", "GET", "/v1/stock/A?wait_ms=", "", nil, protocol.CodeBadRequest},
		{"If-None-Match", "GET", "/v1/stock/A", "", []string{"If-None-Match: eu:1"}, protocol.CodeBadRequest},
		{"history limit", "GET", "/v1/stock/A/history?limit=501", "", nil, protocol.CodeBadRequest},
		{"history region", "GET", "/v1/stock/A/history?region=EU", "", nil, protocol.CodeBadRequest},
		{"no reservation", "GET", "/v1/reservations/eu.9", "", nil, protocol.CodeNotFound},
		{"stream of nothing", "GET", "/v1/stream", "", nil, protocol.CodeBadRequest},
		{"stream, all", "GET", "/v1/stream?all=maybe", "", nil, protocol.CodeBadRequest},
		{"stream, resume", "GET", "/v1/stream?all", "", []string{"Last-Event-ID: 12"}, protocol.CodeBadRequest},

		{"no key", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, nil, protocol.CodeMissingKey},
		{"keys differ", "POST", "/v1/adjustments", `{"sku":"A","delta":1,"key":"other"}`, []string{key}, protocol.CodeBadRequest},
		{"two keys", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, key}, protocol.CodeBadRequest},
		{"empty key", "POST", "/v1/adjustments", `{"sku":"A","delta":1,"key":"k"}`, []string{"Idempotency-Key: "}, protocol.CodeBadRequest},
		{"key not UTF-8", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{"Idempotency-Key: \xff"}, protocol.CodeBadRequest},
		{"not JSON", "POST", "/v1/adjustments", `sku=A`, []string{key}, protocol.CodeBadRequest},
		{"an array", "POST", "/v1/adjustments", `[]`, []string{key}, protocol.CodeBadRequest},
		{"wrong type", "POST", "/v1/adjustments", `{"sku":"A","delta":"1"}`, []string{key}, protocol.CodeBadRequest},
		{"another op", "POST", "/v1/adjustments", `{"op":"sell","sku":"A","delta":1}`, []string{key}, protocol.CodeBadRequest},
		{"text", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, "Content-Type: image/png"}, protocol.CodeBadRequest},
		{"too large", "POST", "/v1/adjustments", long, []string{key}, protocol.CodeTooLarge},
		{"If-Match any", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, "If-Match: *"}, protocol.CodeBadRequest},
		{"If-Match bare", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, "If-Match: eu:1"}, protocol.CodeBadRequest},
		{"If-Match weak", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, `If-Match: W/"eu:1"`}, protocol.CodeBadRequest},
		{"If-Match two", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, `If-Match: "eu:1", "eu:2"`}, protocol.CodeBadRequest},
		{"If-Match open", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, `If-Match: "eu:1`}, protocol.CodeBadRequest},
		{"If-Match differs", "POST", "/v1/adjustments", `{"sku":"A","delta":1,"if_version":"eu:2"}`, []string{key, `If-Match: "eu:1"`}, protocol.CodeBadRequest},
		{"If-Match elsewhere", "PUT", "/v1/stock/A/settings", `{"low_stock":1}`, []string{key, `If-Match: "eu:1"`}, protocol.CodeBadRequest},
		{"conflict", "POST", "/v1/adjustments", `{"sku":"A","delta":1}`, []string{key, `If-Match: "eu:1,us:4"`}, protocol.CodeVersionConflict},
		{"path's sku differs", "PUT", "/v1/stock/A/settings", `{"sku":"B","low_stock":1}`, []string{key}, protocol.CodeBadRequest},
		{"location differs", "PUT", "/v1/stock/A/settings?location=x", `{"location":"y","low_stock":1}`, []string{key}, protocol.CodeBadRequest},
		{"short", "POST", "/v1/sales", `{"lines":[{"sku":"A","quantity":1}]}`, []string{key}, protocol.CodeInsufficientStock},

		{"batch, one command", "POST", "/v1/batch", `{"op":"get","skus":["A"]}`, nil, protocol.CodeBadRequest},
		{"batch, empty", "POST", "/v1/batch", `[]`, nil, protocol.CodeBadRequest},
		{"batch, no body", "POST", "/v1/batch", ``, nil, protocol.CodeBadRequest},
		{"batch, one key", "POST", "/v1/batch", `[{"op":"get","skus":["A"]}]`, []string{key}, protocol.CodeBadRequest},
		{"batch, a number", "POST", "/v1/batch", `[1]`, nil, protocol.CodeBadRequest},
		{"batch, 5001", "POST", "/v1/batch", "[{}" + strings.Repeat(",{}", protocol.BatchMax) + "]", nil, protocol.CodeTooLarge},
		{"batch, large", "POST", "/v1/batch", strings.Repeat(" ", protocol.BatchBytesMax) + "[{}]", nil, protocol.CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.do(c.method, c.target, c.body, c.headers...)
			wantCode(t, w, c.want)
			if c.want == protocol.CodeMethodNotAllowed && w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow is %q", w.Header().Get("Allow"))
			}
			if len(f.ledger.items) > 0 {
				t.Errorf("something was done: %v", f.ledger.items)
			}
		})
	}
}

func TestSKUsInPaths(t *testing.T) {
	f := newFixture(t)
	srv := f.serve()
	for _, sku := range []string{
		"A1", "BANK CHARGES", "红色-XL", "a/b", "/", "//", "a//b", "a/../b", "%", "%2F", "100%", "a%20b", "a+b", "a b",
		"?", "#", "a?b=c", "a&b", "*", ">", "settings", "history", "a;b", `a"b`, `a\b`, "{sku}", "'", "...", ":", "@", "é",
		strings.Repeat("/", 128), strings.Repeat("ü", 64),
	} {
		path := srv.URL + "/v1/stock/" + url.PathEscape(sku)
		settings, err := http.NewRequest("PUT", path+"/settings", strings.NewReader(`{"low_stock":1}`))
		if err != nil {
			t.Fatal(err)
		}
		settings.Header.Set("Idempotency-Key", "k"+url.QueryEscape(sku)[:1]+fmt.Sprint(len(f.ledger.items)))
		for _, got := range []protocol.Item{
			fetchItem(t, srv.Client(), settings),
			fetchItem(t, srv.Client(), get(t, path)),
			fetchItem(t, srv.Client(), get(t, path+"?location=main")),
		} {
			if got.SKU != sku || got.Version != "eu:1" {
				t.Errorf("%q: got %+v", sku, got)
			}
		}
	}
}

func TestPagesCoverEverythingOnce(t *testing.T) {
	f := newFixture(t)
	var want []string
	for i := range 10 {
		sku := fmt.Sprintf("p%d", i)
		f.ledger.write(adjust(sku, 1))
		want = append(want, sku)
	}
	// Unknown names lie between, before and after what is scanned.
	query := "&prefix=p&sku=a&sku=p2x&sku=p3&sku=z"
	want = append([]string{"a"}, append(want[:3:3], append([]string{"p2x"}, append(want[3:], "z")...)...)...)
	for limit := 1; limit < 15; limit++ {
		var got []string
		for after := ""; ; {
			w := f.do("GET", fmt.Sprintf("/v1/stock?limit=%d&after=%s%s", limit, after, query), "")
			var page protocol.Page
			if err := protocol.UnmarshalJSON(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			if len(page.Items) > limit {
				t.Fatalf("limit %d: %d items", limit, len(page.Items))
			}
			for _, it := range page.Items {
				got = append(got, it.SKU)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("limit %d: %s", limit, d)
		}
	}
}

func TestBatchAnswersInOrder(t *testing.T) {
	f := newFixture(t)
	w := f.do("POST", "/v1/batch", `[
		{"op":"adjust","id":1,"sku":"A","delta":5,"key":"1"},
		{"op":"sell","id":"two","lines":[{"sku":"A","quantity":6}],"key":"2"},
		{"op":"subscribe","id":3,"all":true}, {"op":"ping","id":4}, {"op":"nonsense","id":5}, {"id":[1],"op":"get"},
		{"op":"sell","id":7,"lines":[{"sku":"A","quantity":5}],"key":"7"},
		{"op":"adjust","id":8,"sku":"A","delta":5,"key":"1"},
		{"op":"history","id":9,"sku":"A","limit":501}]`)
	var got struct {
		Results []struct {
			ID       any
			OK       json.RawMessage
			Error    *struct{ Code string }
			Replayed bool
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatal(w.Code, w.Body, err)
	}
	var lines []string
	for _, r := range got.Results {
		code := "ok"
		if r.Error != nil {
			code = r.Error.Code
		}
		lines = append(lines, fmt.Sprint(r.ID, " ", code, " ", r.Replayed))
	}
	want := []string{"1 ok false", "two insufficient_stock false", "3 bad_request false", "4 bad_request false", "5 bad_request false",
		"<nil> bad_request false", "7 ok false", "8 ok true", "9 bad_request false"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Fatal(d)
	}
}

func TestBatchBoundsItsReads(t *testing.T) {
	f := newFixture(t)
	one := `{"op":"history","sku":"A","limit":500}`
	w := f.do("POST", "/v1/batch", "["+one+strings.Repeat(","+one, 200)+"]")
	if n := strings.Count(w.Body.String(), `"too_large"`); n != 1 {
		t.Fatalf("%d of the reads were refused, want the one over the limit", n)
	}
}
