package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

// published are the keys of a jwks.json, by id.
func published(t *testing.T, dir string) map[string]ed25519.PublicKey {
	t.Helper()
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := protocol.UnmarshalJSON(read(t, filepath.Join(dir, "jwks.json")), &set); err != nil {
		t.Fatal(err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k["x"])
		want := map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": k["x"], "kid": k["kid"]}
		if d := cmp.Diff(want, k); d != "" || err != nil {
			t.Fatalf("%v\n%s", err, d)
		}
		keys[k["kid"]] = x
	}
	return keys
}

// checked is what a token says, to those who have a folder's public keys.
func checked(t *testing.T, dir, token string) (claims jwt.MapClaims, err error) {
	t.Helper()
	parsed, err := jwt.Parse(strings.TrimSpace(token), func(token *jwt.Token) (any, error) {
		key, ok := published(t, dir)[token.Header["kid"].(string)]
		if !ok {
			return nil, errors.New("no such key")
		}
		return key, nil
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithExpirationRequired())
	if err != nil {
		return nil, err
	}
	return parsed.Claims.(jwt.MapClaims), nil
}

func newTokenKeys(t *testing.T) (dir, key string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "keys")
	mustLocal(t, "token", "key", "--out", dir)
	return dir, filepath.Join(dir, "key.pem")
}

func TestMintedTokenIsGood(t *testing.T) {
	dir, key := newTokenKeys(t)
	token := mustLocal(t, "token", "mint", "--key", key, "--subject", "ada", "--issuer", "me", "--audience", "shop", "--id", "t-1",
		"--ttl", "90m", "--grant", "watch,reserve:skus=tee-*,cap:locations=store-12:regions=eu:users=u1", "--grant", "history")
	claims, err := checked(t, dir, token)
	if err != nil {
		t.Fatal(err)
	}
	life := claims["exp"].(float64) - claims["iat"].(float64)
	if past := time.Since(time.Unix(int64(claims["iat"].(float64)), 0)); life != 5400 || past < 0 || past > time.Minute {
		t.Errorf("issued %v ago for %v s", past, life)
	}
	delete(claims, "exp")
	delete(claims, "iat")
	want := jwt.MapClaims{"sub": "ada", "iss": "me", "aud": "shop", "jti": "t-1", "grants": []any{
		map[string]any{"do": []any{"watch", "reserve"}, "skus": []any{"tee-*", "cap"}, "locations": []any{"store-12"}, "regions": []any{"eu"}, "users": []any{"u1"}},
		map[string]any{"do": []any{"history"}},
	}}
	if d := cmp.Diff(want, claims); d != "" {
		t.Error(d)
	}
}

func TestMintedTokenDefaults(t *testing.T) {
	dir, key := newTokenKeys(t)
	mint := func(args ...string) jwt.MapClaims {
		t.Helper()
		claims, err := checked(t, dir, mustLocal(t, append([]string{"token", "mint", "--key", key, "--subject", "ada"}, args...)...))
		if err != nil {
			t.Fatal(err)
		}
		return claims
	}
	a, b := mint(), mint()
	if len(a["jti"].(string)) < 16 || a["jti"] == b["jti"] || a["exp"].(float64)-a["iat"].(float64) != 3600 {
		t.Errorf("%v and %v", a, b)
	}
	for _, absent := range []string{"grants", "iss", "aud"} {
		if _, ok := a[absent]; ok {
			t.Errorf("it has %s: %v", absent, a)
		}
	}
	if _, ok := mint("--id", "")["jti"]; ok {
		t.Error("it has an id that was not wanted")
	}
	var errOut bytes.Buffer
	if err := run(t.Context(), []string{"token", "mint", "--key", key, "--subject", "ada"}, &bytes.Buffer{}, &errOut); err != nil || !strings.Contains(errOut.String(), "allows nothing") {
		t.Errorf("%v, printed %q", err, errOut.String())
	}
}

