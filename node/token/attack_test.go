package token_test

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	wrongSignature = "the token's signature is wrong"
	wrongFit       = "the token's algorithm doesn't fit its key"
	wrongAlgorithm = "the token's algorithm is not EdDSA, ES256 or RS256"
	wrongForm      = "the token is no signed JWT"
	wrongClaims    = "the token's claims can't be read"
	unknownKey     = "the token is signed with an unknown key"
	wrongSubject   = "the token has no subject of 1..256 bytes without control characters, or one that begins with cert:"
)

func fixed() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// Every algorithm's token is taken, and says who its holder is.
func TestTokens(t *testing.T) {
	pairs := []pair{newEd25519(t, "ed"), newEC(t, "ec", elliptic.P256()), newRSA(t, "rsa")}
	g := fileGuard(t, fixed, pairs...)
	for _, p := range pairs {
		t.Run(p.kid, func(t *testing.T) {
			c := mustTake(t, g, p.token(t, claims(fixed(), nil)))
			if c.Subject != "clerk" || c.TokenID != "t1" || !c.IssuedAt.Equal(fixed()) || !c.ExpiresAt.Equal(fixed().Add(time.Hour)) {
				t.Errorf("caller %+v", c)
			}
			if !c.Access.May(protocol.RightWatch) || c.Access.May(protocol.RightSell) {
				t.Error("it may do something else than what was granted")
			}
			if !g.Valid(c) {
				t.Error("it may not stay")
			}
			nameless := p
			nameless.kid = ""
			mustTake(t, g, nameless.token(t, claims(fixed(), nil)))
		})
	}
}

