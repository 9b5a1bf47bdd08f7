package api

import (
	"bufio"
	"context"
	"fmt"
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
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != mediaEvents || res.Header.Get("Cache-Control") != cacheRead {
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

// slowWriter is a reader's side that takes one write at a time, when told to.
type slowWriter struct {
	httptest.ResponseRecorder
	ready chan struct{}
	wrote chan string
}

func newSlowWriter() *slowWriter {
	return &slowWriter{ResponseRecorder: *httptest.NewRecorder(), ready: make(chan struct{}), wrote: make(chan string)}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	<-w.ready
	w.wrote <- string(b)
	return len(b), nil
}

func (w *slowWriter) take() string {
	w.ready <- struct{}{}
	return <-w.wrote
}

func TestSlowReaderGetsNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, ledger: newFakeLedger()}
		f.api = New(Config{Ledger: f.ledger, Heartbeat: time.Hour})
		f.ledger.write(adjust("A", 1), adjust("B", 1))
		ctx, leave := context.WithCancel(t.Context())
		w := newSlowWriter()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.api.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/stream?all", nil))
		}()
		synctest.Wait()
		for range 1000 {
			f.ledger.write(adjust("A", 1))
		}
		synctest.Wait()
		got := []string{w.take()}
		synctest.Wait()
		got = append(got, w.take())
		synctest.Wait()
		if n := strings.Count(got[0], "data:"); n != 2 {
			t.Errorf("snapshot: %d events: %s", n, got[0])
		}
		want := "event: stock\nid: eu:1002\ndata: {\"sku\":\"A\",\"location\":\"main\",\"available\":1001,\"on_hand\":1001,\"reserved\":0," +
			"\"version\":\"eu:1001\",\"updated_at\":\"2023-11-14T22:13:20.000Z\"}\n\n"
		if d := cmp.Diff(want, got[1]); d != "" {
			t.Error(d)
		}
		leave()
		<-ended
		f.api.Drain()
	})
}

func TestHeartbeatMovesTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, ledger: newFakeLedger()}
		f.api = New(Config{Ledger: f.ledger})
		ctx, leave := context.WithCancel(t.Context())
		w := newSlowWriter()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.api.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/stream?prefix=x", nil))
		}()
		synctest.Wait()
		begun := time.Now()
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
		leave()
		<-ended
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
