package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

// event is one block of a stream.
type event struct {
	name, id string
	item     protocol.Item
}

// reader reads a stream from a real server.
type reader struct {
	t    *testing.T
	res  *http.Response
	scan *bufio.Scanner
}

func (f *fixture) stream(srv *httptest.Server, query, lastEventID string) *reader {
	f.Helper()
	r := get(f.T, srv.URL+"/v1/stream?"+query)
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := srv.Client().Do(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != mediaEvents || res.Header.Get("Cache-Control") != cacheWrite {
		f.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	return &reader{f.T, res, bufio.NewScanner(res.Body)}
}

// next returns the next block, false at the end of the stream.
func (r *reader) next() (event, bool) {
	r.t.Helper()
	e, any := event{}, false
	for r.scan.Scan() {
		line := r.scan.Text()
		if line == "" && any {
			return e, true
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch any = true; field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			if err := protocol.UnmarshalJSON([]byte(value), &e.item); err != nil {
				r.t.Fatal(err)
			}
		case "":
			any = false // a comment
		default:
			r.t.Fatalf("unknown field in %q", line)
		}
	}
	return e, false
}

// want reads events and compares them, as "sku version id".
func (r *reader) want(events ...string) {
	r.t.Helper()
	for _, w := range events {
		e, ok := r.next()
		if got := e.item.SKU + " " + e.item.Version + " " + e.id; !ok || got != w || e.name == "" {
			r.t.Fatalf("got %q %q, want %q", e.name, got, w)
		}
	}
}

func TestStreamSendsStateThenChanges(t *testing.T) {
	f := newFixture(t)
	f.ledger.write(adjust("A", 1), adjust("B", 2), adjust("C", 3))
	r := f.stream(f.serve(), "sku=A&sku=zero&prefix=B", "")
	r.want("A eu:1 ", "B eu:1 ", "zero  eu:3")
	f.ledger.write(adjust("C", 1), adjust("A", 1))
	r.want("A eu:2 eu:5")
	f.ledger.write(adjust("zero", 1))
	r.want("zero eu:1 eu:6")
}

func TestStreamResumes(t *testing.T) {
	f := newFixture(t)
	srv := f.serve()
	f.ledger.write(adjust("A", 1), adjust("B", 2), adjust("C", 3), adjust("A", 1))
	r := f.stream(srv, "all=true", "eu:2,us:9")
	r.want("A eu:2 eu:2,us:9", "C eu:1 eu:4,us:9")
	f.ledger.write(adjust("B", 1))
	r.want("B eu:2 eu:5,us:9")

	// Named SKUs that don't exist were sent to this reader before.
	r = f.stream(srv, "sku=zero&sku=A", "eu:2")
	r.want("A eu:2 eu:5")

	// With nothing to send the cursor still moves.
	r = f.stream(srv, "sku=B", "eu:5")
	f.ledger.write(adjust("B", 1))
	r.want("B eu:3 eu:6")
	r = f.stream(srv, "prefix=none", "eu:2")
	if e, ok := r.next(); !ok || e != (event{id: "eu:6"}) {
		t.Fatalf("got %+v", e)
	}
}

func TestStreamSeesChangesDuringItsSnapshot(t *testing.T) {
	f := newFixture(t)
	f.ledger.write(adjust("A", 1), adjust("B", 1))
	var once sync.Once
	f.ledger.scanned = func() { once.Do(func() { f.ledger.write(adjust("A", 1)) }) }
	r := f.stream(f.serve(), "all", "")
	r.want("A eu:1 ", "B eu:1 eu:2", "A eu:2 eu:3")
}

func TestStreamPagesItsSnapshot(t *testing.T) {
	f := newFixture(t)
	n := 3*streamItems + 1
	for i := range n {
		f.ledger.write(adjust(fmt.Sprintf("%05d", i), 1))
	}
	r := f.stream(f.serve(), "location=main", "")
	for i := range n {
		id := ""
		if i == n-1 {
			id = fmt.Sprint("eu:", n)
		}
		r.want(fmt.Sprintf("%05d eu:1 %s", i, id))
	}
}

func TestDrainEndsStreamsAndPolls(t *testing.T) {
	f := newFixture(t)
	srv := f.serve()
	f.ledger.write(adjust("A", 1))
	r := f.stream(srv, "all", "")
	r.want("A eu:1 eu:1")

	poll := get(t, srv.URL+"/v1/stock/A?wait_ms=60000")
	poll.Header.Set("If-None-Match", `"eu:1"`)
	status := make(chan int)
	go func() {
		res, err := srv.Client().Do(poll)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		res.Body.Close()
		status <- res.StatusCode
	}()
	waitFor(t, func() bool { return f.api.hub.count.Load() == 2 })
	f.api.Drain()
	if got := <-status; got != http.StatusNotModified {
		t.Errorf("poll: got %d", got)
	}
	if e, ok := r.next(); ok {
		t.Errorf("stream: got %+v", e)
	}
	if len(f.ledger.watchers) != 0 {
		t.Error("the ledger is still watched")
	}
	wantCode(t, f.do("GET", "/v1/stream?all", ""), protocol.CodeUnavailable)
	if w := f.do("GET", "/v1/stock/A", ""); w.Code != 200 {
		t.Errorf("other requests: got %d", w.Code)
	}
}

// waitFor yields to others until the condition holds.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-timeout:
			t.Fatal("waited for too long")
		default:
			runtime.Gosched()
		}
	}
}

