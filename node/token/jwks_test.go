package token_test

import (
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

// with is a key's public half with changes; a nil value leaves a member out.
func with(p pair, changes object) object {
	j := p.jwk()
	for name, v := range changes {
		if j[name] = v; v == nil {
			delete(j, name)
		}
	}
	return j
}

// Of what an issuer publishes, keys are used that are whole, strong and meant for it.
func TestWhichKeysAreUsed(t *testing.T) {
	ed, ec, rs := newEd25519(t, "k"), newEC(t, "k", elliptic.P256()), newRSA(t, "k")
	other := newEd25519(t, "other")
	odd := rsaWith(t, func(k *rsa.PublicKey) { k.E = 65536 })
	one := rsaWith(t, func(k *rsa.PublicKey) { k.E = 1 })
	huge := rsaWith(t, func(k *rsa.PublicKey) { k.N = new(big.Int).Lsh(k.N, 8192) })
	for name, c := range map[string]struct {
		signer  pair
		key     object
		used    bool
		foreign bool // not the signer's
	}{
		"Ed25519":               {ed, ed.jwk(), true, false},
		"EC":                    {ec, ec.jwk(), true, false},
		"RSA":                   {rs, rs.jwk(), true, false},
		"bare":                  {rs, with(rs, object{"use": nil, "alg": nil}), true, false},
		"with more":             {rs, with(rs, object{"x5c": []string{"x"}, "x5t": "y", "key_ops": []string{"verify"}}), true, false},
		"use enc":               {rs, with(rs, object{"use": "enc"}), false, false},
		"only to encrypt":       {rs, with(rs, object{"key_ops": []string{"encrypt"}}), false, false},
		"for PS256":             {rs, with(rs, object{"alg": "PS256"}), false, false},
		"for HS256":             {rs, with(rs, object{"alg": "HS256"}), false, false},
		"for ES256":             {rs, with(rs, object{"alg": "ES256"}), false, false},
		"private":               {ed, with(ed, object{"d": "AAAA"}), false, false},
		"private, null":         {ed, with(ed, object{"d": nil, "D": "x"}), true, false},
		"Ed448":                 {ed, with(ed, object{"crv": "Ed448"}), false, false},
		"X25519":                {ed, with(ed, object{"crv": "X25519"}), false, false},
		"short Ed25519":         {ed, with(ed, object{"x": segment("short")}), false, false},
		"P-384":                 {ec, newEC(t, "k", elliptic.P384()).jwk(), false, false},
		"P-384 said P-256":      {ec, with(newEC(t, "k", elliptic.P384()), object{"crv": "P-256"}), false, false},
		"not on the curve":      {ec, with(ec, object{"y": segment(strings.Repeat("\x01", 32))}), false, false},
		"point at infinity":     {ec, with(ec, object{"x": segment(strings.Repeat("\x00", 32)), "y": segment(strings.Repeat("\x00", 32))}), false, false},
		"short coordinate":      {ec, with(ec, object{"x": segment("x")}), false, false},
		"coordinate, padded":    {ec, with(ec, object{"x": fmt.Sprint(ec.jwk()["x"]) + "="}), false, false},
		"no modulus":            {rs, with(rs, object{"n": nil}), false, false},
		"modulus of 1":          {rs, with(rs, object{"n": "AQ"}), false, false},
		"modulus too large":     {rs, with(rs, object{"n": huge}), false, false},
		"no exponent":           {rs, with(rs, object{"e": nil}), false, false},
		"exponent of 1":         {rs, with(rs, object{"e": one}), false, false},
		"even exponent":         {rs, with(rs, object{"e": odd}), false, false},
		"large exponent":        {rs, with(rs, object{"e": segment("\xff\xff\xff\xff")}), false, false},
		"type in lower case":    {rs, with(rs, object{"kty": "rsa"}), false, false},
		"type missing":          {rs, with(rs, object{"kty": nil}), false, false},
		"id that is a number":   {rs, with(rs, object{"kid": 7}), false, false},
		"id too long":           {rs, with(rs, object{"kid": strings.Repeat("k", 257)}), false, false},
		"nested deep":           {rs, with(rs, object{"x": nested(20)}), false, false},
		"of another type by id": {ed, rs.jwk(), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			file := keyFile(t, marshal(object{"keys": []object{other.jwk(), c.key}}))
			if name == "nested deep" {
				if _, err := token.New(t.Context(), token.Config{Keys: file}); err == nil {
					t.Error("a JWKS that is nested deep is taken")
				}
				return
			}
			g := newGuard(t, token.Config{Keys: file, Now: fixed})
			text := c.signer.token(t, claims(fixed(), nil))
			caller, err := g.Token(t.Context(), text)
			if taken := caller != nil; taken != (c.used && !c.foreign) {
				t.Errorf("taken: %v (%v)", taken, err)
			}
			// A key that wouldn't verify this token in any case shows by itself.
			alone, fault := token.New(t.Context(), token.Config{Keys: keyFile(t, marshal(object{"keys": []object{c.key}}))})
			if used := fault == nil; used != c.used {
				t.Errorf("used: %v, want %v (%v)", used, c.used, fault)
			}
			if alone != nil {
				alone.Close()
			}
			mustTake(t, g, other.token(t, claims(fixed(), nil)))
		})
	}
}

