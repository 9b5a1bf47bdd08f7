package api

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

// pages follows a query to its end and returns the items, as sku@location, and how many
// pages they came on.
func (f *fixture) pages(query, token string, limit int) (items []string, n int) {
	f.Helper()
	after := ""
	for {
		n++
		w := f.do("GET", fmt.Sprintf("/v1/stock?limit=%d&after=%s&%s", limit, after, query), "", bearing(token))
		var page protocol.Page
		if err := protocol.UnmarshalJSON(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			f.Fatal(w.Code, w.Body, err)
		}
		for _, it := range page.Items {
			items = append(items, it.SKU+"@"+it.Location)
		}
		if len(page.Items) > limit || len(page.Items) == 0 && page.Next != "" || n > 1000 {
			f.Fatalf("%s: page %d of %d items, next %q", query, n, len(page.Items), page.Next)
		}
		if after = page.Next; after == "" {
			return items, n
		}
		last := page.Items[len(page.Items)-1]
		if raw, _ := base64.RawURLEncoding.DecodeString(after); string(raw) != last.SKU+"\x00"+last.Location {
			f.Fatalf("next is %q, the last item %s at %s", raw, last.SKU, last.Location)
		}
	}
}

// snapshot returns the items that a stream begins with.
func (f *fixture) snapshot(base, query, token string) (items []string) {
	f.Helper()
	r := get(f.T, base+"/v1/stream?"+query)
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != 200 {
		f.Fatal(res, err)
	}
	defer res.Body.Close()
	rd := &reader{f.T, res, bufio.NewScanner(res.Body)}
	for {
		e, ok := rd.next()
		if !ok {
			f.Fatal("the stream ended")
		}
		if e.name != "" {
			items = append(items, e.item.SKU+"@"+e.item.Location)
		}
		if e.id != "" { // the cursor comes with the last item, or alone
			return items
		}
	}
}

// randomGrants are such that names, prefixes and locations cross.
func randomGrants(rnd *rand.Rand) string {
	some := func(from ...string) []string {
		var out []string
		for _, v := range from {
			if rnd.IntN(3) == 0 {
				out = append(out, v)
			}
		}
		return out
	}
	var grants []protocol.Grant
	for range 1 + rnd.IntN(3) {
		g := protocol.Grant{Do: []protocol.Right{protocol.RightWatch}}
		if rnd.IntN(4) > 0 {
			g.SKUs = append([]string{}, some("a*", "ab*", "b*", "b1", "a2", "c*", "*")...)
		}
		if rnd.IntN(3) > 0 {
			g.Locations = append([]string{}, some("main", "x", "y")...)
		}
		grants = append(grants, g)
	}
	b, err := json.Marshal(grants)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Whatever the grants and the query, pages and streams hold each item that is picked and
// seen, once and in order, and no other.
func TestWideReadsHoldWhatIsSeen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 1))
	f, g := guarded(t)
	srv := f.serve()
	var all []protocol.ItemKey
	for _, letter := range []string{"a", "ab", "b", "c"} {
		for i := range 4 {
			for _, location := range []string{"main", "x", "y"} {
				k := protocol.ItemKey{SKU: fmt.Sprint(letter, i), Location: location}
				all = append(all, k)
				f.ledger.write(protocol.Command{Op: protocol.OpAdjust, SKU: k.SKU, Location: k.Location, Delta: 1})
			}
		}
	}
	slices.SortFunc(all, protocol.ItemKey.Compare)
	f.ledger.scanMax = 5 // or a page would be found by the first scan
	for round := range 300 {
		grants := randomGrants(rnd)
		access := g.give("t", grants).Access
		s := protocol.Selector{}
		if rnd.IntN(2) == 0 {
			s.Prefixes = [][]string{{"a"}, {"ab"}, {"b", "a1"}, {"c"}, {"z"}}[rnd.IntN(5)]
		}
		if rnd.IntN(4) == 0 && access.Sees("a0", "x") {
			s.Locations = []string{"x"}
		}
		query := url.Values{"prefix": s.Prefixes, "location": s.Locations}.Encode()
		want := []string{}
		for _, k := range all {
			if s.Match(k) && access.Sees(k.SKU, k.Location) {
				want = append(want, k.SKU+"@"+k.Location)
			}
		}
		limit := 1 + rnd.IntN(7)
		got, pages := f.pages(query, "t", limit)
		if d := cmp.Diff(want, append([]string{}, got...)); d != "" {
			t.Fatalf("%s %s: %s", grants, query, d)
		}
		if !access.SeesAll() && pages != max(1, (len(want)+limit-1)/limit) {
			t.Fatalf("%s %s: %d items on %d pages of %d: a next with nothing to see after it", grants, query, len(want), pages, limit)
		}
		if round%5 != 0 {
			continue
		}
		if len(s.Prefixes) == 0 {
			query += "&all"
		}
		if d := cmp.Diff(want, append([]string{}, f.snapshot(srv.URL, query, "t")...)); d != "" {
			t.Fatalf("stream of %s %s: %s", grants, query, d)
		}
	}
}

