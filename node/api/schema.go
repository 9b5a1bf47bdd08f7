package api

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/stockmesh/stockmesh/protocol"
)

// object is a JSON object of a document.
type object = map[string]any

const schemaPath = "#/components/schemas/"

func ref(name string) object { return object{"$ref": schemaPath + name} }

// schemas turns the wire's Go types into the schemas of a document.
type schemas struct {
	reflector jsonschema.Reflector
	defs      object // by name
}

// newSchemas holds the commands, what they answer, and errors.
func newSchemas() *schemas {
	s := &schemas{defs: object{}}
	s.reflector = jsonschema.Reflector{
		Anonymous:                 true,
		AllowAdditionalProperties: true, // receivers ignore fields they don't know
		Mapper:                    mapType,
		Namer:                     schemaName,
	}
	var commands, oks []any
	for _, op := range sortedOps() {
		commands = append(commands, ref(s.addCommand(op)))
		if ok := s.of(commandDocs()[op].ok); !slices.ContainsFunc(oks, sameRef(ok)) {
			oks = append(oks, ok)
		}
	}
	s.defs["Command"] = object{"description": "Any command.", "oneOf": commands}
	s.defs["OK"] = object{"description": "The ok object of a command.", "anyOf": oks}
	for _, v := range []any{problem{}, protocol.Error{}, reply{}} {
		s.of(v)
	}
	return s
}

func sameRef(o object) func(any) bool {
	return func(other any) bool { return other.(object)["$ref"] == o["$ref"] }
}

// of returns a reference to the schema of v's type, adding it and what it refers
// to where they are new.
func (s *schemas) of(v any) object { return s.ofType(reflect.TypeOf(v)) }

func (s *schemas) ofType(t reflect.Type) object {
	if t.Kind() == reflect.Slice {
		return object{"type": "array", "items": s.ofType(t.Elem())}
	}
	name := schemaName(t)
	if s.defs[name] == nil {
		s.add(s.reflect(t))
	}
	return ref(name)
}

func (s *schemas) add(defs object) {
	for name, def := range defs {
		if s.defs[name] != nil {
			continue
		}
		schema := def.(object)
		describe(name, schema)
		if name == "Line" || name == "Have" {
			// Commands may leave the location out.
			schema["required"] = slices.DeleteFunc(schema["required"].([]any), func(f any) bool { return f == "location" })
		}
		s.defs[name] = schema
	}
}

// reflect returns the schemas of a type and of all it refers to, by name.
func (s *schemas) reflect(t reflect.Type) object {
	b := protocol.AppendJSON(nil, s.reflector.ReflectFromType(t).Definitions)
	b = bytes.ReplaceAll(b, []byte("#/$defs/"), []byte(schemaPath))
	var defs object
	if err := protocol.UnmarshalJSON(b, &defs); err != nil {
		panic("api: schema of " + t.Name() + ": " + err.Error())
	}
	return defs
}

// addCommand adds the schema of one command: those fields of protocol.Command
// that it reads.
func (s *schemas) addCommand(op protocol.Op) string {
	defs := s.reflect(reflect.TypeFor[protocol.Command]())
	all := defs["Command"].(object)["properties"].(object)
	doc := commandDocs()[op]
	properties := object{"op": object{"const": op}, "id": all["id"], "traceparent": all["traceparent"]}
	for _, field := range doc.fields() {
		properties[field] = all[field]
	}
	delete(defs, "Command")
	s.add(defs)
	name := commandName(op)
	command := object{
		"type":        "object",
		"description": doc.summary + ".",
		"properties":  properties,
		"required":    append([]string{"op"}, doc.required...),
	}
	describe(name, command)
	s.defs[name] = command
	return name
}

func commandName(op protocol.Op) string {
	return strings.ToUpper(string(op[:1])) + string(op[1:]) + "Command"
}

// body is a command as an HTTP body: op is the route's, and what path, query or
// headers may say need not be said again.
func (s *schemas) body(op protocol.Op, elsewhere ...string) object {
	doc := commandDocs()[op]
	full := s.defs[commandName(op)].(object)["properties"].(object)
	properties := maps.Clone(full)
	delete(properties, "op")
	delete(properties, "id")
	schema := object{"type": "object", "properties": properties}
	var required []string
	for _, field := range doc.required {
		if !slices.Contains(elsewhere, field) {
			required = append(required, field)
		}
	}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

// schemaName is the type's name, exported or not; "" for a type without one.
func schemaName(t reflect.Type) string {
	if t.Name() == "" {
		return ""
	}
	return strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
}

// mapType gives a schema to types whose JSON is not what their Go kind says.
func mapType(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[protocol.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[protocol.State]():
		return enum(protocol.Held, protocol.Confirmed, protocol.Released, protocol.Expired)
	case reflect.TypeFor[protocol.Code]():
		return enum(sortedCodes()...)
	case reflect.TypeFor[okObject]():
		return &jsonschema.Schema{Ref: schemaPath + "OK"}
	case reflect.TypeFor[commandID](), commandIDType():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "number"}, {Type: "string"}, {Type: "null"}}}
	}
	return nil
}

// commandIDType is raw JSON in the Go type, which would pass for bytes.
func commandIDType() reflect.Type {
	f, _ := reflect.TypeFor[protocol.Command]().FieldByName("ID")
	return f.Type
}

func enum[T any](values ...T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

func sortedCodes() []protocol.Code { return slices.Sorted(maps.Keys(protocol.Codes())) }

func sortedOps() []protocol.Op {
	ops := protocol.Ops()
	slices.Sort(ops)
	return ops
}

// describe adds what a Go type does not say: meaning and limits. A field has one
// meaning throughout the contract, or an entry of its own as "Type.field".
func describe(name string, schema object) {
	properties, _ := schema["properties"].(object)
	docs := fieldDocs()
	for field, p := range properties {
		doc, ok := docs[name+"."+field]
		if !ok {
			doc = docs[field]
		}
		property := p.(object)
		if doc.text != "" {
			property["description"] = doc.text
		}
		doc.limit(property)
	}
}

func (d *fieldDoc) limit(s object) {
	switch s["type"] {
	case "array":
		if d.high > 0 {
			s["maxItems"] = d.high
		}
		if items, ok := s["items"].(object); ok && items["type"] == "string" && d.bytes > 0 {
			items["maxLength"] = d.bytes
		}
	case "integer":
		if d.high > 0 {
			s["minimum"], s["maximum"] = d.low, d.high
		}
	case "string":
		if d.bytes > 0 {
			s["maxLength"] = d.bytes
		}
		if len(d.values) > 0 {
			s["enum"] = d.values
		}
	}
}
