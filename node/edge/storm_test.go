package edge_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The long form: go test ./node/edge -run TestStorm -v -storm 10000 [-over-tls]
var stormOf = flag.Int("storm", 500, "connections that arrive at once in TestStorm")

// Of many that arrive at the same moment each is served, or told when to come back;
// nobody is left waiting. Over TLS whom there is no room for is closed without a word,
// as saying one would cost the handshake there is no room for.
func TestStorm(t *testing.T) {
	n := *stormOf
	room := n * 4 / 5
	s := startServer(t, room)
	before := s.ask("stats")
	a := &arrivals{addr: before.Addr, deadline: time.Now().Add(stormPatience(n))}
	took := a.come(t, n)
	least := room * 9 / 10
	if *overTLS {
		least = min(least, 1000) // no more than 2,048 are in their handshakes at a time
	}
	if s, r := int(a.served.Load()), int(a.refused.Load()); s > room || s < least || s+r != n {
		t.Errorf("%d served and %d told to come back, of %d with room for %d", s, r, n, room)
	}
	slices.Sort(a.waits)
	if len(a.waits) > 0 {
		t.Logf("%d arrivals in %v: %d served, %.0f/s, the slowest after %v, the median after %v; %d told to come back",
			n, took.Round(time.Millisecond), len(a.waits), float64(len(a.waits))/took.Seconds(), a.waits[len(a.waits)-1].Round(time.Millisecond), a.waits[len(a.waits)/2].Round(time.Millisecond), a.refused.Load())
	}
	if got := s.ask("stats").Sessions; got != int(a.served.Load()) {
		t.Errorf("%d sessions on the node, %d served", got, a.served.Load())
	}
	for _, c := range a.conns {
		c.Close()
	}
	eventually(t, "all gone", func() bool {
		now := s.ask("stats")
		return now.Sessions == 0 && now.Goroutines <= before.Goroutines
	})
}

// stormPatience is generous: a machine may be busy with other tests.
func stormPatience(n int) time.Duration {
	return slower * (30*time.Second + time.Duration(n)*10*time.Millisecond)
}

// arrivals come at once.
type arrivals struct {
	addr            string
	deadline        time.Time
	served, refused atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
	waits []time.Duration
}

// come has n of them arrive, and says how long it took until each knew.
func (a *arrivals) come(t *testing.T, n int) time.Duration {
	var ready, wg sync.WaitGroup
	ready.Add(n)
	begin := make(chan struct{})
	for range n {
		wg.Go(func() {
			ready.Done()
			<-begin
			if err := a.arrive(); err != nil {
				t.Error(err)
			}
		})
	}
	ready.Wait()
	began := time.Now()
	close(begin)
	wg.Wait()
	return time.Since(began)
}

// arrive has one arrive; whoever is served stays.
func (a *arrivals) arrive() (err error) {
	begin := time.Now()
	c, err := net.DialTimeout("tcp", a.addr, time.Until(a.deadline))
	if err != nil {
		return err
	}
	if err := c.SetDeadline(a.deadline); err != nil {
		return errors.Join(err, c.Close())
	}
	if *overTLS {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	told, err := a.shake(c)
	if err != nil || told {
		c.Close() // over TLS it may fail, as the node has closed
		return err
	}
	a.served.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns = append(a.conns, c)
	a.waits = append(a.waits, time.Since(begin))
	return nil
}

// shake reports whether the node had no room.
func (a *arrivals) shake(c net.Conn) (told bool, err error) {
	in := bufio.NewReaderSize(c, 512)
	_, err = io.WriteString(c, handshake(a.addr))
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(in, nil)
	}
	switch {
	case *overTLS && closedByPeer(err):
		a.refused.Add(1)
		return true, nil
	case err != nil:
		return false, fmt.Errorf("neither served nor told to come back: %w", err)
	case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
		a.refused.Add(1)
		return true, res.Body.Close()
	case res.StatusCode != http.StatusSwitchingProtocols:
		return false, fmt.Errorf("answered with %s %v", res.Status, res.Header)
	}
	if _, err = in.Peek(2); err != nil { // the hello
		return false, fmt.Errorf("no hello: %w", err)
	}
	return false, nil
}

func closedByPeer(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