// What an attacker can write into a token.
func TestForgedTokens(t *testing.T) {
	ed, ec, rs := newEd25519(t, "ed"), newEC(t, "ec", elliptic.P256()), newRSA(t, "rsa")
	g := fileGuard(t, fixed, ed, ec, rs)
	stranger := newEd25519(t, "ed")
	payload := string(marshal(claims(fixed(), nil)))
	good := ed.token(t, claims(fixed(), nil))
	head, rest, _ := strings.Cut(good, ".")
	_, signature, _ := strings.Cut(rest, ".")

	// as signs a good payload with p, under a header of one's own.
	as := func(p pair, head string, args ...any) string { return p.sign(t, fmt.Sprintf(head, args...), payload) }
	hs256 := func(secret []byte, kid string) string {
		text := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims(fixed(), nil)))
		text.Header["kid"] = kid
		s, err := text.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	p384 := newEC(t, "ec", elliptic.P384())
	p384.method = jwt.SigningMethodES384
	ps256 := rs
	ps256.method = jwt.SigningMethodPS256

	for name, c := range map[string]struct{ text, message string }{
		"empty":                        {"", wrongForm},
		"two parts":                    {head + "." + segment(payload), wrongForm},
		"five parts":                   {"a.b.c.d.e", wrongForm},
		"many dots":                    {strings.Repeat(".", 16<<10), wrongForm},
		"huge":                         {good + strings.Repeat("A", 16<<10), "the token is larger than 16 KiB"},
		"none":                         {segment(`{"alg":"none"}`) + "." + segment(payload) + ".", wrongAlgorithm},
		"None":                         {segment(`{"alg":"None"}`) + "." + segment(payload) + ".", wrongAlgorithm},
		"none with a signature":        {as(ed, `{"alg":"none","kid":"ed"}`), wrongAlgorithm},
		"no algorithm":                 {as(ed, `{"kid":"ed"}`), wrongAlgorithm},
		"algorithm in lower case":      {as(ed, `{"alg":"eddsa","kid":"ed"}`), wrongAlgorithm},
		"algorithm that is a number":   {as(ed, `{"alg":1,"kid":"ed"}`), wrongForm},
		"HS256 with the RSA key":       {hs256(rs.pem(t), "rsa"), wrongAlgorithm},
		"HS256 with the Ed25519 key":   {hs256(ed.pem(t), "ed"), wrongAlgorithm},
		"RS256 with the EC key":        {as(rs, `{"alg":"RS256","kid":"ec"}`), wrongFit},
		"ES256 with the RSA key":       {as(ec, `{"alg":"ES256","kid":"rsa"}`), wrongFit},
		"EdDSA signed by RSA":          {as(rs, `{"alg":"EdDSA","kid":"ed"}`), wrongSignature},
		"wrong curve":                  {as(p384, `{"alg":"ES384","kid":"ec"}`), wrongAlgorithm},
		"wrong curve under ES256":      {as(p384, `{"alg":"ES256","kid":"ec"}`), wrongSignature},
		"PS256":                        {as(ps256, `{"alg":"PS256","kid":"rsa"}`), wrongAlgorithm},
		"PS256 under RS256":            {as(ps256, `{"alg":"RS256","kid":"rsa"}`), wrongSignature},
		"somebody else's key":          {as(stranger, `{"alg":"EdDSA","kid":"ed"}`), wrongSignature},
		"somebody else's, no kid":      {as(stranger, `{"alg":"EdDSA"}`), wrongSignature},
		"no signature":                 {head + "." + segment(payload) + ".", wrongSignature},
		"another payload":              {head + "." + segment(strings.Replace(payload, "clerk", "boss1", 1)) + "." + signature, wrongSignature},
		"another header":               {segment(`{"alg":"EdDSA","kid":"ed","x":1}`) + "." + rest, wrongSignature},
		"padded":                       {good + "=", wrongForm},
		"with a line end":              {good[:len(good)-4] + "\n" + good[len(good)-4:], wrongForm},
		"with spaces around":           {" " + good + " ", wrongForm},
		"unused bits of a signature":   {good[:len(good)-1] + next(good[len(good)-1]), wrongForm},
		"critical":                     {as(ed, `{"alg":"EdDSA","kid":"ed","crit":["exp"],"exp":1}`), "the token has critical header fields, of which none is known"},
		"critical, empty":              {as(ed, `{"alg":"EdDSA","kid":"ed","crit":null}`), "the token has critical header fields, of which none is known"},
		"header with a name twice":     {as(ed, `{"alg":"none","kid":"ed","alg":"EdDSA"}`), wrongForm},
		"header is no object":          {as(ed, `["EdDSA"]`), wrongForm},
		"header and more":              {as(ed, `{"alg":"EdDSA","kid":"ed"}{}`), wrongForm},
		"header with a bad character":  {as(ed, "{\"alg\":\"EdDSA\",\"kid\":\"ed\xff\"}"), wrongForm},
		"header nested deep":           {as(ed, `{"alg":"EdDSA","kid":"ed","x":%s1%s}`, strings.Repeat("[", 3000), strings.Repeat("]", 3000)), wrongForm},
		"header nested, never closed":  {as(ed, `{"alg":"EdDSA","kid":"ed","x":%s`, strings.Repeat(`{"":`, 2000)), wrongForm},
		"kid of 10 KB":                 {as(ed, `{"alg":"EdDSA","kid":"%s"}`, strings.Repeat("k", 10<<10)), unknownKey},
		"kid that is a path":           {as(ed, `{"alg":"EdDSA","kid":"../../../../dev/null"}`), unknownKey},
		"kid that is a number":         {as(ed, `{"alg":"EdDSA","kid":7}`), wrongForm},
		"kid in other case":            {as(ed, `{"alg":"EdDSA","kid":"ED"}`), unknownKey},
		"its own key as jwk":           {as(stranger, `{"alg":"EdDSA","kid":"ed","jwk":%s}`, marshal(stranger.jwk())), wrongSignature},
		"its own key as jwk, no kid":   {as(stranger, `{"alg":"EdDSA","jwk":%s}`, marshal(stranger.jwk())), wrongSignature},
		"its own key at jku":           {as(stranger, `{"alg":"EdDSA","kid":"x","jku":"http://127.0.0.1:1/jwks"}`), unknownKey},
		"its own key at x5u":           {as(stranger, `{"alg":"EdDSA","kid":"x","x5u":"http://127.0.0.1:1/cert"}`), unknownKey},
		"nothing but an encrypted one": {"eyJhbGciOiJkaXIifQ..a.b.c", wrongForm},
	} {
		t.Run(name, func(t *testing.T) {
			err := mustRefuse(t, g, c.text, protocol.CodeUnauthorized, c.message)
			if len(c.text) > 40 && strings.Contains(err.Error(), c.text[:40]) {
				t.Error("the error shows the token")
			}
		})
	}
	mustTake(t, g, good)
}

// next is the character after c in base64url: the same bytes where the bits that differ
// are not used.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_A"
	return alphabet[strings.IndexByte(alphabet, c)+1:][:1]
}

