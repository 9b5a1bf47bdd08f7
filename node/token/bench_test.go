package token_test

import (
	"crypto/elliptic"
	"fmt"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/token"
)

func BenchmarkToken(b *testing.B) {
	for _, p := range []pair{newEd25519(b, "k"), newEC(b, "k", elliptic.P256()), newRSA(b, "k")} {
		b.Run(p.method.Alg(), func(b *testing.B) {
			g := fileGuard(b, time.Now, p)
			text := p.token(b, claims(time.Now(), nil))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Token(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		p := newEd25519(b, "k")
		g := fileGuard(b, time.Now, p)
		other := p
		other.kid = "unknown"
		text := other.token(b, claims(time.Now(), nil))
		for b.Loop() {
			if _, err := g.Token(b.Context(), text); err == nil {
				b.Fatal("taken")
			}
		}
	})
}

func BenchmarkValid(b *testing.B) {
	p := newEd25519(b, "k")
	g := fileGuard(b, time.Now, p)
	var list []token.Revocation
	for i := range 100_000 {
		list = append(list, token.Revocation{TokenID: fmt.Sprint("id ", i)}, token.Revocation{Subject: fmt.Sprint("subject ", i)})
	}
	g.Revoke(list)
	caller := mustTake(b, g, p.token(b, claims(time.Now(), nil)))
	b.ReportAllocs()
	for b.Loop() {
		if !g.Valid(caller) {
			b.Fatal("not valid")
		}
	}
}