// rsaWith returns the changed part of an RSA key as a JWKS has it.
func rsaWith(t *testing.T, change func(*rsa.PublicKey)) string {
	t.Helper()
	public := *newRSA(t, "").secret.Public().(*rsa.PublicKey)
	n, e := new(big.Int).Set(public.N), public.E
	change(&public)
	if public.E != e {
		return segment(string(big.NewInt(int64(public.E)).Bytes()))
	}
	if public.N.Cmp(n) != 0 {
		return segment(string(public.N.Bytes()))
	}
	t.Fatal("nothing was changed")
	return ""
}

// Two keys of different types may have one id.
func TestKeysOfOneID(t *testing.T) {
	ed, ec := newEd25519(t, "k"), newEC(t, "k", elliptic.P256())
	g := fileGuard(t, fixed, ed, ec)
	mustTake(t, g, ed.token(t, claims(fixed(), nil)))
	mustTake(t, g, ec.token(t, claims(fixed(), nil)))
}

func TestTooManyKeys(t *testing.T) {
	p := newEd25519(t, "k")
	var keys []object
	for range 257 {
		keys = append(keys, p.jwk())
	}
	newGuard(t, token.Config{Keys: keyFile(t, marshal(object{"keys": keys[1:]}))})
	if _, err := token.New(t.Context(), token.Config{Keys: keyFile(t, marshal(object{"keys": keys}))}); err == nil || !strings.Contains(err.Error(), "257 keys") {
		t.Errorf("got %v", err)
	}
}

// Keys in PEM have no id, and do for tokens with any.
func TestKeysInPEM(t *testing.T) {
	pairs := []pair{newEd25519(t, "a"), newEC(t, "b", elliptic.P256()), newRSA(t, "")}
	var text []byte
	for _, p := range pairs {
		text = append(append(text, "# a comment\n"...), p.pem(t)...)
	}
	g := newGuard(t, token.Config{Keys: keyFile(t, text), Now: fixed})
	for _, p := range pairs {
		mustTake(t, g, p.token(t, claims(fixed(), nil)))
	}
	long := pairs[0]
	long.kid = strings.Repeat("k", 257)
	mustRefuse(t, g, long.token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, unknownKey)
	mustRefuse(t, g, newEd25519(t, "a").token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, wrongSignature)

	pkcs1 := x509.MarshalPKCS1PublicKey(newRSA(t, "").secret.Public().(*rsa.PublicKey))
	g = newGuard(t, token.Config{Keys: keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1})), Now: fixed})
	mustTake(t, g, newRSA(t, "x").token(t, claims(fixed(), nil)))

	p384 := newEC(t, "", elliptic.P384())
	p384.method = jwt.SigningMethodES384
	if _, err := token.New(t.Context(), token.Config{Keys: keyFile(t, p384.pem(t))}); err == nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("got %v", err)
	}
}
