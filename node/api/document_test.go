package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

// document is a parsed OpenAPI or AsyncAPI document.
type document object

func (f *fixture) document(path string) document {
	f.Helper()
	w := f.do("GET", path, "")
	var d document
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != mediaJSON {
		f.Fatal(path, w.Code, w.Header(), err)
	}
	return d
}

// at follows a path of keys, nil where it leads nowhere.
func (d document) at(keys ...string) any {
	v := any(object(d))
	for _, k := range keys {
		o, _ := v.(object)
		v = o[k]
	}
	return v
}

func (d document) resolve(ref string) any {
	keys := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	for i, k := range keys {
		keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(k)
	}
	return d.at(keys...)
}

// walk calls fn on every object within v.
func walk(v any, fn func(object)) {
	switch v := v.(type) {
	case object:
		fn(v)
		for _, sub := range v {
			walk(sub, fn)
		}
	case []any:
		for _, sub := range v {
			walk(sub, fn)
		}
	}
}

// check says what in value the schema does not describe, "" if nothing.
func (d document) check(schema, value any, where string) string {
	s, ok := schema.(object)
	if !ok {
		return where + ": no schema"
	}
	if ref, ok := s["$ref"].(string); ok {
		return d.check(d.resolve(ref), value, where)
	}
	for _, word := range []string{"oneOf", "anyOf"} {
		if choices, ok := s[word].([]any); ok {
			return d.checkAny(choices, value, where)
		}
	}
	if values, ok := s["enum"].([]any); ok && !slices.Contains(values, value) {
		return fmt.Sprintf("%s: %v is not one of %v", where, value, values)
	}
	if c, ok := s["const"]; ok && c != value {
		return fmt.Sprintf("%s: %v is not %v", where, value, c)
	}
	return d.checkType(s, value, where)
}

func (d document) checkAny(choices []any, value any, where string) string {
	var why []string
	for _, c := range choices {
		bad := d.check(c, value, where)
		if bad == "" {
			return ""
		}
		why = append(why, bad)
	}
	return strings.Join(why, " and ")
}

func (d document) checkType(s object, value any, where string) string {
	switch v := value.(type) {
	case object:
		properties, _ := s["properties"].(object)
		for field, sub := range v {
			if bad := d.check(properties[field], sub, where+"/"+field); bad != "" {
				return bad
			}
		}
		required, _ := s["required"].([]any)
		for _, field := range required {
			if _, ok := v[field.(string)]; !ok {
				return fmt.Sprintf("%s: %s is missing", where, field)
			}
		}
	case []any:
		for i, sub := range v {
			if bad := d.check(s["items"], sub, fmt.Sprint(where, "/", i)); bad != "" {
				return bad
			}
		}
	}
	types := map[string][]string{"object": {"object"}, "array": {"array"}, "string": {"string"}, "boolean": {"boolean"}, "number": {"number", "integer"}, "null": {"null"}}
	if want, ok := s["type"].(string); ok && !slices.Contains(types[kindOf(value)], want) {
		return fmt.Sprintf("%s: %v is no %v", where, value, want)
	}
	return ""
}

func kindOf(v any) string {
	switch v.(type) {
	case object:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		return "null"
	}
	return "number"
}

func TestDocumentsHoldTogether(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/openapi.json", "/asyncapi.json"} {
		d := f.document(path)
		used := make(map[string]bool)
		walk(object(d), func(o object) {
			ref, ok := o["$ref"].(string)
			if !ok {
				return
			}
			used[ref] = true
			if d.resolve(ref) == nil {
				t.Errorf("%s: %s leads nowhere", path, ref)
			}
		})
		for name, schema := range d.at("components", "schemas").(object) {
			properties, _ := schema.(object)["properties"].(object)
			for field, p := range properties {
				if p := p.(object); p["const"] == nil && p["description"] == nil {
					t.Errorf("%s: %s.%s is not described", path, name, field)
				}
			}
		}
		codes := d.at("components", "schemas", "Error", "properties", "code", "enum").([]any)
		var want []any
		for _, c := range sortedCodes() {
			want = append(want, string(c))
		}
		if d := cmp.Diff(want, codes); d != "" {
			t.Error(path, d)
		}
	}
}

