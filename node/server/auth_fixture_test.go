package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// hang ends what would otherwise wait for ever.
const hang = time.Minute

// goneWithin is how soon a session is closed whose token no longer counts.
const goneWithin = 5 * time.Second * slow

const (
	lodgeIssuer   = "https://id.lodge"
	lodgeAudience = "stockmesh"
	everything    = `[{"do":["watch","history","adjust","count","reserve","sell","move","configure","admin"]}]`
)

// issuer signs tokens.
type issuer struct {
	t   *testing.T
	kid string
	key ed25519.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t: t, kid: rand.Text(), key: key}
}

func (i *issuer) public() ed25519.PublicKey { return i.key.Public().(ed25519.PublicKey) }

func jwksOf(issuers ...*issuer) string {
	var keys []string
	for _, i := range issuers {
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":%q,"x":%q}`,
			i.kid, base64.RawURLEncoding.EncodeToString(i.public())))
	}
	return `{"keys":[` + strings.Join(keys, ",") + `]}`
}

// claim changes a token's claims.
type claim func(jwt.MapClaims)

func subject(s string) claim { return func(c jwt.MapClaims) { c["sub"] = s } }

func expiresIn(d time.Duration) claim {
	return func(c jwt.MapClaims) { c["exp"] = time.Now().Add(d).Unix() }
}

// token signs one that is good for an hour, unless it is changed.
func (i *issuer) token(grants string, changes ...claim) string {
	c := jwt.MapClaims{
		"iss": lodgeIssuer, "aud": lodgeAudience, "sub": "tester", "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "grants": json.RawMessage(grants),
	}
	for _, change := range changes {
		change(c)
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	tok.Header["kid"] = i.kid
	s, err := tok.SignedString(i.key)
	if err != nil {
		i.t.Errorf("sign: %v", err)
	}
	return s
}

// book keeps what a node logs.
type book struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// lines are those logged that hold all of the given values of attributes.
func (b *book) lines(t *testing.T, attrs map[string]any) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(b.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		fits := true
		for k, v := range attrs {
			fits = fits && l[k] == v
		}
		if fits {
			found = append(found, l)
		}
	}
	return found
}

// lodge is a node that asks for tokens, over all its starts, and all it has logged.
type lodge struct {
	*server.Server
	t      *testing.T
	config server.Config
	keys   *issuer
	log    *book
	http   *http.Client
	scheme string
	end    func()
	n      *atomic.Int64 // keys given out
}

// openLodge starts a node with a file of keys.
func openLodge(t *testing.T, tune ...func(*server.Config)) *lodge {
	t.Helper()
	l := &lodge{t: t, keys: newIssuer(t), log: &book{}, n: new(atomic.Int64), config: server.Default(), http: &http.Client{Timeout: hang}}
	c := &l.config
	dir := t.TempDir()
	c.Data, c.Listen, c.Admin, c.Region = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", "eu"
	c.JWKS, c.JWTIssuer, c.JWTAudience = filepath.Join(dir, "jwks.json"), lodgeIssuer, lodgeAudience
	l.putKeys(jwksOf(l.keys))
	c.Logger = slog.New(slog.NewJSONHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, fn := range tune {
		fn(c)
	}
	if c.TLSCert != "" {
		l.scheme = "s"
	}
	l.start()
	t.Cleanup(func() { l.end() })
	return l
}

// putKeys replaces the file of keys whole: the node may be reading it.
func (l *lodge) putKeys(text string) {
	l.t.Helper()
	if err := os.WriteFile(l.config.JWKS+".new", []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(l.config.JWKS+".new", l.config.JWKS); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lodge) start() {
	l.t.Helper()
	s, err := server.New(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		l.t.Fatal(err)
	}
	l.Server = s
	l.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
		l.http.CloseIdleConnections()
	})
}

// restart stops the node in order and starts it again on its data.
func (l *lodge) restart() {
	l.t.Helper()
	l.end()
	l.start()
}

func (l *lodge) url(path string) string { return "http" + l.scheme + "://" + l.Addr().String() + path }

func (l *lodge) adminURL(path string) string { return "http://" + l.AdminAddr() + path }

func (l *lodge) key() string {
	return fmt.Sprintf("key-%d", l.n.Add(1))
}

// answered is what a request was answered with.
type answered struct {
	status int
	header http.Header
	body   string
}

// problem is the error in the answer, without code if there is none.
func (a answered) problem() (e protocol.Error) {
	_ = json.Unmarshal([]byte(a.body), &e)
	return e
}

// ask sends a request, with headers as pairs. A token of "" is not sent.
func (l *lodge) ask(method, url, token, body string, headers ...string) answered {
	l.t.Helper()
	a, err := l.tryAsk(method, url, token, body, headers...)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

func (l *lodge) tryAsk(method, url, token, body string, headers ...string) (a answered, err error) {
	r, err := http.NewRequestWithContext(l.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := l.http.Do(r)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answered{res.StatusCode, res.Header, string(b)}, err
}

// get reads a path of the public port.
func (l *lodge) get(path, token string, headers ...string) answered {
	l.t.Helper()
	return l.ask(http.MethodGet, l.url(path), token, "", headers...)
}

// write posts a body to a path of the public port, which must succeed.
func (l *lodge) write(path, token, body string, headers ...string) answered {
	l.t.Helper()
	a := l.ask(http.MethodPost, l.url(path), token, body, append(headers, "Idempotency-Key", l.key())...)
	if a.status >= 300 {
		l.t.Fatalf("%s %s: %d %s", path, body, a.status, a.body)
	}
	return a
}

// seed puts units of an item in stock.
func (l *lodge) seed(sku, location string, n int) {
	l.t.Helper()
	l.write("/v1/adjustments", l.keys.token(everything), fmt.Sprintf(`{"sku":%q,"location":%q,"delta":%d}`, sku, location, n))
}

// eventually looks again and again until look returns nil.
func eventually(t *testing.T, what string, limit time.Duration, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}
