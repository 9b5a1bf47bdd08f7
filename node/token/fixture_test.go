package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	issuer   = "https://login.example"
	audience = "stockmesh"
)

// pair is a key that signs, as an issuer holds it.
type pair struct {
	kid    string
	method jwt.SigningMethod
	secret crypto.Signer
}

func newEd25519(t testing.TB, kid string) pair {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair{kid, jwt.SigningMethodEdDSA, secret}
}

func newEC(t testing.TB, kid string, curve elliptic.Curve) pair {
	t.Helper()
	secret, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair{kid, jwt.SigningMethodES256, secret}
}

// rsaSecret is made once: it takes long.
var rsaSecret = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSA(t testing.TB, kid string) pair {
	t.Helper()
	secret, err := rsaSecret()
	if err != nil {
		t.Fatal(err)
	}
	return pair{kid, jwt.SigningMethodRS256, secret}
}

type object = map[string]any

// jwk is the public half as a JWKS has it.
func (p pair) jwk() object {
	b64 := base64.RawURLEncoding.EncodeToString
	j := object{"kid": p.kid, "use": "sig", "alg": p.method.Alg()}
	if p.kid == "" {
		delete(j, "kid")
	}
	switch public := p.secret.Public().(type) {
	case ed25519.PublicKey:
		j["kty"], j["crv"], j["x"] = "OKP", "Ed25519", b64(public)
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		j["kty"], j["crv"], j["x"], j["y"] = "EC", public.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
	case *rsa.PublicKey:
		j["kty"], j["n"], j["e"] = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	}
	return j
}

func (p pair) pem(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(p.secret.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func jwks(pairs ...pair) []byte {
	keys := []object{}
	for _, p := range pairs {
		keys = append(keys, p.jwk())
	}
	return marshal(object{"keys": keys})
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// claims are good ones, with changes; a nil value leaves one out.
func claims(now time.Time, changes object) object {
	c := object{
		"iss": issuer, "aud": audience, "sub": "clerk", "jti": "t1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"grants": []object{{"do": []string{"watch"}}},
	}
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// token signs claims as an issuer does.
func (p pair) token(t testing.TB, c object) string {
	t.Helper()
	head := object{"typ": "JWT", "alg": p.method.Alg()}
	if p.kid != "" {
		head["kid"] = p.kid
	}
	return p.sign(t, string(marshal(head)), string(marshal(c)))
}

// sign signs any header and payload.
func (p pair) sign(t testing.TB, head, payload string) string {
	t.Helper()
	input := segment(head) + "." + segment(payload)
	signature, err := p.method.Sign(input, p.secret)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + segment(string(signature))
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// keyFile puts keys into a file of their own.
func keyFile(t testing.TB, text []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// newGuard fills in who it must be.
func newGuard(t testing.TB, c token.Config) *token.Guard {
	t.Helper()
	g, err := token.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// fileGuard is one for the tokens that claims and pair.token make.
func fileGuard(t testing.TB, now func() time.Time, pairs ...pair) *token.Guard {
	t.Helper()
	return newGuard(t, token.Config{
		Keys: keyFile(t, jwks(pairs...)), Issuer: issuer, Audience: audience, Region: "eu", Now: now,
	})
}

func mustTake(t testing.TB, g *token.Guard, text string) *protocol.Caller {
	t.Helper()
	caller, err := g.Token(context.Background(), text)
	if err != nil {
		t.Fatalf("a good token is refused: %v", err)
	}
	return caller
}

func mustRefuse(t testing.TB, g *token.Guard, text string, want protocol.Code, message string) *protocol.Error {
	t.Helper()
	caller, err := g.Token(context.Background(), text)
	if caller != nil || err == nil {
		t.Fatalf("a bad token is taken: %+v", caller)
	}
	if err.Code != want || err.Message != message {
		t.Fatalf("refused with %v, want %s: %s", err, want, message)
	}
	return err
}
