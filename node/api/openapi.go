package api

import (
	"slices"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// openAPIDocument describes the routes.
func openAPIDocument(routes []route) []byte {
	s := newSchemas()
	paths := object{}
	for i := range routes {
		rt := &routes[i]
		path, ok := paths[rt.pattern].(object)
		if !ok {
			path = object{}
			paths[rt.pattern] = path
		}
		path[strings.ToLower(rt.method)] = s.operation(rt)
	}
	return protocol.AppendJSON(nil, object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "stockmesh",
			"version":     strconv.Itoa(protocol.ProtocolVersion),
			"description": "One true stock count across regions. Every write needs an idempotency key; new fields may be added to any object. " + accessText,
		},
		"security":   []object{{"bearer": []string{}}, {"certificate": []string{}}},
		"paths":      paths,
		"components": object{"schemas": s.defs, "securitySchemes": securitySchemes()},
	})
}

// accessText says what both documents say about tokens.
const accessText = "A node with keys wants a token, or a client certificate that names a caller. Its grants say what may be done: " +
	"what is named outside of them is forbidden, what is not named is left out. A node without keys wants neither."

// securitySchemes are the ways of OpenAPI to say who one is.
func securitySchemes() object {
	return object{
		"bearer":      bearerScheme(),
		"certificate": object{"type": "mutualTLS", "description": "A client certificate that names a caller."},
	}
}

func bearerScheme() object {
	return object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
		"description": "A JWT whose claim grants says what may be done. Tokens are never taken in the URL."}
}

func (s *schemas) operation(rt *route) object {
	op := object{
		"operationId": operationID(rt),
		"summary":     rt.summary,
		"responses":   s.responses(rt),
	}
	if rt.public {
		op["security"] = []object{}
	} else if right := rt.needs(); right != "" {
		op["description"] = "Needs the right " + string(right) + "."
	}
	if params := parameters(rt); len(params) > 0 {
		op["parameters"] = params
	}
	if rt.method != "GET" {
		op["requestBody"] = s.requestBody(rt)
	}
	return op
}

// operationID is made of the path's words: post_v1_reservations_id_confirm.
func operationID(rt *route) string {
	words := strings.FieldsFunc(rt.pattern, func(r rune) bool { return strings.ContainsRune("/{}.", r) })
	return strings.ToLower(rt.method) + "_" + strings.Join(words, "_")
}

func (s *schemas) requestBody(rt *route) object {
	var schema object
	if rt.body != nil {
		schema = s.of(rt.body)
	} else {
		schema = s.body(rt.op, append(pathFields(rt), "key")...)
	}
	body := object{"content": object{mediaJSON: object{"schema": schema}}}
	if schema["required"] != nil || rt.body != nil {
		body["required"] = true
	}
	return body
}

// pathFields lists the command's fields that the path carries.
func pathFields(rt *route) []string {
	if strings.Contains(rt.pattern, "{id}") {
		return []string{"reservation"}
	}
	return []string{"sku"}[:strings.Count(rt.pattern, "{sku}")]
}

func parameters(rt *route) []object {
	var out []object
	for segment := range strings.SplitSeq(rt.pattern, "/") {
		if name, ok := paramName(segment); ok {
			out = append(out, object{"name": name, "in": "path", "required": true,
				"schema": object{"type": "string", "minLength": 1}})
		}
	}
	for _, p := range rt.query {
		out = append(out, p.object())
	}
	for _, name := range rt.allHeaders() {
		out = append(out, object{"name": name, "in": "header", "description": headerText(name),
			"schema": object{"type": "string"}})
	}
	return out
}

// allHeaders lists the request headers that mean something to the route.
func (rt *route) allHeaders() []string {
	if rt.public || rt.stream() || rt.right == protocol.RightAdmin {
		return rt.headers()
	}
	return append(rt.headers(), headerTraceparent)
}

// headers lists those that only some routes have.
func (rt *route) headers() []string {
	switch {
	case rt.stream():
		return []string{"Last-Event-ID"}
	case rt.op == protocol.OpAdjust || rt.op == protocol.OpCount:
		return []string{"Idempotency-Key", "If-Match"}
	case rt.op.IsWrite():
		return []string{"Idempotency-Key"}
	case rt.poll:
		return []string{"If-None-Match"}
	}
	return nil
}

func headerText(name string) string {
	switch name {
	case "Last-Event-ID":
		return "A cursor: only what has changed after it is sent."
	case "Idempotency-Key":
		return "The write's key, if the body has none."
	case "If-Match":
		return `The body's if_version, quoted; "" for an item that must not exist yet.`
	case headerTraceparent:
		return "Where the command belongs in its caller's trace (W3C Trace Context); a malformed one is as none."
	default:
		return "The version the client has, quoted."
	}
}

func (s *schemas) responses(rt *route) object {
	out := object{strconv.Itoa(rt.status): s.success(rt)}
	if rt.poll {
		out["304"] = object{"description": "The version is still the one the client has."}
	}
	byStatus := make(map[int][]string)
	for _, code := range rt.errors() {
		byStatus[code.Status()] = append(byStatus[code.Status()], string(code))
	}
	for status, codes := range byStatus {
		out[strconv.Itoa(status)] = problemResponse(strings.Join(codes, ", "))
	}
	out["default"] = problemResponse("any other code")
	return out
}

func problemResponse(text string) object {
	return object{"description": text, "content": object{mediaProblem: object{"schema": ref("Problem")}}}
}

func (s *schemas) success(rt *route) object {
	media, schema := mediaJSON, object{"type": "object"}
	if rt.media != "" {
		media = rt.media
	}
	if rt.ok != nil {
		schema = s.of(rt.ok)
	}
	out := object{"description": "Done.", "content": object{media: object{"schema": schema}}}
	if rt.stream() {
		out["description"] = "Events named stock: data is an item, id a cursor up to which everything has been sent."
	}
	headers := object{}
	for _, name := range rt.answerHeaders() {
		headers[name] = object{"schema": object{"type": "string"}}
	}
	if len(headers) > 0 {
		out["headers"] = headers
	}
	return out
}

func (rt *route) answerHeaders() []string {
	var out []string
	if _, item := rt.ok.(itemReply); item {
		out = append(out, "ETag")
	}
	if rt.op.IsWrite() {
		out = append(out, "Idempotent-Replayed")
	}
	if rt.op == protocol.OpReserve {
		out = append(out, "Location")
	}
	return out
}

// errors lists the codes a route may answer with.
func (rt *route) errors() []protocol.Code {
	codes := slices.Clone(commandDocs()[rt.op].codes)
	if rt.op == "" && rt.ok != nil {
		codes = commandDocs()[protocol.OpGet].codes
	}
	if len(codes) == 0 {
		codes = []protocol.Code{protocol.CodeBadRequest, protocol.CodeForbidden}
	}
	slices.Sort(codes)
	return codes
}
