package token_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

// called is the same key under another id, as somebody makes it up.
func (p pair) called(kid string) pair {
	p.kid = kid
	return p
}

// Whoever sends tokens with made-up keys doesn't keep those with a new key out.
func TestRubbishLeavesReadingsForNewKeys(t *testing.T) {
	for name, rubbish := range map[string]struct {
		every time.Duration
		kid   func(i int) string
	}{
		"the same": {100 * time.Millisecond, func(int) string { return "rubbish" }},
		"a few":    {time.Second, func(i int) string { return fmt.Sprint("rubbish ", i%2) }},
		"others":   {10 * time.Second, func(i int) string { return fmt.Sprint("rubbish ", i) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *source, p pair) {
				g := newGuard(t, s.config())
				sends := func(n int) {
					for i := range n {
						text := newEd25519(t, rubbish.kid(i)).token(t, long(time.Now()))
						mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
						sleep(rubbish.every)
					}
				}
				sends(int(time.Minute / rubbish.every))
				text := newEd25519(t, rubbish.kid(0)).token(t, long(time.Now()))
				mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
				two := newEd25519(t, "two")
				s.set(jwks(p, two), nil, 0)
				text = two.token(t, long(time.Now()))
				_, err := g.Token(t.Context(), text)
				if err != nil && (!err.Retryable || err.RetryAfterMS > 1000) {
					t.Fatalf("refused for longer than a second: %+v", err)
				}
				sleep(time.Second)
				mustTake(t, g, text)
			})
		})
	}
}

// A key id that the source didn't have is looked for again, so that an issuer may sign
// with a key before all of its servers publish it.
func TestUnknownKeyBecomesKnown(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		two := newEd25519(t, "two")
		text := two.token(t, long(time.Now()))
		if err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey); err.Retryable {
			t.Error("retryable, though the source hasn't the key")
		}
		s.set(jwks(p, two), nil, 0)
		err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
		if !err.Retryable || err.RetryAfterMS > 10000 {
			t.Fatalf("got %+v", err)
		}
		sleep(time.Duration(err.RetryAfterMS) * time.Millisecond)
		mustTake(t, g, text)
	})
}

// The source may have answered a reading that is under way before it had the key.
func TestReadingUnderWayDoesNotSettleANewKey(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		two := newEd25519(t, "two")
		s.set(jwks(p), nil, time.Second)
		rubbish := newEd25519(t, "rubbish").token(t, long(time.Now()))
		go g.Token(t.Context(), rubbish)
		sleep(time.Second / 2)
		s.set(jwks(p, two), nil, 0)
		text := two.token(t, long(time.Now()))
		err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
		if !err.Retryable || err.RetryAfterMS > 1000 {
			t.Fatalf("got %+v", err)
		}
		sleep(time.Duration(err.RetryAfterMS) * time.Millisecond)
		mustTake(t, g, text)
	})
}

// While the source hangs only some tokens wait for it: whoever calls has room for so many
// checks, and tokens with known keys need some.
func TestFewWaitForASourceThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		g := newGuard(t, s.config())
		s.set(jwks(p), nil, time.Hour)
		text := newEd25519(t, "rubbish").token(t, long(time.Now()))
		start, atOnce := time.Now(), atomic.Int64{}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := g.Token(t.Context(), text)
				if err == nil || !err.Retryable || err.RetryAfterMS <= 0 {
					t.Errorf("got %+v", err)
				}
				if time.Since(start) == 0 {
					atOnce.Add(1)
				}
			})
		}
		synctest.Wait()
		mustTake(t, g, p.token(t, long(time.Now())))
		wg.Wait()
		if n := atOnce.Load(); n < 700 {
			t.Errorf("%d of 1000 were answered at once", n)
		}
		s.set(jwks(p), nil, time.Second)
		sleep(time.Minute) // the waiters are gone, and others may wait
		start = time.Now()
		mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
		if time.Since(start) != time.Second {
			t.Errorf("it waited %s", time.Since(start))
		}
	})
}

// A clock that was set back doesn't keep tokens from having the keys read.
func TestClockSetBack(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		var ahead atomic.Int64
		c := s.config()
		start := fixed()
		c.Now = func() time.Time { return start.Add(time.Duration(ahead.Load())) }
		g := newGuard(t, c)
		ahead.Store(int64(time.Hour))
		for i := range 3 {
			ahead.Add(int64(time.Second))
			mustRefuse(t, g, p.called(fmt.Sprint(i)).token(t, long(start)), protocol.CodeUnauthorized, unknownKey)
		}
		ahead.Store(0)
		two := newEd25519(t, "two")
		s.set(jwks(p, two), nil, 0)
		mustTake(t, g, two.token(t, long(start)))
	})
}

// Who takes all keys out of the source shuts everybody out, and says so; who puts them
// back lets them in.
func TestEmptySetWithdrawsAllKeys(t *testing.T) {
	bubble(t, func(t *testing.T, s *source, p pair) {
		var log bytes.Buffer
		c := s.config()
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		g := newGuard(t, c)
		text := p.token(t, long(time.Now()))
		mustTake(t, g, text)
		s.set([]byte(`{"keys":[]}`), nil, 0)
		sleep(6 * time.Minute)
		mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey)
		if err := g.Health(); !errors.Is(err, token.ErrNoKeys) || !strings.Contains(err.Error(), "empty") {
			t.Errorf("health %v", err)
		}
		sleep(time.Hour)
		s.set(nil, errors.New("down"), 0)
		sleep(time.Hour)
		if err := mustRefuse(t, g, text, protocol.CodeUnauthorized, unknownKey); !err.Retryable {
			t.Error("not retryable with the source down")
		}
		s.set([]byte(`{"keys":[]}`), nil, 0)
		sleep(time.Hour)
		if n := strings.Count(log.String(), "the set of keys that check tokens is empty"); n != 2 { // emptied; found so after the outage
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		s.set(jwks(p), nil, 0)
		mustTake(t, g, text) // it asks: nothing was asked for long
		if err := g.Health(); err != nil {
			t.Error(err)
		}
	})
}

// A node comes up without keys where there are none, for all that needs no token.
func TestEmptySetAtTheStart(t *testing.T) {
	p := newEd25519(t, "one")
	g := newGuard(t, token.Config{Keys: keyFile(t, jwks()), Now: fixed})
	mustRefuse(t, g, p.token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, unknownKey)
	mustRefuse(t, g, p.called("").token(t, claims(fixed(), nil)), protocol.CodeUnauthorized, unknownKey)
	if err := g.Health(); !errors.Is(err, token.ErrNoKeys) {
		t.Errorf("health %v", err)
	}
}