func TestGrantsFile(t *testing.T) {
	dir, key := newTokenKeys(t)
	mint := func(text string) []string {
		return []string{"token", "mint", "--key", key, "--subject", "ada", "--grants", file(t, text)}
	}
	claims, err := checked(t, dir, mustLocal(t, mint(`[{"do":["watch"],"skus":["a:b,c"]},{"do":["sell"]}]`)...))
	want := []any{map[string]any{"do": []any{"watch"}, "skus": []any{"a:b,c"}}, map[string]any{"do": []any{"sell"}}}
	if d := cmp.Diff(want, claims["grants"]); err != nil || d != "" {
		t.Error(err, d)
	}
	for text, want := range map[string]string{
		`[{"do":["watch"],"sku":["a"]}]`:          `unknown field "sku"`, // it would be no limit
		`[{"do":["watch"],"skus":[]}]`:            "it would allow nothing",
		`[{"do":["watch"]},{"do":["steal"]}]`:     `grant 2: no right is named "steal"`,
		`[{"skus":["a"]}]`:                        "it names no right",
		`{"do":["watch"]}`:                        "want a JSON array of grants",
		`[{"do":["watch"]}] []`:                   "something follows",
		``:                                        "want a JSON array of grants",
		`[{"do":["watch"],"regions":["E U"]}]`:    "region must be",
		`[{"do":["watch"],"locations":["a\nb"]}]`: "location",
	} {
		wantRefusal(t, want, mint(text)...)
	}
}

func TestMintRefusals(t *testing.T) {
	_, key := newTokenKeys(t)
	mint := func(args ...string) []string {
		return append([]string{"token", "mint", "--key", key, "--subject", "ada"}, args...)
	}
	for grant, want := range map[string]string{
		"steal":                       `no right is named "steal"`,
		"":                            `no right is named ""`,
		"watch,":                      `no right is named ""`,
		"watch:sku=a":                 "want skus=, locations=, regions= or users=",
		"watch:skus":                  "want skus=",
		"watch:skus=a:b":              "names that hold : go into --grants",
		"watch:skus=a:skus=b":         "skus= stands there twice",
		"watch:skus=":                 "it would allow nothing",
		"watch:skus=a,,b":             "it would allow nothing",
		"watch:regions=EU":            "region must be",
		"watch:skus=" + longName(130): "sku is 130 bytes long",
	} {
		wantRefusal(t, want, mint("--grant", grant)...)
	}
	wantRefusal(t, "--subject must be", mint("--subject", "")...)
	wantRefusal(t, "--subject must be", mint("--subject", "a\x1bb")...)
	wantRefusal(t, "--subject must be", mint("--subject", longName(257))...)
	wantRefusal(t, "begins the subjects of certificates", mint("--subject", "cert:POS-7")...)
	wantRefusal(t, "--id must be", mint("--id", "a\nb")...)
	wantRefusal(t, "--ttl must be", mint("--ttl", "-1h")...)
	wantRefusal(t, "the token has", mint("--grant", "watch:skus="+strings.Repeat("a-long-name,", 2000)+"b")...)
	wantRefusal(t, "no such file", mint("--key", key+"x")...)
}

func longName(n int) string { return strings.Repeat("x", n) }

func TestKeysThatCantSign(t *testing.T) {
	dir := newCerts(t)
	sign := func(key string) []string { return []string{"token", "mint", "--subject", "a", "--key", key} }
	wantRefusal(t, "is no Ed25519 key", sign(filepath.Join(dir, "ca-key.pem"))...)
	wantRefusal(t, "no PKCS #8 private key in PEM", sign(filepath.Join(dir, "ca.pem"))...)
	wantRefusal(t, "no PKCS #8 private key in PEM", sign(file(t, "sesame"))...)
	bad := file(t, string(pemText("PRIVATE KEY", []byte("sesame"))))
	wantRefusal(t, "can't be read as a PKCS #8 private key", sign(bad)...)
}

