package token_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stockmesh/stockmesh/protocol"
)

// FuzzToken feeds text as a token, and as header and payload that the issuer signs.
func FuzzToken(f *testing.F) {
	p := newEd25519(f, "one")
	g := fileGuard(f, fixed, p)
	good := p.token(f, claims(fixed(), nil))
	head, payload := `{"alg":"EdDSA","kid":"one"}`, string(marshal(claims(fixed(), nil)))
	f.Add(good, head, payload)
	f.Add("..", `{"alg":"none"}`, `{"sub":"x","exp":1e9}`)
	f.Add("", `{"alg":"EdDSA","crit":[]}`, `{"sub":"x","exp":9e10,"aud":["stockmesh"],"grants":[{"do":["sell"],"skus":[]}]}`)
	f.Fuzz(func(t *testing.T, text, head, payload string) {
		if c, err := g.Token(t.Context(), text); (c != nil) == (err != nil) || c != nil && text != good {
			t.Fatalf("%q: %+v, %v", text, c, err)
		}
		signed := p.sign(t, head, payload)
		c, err := g.Token(t.Context(), signed)
		if (c != nil) == (err != nil) {
			t.Fatalf("%+v, %v", c, err)
		}
		if err != nil {
			if err.Code != protocol.CodeUnauthorized || len(err.Message) > 128 {
				t.Fatalf("%v", err)
			}
			return
		}
		if c.Subject == "" || len(c.Subject) > 256 || !utf8.ValidString(c.Subject) || strings.ContainsFunc(c.Subject, unicode.IsControl) {
			t.Fatalf("subject %q", c.Subject)
		}
		if !c.ExpiresAt.After(fixed()) || c.Access == nil || !g.Valid(c) {
			t.Fatalf("%+v", c)
		}
		if !strings.Contains(payload, "grants") && !strings.Contains(payload, `\u`) {
			for _, right := range protocol.Rights() {
				if c.Access.May(right) {
					t.Fatalf("%s without grants", right)
				}
			}
		}
	})
}