// A page that has something is not looked for too long, one that is empty is: the next
// could only begin after an item that nobody may know of.
func TestScansForAPageAreBounded(t *testing.T) {
	f, g := guarded(t)
	for i := range 100 {
		location := "hidden"
		if i == 60 || i == 61 {
			location = "shop"
		}
		f.ledger.write(protocol.Command{Op: protocol.OpAdjust, SKU: fmt.Sprintf("a%02d", i), Location: location, Delta: 1})
	}
	// What crosses can't be said by one selector.
	g.give("t", `[{"do":["watch"],"skus":["a*"],"locations":["shop"]},{"do":["watch"],"skus":["b*"]}]`)
	f.ledger.scanMax = 1
	if got, _ := f.pages("", "t", 10); !slices.Equal(got, []string{"a60@shop", "a61@shop"}) {
		t.Error(got)
	}
	f.ledger.scans = 0
	w := f.do("GET", "/v1/stock?limit=10&after="+position(protocol.ItemKey{SKU: "a59", Location: "hidden"}), "", bearing("t"))
	if f.ledger.scans != scansMax || !strings.Contains(w.Body.String(), `"next":"`+position(protocol.ItemKey{SKU: "a61", Location: "shop"})) {
		t.Errorf("%d scans: %s", f.ledger.scans, w.Body)
	}
}

// A query for some prefixes looks at nothing outside of what is granted.
func TestPrefixesAreNarrowed(t *testing.T) {
	f, g := guarded(t)
	access := g.give("t", `[{"do":["watch"],"skus":["tee-*","cap"]}]`).Access
	for _, c := range []struct{ asked, skus, prefixes []string }{
		{[]string{"t"}, nil, []string{"tee-"}},
		{[]string{"tee-1"}, nil, []string{"tee-1"}},
		{[]string{"c"}, []string{"cap"}, nil},
		{[]string{"cape"}, []string{""}, nil},
		{[]string{"x", ""}, []string{"cap"}, []string{"tee-"}},
	} {
		got := narrowed(access, protocol.Selector{Prefixes: c.asked})
		if d := cmp.Diff(protocol.Selector{SKUs: c.skus, Prefixes: c.prefixes}, got); d != "" {
			t.Errorf("%q: %s", c.asked, d)
		}
	}
	if got := narrowed(nil, protocol.Selector{All: true}); got.Wide() || got.SKUs[0] != "" {
		t.Errorf("without access: %+v", got)
	}
	f.ledger.write(adjust("x", 1))
	if got, _ := f.pages("prefix=x", "t", 5); got != nil {
		t.Error(got)
	}
}