// What an issuer can get wrong, or say.
func TestClaims(t *testing.T) {
	p := newEd25519(t, "ed")
	g := fileGuard(t, fixed, p)
	at := func(d time.Duration) float64 { return float64(fixed().Add(d).UnixNano()) / 1e9 }
	const taken = ""
	for name, c := range map[string]struct {
		changes object
		message string
	}{
		"as they should be":        {nil, taken},
		"no id":                    {object{"jti": nil}, taken},
		"no issue time":            {object{"iat": nil}, taken},
		"no grants":                {object{"grants": nil}, taken},
		"unknown ones":             {object{"scope": "x", "deep": object{"a": []int{1}}}, taken},
		"audiences":                {object{"aud": []string{"other", audience}}, taken},
		"fraction of a second":     {object{"exp": at(time.Second / 2)}, taken},
		"from now on":              {object{"nbf": at(0)}, taken},
		"issuer's clock ahead":     {object{"nbf": at(29 * time.Second), "iat": at(29 * time.Second)}, taken},
		"subject of 256 bytes":     {object{"sub": strings.Repeat("é", 128)}, taken},
		"expired":                  {object{"exp": at(-time.Second)}, "the token has expired"},
		"expires now":              {object{"exp": at(0)}, "the token has expired"},
		"no expiry":                {object{"exp": nil}, "the token has no expiry"},
		"expiry as a string":       {object{"exp": fmt.Sprint(fixed().Unix() + 60)}, wrongClaims},
		"expiry beyond all years":  {object{"exp": 1e300}, wrongClaims},
		"negative expiry":          {object{"exp": -1}, wrongClaims},
		"not yet":                  {object{"nbf": at(31 * time.Second)}, "the token is not valid yet"},
		"issued in the future":     {object{"iat": at(31 * time.Second)}, "the token is not valid yet"},
		"another issuer":           {object{"iss": issuer + "/"}, "the token has another issuer"},
		"no issuer":                {object{"iss": nil}, "the token has another issuer"},
		"issuers":                  {object{"iss": []string{issuer}}, wrongClaims},
		"another audience":         {object{"aud": "other"}, "the token is for another audience"},
		"other audiences":          {object{"aud": []string{"a", "b"}}, "the token is for another audience"},
		"no audience":              {object{"aud": nil}, "the token is for another audience"},
		"audience as an object":    {object{"aud": object{audience: audience}}, "the token is for another audience"},
		"audiences of two types":   {object{"aud": []any{audience, 1}}, "the token is for another audience"},
		"no subject":               {object{"sub": nil}, wrongSubject},
		"empty subject":            {object{"sub": ""}, wrongSubject},
		"subject of 257 bytes":     {object{"sub": strings.Repeat("x", 257)}, wrongSubject},
		"subject with a line end":  {object{"sub": "clerk\nboss"}, wrongSubject},
		"subject with a C1":        {object{"sub": "clerk\u0085"}, wrongSubject},
		"subject of a certificate": {object{"sub": "cert:POS-7"}, wrongSubject},
		"subject as a number":      {object{"sub": 7}, wrongClaims},
		"long id":                  {object{"jti": strings.Repeat("x", 257)}, "the token's id has more than 256 bytes or control characters"},
		"grants as an object":      {object{"grants": object{"do": []string{"watch"}}}, wrongClaims},
		"grant as a string":        {object{"grants": []string{"watch"}}, wrongClaims},
		"no grant":                 {object{"grants": []any{nil}}, wrongClaims},
		"right as a string":        {object{"grants": []object{{"do": "watch"}}}, wrongClaims},
		"list as a string":         {object{"grants": []object{{"do": []string{"watch"}, "skus": "tee-*"}}}, wrongClaims},
		"list that is null":        {object{"grants": []object{{"do": []string{"watch"}, "locations": nil}}}, wrongClaims},
		"nested deep":              {object{"x": nested(20)}, wrongClaims},
	} {
		t.Run(name, func(t *testing.T) {
			text := p.token(t, claims(fixed(), c.changes))
			if c.message == taken {
				mustTake(t, g, text)
			} else {
				mustRefuse(t, g, text, protocol.CodeUnauthorized, c.message)
			}
		})
	}
}

func nested(depth int) any {
	if depth == 0 {
		return 1
	}
	return []any{nested(depth - 1)}
}

