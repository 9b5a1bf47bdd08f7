package token_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

const noKeys = "there are no keys to check tokens with right now"

// source answers as a JWKS URL would, without a network, so that a test's time may be
// synthetic.
type source struct {
	calls atomic.Int64

	mu    sync.Mutex
	body  []byte
	err   error
	delay time.Duration
}

func (s *source) set(body []byte, err error, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.err, s.delay = body, err, delay
}

func (s *source) RoundTrip(r *http.Request) (*http.Response, error) {
	s.calls.Add(1)
	s.mu.Lock()
	body, err, delay := s.body, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}}, nil
}

func (s *source) config() token.Config {
	return token.Config{
		Keys: "https://login.example/keys?secret=hunter2", Issuer: issuer, Audience: audience, Region: "eu",
		Client: &http.Client{Transport: s},
	}
}

// sleep lets synthetic time pass, and whatever is due in it be done.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func bubble(t *testing.T, test func(t *testing.T, s *source, p pair)) {
	p := newEd25519(t, "one")
	synctest.Test(t, func(t *testing.T) { test(t, &source{body: jwks(p)}, p) })
}

func long(now time.Time) object { return claims(now, object{"exp": now.Add(1000 * time.Hour).Unix()}) }

// A node starts without its source, refuses tokens so that they are sent again, and
// takes them once the source is there.
func TestSourceDownAtTheStart(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		s.set(nil, errors.New("down"), 0)
		g := newGuard(t, s.config())
		text := p.token(t, long(time.Now()))
		if err := mustRefuse(t, g, text, protocol.CodeUnavailable, noKeys); !err.Retryable || err.RetryAfterMS <= 0 {
			t.Errorf("not to be sent again: %+v", err)
		}
		if err := g.Health(); !errors.Is(err, token.ErrNoKeys) || !strings.Contains(err.Error(), "down") {
			t.Errorf("health %v", err)
		}
		s.set(jwks(p), nil, 0)
		mustRefuse(t, g, text, protocol.CodeUnavailable, noKeys) // asked for a moment ago
		sleep(15 * time.Second)
		mustTake(t, g, text)
		if err := g.Health(); err != nil {
			t.Error(err)
		}
	})
}

// A source that hangs keeps neither the node's start nor a token waiting for long.
func TestSourceSlow(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		s.set(jwks(p), nil, time.Hour)
		start := time.Now()
		g := newGuard(t, s.config())
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("starting took %s", took)
		}
		text := p.token(t, long(time.Now()))
		start = time.Now()
		mustRefuse(t, g, text, protocol.CodeUnavailable, noKeys)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a token waited %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/10)
		defer cancel()
		start = time.Now()
		if _, err := g.Token(ctx, text); err == nil || err.Code != protocol.CodeUnavailable {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > time.Second/10 {
			t.Errorf("a token waited %s, longer than its context", took)
		}
		s.set(jwks(p), nil, time.Second)
		sleep(time.Minute) // the reading that hangs is given up, and another made
		mustTake(t, g, text)
	})
}

// Keys are used for a day after the source went down, and no longer.
func TestSourceDownLater(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		text := p.token(t, long(time.Now()))
		s.set(nil, errors.New("down"), 0)
		sleep(9 * time.Minute)
		mustTake(t, g, text)
		if err := g.Health(); err != nil {
			t.Errorf("a short outage is told as an error: %v", err)
		}
		sleep(10 * time.Minute)
		if err := g.Health(); err == nil || errors.Is(err, token.ErrNoKeys) || !strings.Contains(err.Error(), "down") {
			t.Errorf("health %v", err)
		}
		sleep(23*time.Hour + 40*time.Minute)
		mustTake(t, g, text)
		sleep(2 * time.Minute)
		mustRefuse(t, g, text, protocol.CodeUnavailable, noKeys)
		if err := g.Health(); !errors.Is(err, token.ErrNoKeys) {
			t.Errorf("health %v", err)
		}
		s.set(jwks(p), nil, 0)
		sleep(15 * time.Second) // tokens ask no more often
		mustTake(t, g, text)
	})
}