// A SKU that exists only where the caller sees nothing reads as one that doesn't exist,
// wherever it is asked for.
func TestUnseenItemsReadAsUnknown(t *testing.T) {
	for _, grants := range []string{
		`[{"do":["watch"],"locations":["main"]}]`,
		`[{"do":["watch"],"locations":["shop"]}]`,
		`[{"do":["watch"],"locations":["main"]},{"do":["watch"],"skus":["x"]}]`,
	} {
		f, g := guarded(t)
		g.give("t", grants)
		srv := f.serve()
		f.ledger.write(adjust("seen", 1), protocol.Command{Op: protocol.OpAdjust, SKU: "seen", Location: "shop", Delta: 1},
			protocol.Command{Op: protocol.OpAdjust, SKU: "hidden", Location: "back", Delta: 1})
		for _, c := range []struct{ method, target, body string }{
			{"GET", "/v1/stock?sku=aa&sku=NAME&sku=seen", ""},
			{"GET", "/v1/stock?sku=NAME&sku=NAME&at_least=eu:1", ""},
			{"GET", "/v1/stock?sku=NAME&prefix=NAME", ""},
			{"POST", "/v1/batch", `[{"op":"get","skus":["seen","NAME","seen","NAME","NAME"]},{"op":"get","skus":["NAME"],"at_least":"eu:1"}]`},
		} {
			answer := func(name string) string {
				w := f.do(c.method, strings.ReplaceAll(c.target, "NAME", name), strings.ReplaceAll(c.body, "NAME", name), bearing("t"))
				if w.Code != 200 {
					t.Fatal(w.Code, w.Body)
				}
				if strings.Contains(w.Body.String(), `"location":"main"`) && !strings.Contains(grants, "main") {
					t.Errorf("%s %s shows another location: %s", grants, c.target, w.Body)
				}
				return strings.ReplaceAll(w.Body.String(), name, "NAME")
			}
			if d := cmp.Diff(answer("hnever"), answer("hidden")); d != "" {
				t.Errorf("%s %s tell that it exists: %s", grants, c.target, d)
			}
		}
		streamed := func(name string) string {
			return strings.ReplaceAll(strings.Join(f.snapshot(srv.URL, "sku=seen&sku="+name, "t"), " "), name, "NAME")
		}
		if d := cmp.Diff(streamed("hnever"), streamed("hidden")); d != "" {
			t.Errorf("%s: the stream tells that it exists: %s", grants, d)
		}
	}
}

func TestNamingWhatIsOutsideIsForbidden(t *testing.T) {
	f, g := guarded(t)
	g.give("t", `[{"do":["watch"],"skus":["tee-*"],"locations":["shop"]},{"do":["watch"],"skus":["open"]}]`)
	for query, want := range map[string]int{
		"":                                 200,
		"prefix=c":                         200,
		"sku=tee-1":                        200,
		"sku=open&location=main":           200,
		"location=main":                    200, // open is seen there
		"sku=cap":                          403,
		"sku=tee-1&sku=cap":                403,
		"sku=tee-1&location=main":          403,
		"prefix=tee-&sku=cap":              403,
		"sku=open&location=main&sku=tee-1": 403,
	} {
		for _, target := range []string{"/v1/stock?", "/v1/stream?"} {
			method := "GET"
			if target == "/v1/stream?" {
				if method = "HEAD"; query == "" {
					continue
				}
			}
			if w := f.do(method, target+query, "", bearing("t")); w.Code != want {
				t.Errorf("%s%s: %d, want %d: %s", target, query, w.Code, want, w.Body)
			}
		}
	}
	g.give("t", `[{"do":["watch"],"locations":["shop"]}]`)
	for _, target := range []string{"/v1/stock?location=main", "/v1/stock?prefix=a&location=main", "/v1/stream?location=main", "/v1/stock/a"} {
		wantCode(t, f.do("GET", target, "", bearing("t")), protocol.CodeForbidden)
	}
}

func TestReservationsOutsideReadAsUnknown(t *testing.T) {
	f, g := guarded(t)
	g.give("root", `[{`+everything+`}]`)
	g.give("t", `[{`+everything+`,"skus":["tee-*"]},{"do":["watch","reserve"],"users":["v"]}]`)
	f.stocked()
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/v1/reservations/ID", ""},
		{"POST", "/v1/reservations/ID/confirm", `{"key":"1"}`},
		{"POST", "/v1/reservations/ID/release", `{"key":"2"}`},
		{"POST", "/v1/reservations/ID/extend", `{"key":"3","ttl_ms":5000}`},
		{"POST", "/v1/batch", `[{"op":"reservation","reservation":"ID"},{"op":"confirm","reservation":"ID","key":"4"}]`},
	} {
		answer := func(id string) string {
			w := f.do(c.method, strings.ReplaceAll(c.target, "ID", id), strings.ReplaceAll(c.body, "ID", id), bearing("t"))
			return fmt.Sprint(w.Code, " ", strings.ReplaceAll(w.Body.String(), id, "ID"))
		}
		if d := cmp.Diff(answer("eu.9"), answer("eu.3")); d != "" {
			t.Errorf("%s %s: %s", c.method, c.target, d)
		}
	}
	if w := f.do("GET", "/v1/reservations/eu.1", "", bearing("t")); w.Code != 200 {
		t.Error(w.Body)
	}
}