func TestFieldDocsAreUsed(t *testing.T) {
	s := newSchemas()
	for i := range routes() {
		if rt := routes()[i]; rt.ok != nil {
			s.of(rt.ok)
		}
	}
	for _, p := range pushes() {
		s.of(p.payload)
	}
	known := make(map[string]bool)
	for name, schema := range s.defs {
		properties, _ := schema.(object)["properties"].(object)
		for field := range properties {
			known[field], known[name+"."+field] = true, true
		}
	}
	for field := range fieldDocs() {
		if !known[field] {
			t.Errorf("%s is described and nowhere to be found", field)
		}
	}
}

func TestOpenAPIHasEveryRoute(t *testing.T) {
	f := newFixture(t)
	d := f.document("/openapi.json")
	var got, want []string
	ids := make(map[string]bool)
	for path, methods := range d.at("paths").(object) {
		for method, op := range methods.(object) {
			got = append(got, strings.ToUpper(method)+" "+path)
			ids[op.(object)["operationId"].(string)] = true
		}
	}
	for i := range f.api.routes {
		want = append(want, f.api.routes[i].label())
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(ids) != len(want) {
		t.Errorf("%d operation ids for %d routes", len(ids), len(want))
	}
}

func TestDocumentsSayWhoMay(t *testing.T) {
	f := newFixture(t)
	d := f.document("/openapi.json")
	if d.at("components", "securitySchemes", "bearer", "scheme") != "bearer" || d.at("security") == nil {
		t.Error("no bearer tokens")
	}
	for _, rt := range Routes() {
		op := []string{"paths", rt.Pattern, strings.ToLower(rt.Method)}
		if none := d.at(append(op, "security")...) != nil; none != rt.Public {
			t.Errorf("%s %s: public is %v, the document says %v", rt.Method, rt.Pattern, rt.Public, none)
		}
		for _, status := range []string{"401", "403"} {
			if d.at(append(op, "responses", status)...) == nil && !rt.Public {
				t.Errorf("%s %s: no %s", rt.Method, rt.Pattern, status)
			}
		}
	}
	a := f.document("/asyncapi.json")
	for _, op := range protocol.Ops() {
		wants := a.at("operations", string(op)+"Command", "security") != nil
		if wants != (op != protocol.OpAuth && op != protocol.OpPing) {
			t.Errorf("%s: a token is wanted: %v", op, wants)
		}
	}
}

func TestAsyncAPIHasEveryCommand(t *testing.T) {
	d := newFixture(t).document("/asyncapi.json")
	want := []string{"cursorPush", "goawayPush", "helloPush", "reservationPush", "stockPush"}
	for _, op := range protocol.Ops() {
		want = append(want, string(op)+"Command")
	}
	slices.Sort(want)
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(d.at("operations").(object)))); d != "" {
		t.Error(d)
	}
	pushed := map[string]string{
		"StockPush": `{"op":"stock","snapshot":true,"items":[` + zeroNone + `]}`,
		"Hello":     string(protocol.AppendJSON(nil, protocol.Hello{Op: "hello", Endpoints: []string{"ws://x"}})),
		"Goaway":    string(protocol.AppendJSON(nil, protocol.Goaway{Op: "goaway", Endpoints: []string{"ws://x"}})),
	}
	for name, text := range pushed {
		if bad := d.check(ref(name), parse(t, text), name); bad != "" {
			t.Error(bad)
		}
	}
}

func parse(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// A command made of the required fields alone passes Check, and no field fewer.
func TestCommandDocsAgreeWithCheck(t *testing.T) {
	values := object{
		"token": "t", "skus": []string{"A"}, "sku": "A", "key": "k", "delta": 1, "on_hand": 1, "ttl_ms": 1000, "quantity": 1,
		"lines": []object{{"sku": "A", "quantity": 1}}, "reservation": "eu.1", "from": "a", "to": "b",
	}
	known := make(map[string]bool)
	for i := range reflect.TypeFor[protocol.Command]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[protocol.Command]().Field(i).Tag.Get("json"), ",")
		known[name] = true
	}
	for _, op := range protocol.Ops() {
		doc, ok := commandDocs()[op]
		if !ok {
			t.Errorf("%s has no doc", op)
		}
		for _, field := range doc.fields() {
			if !known[field] {
				t.Errorf("%s: protocol.Command has no %s", op, field)
			}
		}
		for skip := range len(doc.required) + 1 {
			// One of several will do here, which a list can't say.
			c := object{"op": string(op), "all": op == protocol.OpSubscribe}
			if op == protocol.OpConfigure {
				c["low_stock"] = 1
			}
			for i, field := range doc.required {
				if i != skip {
					c[field] = values[field]
				}
			}
			err := new(protocol.Command).Decode(protocol.AppendJSON(nil, c))
			if ok := err == nil; ok != (skip == len(doc.required)) {
				t.Errorf("%s: %v: %v", op, c, err)
			}
		}
	}
}

