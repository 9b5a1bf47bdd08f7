package api

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// handler serves one request. What it returns as an error becomes the answer, so
// it must not have written anything then.
type handler func(a *API, w http.ResponseWriter, r *request) *protocol.Error

// route is one row of the HTTP interface: what is served, and what the OpenAPI
// document says about it.
type route struct {
	method  string
	pattern string // {name} stands for one segment
	serve   handler

	summary string
	op      protocol.Op    // the command behind it, if it is one
	right   protocol.Right // what a caller needs where it is none
	public  bool           // needs no caller
	query   []param
	poll    bool   // may answer 304
	status  int    // of a success
	ok      any    // the Go type of a success, nil for a document
	media   string // of a success, JSON unless set
	body    any    // the Go type of the body where it is not the command's
}

// param is a query parameter.
type param struct {
	name   string
	text   string
	kind   string // a JSON type, string unless set
	low    int    // of an integer
	high   int
	repeat bool
}

func (p param) object() object {
	schema := object{"type": "string"}
	if p.kind != "" {
		schema["type"] = p.kind
	}
	if p.high > 0 {
		schema["minimum"], schema["maximum"] = p.low, p.high
	}
	if p.repeat {
		schema = object{"type": "array", "items": schema}
	}
	return object{"name": p.name, "in": "query", "description": p.text, "schema": schema}
}

// stream reports whether the route's answers last as long as the client stays.
func (rt *route) stream() bool { return rt.media == mediaEvents }

// label is the route's name in metrics and logs.
func (rt *route) label() string {
	if rt == nil {
		return "none"
	}
	return rt.method + " " + rt.pattern
}

// writes reports whether the route is for changing something.
func (rt *route) writes() bool { return rt != nil && rt.method != http.MethodGet }

// doing is what the route does, for audit lines.
func (rt *route) doing() string { return cmp.Or(string(rt.op), rt.label()) }

// needs is the right without which a caller gets nothing from the route; "" where there
// is none.
func (rt *route) needs() protocol.Right { return cmp.Or(rt.right, rt.op.Right()) }

// RouteInfo tells what a route is and what it takes to use it.
type RouteInfo struct {
	Method  string
	Pattern string         // {name} stands for one segment of the path
	Op      protocol.Op    // the command behind it, "" where it is none
	Right   protocol.Right // "": public, or a batch, whose commands need their own
	Public  bool           // served without knowing to whom
}

// Routes lists everything that an API serves.
func Routes() []RouteInfo {
	var out []RouteInfo
	for _, rt := range routes() {
		out = append(out, RouteInfo{Method: rt.method, Pattern: rt.pattern, Op: rt.op, Right: rt.needs(), Public: rt.public})
	}
	return out
}

func routes() []route {
	return slices.Concat(readRoutes(), writeRoutes(), documentRoutes())
}

func selectorParams(more ...param) []param {
	return append([]param{
		{name: "sku", text: "A SKU; unknown ones are sent as zero items.", repeat: true},
		{name: "prefix", text: "How SKUs begin.", repeat: true},
		{name: "location", text: "Only these locations.", repeat: true},
	}, more...)
}

func readRoutes() []route {
	location := param{name: "location", text: `Where, "main" unless set.`}
	atLeast := param{name: "at_least", text: "A version: wait up to a second until the node has it."}
	return []route{
		{method: "GET", pattern: "/v1/stock", serve: servePage, right: protocol.RightWatch, status: 200, ok: pageReply{},
			summary: "Items in order, page by page; without sku or prefix all that exist",
			query: selectorParams(atLeast,
				param{name: "after", text: "The next of the page before."},
				param{name: "limit", text: "Items at most.", kind: "integer", low: 1, high: protocol.PageMax})},
		{method: "GET", pattern: "/v1/stock/{sku}", serve: serveItem, right: protocol.RightWatch, status: 200, ok: itemReply{}, poll: true,
			summary: "One item; with wait_ms and If-None-Match a long poll",
			query: []param{location, atLeast,
				{name: "wait_ms", text: "How long to wait for a change.", kind: "integer", high: 60_000}}},
		{method: "GET", pattern: "/v1/stock/{sku}/history", serve: serveHistory, op: protocol.OpHistory,
			status: 200, ok: movementsReply{}, summary: "Movements of an item, newest first",
			query: []param{location,
				{name: "region", text: "Whose movements, the node's own region unless set."},
				{name: "limit", text: "Movements at most.", kind: "integer", low: 1, high: protocol.HistoryMax},
				{name: "before", text: "The next of the page before."}}},
		{method: "GET", pattern: "/v1/stream", serve: serveStream, right: protocol.RightWatch, status: 200, ok: protocol.Item{}, media: mediaEvents,
			summary: "Server-sent events: the current state first, then changes",
			query:   selectorParams(param{name: "all", text: "Every SKU.", kind: "boolean"})},
		{method: "GET", pattern: "/v1/reservations/{id}", serve: serveReservation, op: protocol.OpReservation,
			status: 200, ok: reservationReply{}, summary: "A reservation"},
		{method: "GET", pattern: "/v1/outcomes/{key}", serve: serveOutcome, op: protocol.OpOutcome,
			status: 200, ok: outcomeReply{}, summary: "What became of a write, by its key",
			query: []param{{name: "home", text: "The region the write was sent to."}}},
		{method: "GET", pattern: "/v1/mesh", serve: serveMesh, right: protocol.RightAdmin, status: 200, ok: protocol.Mesh{},
			summary: "The regions and nodes, as this node knows them"},
	}
}

