package token

import (
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	tokenBytesMax = 16 << 10
	kidBytesMax   = 256
	nestingMax    = 16 // grants are 4 deep
)

// signed is a token taken apart, of which nothing has been verified.
type signed struct {
	algorithm string // one of the allowed
	kid       string // "" where the token doesn't name its key
	input     string // what the signature is of
	signature []byte
	payload   []byte
}

// header is what is read of a token's header. Members that tell where to find a key
// (jku, x5u, jwk, x5c) are not: whoever makes a token would choose the key.
type header struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Critical  jsontext.Value `json:"crit"`
}

// split takes a token in compact form apart and says whether it may be verified at all.
func split(token string) (signed, *refusal) {
	if len(token) > tokenBytesMax {
		return signed{}, refusedSize
	}
	if strings.Count(token, ".") != 2 {
		return signed{}, refusedForm
	}
	end := strings.LastIndexByte(token, '.')
	head, payload, _ := strings.Cut(token[:end], ".")
	t := signed{input: token[:end]}
	var ok1, ok2, ok3 bool
	var text []byte
	text, ok1 = decode(head)
	t.payload, ok2 = decode(payload)
	t.signature, ok3 = decode(token[end+1:])
	if !ok1 || !ok2 || !ok3 {
		return signed{}, refusedForm
	}
	return t, t.readHeader(text)
}

func (t *signed) readHeader(text []byte) *refusal {
	var h header
	if err := unmarshal(text, &h); err != nil {
		return refusedForm
	}
	switch {
	case h.Critical != nil:
		return refusedCritical
	case methods[h.Algorithm] == nil:
		return refusedAlgorithm
	case len(h.KeyID) > kidBytesMax:
		return refusedKey // no key is kept under such a name
	}
	t.algorithm, t.kid = h.Algorithm, h.KeyID
	return nil
}

// decode takes unpadded base64url only, and of each value its one right form, so that a
// token can't be written in two ways. Line ends, which the library skips, are refused.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// unmarshal is strict: a name that comes twice, or in other case, could mean one thing
// to the issuer and another here.
func unmarshal(text []byte, v any) error {
	if nesting(text) > nestingMax {
		return errNesting
	}
	return json.Unmarshal(text, v)
}

// nesting returns how deep arrays and objects go, in text that needn't be JSON.
func nesting(text []byte) (deepest int) {
	depth, quoted, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}
