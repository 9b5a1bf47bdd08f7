package protocol

import (
	"errors"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// cborModes are the library's settings: for a client's commands, in which the
// scanner has looked for duplicates already, for a node's messages, which may hold
// more items than a command has selectors, and for what is sent rarely.
var cborModes = struct {
	command, message cbor.DecMode
	encode           cbor.EncMode
}{
	command: cborDecMode(SelectorsMax, cbor.DupMapKeyQuiet),
	message: cborDecMode(1<<20, cbor.DupMapKeyEnforcedAPF),
	encode:  cborEncMode(),
}

func cborDecMode(arrayMax int, dup cbor.DupMapKeyMode) cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         dup,
		MaxNestedLevels:   cborDepthMax,
		MaxArrayElements:  arrayMax,
		TagsMd:            cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		TextUnmarshaler:   cbor.TextUnmarshalerTextString,
	}.DecMode()
	if err != nil {
		panic("protocol: CBOR options: " + err.Error())
	}
	return mode
}

func cborEncMode() cbor.EncMode {
	mode, err := cbor.EncOptions{
		NilContainers: cbor.NilContainerAsEmpty, // as in JSON
		TextMarshaler: cbor.TextMarshalerTextString,
	}.EncMode()
	if err != nil {
		panic("protocol: CBOR options: " + err.Error())
	}
	return mode
}

func cborMessage(b []byte, v any) []byte {
	encoded, err := cborModes.encode.Marshal(v)
	if err != nil {
		// Wire types hold only strings, numbers and lists of them.
		panic("protocol: marshal: " + err.Error())
	}
	return append(b, encoded...)
}

// splitCBOR is Split for CBOR: one map, or an array of them read to its end.
func splitCBOR(msg []byte, limit int) ([]Raw, *Error) {
	if len(msg) == 0 {
		return nil, BadRequest("empty message")
	}
	if msg[0]&^31 != cborArray {
		if err := checkMap(msg); err != nil {
			return nil, err
		}
		return []Raw{msg}, nil
	}
	s := cborScanner{b: msg}
	out, tooMany, err := s.commands(limit)
	switch {
	case err != nil:
		return nil, err
	case s.at != len(msg):
		return nil, BadRequest("something follows the array of commands")
	case tooMany:
		return nil, NewError(CodeTooLarge, "more than %d commands in one message", limit)
	case len(out) == 0:
		return nil, BadRequest("an empty array of commands")
	}
	return out, nil
}

func (s *cborScanner) commands(limit int) (out []Raw, tooMany bool, _ *Error) {
	h, err := s.head()
	if err != nil {
		return nil, false, invalidCBOR(err)
	}
	for i := uint64(0); s.more(h, i); i++ {
		start := s.at
		if err := s.value(1); err != nil {
			return nil, false, invalidCBOR(err)
		}
		v := Raw(s.b[start:s.at:s.at])
		if err := checkMap(v); err != nil {
			return nil, false, err
		}
		if len(out) == limit {
			tooMany = true
			continue
		}
		out = append(out, v)
	}
	return out, tooMany, nil
}

func checkMap(v []byte) *Error {
	if major := v[0] &^ 31; major != cborMap {
		return BadRequest("a command is a CBOR map, not %s", cborKindName(major))
	}
	return nil
}

func cborKindName(major byte) string {
	switch major {
	case cborUint, cborNeg:
		return "a number"
	case cborBytes:
		return "a byte string"
	case cborString:
		return "a text string"
	case cborArray:
		return "an array"
	}
	return "this"
}

func invalidCBOR(err error) *Error { return BadRequest("not valid CBOR: %v", err) }

// decodeCBOR is Decode for CBOR. The ID keeps its own bytes.
func (c *Command) decodeCBOR(v Raw) *Error {
	id := c.ID[:0]
	c.ID = nil
	s := cborScanner{b: v}
	if err := s.whole(); err != nil {
		return invalidCBOR(err)
	}
	if err := checkMap(v); err != nil {
		return err
	}
	if err := checkCBORID(s.id); err != nil {
		return err
	}
	if len(s.id) > 0 && s.id[0] != cborUndefined {
		c.ID = append(id, s.id...)
	}
	if err := cborModes.command.Unmarshal(v, c); err != nil {
		return cborTypeError(err)
	}
	return c.Check()
}

func checkCBORID(id []byte) *Error {
	if len(id) == 0 {
		return nil
	}
	switch major := id[0] &^ 31; {
	case len(id) > idBytesMax, major == cborBytes, major == cborArray, major == cborMap, id[0] == cborTrue, id[0] == cborFalse:
		return BadRequest("id must be a number or a string of at most %d bytes", idBytesMax)
	}
	return nil
}

func cborTypeError(err error) *Error {
	var wrong *cbor.UnmarshalTypeError
	var long *cbor.MaxArrayElementsError
	switch {
	case errors.As(err, &wrong):
		field := wrong.StructFieldName[strings.LastIndexByte(wrong.StructFieldName, '.')+1:]
		return BadRequest("wrong type or range at %s: CBOR %s does not fit %s", field, wrong.CBORType, wrong.GoType)
	case errors.As(err, &long):
		return NewError(CodeTooLarge, "an array of more than %d elements", SelectorsMax)
	}
	return invalidCBOR(err)
}
