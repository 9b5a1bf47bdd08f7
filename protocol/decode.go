package protocol

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// idBytesMax bounds what a client can make a node echo.
const idBytesMax = 256

// jsonDepthMax is how deep what a client sends may nest. A command needs four levels;
// fields that we don't know may need some, too.
const jsonDepthMax = 32

// tooDeep refuses what nests so deep that reading it would cost a hundred times what
// bytes of an honest message do.
func tooDeep(msg []byte) *Error {
	if bytes.Count(msg, []byte{'{'})+bytes.Count(msg, []byte{'['}) <= jsonDepthMax || depthOf(msg) <= jsonDepthMax {
		return nil
	}
	return BadRequest("nested more than %d levels deep", jsonDepthMax)
}

// depthOf is how deep a text nests, if it is JSON.
func depthOf(msg []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(msg); i++ {
		switch b := msg[i]; {
		case b == '"':
			quoted = !quoted
		case b == '\\':
			i++ // is of a string, and the next one too
		case quoted:
		case b == '{' || b == '[':
			depth++
			deepest = max(deepest, depth)
		case b == '}' || b == ']':
			depth--
		}
	}
	return deepest
}

// Split reads a client message as one command or an array of at most limit
// commands and returns each command's own bytes, which alias msg. An array has
// been read to its end, so its commands are well-formed JSON objects; a single
// command is left to Decode. On an error nothing of the message may be done.
func Split(msg []byte, limit int) ([]jsontext.Value, *Error) {
	trimmed := bytes.TrimLeft(msg, " \t\r\n")
	if len(trimmed) == 0 {
		return nil, BadRequest("empty message")
	}
	if err := tooDeep(trimmed); err != nil {
		return nil, err
	}
	if trimmed[0] != '[' {
		v := jsontext.Value(bytes.TrimRight(trimmed, " \t\r\n"))
		if err := checkObject(v); err != nil {
			return nil, err
		}
		return []jsontext.Value{v}, nil
	}
	return splitArray(msg, limit)
}

func splitArray(msg []byte, limit int) ([]jsontext.Value, *Error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(msg))
	if _, err := d.ReadToken(); err != nil {
		return nil, syntaxError(err)
	}
	var out []jsontext.Value
	tooMany := false
	for d.PeekKind() != ']' {
		v, err := d.ReadValue()
		if err != nil {
			return nil, syntaxError(err)
		}
		if v.Kind() != '{' {
			return nil, BadRequest("a command is a JSON object, not %s", kindName(v.Kind()))
		}
		if len(out) == limit {
			tooMany = true
			continue
		}
		// The decoder's buffer is msg itself, so v stays valid; its offset
		// gives a slice of msg rather than of decoder state.
		end := d.InputOffset()
		out = append(out, jsontext.Value(msg[end-int64(len(v)):end]))
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, syntaxError(err)
	}
	if rest := bytes.TrimLeft(msg[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, BadRequest("something follows the array of commands")
	}
	if tooMany {
		return nil, NewError(CodeTooLarge, "more than %d commands in one message", limit)
	}
	if len(out) == 0 {
		return nil, BadRequest("an empty array of commands")
	}
	return out, nil
}

func checkObject(v jsontext.Value) *Error {
	switch v.Kind() {
	case '{':
		return nil
	case jsontext.KindInvalid:
		return BadRequest("not valid JSON")
	}
	return BadRequest("a command is a JSON object, not %s", kindName(v.Kind()))
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "an array"
	}
	return "this"
}

func syntaxError(err error) *Error {
	return BadRequest("not valid JSON: %v", err)
}

// Decode reads one command, as Split returned it, and checks it. The command's
// ID is set even when an error is returned, unless the id itself is bad.
func (c *Command) Decode(v jsontext.Value) *Error {
	if err := json.Unmarshal(v, c); err != nil {
		c.ID = findID(v)
		return typeError(err)
	}
	if !validID(c.ID) {
		c.ID = nil
		return BadRequest("id must be a number or a string of at most %d bytes", idBytesMax)
	}
	return c.Check()
}

func validID(id jsontext.Value) bool {
	if len(id) == 0 {
		return true
	}
	k := id.Kind()
	return len(id) <= idBytesMax && (k == '"' || k == '0' || k == 'n')
}

// findID looks for a usable id in a command that could not be decoded, so that
// its sender can tell which one it was.
func findID(v jsontext.Value) jsontext.Value {
	var only struct {
		ID jsontext.Value `json:"id"`
	}
	if json.Unmarshal(v, &only) != nil || !validID(only.ID) {
		return nil
	}
	return only.ID
}

func typeError(err error) *Error {
	var sem *json.SemanticError
	if !errors.As(err, &sem) {
		return syntaxError(err)
	}
	where := string(sem.JSONPointer)
	if where == "" {
		where = "/"
	}
	return BadRequest("wrong type or range at %s: %s", where, semanticText(sem))
}

func semanticText(sem *json.SemanticError) string {
	if sem.GoType == nil {
		return fmt.Sprint(sem.Err)
	}
	return fmt.Sprintf("%s does not fit %s", kindName(sem.JSONKind), sem.GoType.Kind())
}

// DecodeBody reads a JSON object from an HTTP body into c, without checking it:
// the path and headers may still add fields. An empty body is an empty object.
func (c *Command) DecodeBody(body []byte) *Error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := checkObject(jsontext.Value(bytes.TrimSpace(body))); err != nil {
		return err
	}
	if err := tooDeep(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, c); err != nil {
		return typeError(err)
	}
	return nil
}
