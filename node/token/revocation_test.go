package token_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestRevocations(t *testing.T) {
	p := newEd25519(t, "one")
	issued := fixed().Add(-time.Minute)
	for name, c := range map[string]struct {
		revocation token.Revocation
		claims     object
		refused    bool
	}{
		"by id":                     {token.Revocation{TokenID: "t1"}, nil, true},
		"by another id":             {token.Revocation{TokenID: "t2"}, nil, false},
		"by id, which it has not":   {token.Revocation{TokenID: "t1"}, object{"jti": nil}, false},
		"by id, past":               {token.Revocation{TokenID: "t1", Until: fixed()}, nil, false},
		"by id, not yet past":       {token.Revocation{TokenID: "t1", Until: fixed().Add(time.Second)}, nil, true},
		"by subject":                {token.Revocation{Subject: "clerk"}, nil, true},
		"by another subject":        {token.Revocation{Subject: "clerk2"}, nil, false},
		"issued before":             {token.Revocation{Subject: "clerk", Before: fixed()}, nil, true},
		"issued after":              {token.Revocation{Subject: "clerk", Before: issued.Add(-time.Second)}, nil, false},
		"issued in that moment":     {token.Revocation{Subject: "clerk", Before: issued}, nil, true},
		"issued in that second":     {token.Revocation{Subject: "clerk", Before: issued.Add(time.Second / 2)}, nil, true},
		"issued later that second":  {token.Revocation{Subject: "clerk", Before: issued}, object{"iat": float64(issued.Unix()) + 0.5}, false},
		"issued a bit before":       {token.Revocation{Subject: "clerk", Before: issued.Add(time.Second / 2)}, object{"iat": float64(issued.Unix()) + 0.25}, true},
		"not saying when":           {token.Revocation{Subject: "clerk", Before: issued.Add(-time.Hour)}, object{"iat": nil}, true},
		"issued before, past":       {token.Revocation{Subject: "clerk", Before: fixed(), Until: fixed()}, nil, false},
		"subject that is its id":    {token.Revocation{Subject: "t1"}, nil, false},
		"nothing":                   {token.Revocation{}, object{"jti": nil}, false},
		"both, of which one counts": {token.Revocation{TokenID: "t1", Subject: "other"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := fileGuard(t, fixed, p)
			changes := object{"iat": issued.Unix()}
			for k, v := range c.claims {
				changes[k] = v
			}
			text := p.token(t, claims(fixed(), changes))
			caller := mustTake(t, g, text)
			g.Revoke([]token.Revocation{{TokenID: "x"}, {Subject: "y"}, c.revocation})
			if g.Valid(caller) == c.refused {
				t.Errorf("valid: %v", !c.refused)
			}
			if c.refused {
				mustRefuse(t, g, text, protocol.CodeUnauthorized, "the token has been revoked")
			} else {
				mustTake(t, g, text)
			}
			g.Revoke(nil)
			if !g.Valid(caller) {
				t.Error("a list that was replaced still counts")
			}
		})
	}
}

// Two revocations of one subject both count, each in its own time.
func TestRevocationsOfOneSubject(t *testing.T) {
	p := newEd25519(t, "one")
	g := fileGuard(t, fixed, p)
	caller := mustTake(t, g, p.token(t, claims(fixed(), nil)))
	g.Revoke([]token.Revocation{
		{Subject: "clerk", Before: fixed().Add(time.Hour), Until: fixed().Add(time.Minute)},
		{Subject: "clerk", Before: fixed().Add(-time.Hour)},
	})
	if g.Valid(caller) {
		t.Error("the later one hides the earlier")
	}
}

func TestValid(t *testing.T) {
	now := fixed()
	g := newGuard(t, token.Config{ClientCertificates: true, Now: func() time.Time { return now }})
	caller := &protocol.Caller{Subject: "clerk", ExpiresAt: fixed().Add(time.Second)}
	if !g.Valid(caller) || g.Valid(nil) || !g.Valid(protocol.Anybody()) {
		t.Error("who may stay is not who should")
	}
	now = caller.ExpiresAt
	if g.Valid(caller) {
		t.Error("it stays after its token's end")
	}
}

// The list may be replaced while callers are looked up.
func TestRevokeMeanwhile(t *testing.T) {
	p := newEd25519(t, "one")
	g := fileGuard(t, fixed, p)
	text := p.token(t, claims(fixed(), nil))
	caller := mustTake(t, g, text)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				g.Revoke([]token.Revocation{{TokenID: "other"}, {Subject: "other"}})
				if !g.Valid(caller) {
					t.Error("somebody else's revocation counts")
				}
				if _, err := g.Token(t.Context(), text); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