// pipeWriter is a reader's side whose connection takes a write when the other end is
// read, and not before.
type pipeWriter struct {
	httptest.ResponseRecorder
	net.Conn
	far    net.Conn
	opened time.Time
	closed chan time.Duration // since it was opened
}

func newPipeWriter(t *testing.T) *pipeWriter {
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	return &pipeWriter{*httptest.NewRecorder(), near, far, time.Now(), make(chan time.Duration, 1)}
}

func (w *pipeWriter) Write(b []byte) (int, error) { return w.ResponseRecorder.Write(b) }

func (w *pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return pipeConn{w.Conn, w}, nil, nil
}

type pipeConn struct {
	net.Conn
	w *pipeWriter
}

func (c pipeConn) Close() error {
	c.w.closed <- time.Since(c.w.opened)
	return c.Conn.Close()
}

// take reads one write.
func (w *pipeWriter) take() string {
	b := make([]byte, 1<<20)
	n, err := w.far.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// drain reads on until there is no more to read.
func (w *pipeWriter) drain() { _, _ = io.Copy(io.Discard, w.far) }

// body is what follows an answer's head.
func body(s string) string {
	_, b, _ := strings.Cut(s, "\r\n\r\n")
	return b
}

func TestSlowReaderGetsNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.Heartbeat = time.Hour })
		f.ledger.write(adjust("A", 1), adjust("B", 1))
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?all", ""))
		synctest.Wait()
		for range 1000 {
			f.ledger.write(adjust("A", 1))
		}
		synctest.Wait()
		got := []string{w.take(), w.take()}
		if n := strings.Count(got[0], "data:"); n != 2 {
			t.Errorf("snapshot: %d events: %s", n, got[0])
		}
		want := "event: stock\nid: eu:1002\ndata: {\"sku\":\"A\",\"location\":\"main\",\"available\":1001,\"on_hand\":1001,\"reserved\":0," +
			"\"version\":\"eu:1001\",\"updated_at\":\"2023-11-14T22:13:20.000Z\"}\n\n"
		if d := cmp.Diff(want, got[1]); d != "" {
			t.Error(d)
		}
		f.api.Drain()
	})
}

// What is more than one turn writes is finished, and what changes meanwhile comes after.
func TestBacklogOfManyTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.Heartbeat = time.Hour })
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?all", ""))
		w.take()
		synctest.Wait()
		f.ledger.write(adjust("first", 1))
		synctest.Wait() // a worker is at the writing of it
		n := 3*streamItems + 1
		for i := range n {
			f.ledger.write(adjust(fmt.Sprintf("%05d", i), 1))
		}
		synctest.Wait()
		got := w.take()
		for turn := range 4 {
			synctest.Wait()
			if turn == 3 { // the last one is being written
				f.ledger.write(adjust("late", 1))
				synctest.Wait()
			}
			part := w.take()
			if ids := strings.Count(part, fmt.Sprint("\nid: eu:", n+1, "\n")); ids != turn/3 {
				t.Errorf("turn %d: the final id comes %d times", turn, ids)
			}
			got += part
		}
		got += w.take()
		if events := strings.Count(got, "data:"); events != n+2 || !strings.Contains(got, "late") {
			t.Errorf("%d events", events)
		}
		f.api.Drain()
	})
}

// Snapshots that are long to look for keep no change from the others.
func TestSnapshotsLeaveRoomForChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.Heartbeat = time.Hour })
		f.ledger.write(adjust("A", 1))
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?sku=A", ""))
		w.take()
		held := make(chan struct{})
		scans := 0
		f.ledger.scanned = func() {
			f.ledger.mu.Lock()
			scans++
			f.ledger.mu.Unlock()
			<-held
		}
		for range 4 * f.api.hub.crew.size {
			other := newPipeWriter(t)
			go other.drain()
			f.api.ServeHTTP(other, newTestRequest(t, "GET", "/v1/stream?all", ""))
		}
		synctest.Wait()
		f.ledger.write(adjust("A", 1))
		if got := w.take(); !strings.Contains(got, "eu:2") {
			t.Errorf("got %q", got)
		}
		if most := f.api.hub.crew.size / 2; scans != most {
			t.Errorf("%d scans at once, want %d", scans, most)
		}
		close(held)
		f.api.Drain()
	})
}

func TestHeartbeatMovesTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?prefix=x", ""))
		begun := time.Now()
		if got := w.take(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || body(got) != "" {
			t.Errorf("head: %q", got)
		}
		got := []string{w.take()}
		f.ledger.write(adjust("A", 1))
		synctest.Wait()
		got = append(got, w.take())
		if d := cmp.Diff([]string{": heartbeat\n\n", ": heartbeat\n\nid: eu:1\n\n"}, got); d != "" {
			t.Error(d)
		}
		if d := time.Since(begun); d != 30*time.Second {
			t.Errorf("two heartbeats took %v", d)
		}
		f.api.Drain()
	})
}

// Who resumes from another node waits for this one to catch up, but not for ever.
func TestStreamAwaitsWhatItsReaderHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.ledger.write(adjust("A", 1), adjust("A", 1))
		open := func(id string) *pipeWriter {
			w := newPipeWriter(t)
			r := newTestRequest(t, "GET", "/v1/stream?all", "")
			r.Header.Set("Last-Event-ID", id)
			f.api.ServeHTTP(w, r)
			if got := body(w.take()); got != "" {
				t.Errorf("%s: %q before it was due", id, got)
			}
			return w
		}
		soon, never := open("eu:3"), open("eu:9")
		begun := time.Now()
		f.ledger.write(adjust("B", 1), adjust("C", 1))
		if got := soon.take(); !strings.Contains(got, "eu:4") || strings.Count(got, "data:") != 1 || time.Since(begun) > time.Second {
			t.Errorf("after %v: %q", time.Since(begun), got)
		}
		f.ledger.write(adjust("D", 1))
		synctest.Wait()
		go soon.drain()
		if got := never.take(); !strings.Contains(got, `"D"`) || time.Since(begun) != sinceWait {
			t.Errorf("after %v: %q", time.Since(begun), got)
		}
		f.api.Drain()
	})
}

func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, ledger: newFakeLedger()}
		f.api = New(Config{Ledger: f.ledger})
		poll := func(target, tag string) chan *httptest.ResponseRecorder {
			out := make(chan *httptest.ResponseRecorder, 1)
			go func() { out <- f.do("GET", target, "", "If-None-Match: "+tag) }()
			synctest.Wait()
			return out
		}
		begun := time.Now()
		waiting := poll("/v1/stock/A?wait_ms=60000", `""`)
		f.ledger.write(adjust("B", 1))
		f.ledger.write(protocol.Command{Op: protocol.OpAdjust, SKU: "A", Location: "shop", Delta: 1})
		synctest.Wait()
		select {
		case w := <-waiting:
			t.Fatalf("answered by another item: %d %s", w.Code, w.Body)
		default:
		}
		f.ledger.write(adjust("A", 1))
		if w := <-waiting; w.Code != 200 || w.Header().Get("ETag") != `"eu:1"` || time.Since(begun) != 0 {
			t.Errorf("got %d %s after %v", w.Code, w.Body, time.Since(begun))
		}
		if w := <-poll("/v1/stock/A?wait_ms=60000", `"eu:1"`); w.Code != 304 || time.Since(begun) != time.Minute {
			t.Errorf("got %d %s after %v", w.Code, w.Body, time.Since(begun))
		}
		if w := <-poll("/v1/stock/A?wait_ms=60000", `"eu:9"`); w.Code != 200 || time.Since(begun) != time.Minute {
			t.Errorf("got %d %s after %v", w.Code, w.Body, time.Since(begun))
		}
		if n := f.api.hub.count.Load() + int64(len(f.api.hub.bySKU)); n != 0 {
			t.Errorf("%d followers are left", n)
		}
		f.api.Drain()
	})
}

// Many writers, several streams: no stream sees an item's version go back, all
// reach the final state, and a reader that resumes anywhere misses nothing.
func TestStreamsConverge(t *testing.T) {
	f := newFixture(t)
	srv := f.serve()
	const skus, rounds = 20, 200
	var writers, readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			seen := make(map[string]protocol.Vector)
			id := ""
			for done := 0; done < skus; {
				r := f.stream(srv, "prefix=s", id)
				for n := 0; done < skus && n < 100; n++ {
					e, ok := r.next()
					if !ok {
						t.Error("the stream ended")
						return
					}
					id = e.id
					if e.name == "" {
						continue
					}
					v, err := protocol.ParseVector(e.item.Version)
					if err != nil || !v.AtLeast(seen[e.item.SKU]) {
						t.Errorf("%s went from %v to %v", e.item.SKU, seen[e.item.SKU], v)
						return
					}
					if v.Get("eu") == rounds && seen[e.item.SKU].Get("eu") < rounds {
						done++
					}
					seen[e.item.SKU] = v
				}
				r.res.Body.Close()
			}
		})
	}
	for i := range skus {
		writers.Go(func() {
			for range rounds {
				f.ledger.write(adjust(fmt.Sprint("s", i), 1))
			}
		})
	}
	writers.Wait()
	readers.Wait()
}
