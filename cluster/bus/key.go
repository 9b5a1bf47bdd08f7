package bus

import (
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// EscapeKey makes a row key of tokens: bytes outside A-Z a-z 0-9 - _ become =XX,
// an empty token is "=", tokens are joined by ".". Two different lists of tokens
// never give the same key; an empty list gives "", which no Table takes. The
// readable part stays readable, and NATS tools can match single tokens.
func EscapeKey(tokens ...string) string {
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 {
			b.WriteByte('.')
		}
		if t == "" {
			b.WriteByte('=')
		}
		for j := range len(t) {
			if c := t[j]; isPlain(c) {
				b.WriteByte(c)
			} else {
				b.Write([]byte{'=', hexDigits[c>>4], hexDigits[c&15]})
			}
		}
	}
	return b.String()
}

// UnescapeKey gives back the tokens. The error is ErrName for anything which
// EscapeKey does not return.
func UnescapeKey(key string) ([]string, error) {
	if key == "" {
		return nil, nil
	}
	parts := strings.Split(key, ".")
	for i, p := range parts {
		t, ok := unescapeToken(p)
		if !ok {
			return nil, fmt.Errorf("bus: %w: key %q", ErrName, key)
		}
		parts[i] = t
	}
	return parts, nil
}

func unescapeToken(s string) (string, bool) {
	if s == "=" {
		return "", true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '=' {
			if i+2 >= len(s) {
				return "", false
			}
			high, low := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
			c = byte(high<<4 | low)
			if high < 0 || low < 0 || isPlain(c) {
				return "", false
			}
			i += 2
		} else if !isPlain(c) {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), len(b) > 0
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// keyValid is what NATS key-value tools take as a key.
func keyValid(key string) bool {
	last := byte('.')
	for i := range len(key) {
		c := key[i]
		if !isPlain(c) && c != '=' && c != '/' && c != '.' || c == '.' && last == '.' {
			return false
		}
		last = c
	}
	return last != '.'
}
