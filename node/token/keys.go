package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

const (
	keysMax     = 256 // of a source
	ignoredMax  = 8   // told of a source's other keys
	triesMax    = 8   // keys that one token is verified with
	rsaBitsMin  = 2048
	rsaBitsMax  = 8192 // verifying takes time that grows with its square
	exponentMax = 1<<31 - 1
)

// methods are the algorithms allowed. Of the library only these three are reached.
var methods = map[string]jwt.SigningMethod{
	"EdDSA": jwt.SigningMethodEdDSA,
	"ES256": jwt.SigningMethodES256,
	"RS256": jwt.SigningMethodRS256,
}

// key is a public key and the one algorithm that goes with its type, so that a token
// can't have it used with another.
type key struct {
	kid       string // "": it has none, and may be any token's
	algorithm string
	public    any
}

// keySet are the keys of a source. It is not changed once made.
type keySet struct {
	named    map[string][]key
	nameless []key
	all      []key
	ignored  []string // why others of the source are not used
}

// newKeySet refuses a source whose keys are all of no use. One without any keys withdraws
// those before.
func newKeySet(keys []key, ignored []string) (*keySet, error) {
	if len(keys) == 0 && len(ignored) > 0 {
		return nil, fmt.Errorf("no key that can be used %q", ignored)
	}
	s := &keySet{named: make(map[string][]key), all: keys, ignored: ignored}
	for _, k := range keys {
		if k.kid == "" {
			s.nameless = append(s.nameless, k)
		} else {
			s.named[k.kid] = append(s.named[k.kid], k)
		}
	}
	return s, nil
}

// has reports whether a key has an id.
func (s *keySet) has(kid string) bool { return len(s.named[kid]) > 0 }

// candidates are the keys that a token may be signed with, before its algorithm is
// looked at. known is false where a newer set might have others.
func (s *keySet) candidates(t *signed) (keys []key, known bool) {
	if t.kid == "" {
		return s.all, false
	}
	if named := s.named[t.kid]; named != nil {
		return named, true
	}
	return s.nameless, false
}

// verify returns nil if a key of the set signed the token.
func (s *keySet) verify(t *signed) (refused *refusal, known bool) {
	keys, known := s.candidates(t)
	tries := 0
	for _, k := range keys {
		if k.algorithm != t.algorithm || tries == triesMax {
			continue
		}
		tries++
		if methods[t.algorithm].Verify(t.input, t.signature, k.public) == nil {
			return nil, true
		}
	}
	switch {
	case tries > 0:
		return refusedSignature, known
	case known:
		return refusedFit, true
	}
	return refusedKey, false
}

// newKey says which algorithm goes with a key, if one does.
func newKey(kid string, public any) (key, error) {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return key{kid, "EdDSA", p}, nil
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return key{}, errors.New("an EC key must be on P-256")
		}
		return key{kid, "ES256", p}, nil
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < rsaBitsMin || bits > rsaBitsMax {
			return key{}, fmt.Errorf("an RSA key must have %d..%d bits, not %d", rsaBitsMin, rsaBitsMax, bits)
		}
		if p.E < 3 || p.E > exponentMax || p.E%2 == 0 {
			return key{}, errors.New("an RSA key's exponent must be odd, 3..2^31-1")
		}
		return key{kid, "RS256", p}, nil
	}
	return key{}, errors.New("a key must be Ed25519, EC or RSA")
}