// exchanges reaches every route, and what can go wrong there.
func exchanges() []struct{ method, target, body string } {
	return []struct{ method, target, body string }{
		{"POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"1"}`},
		{"POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"1","reason":"r"}`},
		{"POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"2","if_version":""}`},
		{"POST", "/v1/counts", `{"sku":"B","on_hand":3,"key":"3"}`},
		{"POST", "/v1/sales", `{"lines":[{"sku":"B","quantity":1}],"key":"4"}`},
		{"POST", "/v1/sales", `{"lines":[{"sku":"B","quantity":9}],"key":"5"}`},
		{"POST", "/v1/moves", `{"sku":"B","from":"main","to":"x","quantity":1,"key":"6"}`},
		{"POST", "/v1/reservations", `{"lines":[{"sku":"A","quantity":2}],"user":"u","key":"7"}`},
		{"POST", "/v1/reservations/eu.1/extend", `{"ttl_ms":5000,"key":"8"}`},
		{"POST", "/v1/reservations/eu.1/confirm", `{"key":"9"}`},
		{"POST", "/v1/reservations/eu.1/release", `{"key":"10"}`},
		{"GET", "/v1/reservations/eu.1", ""},
		{"GET", "/v1/reservations/eu.9", ""},
		{"PUT", "/v1/stock/A/settings", `{"low_stock":50,"key":"11","reason":"r","reference":"f"}`},
		{"GET", "/v1/stock/A?at_least=eu:99", ""},
		{"GET", "/v1/stock?sku=A&sku=none", ""},
		{"GET", "/v1/stock?limit=1&at_least=eu:99&sku=A&prefix=B", ""},
		{"GET", "/v1/stock/A/history?limit=2", ""},
		{"GET", "/v1/stock/A/history?limit=0", ""},
		{"GET", "/v1/outcomes/7", ""},
		{"GET", "/v1/outcomes/none", ""},
		{"GET", "/v1/mesh", ""},
		{"POST", "/v1/batch", `[{"op":"get","id":1,"skus":["A"]},{"op":"adjust","id":"x","sku":"A","delta":9,"key":"1"},{"op":"history","sku":"A"},{"op":"outcome","key":"5"},{"op":"auth"}]`},
		{"GET", "/openapi.json", ""},
		{"GET", "/asyncapi.json", ""},
	}
}

func TestAnswersAreDocumented(t *testing.T) {
	f := newFixture(t)
	d := f.document("/openapi.json")
	reached := map[string]bool{"GET /v1/stream": true} // below
	for _, x := range exchanges() {
		w := f.do(x.method, x.target, x.body)
		rt, _, err := f.api.match(newTestRequest(t, x.method, x.target, ""))
		if err != nil {
			t.Fatal(err)
		}
		reached[rt.label()] = true
		content := d.at("paths", rt.pattern, strings.ToLower(x.method), "responses", strconv.Itoa(w.Code), "content", w.Header().Get("Content-Type"), "schema")
		if rt.ok == nil {
			continue // the documents themselves
		}
		if bad := d.check(content, parse(t, w.Body.String()), x.method+" "+x.target); bad != "" {
			t.Error(bad)
		}
		if w.Code < 300 && x.body != "" {
			body := d.at("paths", rt.pattern, strings.ToLower(x.method), "requestBody", "content", mediaJSON, "schema")
			if bad := d.check(body, parse(t, x.body), "body of "+x.target); bad != "" && rt.op != "" {
				t.Error(bad)
			}
		}
	}
	for i := range f.api.routes {
		if !reached[f.api.routes[i].label()] {
			t.Errorf("%s was not reached", f.api.routes[i].label())
		}
	}
	checkStreamed(f, d)
}

func checkStreamed(f *fixture, d document) {
	f.Helper()
	scan := bufio.NewScanner(f.stream(f.serve(), "all", "").res.Body)
	schema := d.at("paths", "/v1/stream", "get", "responses", "200", "content", mediaEvents, "schema")
	for scan.Scan() {
		data, ok := strings.CutPrefix(scan.Text(), "data: ")
		if !ok {
			continue
		}
		if bad := d.check(schema, parse(f.T, data), "stream"); bad != "" {
			f.Error(bad)
		}
		return
	}
	f.Fatal("no event")
}
