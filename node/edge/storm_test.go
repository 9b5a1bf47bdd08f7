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
// nobody is left waiting, and who was there before is answered all the while. Over TLS
// whom there is no room for is closed without a word, as saying one would cost the
// handshake there is no room for.
func TestStorm(t *testing.T) {
	n := *stormOf
	t.Run("room for all", func(t *testing.T) { storm(t, n, n+n/10) })
	t.Run("too many", func(t *testing.T) { storm(t, n, n*4/5) })
}

func storm(t *testing.T, n, room int) {
	s := startServer(t, room+1)
	before := s.ask("ping")
	a := &arrivals{addr: before.Addr, deadline: time.Now().Add(stormPatience(n))}
	took := a.come(t, n)
	now := s.ask("stats")
	served, told := int(a.served.Load()), int(a.refused.Load())
	t.Logf("%d arrivals in %v: %d served, %.0f/s, %v; %d told to come back %v; CPU %v each",
		n, took.Round(time.Millisecond), served, float64(served)/took.Seconds(), summary(a.waits), told, now.Rejected,
		((now.CPU - before.CPU) / time.Duration(n)).Round(time.Microsecond))
	t.Log("beside them:", now.Pings)
	least := min(room, n) * 9 / 10
	if *overTLS && room < n {
		least /= 2 // with no room left, clients too busy to begin are not waited for
	}
	if served > room || served < least || served+told != n || room >= n && told > 0 {
		t.Errorf("%d served and %d told to come back, of %d with room for %d", served, told, n, room)
	}
	if now.Sessions != served+1 {
		t.Errorf("%d sessions on the node, %d served", now.Sessions, served)
	}
	if p := now.Pings; p.Err != "" || p.Count == 0 || p.P99 > slower*2*time.Second {
		t.Errorf("who was there before: %v, ended by %q", p, p.Err)
	}
	for _, c := range a.conns {
		c.Close()
	}
	eventually(t, "all gone", func() bool {
		now := s.ask("stats")
		return now.Sessions == 1 && now.Goroutines <= before.Goroutines
	})
}

// summary says how long those waited who were served.
func summary(waits []time.Duration) string {
	n := len(waits)
	if n == 0 {
		return "none of them"
	}
	slices.Sort(waits)
	return fmt.Sprintf("median %v, p99 %v, longest %v", waits[n/2].Round(time.Millisecond),
		waits[n*99/100].Round(time.Millisecond), waits[n-1].Round(time.Millisecond))
}

// stormPatience is generous: a machine may be busy with other tests.
func stormPatience(n int) time.Duration {
	return slower * (60*time.Second + time.Duration(n)*10*time.Millisecond)
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
