package poll

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWaitTimes(t *testing.T) {
	l := newLoop(t)
	for _, timeout := range []time.Duration{0, time.Microsecond, 3 * time.Millisecond} {
		start := time.Now()
		n, err := l.Wait(l.events[:], timeout)
		if took := time.Since(start); n != 0 || err != nil || took < timeout {
			t.Errorf("Wait(%v) returned %d, %v after %v", timeout, n, err, took)
		}
	}
}

func TestWaitWithoutRoom(t *testing.T) {
	if _, err := newLoop(t).Wait(nil, 0); err == nil {
		t.Error("Wait without room for events succeeded")
	}
}

func TestWakeBeforeWait(t *testing.T) {
	l := newLoop(t)
	for range 1000 {
		must(t, l.Wake())
	}
	n, err := l.Wait(l.events[:], -1)
	if n != 0 || err != nil {
		t.Errorf("woken Wait: %d, %v", n, err)
	}
	start := time.Now()
	_, err = l.Wait(l.events[:], 5*time.Millisecond)
	if took := time.Since(start); err != nil || took < 5*time.Millisecond {
		t.Errorf("many Wakes ended more than one Wait: %v, %v", took, err)
	}
}

// Every piece of work announced by a Wake is seen, with no timeout to help.
func TestWakeFromManyGoroutines(t *testing.T) {
	const goroutines, each = 8, 2000
	l := newLoop(t)
	var work atomic.Int64
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range each {
				work.Add(1)
				if err := l.Wake(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for done := int64(0); done < goroutines*each; done += work.Swap(0) {
		_, err := l.Wait(l.events[:], -1)
		must(t, err)
	}
	group.Wait()
}

// What was done before Wake is visible after Wait: the race detector judges.
func TestWakePublishes(t *testing.T) {
	l := newLoop(t)
	for i := range 200 {
		var plain int
		go func() {
			plain = i
			l.Wake()
		}()
		n, err := l.Wait(l.events[:], -1)
		if n != 0 || err != nil {
			t.Fatalf("Wait: %d, %v", n, err)
		}
		if plain != i {
			t.Fatal("Wait returned without a Wake")
		}
	}
}

func TestWakeDuringAndAfterClose(t *testing.T) {
	p, err := New()
	must(t, err)
	var group sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					p.Wake()
					runtime.Gosched() // or one processor serves the wakers only
				}
			}
		})
	}
	events := make([]Event, 1)
	for range 100 {
		_, err := p.Wait(events, -1)
		must(t, err)
	}
	must(t, p.Close())
	close(stop)
	group.Wait()
	must(t, p.Wake())
	if err := p.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, err := p.Wait(events, 0); err == nil {
		t.Error("Wait after Close succeeded")
	}
}

// One goroutine accepts, another loop serves.
func TestAddFromAnotherGoroutine(t *testing.T) {
	front, back := newLoop(t), newLoop(t)
	peer := front.dial()
	s := front.accept()
	defer s.Close()
	added := make(chan error, 1)
	go func() { added <- back.Add(s, socketToken) }()
	send(t, peer, "x")
	back.await(socketToken, readable)
	must(t, <-added)
}
