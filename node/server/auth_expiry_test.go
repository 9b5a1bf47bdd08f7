package server_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A session ends with its token, unless that is renewed in time.
func TestSessionsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	l := openLodge(t)
	l.seed("tee-1", "store-1", 10)
	const short = (2 + slow) * time.Second
	// Tokens end on a full second: up to one earlier than this.
	expiry := time.Now().Add(short)
	token := func() string { return l.keys.token(everything, expiresIn(short)) }
	byHeader, byAuth, renewed, refused := l.open(token()), l.open(""), l.open(token()), l.open(token())
	if code := byAuth.auth(token()); code != "ok" {
		t.Fatal(code)
	}
	if code := renewed.auth(l.keys.token(everything)); code != "ok" {
		t.Errorf("renewing: %s", code)
	}
	for name, bad := range map[string]string{
		"expired": l.keys.token(everything, expiresIn(-time.Minute)), "forged": newIssuer(t).token(everything), "nothing": "",
	} {
		if code := refused.auth(bad); code != "unauthorized" && code != "bad_request" {
			t.Errorf("renewing with a token that is %s: %s", name, code)
		}
	}
	refused.must(`{"op":"sell","key":"still","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`)
	stream := l.follow("/v1/stream?all=1", token())
	poll := make(chan answered, 1)
	etag := l.get("/v1/stock/tee-1?location=store-1", token()).header.Get("ETag")
	go func() {
		a, err := l.tryAsk(http.MethodGet, l.url("/v1/stock/tee-1?location=store-1&wait_ms=60000"), token(), "", "If-None-Match", etag)
		if err != nil {
			t.Error(err)
		}
		poll <- a
	}()
	for _, s := range []*session{byHeader, byAuth, refused} {
		s.awaitClosed(4001, time.Until(expiry)+time.Second+goneWithin)
		if time.Now().Before(expiry.Add(-time.Second)) {
			t.Error("it was closed before its token had expired")
		}
	}
	if a := <-poll; a.status != http.StatusUnauthorized {
		t.Errorf("a long poll ended with %d %s", a.status, a.body)
	}
	if err := stream.rest(); err != nil {
		t.Errorf("a stream ended with %v", err)
	}
	if time.Since(expiry) > time.Second+goneWithin {
		t.Errorf("streams and long polls ended %v after their token", time.Since(expiry))
	}
	renewed.must(`{"op":"get","skus":["tee-1"]}`)
}

// events is a stream of them.
type events struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
}

// follow opens a stream.
func (l *lodge) follow(path, token string) *events {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	l.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url(path), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := l.http.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		l.t.Fatalf("%s: %s", path, res.Status)
	}
	return &events{l.t, res.Body, bufio.NewReader(res.Body)}
}

// next returns the data of the next event.
func (e *events) next() string {
	e.t.Helper()
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			e.t.Fatalf("the stream has ended: %v", err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSpace(data)
		}
	}
}

// rest reads the stream to its end.
func (e *events) rest() error {
	_, err := io.Copy(io.Discard, e.in)
	return err
}

const (
	onlyTees = `[{"do":["watch"],"skus":["tee-*"]}]`
	teesCaps = `[{"do":["watch"],"skus":["tee-*"]},{"do":["watch"],"skus":["cap-*"]}]`
)

// A renewed token's grants count at once, for what is subscribed to already.
func TestRenewedGrantsCountAtOnce(t *testing.T) {
	l := openLodge(t)
	for _, selectors := range []string{`"all":true`, `"prefixes":["tee-","cap-"]`, `"skus":["tee-1","cap-1"]`, `"locations":["store-1"]`, `"skus":["tee-1","cap-1"],"locations":["store-1"]`} {
		t.Run(selectors, func(t *testing.T) {
			l.seed("tee-1", "store-1", 1)
			l.seed("cap-1", "store-1", 1)
			s := l.open(l.keys.token(teesCaps))
			s.must(`{"op":"subscribe",%s}`, selectors)
			// changed writes both, the cap first, and waits for the tee.
			changed := func(after int, cap bool) {
				t.Helper()
				l.seed("cap-1", "store-1", 1)
				l.seed("tee-1", "store-1", 1)
				s.await("the tee", func(heard []said) bool { return pushedAfter(heard, after, "tee-1") })
				if cap {
					s.await("the cap", func(heard []said) bool { return pushedAfter(heard, after, "cap-1") })
				} else if pushedAfter(s.messages(), after, "cap-1") {
					t.Error("the cap was pushed without a grant")
				}
			}
			changed(len(s.messages()), true)
			_, at := s.must(`{"op":"auth","token":%q}`, l.keys.token(onlyTees))
			changed(at, false)
			if reply, _ := s.ask(`{"op":"get","skus":["cap-1"]}`); reply.code() != "forbidden" {
				t.Errorf("a get of the cap: %s", reply.raw)
			}
			if code := s.auth(newIssuer(t).token(teesCaps)); code != "unauthorized" {
				t.Errorf("a forged token: %s", code)
			}
			changed(len(s.messages()), false)
			_, at = s.must(`{"op":"auth","token":%q}`, l.keys.token(teesCaps))
			changed(at, true)
			_, at = s.must(`{"op":"auth","token":%q}`, l.keys.token(`[]`, subject("other")))
			l.seed("tee-1", "store-1", 1)
			if reply, _ := s.ask(`{"op":"unsubscribe"}`); reply.code() != "forbidden" {
				t.Errorf("with nothing granted: %s", reply.raw)
			}
			_, again := s.must(`{"op":"auth","token":%q}`, l.keys.token(onlyTees))
			changed(again, false)
			if pushedAfter(s.messages()[:again], at, "tee-1") {
				t.Error("the tee was pushed while nothing was granted")
			}
		})
	}
}

// While a stream of changes runs, none of an item comes after the reply that took it away.
func TestNarrowedUnderLoad(t *testing.T) {
	l := openLodge(t)
	s := l.open(l.keys.token(teesCaps))
	s.must(`{"op":"subscribe","all":true,"interval_ms":5}`)
	ctx, cancel := context.WithCancel(t.Context())
	writer := l.open(l.keys.token(everything, subject("writer")))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ctx.Err() == nil; n++ {
			reply, _, err := writer.try(`{"op":"adjust","key":"load-%d","sku":"%s","location":"store-1","delta":1}`, n, []string{"tee-1", "cap-1"}[n%2])
			if err != nil || reply.Error != nil {
				t.Errorf("a write: %v %v", reply, err)
				return
			}
		}
	}()
	defer func() { cancel(); <-ended }()
	for round := range 20 {
		after := len(s.messages())
		s.await("both", func(heard []said) bool {
			return pushedAfter(heard, after, "tee-1") && pushedAfter(heard, after, "cap-1")
		})
		_, narrow := s.must(`{"op":"auth","token":%q}`, l.keys.token(onlyTees))
		s.await("the tee", func(heard []said) bool { return pushedAfter(heard, narrow, "tee-1") })
		_, wide := s.must(`{"op":"auth","token":%q}`, l.keys.token(teesCaps))
		if pushedAfter(s.messages()[:wide], narrow, "cap-1") {
			t.Fatalf("round %d: the cap was pushed without a grant", round)
		}
	}
}
