package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// curveBytes is the length of a coordinate of P-256.
const curveBytes = 32

// parseKeys reads a JWKS or public keys in PEM.
func parseKeys(text []byte) (*keySet, error) {
	if text = bytes.TrimSpace(text); bytes.HasPrefix(text, []byte("{")) {
		return parseJWKS(text)
	}
	return parsePEM(text)
}

func parsePEM(text []byte) (*keySet, error) {
	var keys []key
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		public, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		k, err := newKey("", public)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) > keysMax {
		return nil, fmt.Errorf("%d keys, the limit is %d", len(keys), keysMax)
	}
	if len(keys) == 0 {
		return nil, errors.New("neither a JWKS nor public keys in PEM")
	}
	return newKeySet(keys, nil)
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("a private key, which belongs to the issuer alone")
	}
	return nil, errors.New("no PUBLIC KEY")
}

// jwk is what is read of a key in a JWKS.
type jwk struct {
	Type       string         `json:"kty"`
	Use        string         `json:"use"`
	Operations []string       `json:"key_ops"`
	Algorithm  string         `json:"alg"`
	KeyID      string         `json:"kid"`
	Curve      string         `json:"crv"`
	X          string         `json:"x"`
	Y          string         `json:"y"`
	N          string         `json:"n"`
	E          string         `json:"e"`
	Private    jsontext.Value `json:"d"`
}

// parseJWKS leaves out keys that can't be used: an issuer may well publish some for
// other purposes. A list without keys is how all of them are withdrawn; no list at all
// is an answer to another question.
func parseJWKS(text []byte) (*keySet, error) {
	var doc struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := unmarshal(text, &doc); err != nil {
		return nil, describe(err)
	}
	if doc.Keys == nil {
		return nil, errors.New("it is JSON, but has no list of keys")
	}
	if len(doc.Keys) > keysMax {
		return nil, fmt.Errorf("%d keys, the limit is %d", len(doc.Keys), keysMax)
	}
	var keys []key
	var ignored []string
	for i, v := range doc.Keys {
		k, err := parseJWK(v)
		switch {
		case err == nil:
			keys = append(keys, k)
		case len(ignored) < ignoredMax:
			ignored = append(ignored, fmt.Sprintf("key %d: %v", i, err))
		}
	}
	return newKeySet(keys, ignored)
}

// describe says where a JWKS can't be read, without the library's quotation of it: by
// mistake it may be a file of secrets.
func describe(err error) error {
	if bad, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("it looks like a JWKS, but is no valid JSON at byte %d", bad.ByteOffset)
	}
	return errors.New("it is JSON, but no JWKS")
}

func parseJWK(v jsontext.Value) (key, error) {
	var j jwk
	if err := unmarshal(v, &j); err != nil {
		return key{}, errors.New("no JWK")
	}
	switch {
	case j.Use != "" && j.Use != "sig", j.Operations != nil && !slices.Contains(j.Operations, "verify"):
		return key{}, errors.New("not for signatures")
	case j.Private != nil:
		return key{}, errors.New("a private key, which belongs to the issuer alone")
	case len(j.KeyID) > kidBytesMax:
		return key{}, fmt.Errorf("its id has more than %d bytes", kidBytesMax)
	}
	public, err := j.public()
	if err != nil {
		return key{}, err
	}
	k, err := newKey(j.KeyID, public)
	if err == nil && j.Algorithm != "" && j.Algorithm != k.algorithm {
		err = errors.New("for an algorithm that isn't allowed or doesn't fit")
	}
	return k, err
}

func (j *jwk) public() (any, error) {
	switch {
	case j.Type == "OKP" && j.Curve == "Ed25519":
		x, ok := decode(j.X)
		if !ok || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("x is no Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	case j.Type == "EC" && j.Curve == "P-256":
		x, ok1 := decode(j.X)
		y, ok2 := decode(j.Y)
		if !ok1 || !ok2 || len(x) != curveBytes || len(y) != curveBytes {
			return nil, errors.New("x and y are no point of P-256")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	case j.Type == "RSA":
		n, ok1 := decode(j.N)
		e, ok2 := decode(j.E)
		if !ok1 || !ok2 || len(e) > 4 {
			return nil, errors.New("n and e are no RSA key")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	}
	return nil, errors.New("of a type that isn't allowed")
}