// What an error tells in its details is of the items that the command named, which the
// caller may write.
func TestDetailsAreOfTheCallersItems(t *testing.T) {
	f, g := guarded(t)
	g.give("t", `[{"do":["sell","adjust"],"skus":["mine"]}]`)
	f.ledger.write(adjust("mine", 1), adjust("theirs", 1))
	p := wantCode(t, f.do("POST", "/v1/adjustments", `{"key":"1","sku":"mine","delta":1}`, bearing("t"), `If-Match: "eu:7"`), protocol.CodeVersionConflict)
	if p.Details == nil || p.Details.Item == nil || p.Details.Item.SKU != "mine" {
		t.Errorf("%+v", p.Details)
	}
	p = wantCode(t, f.do("POST", "/v1/sales", `{"key":"2","lines":[{"sku":"mine","quantity":5}]}`, bearing("t")), protocol.CodeInsufficientStock)
	if p.Details == nil || len(p.Details.Lines) != 1 || p.Details.Lines[0].SKU != "mine" {
		t.Errorf("%+v", p.Details)
	}
	for _, body := range []string{
		`{"key":"3","lines":[{"sku":"mine","quantity":5},{"sku":"theirs","quantity":5}]}`,
		`{"key":"4","lines":[{"sku":"theirs","quantity":5}]}`,
	} {
		if p := wantCode(t, f.do("POST", "/v1/sales", body, bearing("t")), protocol.CodeForbidden); p.Details != nil {
			t.Errorf("%+v", p.Details)
		}
	}
	if p := wantCode(t, f.do("POST", "/v1/adjustments", `{"key":"5","sku":"theirs","delta":1}`, bearing("t"), `If-Match: "eu:7"`),
		protocol.CodeForbidden); p.Details != nil {
		t.Errorf("%+v", p.Details)
	}
}

// wantItems reads events and compares them, as "sku version", without their cursors.
func (r *reader) wantItems(events ...string) {
	r.t.Helper()
	for _, w := range events {
		e, ok := r.next()
		for ok && e.name == "" {
			e, ok = r.next() // a cursor alone
		}
		if got := e.item.SKU + " " + e.item.Version; !ok || got != w {
			r.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// A stream shows nothing of what its caller doesn't see, and its cursor still moves.
func TestStreamLeavesOutWhatIsNotSeen(t *testing.T) {
	f, g := guarded(t, func(c *Config) { c.Heartbeat = 10 * time.Millisecond })
	g.give("t", `[{"do":["watch"],"skus":["a*"],"locations":["shop"]},{"do":["watch"],"skus":["b"]}]`)
	srv := f.serve()
	f.ledger.write(adjust("a1", 1), adjust("b", 1), adjust("c", 1))
	req := get(t, srv.URL+"/v1/stream?all")
	req.Header.Set("Authorization", "Bearer t")
	res, err := srv.Client().Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	defer res.Body.Close()
	r := &reader{t, res, bufio.NewScanner(res.Body)}
	r.wantItems("b eu:1")
	f.ledger.write(adjust("a1", 1), adjust("c", 1), protocol.Command{Op: protocol.OpAdjust, SKU: "a1", Location: "shop", Delta: 1})
	r.wantItems("a1 eu:1")
	f.ledger.write(adjust("c", 1), adjust("b", 1))
	r.wantItems("b eu:2")
	f.ledger.write(adjust("c", 1))
	for last, n := "eu:9", 0; ; n++ { // heartbeats bring it
		if e, ok := r.next(); !ok || e.name != "" || n > 100 {
			t.Fatalf("got %+v", e)
		} else if e.id == last {
			break
		}
	}
}