func writeRoutes() []route {
	write := func(method, pattern string, op protocol.Op, status int, summary string) route {
		return route{method: method, pattern: pattern, op: op, status: status, summary: summary,
			serve: write(op, status), ok: commandDocs()[op].ok}
	}
	settings := write("PUT", "/v1/stock/{sku}/settings", protocol.OpConfigure, 200, "Set an item's limits")
	settings.query = []param{{name: "location", text: `Where, "main" unless set.`}}
	return []route{
		settings,
		write("POST", "/v1/adjustments", protocol.OpAdjust, 200, "Add or remove units"),
		write("POST", "/v1/counts", protocol.OpCount, 200, "Take stock: set what is on hand"),
		write("POST", "/v1/sales", protocol.OpSell, 200, "Sell, all lines or none"),
		write("POST", "/v1/moves", protocol.OpMove, 200, "Move units between locations"),
		write("POST", "/v1/reservations", protocol.OpReserve, 201, "Hold units, all lines or none"),
		write("POST", "/v1/reservations/{id}/confirm", protocol.OpConfirm, 200, "Sell what was held"),
		write("POST", "/v1/reservations/{id}/release", protocol.OpRelease, 200, "Give held units back"),
		write("POST", "/v1/reservations/{id}/extend", protocol.OpExtend, 200, "Hold longer, counted from now"),
		{method: "POST", pattern: "/v1/batch", serve: serveBatch, status: 200, ok: batchReply{},
			body: []protocol.Command{}, summary: "Up to 5,000 commands, answered in order"},
	}
}

func documentRoutes() []route {
	return []route{
		{method: "GET", pattern: "/openapi.json", public: true, status: 200, summary: "This document",
			serve: serveDocument(func(a *API) []byte { return a.openAPI() })},
		{method: "GET", pattern: "/asyncapi.json", public: true, status: 200, summary: "The WebSocket interface as an AsyncAPI document",
			serve: serveDocument(func(a *API) []byte { return a.asyncAPI() })},
	}
}

// match finds the request's route. It works on the escaped path, so that a SKU
// may hold slashes, and never redirects: a cleaned path could name another SKU,
// and a redirected write may arrive without its body.
func (a *API) match(r *http.Request) (*route, map[string]string, *protocol.Error) {
	path, found := r.URL.EscapedPath(), false
	for i := range a.routes {
		rt := &a.routes[i]
		params, ok := matchPattern(rt.pattern, path)
		if !ok {
			continue
		}
		found = true
		if rt.method == r.Method || rt.method == http.MethodGet && r.Method == http.MethodHead {
			return rt, params, nil
		}
	}
	if found {
		return nil, nil, protocol.NewError(protocol.CodeMethodNotAllowed, "%.20q is not allowed here", r.Method)
	}
	return nil, nil, protocol.NewError(protocol.CodeNotFound, "no such route: %.200q", path)
}

// methods lists what may be asked of a path.
func (a *API) methods(path string) []string {
	var out []string
	for i := range a.routes {
		rt := &a.routes[i]
		if _, ok := matchPattern(rt.pattern, path); !ok {
			continue
		}
		out = append(out, rt.method)
		if rt.method == http.MethodGet {
			out = append(out, http.MethodHead)
		}
	}
	return out
}

// matchPattern compares segment by segment; a parameter takes one segment that
// is not empty and is returned unescaped.
func matchPattern(pattern, path string) (map[string]string, bool) {
	var params map[string]string
	for {
		want, pattern2, more := strings.Cut(pattern, "/")
		have, path2, more2 := strings.Cut(path, "/")
		if more != more2 {
			return nil, false
		}
		if name, ok := paramName(want); ok {
			value, err := url.PathUnescape(have)
			if err != nil || value == "" {
				return nil, false
			}
			if params == nil {
				params = make(map[string]string, 1)
			}
			params[name] = value
		} else if want != have {
			return nil, false
		}
		if !more {
			return params, true
		}
		pattern, path = pattern2, path2
	}
}

func paramName(segment string) (string, bool) {
	if !strings.HasPrefix(segment, "{") {
		return "", false
	}
	return strings.Trim(segment, "{}"), true
}