// A payload that two readers could understand differently is not read.
func TestAmbiguousClaims(t *testing.T) {
	p := newEd25519(t, "ed")
	g := fileGuard(t, fixed, p)
	good := strings.TrimSuffix(string(marshal(claims(fixed(), nil))), "}")
	for name, payload := range map[string]string{
		"subject twice":                good + `,"sub":"boss"}`,
		"name twice in what is unread": good + `,"x":{"a":1,"a":2}}`,
		"right twice":                  strings.Replace(good, `"do":["watch"]`, `"do":["watch"],"do":["admin"]`, 1) + "}",
		"something after":              good + `}{"sub":"boss"}`,
		"bad UTF-8":                    good + ",\"x\":\"\xff\"}",
		"no object":                    `"clerk"`,
		"empty":                        ``,
		"half":                         good,
	} {
		t.Run(name, func(t *testing.T) {
			mustRefuse(t, g, p.sign(t, `{"alg":"EdDSA","kid":"ed"}`, payload), protocol.CodeUnauthorized, wrongClaims)
		})
	}
	// A name in other case is another name.
	text := p.sign(t, `{"alg":"EdDSA","kid":"ed"}`, good+`,"SUB":"boss","Grants":[{"do":["admin"]}]}`)
	if c := mustTake(t, g, text); c.Subject != "clerk" || c.Access.May(protocol.RightAdmin) {
		t.Errorf("caller %+v", c)
	}
}

func TestGrants(t *testing.T) {
	p := newEd25519(t, "ed")
	g := fileGuard(t, fixed, p)
	access := func(grants ...object) *protocol.Access {
		t.Helper()
		return mustTake(t, g, p.token(t, claims(fixed(), object{"grants": grants}))).Access
	}
	do := []string{"watch"}
	if a := access(object{"do": do, "skus": []string{"tee-*"}, "locations": []string{"s1"}}); !a.Sees("tee-1", "s1") || a.Sees("tee-1", "s2") || a.Sees("cap", "s1") {
		t.Error("lists don't narrow")
	}
	if a := access(object{"do": do, "regions": []string{"us"}}); a.Sees("tee-1", "s1") {
		t.Error("another region's grant counts here")
	}
	if a := access(object{"do": do, "locations": []string{}}); a.Sees("tee-1", "s1") {
		t.Error("an empty list stands for all")
	}
	for name, grant := range map[string]object{
		"no rights":       {"skus": []string{"*"}},
		"rights null":     {"do": nil},
		"unknown right":   {"do": []string{"everything", "*", "WATCH"}},
		"misspelt list":   {"do": do, "location": []string{"s1"}},
		"list to come":    {"do": do, "channels": []string{"web"}},
		"list, also null": {"do": do, "channels": nil},
	} {
		a := access(grant)
		for _, right := range protocol.Rights() {
			if a.May(right) {
				t.Errorf("%s: grants %s", name, right)
			}
		}
	}
	if a := access(object{"do": do, "channels": 1}, object{"do": []string{"sell"}}); !a.May(protocol.RightSell) {
		t.Error("what isn't known takes a known grant along")
	}
}

// A token without a key id is verified with few keys only, whatever the set holds.
func TestTriesAreFew(t *testing.T) {
	var pairs []pair
	for range 9 {
		pairs = append(pairs, newEd25519(t, ""))
	}
	g := fileGuard(t, fixed, pairs...)
	mustTake(t, g, pairs[7].token(t, claims(fixed(), nil)))
	mustRefuse(t, g, pairs[8].token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, wrongSignature)
}

func TestWithoutKeysNoTokenIsTaken(t *testing.T) {
	g := newGuard(t, token.Config{ClientCertificates: true})
	mustRefuse(t, g, newEd25519(t, "").token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, "this node takes no tokens")
	if err := g.Health(); err != nil {
		t.Error(err)
	}
}

// A short RSA key is as good as none, even where Go is told to take it.
func TestRSAKeysThatAreTooSmall(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	secret, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := pair{"weak", jwt.SigningMethodRS256, secret}
	g := fileGuard(t, fixed, weak, newEd25519(t, "ed"))
	if _, err := g.Token(context.Background(), weak.token(t, claims(fixed(), nil))); err == nil || err.Message != unknownKey {
		t.Errorf("got %v", err)
	}
}