// What a source answers while it is out of order does not take the keys away.
func TestSourceReturnsGarbage(t *testing.T) {
	for name, body := range map[string]string{
		"page":      "<html>Sign in</html>",
		"empty":     "",
		"null":      `{"keys":null}`,
		"other":     `{"error":"x"}`,
		"cut":       `{"keys":[{"kty":"OKP"`,
		"of oct":    `{"keys":[{"kty":"oct","kid":"one","k":"AAAA"}]}`,
		"deep":      `{"keys":` + strings.Repeat("[", 10000),
		"twice":     `{"keys":[],"keys":[]}`,
		"huge":      `{"keys":"` + strings.Repeat("x", 1<<20) + `"}`,
		"too many":  `{"keys":[` + strings.Repeat("0,", 1000) + `0]}`,
		"of others": `{"keys":[1,"x",null,{},{"kty":7}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *source, p pair) {
				g := newGuard(t, s.config())
				s.set([]byte(body), nil, 0)
				sleep(12 * time.Minute)
				mustTake(t, g, p.token(t, long(time.Now())))
				if g.Health() == nil {
					t.Error("health says nothing")
				}
			})
		})
	}
}

// A new key is taken as soon as a token is signed with it, an old one no longer once it
// is gone; who was let in with it stays.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, one pair) {
		two := newEd25519(t, "two")
		g := newGuard(t, s.config())
		old, new := one.token(t, long(time.Now())), two.token(t, long(time.Now()))
		caller := mustTake(t, g, old)
		s.set(jwks(one, two), nil, 0)
		mustTake(t, g, new)
		mustTake(t, g, old)
		s.set(jwks(two), nil, 0)
		mustTake(t, g, old) // nobody asked again
		sleep(6 * time.Minute)
		mustTake(t, g, new)
		if err := mustRefuse(t, g, old, protocol.CodeUnauthorized, unknownKey); err.Retryable {
			t.Error("to be sent again, though the keys are fresh")
		}
		if !g.Valid(caller) {
			t.Error("who was let in may not stay")
		}
	})
}

// Keys without an id are rolled too: a signature that fits none of them may be of a new one.
func TestRotationWithoutIDs(t *testing.T) {
	one, two := newEd25519(t, ""), newEd25519(t, "")
	synctest.Test(t, func(t *testing.T) {
		s := &source{body: jwks(one)}
		g := newGuard(t, s.config())
		s.set(jwks(one, two), nil, 0)
		mustTake(t, g, two.token(t, long(time.Now())))
		named := two
		named.kid = "any"
		mustTake(t, g, named.token(t, long(time.Now())))
	})
}

// Tokens that come while a reading is under way wait for it together.
func TestReadingIsShared(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		two := newEd25519(t, "two")
		text := two.token(t, long(time.Now()))
		s.set(jwks(p, two), nil, time.Second)
		before := s.calls.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := g.Token(t.Context(), text); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		wg.Wait()
		if n := s.calls.Load() - before; n != 1 {
			t.Errorf("%d readings", n)
		}
	})
}

// Tokens with keys that nobody knows make three readings in a row, whoever sends them and
// however many, and then one in ten seconds.
func TestFloodOfUnknownKeys(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		s.set(jwks(p), nil, time.Second)
		before, start := s.calls.Load(), time.Now()
		flood := func(each int) {
			var wg sync.WaitGroup
			for i := range 100 {
				other := p
				other.kid = fmt.Sprint("unknown ", i)
				text := other.token(t, long(time.Now()))
				wg.Go(func() {
					for range each {
						if _, err := g.Token(t.Context(), text); err == nil || err.Code != protocol.CodeUnauthorized || err.Message != unknownKey {
							t.Errorf("got %v", err)
						}
					}
				})
			}
			wg.Wait()
		}
		flood(20)
		if n := s.calls.Load() - before; n > 3 {
			t.Errorf("%d readings", n)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("they waited %s", took)
		}
		mustTake(t, g, p.token(t, long(time.Now()))) // others go on meanwhile
		for range 60 {
			sleep(time.Second)
			flood(1)
		}
		if n, allowed := s.calls.Load()-before, int64(time.Since(start)/(10*time.Second))+4; n > allowed {
			t.Errorf("%d readings in %s, at most %d are allowed", n, time.Since(start), allowed)
		}
	})
}

// A token whose key may be too new to be known is told to come again.
func TestUnknownKeyIsRetryableWhileKeysCannotBeRead(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		two := newEd25519(t, "two")
		text := two.token(t, long(time.Now()))
		s.set(nil, errors.New("down"), 0)
		if err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey); !err.Retryable {
			t.Error("not retryable with the source down")
		}
		s.set(jwks(p, two), nil, 0)
		err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
		if !err.Retryable || err.RetryAfterMS > 10000 {
			t.Errorf("got %+v so shortly after a reading", err)
		}
		sleep(time.Duration(err.RetryAfterMS) * time.Millisecond)
		mustTake(t, g, text)
	})
}

// The source is read about every five minutes, and less and less often while it is down.
func TestHowOftenTheSourceIsRead(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		newGuard(t, s.config())
		sleep(time.Hour)
		if n := s.calls.Load(); n < 11 || n > 15 {
			t.Errorf("%d readings in an hour", n)
		}
		s.set(nil, errors.New("down"), 0)
		before := s.calls.Load()
		sleep(time.Hour)
		if n := s.calls.Load() - before; n < 12 || n > 22 {
			t.Errorf("%d readings in an hour without the source", n)
		}
	})
}

// A reading that takes long is the only one meanwhile.
func TestOneReadingAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		newGuard(t, s.config())
		s.set(jwks(p), nil, 9*time.Second)
		before := s.calls.Load()
		sleep(6 * time.Minute)
		if n := s.calls.Load() - before; n != 1 {
			t.Errorf("%d readings", n)
		}
	})
}

// No time counts but the clock's that the guard was given.
func TestClock(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		var ahead atomic.Int64
		c := s.config()
		start := fixed()
		c.Now = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
		g := newGuard(t, c)
		text := p.token(t, long(start))
		mustTake(t, g, text)
		s.set(nil, errors.New("down"), 0)
		ahead.Store(int64(24 * time.Hour))
		mustTake(t, g, text)
		ahead.Store(int64(24*time.Hour + time.Second))
		mustRefuse(t, g, text, protocol.CodeUnavailable, noKeys)
	})
}

// After Close nothing is read any more; what is known is still checked.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		s.set(nil, nil, time.Hour)
		sleep(6 * time.Minute) // one is under way
		g.Close()
		n := s.calls.Load()
		mustTake(t, g, p.token(t, long(time.Now())))
		other := p
		other.kid = "two"
		mustRefuse(t, g, other.token(t, long(time.Now())), protocol.CodeUnauthorized, unknownKey)
		sleep(time.Hour)
		if s.calls.Load() != n {
			t.Error("it was read after Close")
		}
		g.Close()
	})
}

// Neither tokens nor what a URL's query holds get into logs, errors and metrics.
func TestSecretsStayInside(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		var log bytes.Buffer
		registry := prometheus.NewPedanticRegistry()
		c := s.config()
		c.Logger, c.Registerer = slog.New(slog.NewTextHandler(&log, nil)), registry
		g := newGuard(t, c)
		text := p.token(t, long(time.Now()))
		mustTake(t, g, text)
		s.set(nil, errors.New("down"), 0)
		sleep(time.Hour)
		s.set([]byte(`{"keys":[{"k":"hunter2"},"hunter2`), nil, 0)
		sleep(time.Hour)
		s.set(jwks(p), nil, 0)
		bad := text[:len(text)-8] + "AAAAAAAA"
		mustRefuse(t, g, bad, protocol.CodeUnauthorized, wrongSignature)
		shown := log.String() + fmt.Sprint(g.Health()) + gather(t, registry)
		if strings.Count(log.String(), "WARN") != 2 {
			t.Errorf("each failure is to be logged once:\n%s", log.String())
		}
		for _, secret := range []string{"hunter2", text[len(text)-40:], bad[len(bad)-40:], segment(`{"alg"`)} {
			if strings.Contains(shown, secret) {
				t.Errorf("%q is in:\n%s", secret, shown)
			}
		}
	})
}

func gather(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		text.WriteString(f.String() + "\n")
	}
	return text.String()
}

func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		registry := prometheus.NewPedanticRegistry()
		c := s.config()
		c.Registerer = registry
		g := newGuard(t, c)
		mustTake(t, g, p.token(t, long(time.Now())))
		mustRefuse(t, g, "x", protocol.CodeUnauthorized, wrongForm)
		sleep(2 * time.Minute)
		shown := strings.ReplaceAll(gather(t, registry), "  ", " ")
		for _, want := range []string{
			`name:"stockmesh_tokens_total"`, `value:"malformed"`, `value:"ok"`,
			`name:"stockmesh_jwks_refreshes_total"`, `name:"stockmesh_jwks_age_seconds"`, `gauge:{value:120}`,
		} {
			if !strings.Contains(shown, want) {
				t.Errorf("no %s in:\n%s", want, shown)
			}
		}
	})
}
