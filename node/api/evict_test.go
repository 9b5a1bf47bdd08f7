package api

import (
	"bufio"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestEvictEndsTheNewest(t *testing.T) {
	q := &countingQuota{commands: 100, connections: 100, selectors: 100}
	f, g := guarded(t, func(c *Config) { c.Quota, c.Heartbeat = q, time.Hour })
	srv := f.serve()
	f.ledger.write(adjust("A", 1))
	open := func(token string) *reader {
		r := get(t, srv.URL+"/v1/stream?all")
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := srv.Client().Do(r)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		t.Cleanup(func() { res.Body.Close() })
		s := &reader{t, res, bufio.NewScanner(res.Body)}
		s.wantItems("A eu:1")
		return s
	}
	for _, token := range []string{"t", "other"} {
		g.give(token, `[{"do":["watch"]}]`)
	}
	first, bystander, second, third := open("t"), open("other"), open("t"), open("t")
	if n := f.api.Evict("sub-t", 2); n != 2 {
		t.Errorf("%d ended, want 2", n)
	}
	for name, s := range map[string]*reader{"second": second, "third": third} {
		if e, ok := s.next(); ok {
			t.Errorf("%s goes on: %+v", name, e)
		}
	}
	waitFor(t, func() bool { return q.used() == "2 connections, 2 selectors, 2 accounts" })
	f.ledger.write(adjust("A", 1))
	first.wantItems("A eu:2")
	if n := f.api.Evict("sub-nobody", 5); n != 0 {
		t.Errorf("%d of nobody's ended", n)
	}
	if n := f.api.Evict("sub-t", 5); n != 1 {
		t.Errorf("%d ended of the one that was left", n)
	}
	bystander.wantItems("A eu:2")
	f.api.Drain()
	if got := q.used(); got != nothingUsed {
		t.Error(got)
	}
}

// However many end a stream at the same time, one of them has, and what it took of its
// subject's is given back once.
func TestStreamsEndOnce(t *testing.T) {
	const n = 200
	q := &countingQuota{commands: 1000, connections: 1000, selectors: 1000}
	f, g := guarded(t, func(c *Config) { c.Quota, c.Heartbeat = q, 5*time.Millisecond })
	who := g.give("t", `[{"do":["watch"]}]`)
	srv := f.serve()
	f.ledger.write(adjust("A", 1))
	var readers, enders sync.WaitGroup
	for i := range n {
		readers.Go(func() {
			r := get(t, srv.URL+"/v1/stream?all")
			r.Header.Set("Authorization", "Bearer t")
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			if i%4 > 0 { // others leave by themselves
				_, _ = bufio.NewReader(res.Body).WriteTo(discard{})
			}
			res.Body.Close()
		})
	}
	waitFor(t, func() bool { return f.api.hub.crew.count() == n })
	evicted := 0
	var mu sync.Mutex
	for range 4 {
		enders.Go(func() {
			got := f.api.Evict("sub-t", n/8)
			mu.Lock()
			defer mu.Unlock()
			evicted += got
		})
	}
	enders.Go(func() { f.ledger.write(adjust("A", 1)) })
	enders.Wait()
	if evicted > n {
		t.Errorf("%d streams ended %d times", n, evicted)
	}
	g.revoke(who)
	enders.Go(f.api.Recheck)
	enders.Go(f.api.Drain)
	enders.Wait()
	readers.Wait()
	if got := q.used(); got != nothingUsed {
		t.Error(got)
	}
	if n := f.api.hub.count.Load(); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// Drain doesn't wait for a reader that has stalled for longer than its last write may take.
func TestDrainWithStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.WriteTimeout = time.Hour })
		w := newPipeWriter(t)
		f.api.ServeHTTP(w, newTestRequest(t, "GET", "/v1/stream?all", ""))
		synctest.Wait()
		begun := time.Now()
		f.api.Drain()
		if took := time.Since(begun); took > leaveTime {
			t.Errorf("took %v", took)
		}
		<-w.closed
	})
}

// A long poll is woken once however much its item changes, and not at all where no
// change can answer it.
func TestPollIsWokenOnce(t *testing.T) {
	for tag, want := range map[string]int{`"eu:1"`: 2, "*": 1} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.ledger.write(adjust("A", 1))
			asked := 0
			var held *protocol.Call
			f.ledger.intercept = func(c *protocol.Call) bool {
				if asked++; asked == 2 {
					held = c
				}
				return asked == 2
			}
			ended := make(chan int)
			go func() { ended <- f.do("GET", "/v1/stock/A?wait_ms=10000", "", "If-None-Match: "+tag).Code }()
			synctest.Wait()
			for range 100 {
				f.ledger.write(adjust("A", 1))
				synctest.Wait()
			}
			if held != nil {
				f.ledger.execute(held)
				held.Done(held)
			}
			if code := <-ended; code != map[int]int{2: 200, 1: 304}[want] {
				t.Errorf("%s: status %d", tag, code)
			}
			if asked != want {
				t.Errorf("%s: the ledger was asked %d times, want %d", tag, asked, want)
			}
			f.api.Drain()
		})
	}
}

func TestFollowerKeepsEachIDOnce(t *testing.T) {
	h, f := new(hub), &follower{pick: protocol.Selector{All: true}, seesAll: true}
	for round := range 3 {
		for i := range 10_000 {
			first := f.offer(protocol.ItemKey{SKU: "A"}, protocol.ItemID(i*7%100))
			if first != (i == 0) {
				t.Fatalf("round %d, %d: first is %v", round, i, first)
			}
		}
		if n := cap(f.pending); n > 400 {
			t.Errorf("room for %d ids, of 100", n)
		}
		want := make([]protocol.ItemID, 100)
		for i := range want {
			want[i] = protocol.ItemID(i)
		}
		if got, _ := h.take(f, make([]protocol.ItemID, 1)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: %v", round, got)
		}
	}
	if ids, _ := h.take(f, nil); len(ids) != 0 || f.pending != nil {
		t.Error("something is kept")
	}
}
