package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestRecheckEndsWhatLasts(t *testing.T) {
	f, g := guarded(t)
	leaving := g.give("leaving", `[{"do":["watch"]}]`)
	g.give("staying", `[{"do":["watch"]}]`)
	srv := f.serve()
	f.ledger.write(adjust("A", 1))
	open := func(target, token, tag string) *http.Response {
		r := get(t, srv.URL+target)
		r.Header.Set("Authorization", "Bearer "+token)
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Error(err)
			return &http.Response{Body: http.NoBody}
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	streams := map[string]*reader{}
	for _, token := range []string{"leaving", "staying"} {
		res := open("/v1/stream?all", token, "")
		streams[token] = &reader{t, res, bufio.NewScanner(res.Body)}
		streams[token].wantItems("A eu:1")
	}
	polled := make(chan *http.Response)
	for _, token := range []string{"leaving", "staying"} {
		go func() { polled <- open("/v1/stock/A?wait_ms=60000", token, `"eu:1"`) }()
	}
	waitFor(t, func() bool { return f.api.hub.count.Load() == 4 })
	f.api.Recheck() // nobody has to go
	g.revoke(leaving)
	f.api.Recheck()
	if res := <-polled; res.StatusCode != 401 || !res.Close {
		t.Errorf("poll: %s, closed %v", res.Status, res.Close)
	}
	if e, ok := streams["leaving"].next(); ok {
		t.Errorf("stream: %+v", e)
	}
	f.ledger.write(adjust("A", 1))
	streams["staying"].wantItems("A eu:2")
	if res := <-polled; res.StatusCode != 200 {
		t.Errorf("the other poll: %s", res.Status)
	}
	if status := open("/v1/stream?all", "leaving", "").StatusCode; status != 401 {
		t.Errorf("a stream again: %d", status)
	}
}

// Expiry needs nobody to tell, and nobody to read.
func TestExpiryEndsEvenAStalledStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newFakeGuard()
		g.give("t", `[{"do":["watch"]}]`).ExpiresAt = time.Now().Add(time.Minute)
		f := &fixture{T: t, ledger: newFakeLedger()}
		f.api = New(Config{Ledger: f.ledger, Guard: g, Heartbeat: time.Hour, WriteTimeout: time.Hour})
		f.ledger.write(adjust("A", 1))
		// A long poll that asks for more than the caller's time.
		f.api.cfg.WaitMax = time.Hour
		request := func(target, tag string, w http.ResponseWriter) {
			r := newTestRequest(t, "GET", target, "")
			r.Header.Set("Authorization", "Bearer t")
			r.Header.Set("If-None-Match", tag)
			f.api.ServeHTTP(w, r)
		}
		idle, stalled, poll := newPipeWriter(t), newPipeWriter(t), httptest.NewRecorder()
		go idle.drain()
		begun := time.Now()
		polled := make(chan time.Duration)
		go func() {
			request("/v1/stock/A?wait_ms=3600000", `"eu:1"`, poll)
			polled <- time.Since(begun)
		}()
		request("/v1/stream?all", "", idle)
		request("/v1/stream?all", "", stalled)
		for name, ended := range map[string]chan time.Duration{"idle": idle.closed, "stalled": stalled.closed, "poll": polled} {
			if took := <-ended; took < time.Minute || took > time.Minute+5*time.Second {
				t.Errorf("%s: ended after %v", name, took)
			}
		}
		if poll.Code != 401 {
			t.Errorf("poll: %d", poll.Code)
		}
		synctest.Wait()
		if n := len(f.api.guests.all); n != 0 {
			t.Errorf("%d guests are left", n)
		}
		f.api.Drain()
	})
}

// deadlineConn remembers whether deadlines were set or lifted.
type deadlineConn struct {
	net.Conn
	deadlines []bool
}

func (c *deadlineConn) SetWriteDeadline(d time.Time) error {
	c.deadlines = append(c.deadlines, !d.IsZero())
	return nil
}

// deadlineWriter is a reader's side of which only deadlines count.
type deadlineWriter struct {
	httptest.ResponseRecorder
	deadlineConn
}

func (w *deadlineWriter) Write(b []byte) (int, error) { return len(b), nil }

// Once turned out, a guest has its last deadline, whatever is written next.
func TestTurnedOutGuestKeepsItsDeadline(t *testing.T) {
	w := &deadlineWriter{}
	_, end := context.WithCancelCause(t.Context())
	g := &pollGuest{rc: http.NewResponseController(w), end: end}
	g.turnOut()
	g.turnOut()
	if fmt.Sprint(w.deadlines) != "[true]" {
		t.Error("poll:", w.deadlines)
	}
	conn := &deadlineConn{}
	s := &stream{api: newFixture(t).api, conn: conn}
	if err := s.writeBy(time.Now()); err != nil {
		t.Error(err)
	}
	s.turnOut()
	if err := s.writeBy(time.Time{}); !errors.Is(err, errOver) {
		t.Error(err)
	}
	s.turnOut()
	if fmt.Sprint(conn.deadlines) != "[true true]" {
		t.Error("stream:", conn.deadlines)
	}
}

// countingQuota is one account for all subjects.
type countingQuota struct {
	mu                                              sync.Mutex
	commands, connections, selectors                int // that are left
	open                                            int // accounts
	commandsTaken, connectionsTaken, selectorsTaken int
	subjects                                        []string
}

func (q *countingQuota) Account(subject string) Account {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open++
	q.subjects = append(q.subjects, subject)
	return q
}

