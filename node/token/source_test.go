package token_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/keys"
}

func TestKeysOverHTTP(t *testing.T) {
	p := newEd25519(t, "one")
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(jwks(p)) })
	g := newGuard(t, token.Config{Keys: address, Now: fixed})
	mustTake(t, g, p.token(t, claims(fixed(), nil)))
}

func TestKeysOverHTTPS(t *testing.T) {
	p := newEd25519(t, "one")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(jwks(p)) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	g := newGuard(t, token.Config{Keys: s.URL, Now: fixed, Client: s.Client()})
	mustTake(t, g, p.token(t, claims(fixed(), nil)))
	if g := newGuard(t, token.Config{Keys: s.URL, Now: fixed}); g.Health() == nil {
		t.Error("keys are taken from a server with a certificate of nobody known")
	}
}

// What a source does that wants to do harm, or is broken.
func TestBadSources(t *testing.T) {
	p := newEd25519(t, "one")
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(jwks(p)) })
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		health  string
	}{
		"error": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); w.Write(jwks(p)) }, "it answers 500"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere, http.StatusFound)
		}, "redirects are not followed"},
		"redirect to itself": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		}, "redirects are not followed"},
		"no end": {func(w http.ResponseWriter, r *http.Request) {
			block := []byte(strings.Repeat("x", 64<<10))
			for range 1 << 30 / len(block) {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
			t.Error("all of it was read")
		}, "more than 1048576 bytes"},
		"breaks off": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Write(jwks(p))
		}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, token.Config{Keys: serve(t, c.handler), Now: fixed})
			if err := g.Health(); err == nil || !strings.Contains(err.Error(), c.health) {
				t.Errorf("health %v, want %s", err, c.health)
			}
			if _, err := g.Token(context.Background(), p.token(t, claims(fixed(), nil))); err == nil || err.Code != protocol.CodeUnavailable {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestConfigsRefused(t *testing.T) {
	ed := newEd25519(t, "one")
	dir := t.TempDir()
	for name, c := range map[string]struct{ keys, message string }{
		"nothing":              {"", "nobody could come in"},
		"http from elsewhere":  {"http://login.example/keys", "https, or http to loopback"},
		"http, like loopback":  {"http://127.0.0.1.login.example/keys", "https, or http to loopback"},
		"ftp":                  {"ftp://login.example/keys", "https, or http to loopback"},
		"no host":              {"https:///keys", "no URL"},
		"no URL":               {"https://%zz", "no URL"},
		"no file":              {filepath.Join(dir, "none"), "no such file"},
		"folder":               {dir, "no regular file"},
		"device":               {"/dev/zero", "no regular file"},
		"text":                 {keyFile(t, []byte("hunter2")), "neither a JWKS nor public keys"},
		"empty":                {keyFile(t, nil), "neither a JWKS nor public keys"},
		"bad JSON":             {keyFile(t, []byte(`{"hunter2`)), "no valid JSON"},
		"no JWKS":              {keyFile(t, []byte(`{"keys":"hunter2"}`)), "no JWKS"},
		"no list of keys":      {keyFile(t, []byte(`{"keys":null,"error":"hunter2"}`)), "no list of keys"},
		"private key":          {keyFile(t, []byte("-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n")), "a private key"},
		"certificate":          {keyFile(t, []byte("-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n")), "no PUBLIC KEY"},
		"bad PEM after a good": {keyFile(t, append(ed.pem(t), "-----BEGIN PUBLIC KEY-----\naHVudGVyMg==\n-----END PUBLIC KEY-----\n"...)), "PEM block 2"},
		"too large":            {keyFile(t, make([]byte, 1<<20+1)), "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := token.New(context.Background(), token.Config{Keys: c.keys})
			if err == nil {
				g.Close()
				t.Fatal("taken")
			}
			if !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q, want %q", err, c.message)
			}
		})
	}
}

// replace puts another file in place as a whole, as a careful operator does.
func replace(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// A file is read again when it changes; one that became bad leaves the keys as they were.
func TestFileIsReadAgain(t *testing.T) {
	one, two := newEd25519(t, "one"), newEd25519(t, "two")
	name := keyFile(t, jwks(one))
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, token.Config{Keys: name})
		first, second := one.token(t, long(time.Now())), two.token(t, long(time.Now()))
		mustTake(t, g, first)

		replace(t, name, jwks(one, two))
		sleep(3 * time.Second)
		mustTake(t, g, first)
		mustTake(t, g, second)

		for _, text := range [][]byte{[]byte("{"), nil, []byte(`{"keys":[{}]}`)} {
			replace(t, name, text)
			sleep(3 * time.Second)
			mustTake(t, g, second)
			if g.Health() == nil {
				t.Errorf("health says nothing of %q", text)
			}
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		sleep(3 * time.Second)
		mustTake(t, g, second)
		if g.Health() == nil {
			t.Error("health says nothing of a file that is gone")
		}

		replace(t, name, two.pem(t))
		sleep(3 * time.Second)
		mustTake(t, g, second)
		if err := g.Health(); err != nil {
			t.Error(err)
		}
		mustRefuse(t, g, first, protocol.CodeUnauthorized, wrongSignature)

		replace(t, name, jwks())
		sleep(3 * time.Second)
		mustRefuse(t, g, second, protocol.CodeUnauthorized, unknownKey)
	})
}

// A token whose key was put into the file just now need not wait for the next look.
func TestFileIsReadForAnUnknownKey(t *testing.T) {
	one, two := newEd25519(t, "one"), newEd25519(t, "two")
	name := keyFile(t, jwks(one))
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, token.Config{Keys: name})
		replace(t, name, jwks(one, two))
		mustTake(t, g, two.token(t, long(time.Now())))
	})
}