func TestMintToAFile(t *testing.T) {
	dir, key := newTokenKeys(t)
	out := filepath.Join(t.TempDir(), "ada.token")
	mint := []string{"token", "mint", "--key", key, "--subject", "ada", "--grant", "watch", "--id", "t-1", "--out", out}
	for _, args := range [][]string{mint, append(mint, "--json")} { // the second replaces the first
		printed := mustLocal(t, args...)
		token := strings.TrimSpace(string(read(t, out)))
		if _, err := checked(t, dir, token); err != nil || strings.Contains(printed, token) || !strings.Contains(printed, "t-1") {
			t.Errorf("%v, printed %q", err, printed)
		}
	}
	if info, err := os.Stat(out); runtime.GOOS != "windows" && (err != nil || info.Mode() != 0o600) {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if printed := mustLocal(t, append(mint[:len(mint)-2], "--json")...); !strings.HasPrefix(printed, `{"token":"ey`) {
		t.Errorf("printed %q", printed)
	}
}

func TestTokenKeysAreRolled(t *testing.T) {
	dir, first := newTokenKeys(t)
	mint := func(key string) string {
		return mustLocal(t, "token", "mint", "--key", key, "--subject", "ada", "--grant", "watch")
	}
	good := func(token string, want bool) {
		t.Helper()
		if _, err := checked(t, dir, token); (err == nil) != want {
			t.Fatalf("good: %v, want %v", err, want)
		}
	}
	old := mint(first)
	oldKey := read(t, first)
	oldID := onlyKey(t, dir)
	out := mustLocal(t, "token", "key", "--out", dir, "--add", "--json")
	second := filepath.Join(dir, "key-2.pem")
	if !strings.Contains(out, `"keys":2`) || !strings.Contains(out, `key-2.pem"`) || !bytes.Equal(read(t, first), oldKey) {
		t.Fatalf("printed %q", out)
	}
	good(old, true)
	good(mint(first), true)
	good(mint(second), true)
	mustLocal(t, "token", "drop-key", oldID, "--out", dir)
	good(old, false)
	good(mint(second), true)
	wantRefusal(t, "has no other key", "token", "drop-key", onlyKey(t, dir), "--out", dir)
	wantRefusal(t, "has no key \""+oldID+"\"; it has "+onlyKey(t, dir), "token", "drop-key", oldID, "--out", dir)
	mustLocal(t, "token", "key", "--out", dir, "--add")
	if _, err := os.Stat(filepath.Join(dir, "key-3.pem")); err != nil {
		t.Error(err)
	}
}

func onlyKey(t *testing.T, dir string) string {
	t.Helper()
	keys := published(t, dir)
	if len(keys) != 1 {
		t.Fatalf("%d keys", len(keys))
	}
	for id := range keys {
		return id
	}
	return ""
}

func TestTokenKeyFiles(t *testing.T) {
	dir, key := newTokenKeys(t)
	block, _ := pem.Decode(read(t, key))
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil || !parsed.(ed25519.PrivateKey).Public().(ed25519.PublicKey).Equal(published(t, dir)[onlyKey(t, dir)]) {
		t.Errorf("%v: not the published key", err)
	}
	for name, want := range map[string]os.FileMode{"key.pem": 0o600, "jwks.json": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); runtime.GOOS != "windows" && (err != nil || info.Mode() != want) {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	wantRefusal(t, "--force replaces it, --add adds a key to it", "token", "key", "--out", dir)
	before := onlyKey(t, dir)
	mustLocal(t, "token", "key", "--out", dir, "--force")
	if onlyKey(t, dir) == before {
		t.Error("the key is the old one")
	}
	wantRefusal(t, "no keys there yet", "token", "key", "--out", t.TempDir(), "--add")
	wantRefusal(t, "--out is empty", "token", "key", "--out", "")
	wantRefusal(t, `unknown command "kay"`, "token", "kay")
}

// Other programs' keys stay; a private one that strayed into the file is not published.
func TestForeignKeySets(t *testing.T) {
	dir, _ := newTokenKeys(t)
	jwks := filepath.Join(dir, "jwks.json")
	put := func(text string) {
		if err := os.WriteFile(jwks, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	foreign := `{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"theirs","x5t":"abc","big":12345678901234567890}`
	put(`{"keys":[` + foreign + `]}`)
	mustLocal(t, "token", "key", "--out", dir, "--add")
	text := strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(string(read(t, jwks)))
	if !strings.Contains(text, foreign) || strings.Count(text, `"kid"`) != 2 {
		t.Errorf("%s", text)
	}
	for _, text := range []string{`{"keys":[{"kty":"OKP","d":"sesame"}]}`, `{"keys":[{"kty":"oct","k":"sesame"}]}`} {
		put(text)
		wantRefusal(t, "holds a key that is not public", "token", "key", "--out", dir, "--add")
	}
	for _, text := range []string{"sesame", `{"keys":"sesame"}`, `{"keys":[1]}`, ``} {
		put(text)
		_, err := local(t, "token", "key", "--out", dir, "--add")
		if err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: error is %v", text, err)
		}
	}
}

// The example of RFC 8037, appendix A.3.
func TestKeyID(t *testing.T) {
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	if got := keyID(ed25519.NewKeyFromSeed(seed)); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("%s", got)
	}
	for range 200 {
		if key, err := newTokenKey(); err != nil || strings.HasPrefix(keyID(key), "-") {
			t.Fatal(keyID(key), err)
		}
	}
}

func TestShowToken(t *testing.T) {
	_, key := newTokenKeys(t)
	name := filepath.Join(t.TempDir(), "t")
	mustLocal(t, "token", "mint", "--key", key, "--subject", "ada", "--id", "t-1", "--audience", "shop", "--grant", "watch,sell:skus=tee-*:locations=store-12", "--out", name)
	out := mustLocal(t, "token", "show", name)
	token := strings.Split(string(read(t, name)), ".")
	for _, want := range []string{"NOT VERIFIED", "EdDSA", "ada", "t-1", "shop", "(in 1h0m0s)\n", "grant       watch,sell skus=tee-* locations=store-12\n", "issuer      -\n"} {
		if !strings.Contains(strings.ReplaceAll(out, "(in 59m59s)", "(in 1h0m0s)"), want) {
			t.Errorf("printed %s\nwant %q in it", out, want)
		}
	}
	js := mustLocal(t, "token", "show", "--json", name)
	if !strings.HasPrefix(js, `{"verified":false,"header":{`) || !strings.Contains(js, `"grants":[{"do":["watch","sell"],"skus":["tee-*"]`) {
		t.Errorf("printed %s", js)
	}
	for _, part := range token {
		if strings.Contains(out+js, strings.TrimSpace(part)) {
			t.Error("the token was printed")
		}
	}
}

func TestShowTokenFromTheInput(t *testing.T) {
	_, key := newTokenKeys(t)
	token := mustLocal(t, "token", "mint", "--key", key, "--subject", "ada")
	var out bytes.Buffer
	a := &app{out: &out}
	cmd := newRoot(a)
	cmd.SetArgs([]string{"token", "show"})
	cmd.SetIn(strings.NewReader(token))
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "none: it allows nothing") {
		t.Errorf("%v, printed %q", err, out.String())
	}
}

// Anybody may have written the token: it must not play with the terminal, nor be quoted.
func TestShowHostileTokens(t *testing.T) {
	raw := func(parts ...string) string {
		for i, p := range parts {
			parts[i] = base64.RawURLEncoding.EncodeToString([]byte(p))
		}
		return strings.Join(parts, ".")
	}
	out := mustLocal(t, "token", "show", file(t, raw(`{"alg":"none"}`, `{"sub":"a\u001b[2J\u009b\u202e","exp":1e300,"iat":-5,"iss":["x\u001b"],"grants":[{"do":["\u001b"],"skus":[]}]}`, "s")))
	if strings.ContainsAny(out, "\x1b\u009b\u202e") || !strings.Contains(out, `"a\x1b[2J`) || !strings.Contains(out, "no time") {
		t.Errorf("printed %q", out)
	}
	for _, token := range []string{
		"sesame", "a.b", raw("{}", "{}", "x") + ".more", raw("[]", "{}", "x"), raw("{}", `"sesame"`, "x"), raw("{}", "sesame", "x"),
		raw("{}", `{"a":1,"a":2}`, "x"), "!." + raw("{}", "x"),
	} {
		_, err := local(t, "token", "show", file(t, token))
		if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "no JWT") {
			t.Errorf("%q: error is %v", token, err)
		}
	}
	wantRefusal(t, "types that no node takes", "token", "show", file(t, raw("{}", `{"exp":"soon"}`, "x")))
	if out := mustLocal(t, "token", "show", file(t, raw("{}", `{"exp":1000}`, "x"))); !strings.Contains(out, "(expired)") {
		t.Errorf("printed %q", out)
	}
}