func (q *countingQuota) Spend(n int) (int, int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, q.commands-q.commandsTaken)
	q.commandsTaken += n
	return n, 1200
}

func (q *countingQuota) Connect() bool { return q.take(&q.connectionsTaken, 1, q.connections) }
func (q *countingQuota) Subscribe(n int) bool {
	return q.take(&q.selectorsTaken, n, q.selectors)
}

func (q *countingQuota) take(taken *int, n, most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *taken+n > most {
		return false
	}
	*taken += n
	return true
}

func (q *countingQuota) Disconnect()       { q.take(&q.connectionsTaken, -1, 1<<30) }
func (q *countingQuota) Unsubscribe(n int) { q.take(&q.selectorsTaken, -n, 1<<30) }
func (q *countingQuota) Release()          { q.take(&q.open, -1, 1<<30) }

// used tells what is taken now.
func (q *countingQuota) used() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return fmt.Sprintf("%d connections, %d selectors, %d accounts", q.connectionsTaken, q.selectorsTaken, q.open)
}

func limited(t *testing.T, q *countingQuota) *fixture {
	t.Helper()
	// A reader that has left is noticed by a heartbeat that can't be written.
	f, g := guarded(t, func(c *Config) { c.Quota, c.Heartbeat = q, 100*time.Millisecond })
	g.give("t", `[{`+everything+`}]`)
	return f
}

const nothingUsed = "0 connections, 0 selectors, 0 accounts"

func TestQuotaOfCommands(t *testing.T) {
	q := &countingQuota{commands: 5}
	f := limited(t, q)
	if w := f.do("GET", "/openapi.json", ""); w.Code != 200 || len(q.subjects) != 0 {
		t.Error("a document costs", q.subjects)
	}
	wantCode(t, f.do("GET", "/v1/stock/A", "", bearing("bad")), protocol.CodeUnauthorized)
	wantCode(t, f.do("GET", "/v1/nothing", "", bearing("t")), protocol.CodeNotFound)
	wantCode(t, f.do("GET", "/v1/mesh", "", bearing("t")), protocol.CodeForbidden)
	one := `{"op":"adjust","key":"%d","sku":"A","delta":1}`
	batch := fmt.Sprintf("["+one+","+one+","+one+","+one+"]", 1, 2, 3, 4)
	w := f.do("POST", "/v1/batch", batch, bearing("t"))
	if n := strings.Count(w.Body.String(), `"rate_limited"`); w.Code != 200 || n != 1 || strings.Count(w.Body.String(), `"retry_after_ms":1200`) != 1 {
		t.Errorf("%d of the batch refused: %s", n, w.Body)
	}
	w = f.do("GET", "/v1/stock/A", "", bearing("t"))
	if p := wantCode(t, w, protocol.CodeRateLimited); p.RetryAfterMS != 1200 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("%+v", p)
	}
	if q.used() != nothingUsed || q.subjects[0] != "sub-t" {
		t.Error(q.used(), q.subjects)
	}
}

func TestQuotaOfStreamsAndPolls(t *testing.T) {
	q := &countingQuota{commands: 100, connections: 2, selectors: 3}
	f := limited(t, q)
	srv := f.serve()
	f.ledger.write(adjust("A", 1))
	ctx, leave := context.WithCancel(t.Context())
	open := func(target string) *http.Response {
		r := get(t, srv.URL+target).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer t")
		r.Header.Set("If-None-Match", `"eu:1"`)
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	if res := open("/v1/stream?sku=A&prefix=B"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	waitFor(t, func() bool { return q.used() == "1 connections, 2 selectors, 1 accounts" })
	if res := open("/v1/stream?sku=A&sku=B"); res.StatusCode != 429 || res.Header.Get("Retry-After") != "1" {
		t.Error(res.Status) // a third selector there was, not a fourth
	}
	if got := q.used(); got != "1 connections, 2 selectors, 1 accounts" {
		t.Error("what was refused is kept:", got)
	}
	if res := open("/v1/stream?all"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	for _, target := range []string{"/v1/stream?all", "/v1/stock/A?wait_ms=60000"} {
		if res := open(target); res.StatusCode != 429 {
			t.Errorf("%s beyond the connections: %s", target, res.Status)
		}
	}
	// What doesn't last needs none.
	if res := open("/v1/stock/A?wait_ms=0"); res.StatusCode != 304 {
		t.Error(res.Status)
	}
	if w := f.do("HEAD", "/v1/stream?all", "", bearing("t")); w.Code != 200 {
		t.Error(w.Code)
	}
	leave()
	waitFor(t, func() bool { return q.used() == nothingUsed })
	if w := f.do("GET", "/v1/stock/A?wait_ms=1", "", bearing("t"), `If-None-Match: "eu:1"`); w.Code != 304 {
		t.Error(w.Code, w.Body)
	}
	if w := f.do("GET", "/v1/stock/A?wait_ms=60000", "", bearing("t"), `If-None-Match: "eu:9"`); w.Code != 200 {
		t.Error(w.Code, w.Body)
	}
	if got := q.used(); got != nothingUsed {
		t.Error(got)
	}
}

// Without a guard nobody has a name that could be counted by.
func TestNoGuardNoQuota(t *testing.T) {
	q := &countingQuota{}
	f := newFixture(t, func(c *Config) { c.Quota = q })
	if w := f.do("GET", "/v1/stock/A", ""); w.Code != 200 || len(q.subjects) != 0 {
		t.Error(w.Code, q.subjects)
	}
}
