package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// calm is a node by itself, without tokens.
type calm struct {
	*Server
	stop  context.CancelFunc
	ended chan error
}

func openCalm(t *testing.T) *calm {
	t.Helper()
	c := Default()
	c.Data, c.Listen, c.Admin, c.Metrics = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &calm{Server: s, stop: stop, ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		n.ended <- s.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	select {
	case <-s.Ready():
	case err := <-n.ended:
		t.Fatal(err)
	}
	return n
}

// dial opens a session and reads its greeting.
func (n *calm) dial(t *testing.T) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws://"+n.Addr().String()+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// listen reads what a session is told until it ends, as a client does.
func listen(t *testing.T, conn *websocket.Conn) {
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.CloseNow()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			if _, _, err := conn.Read(context.WithoutCancel(t.Context())); err != nil {
				return
			}
		}
	}()
}

// says reads the status that an address's /readyz tells.
func says(t *testing.T, addr string) (code int, r Readiness) {
	t.Helper()
	res, err := http.Get("http://" + addr + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, r
}

// askDrain returns the answer of POST /drain.
func (n *calm) askDrain(query string) (status int, body string, err error) {
	res, err := http.Post("http://"+n.AdminAddr()+"/drain"+query, "", nil)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(b)), err
}

// A drain tells at once that it has begun, and takes clients in until it sends all away.
func TestDrainWaitsBeforeItSendsAnybodyAway(t *testing.T) {
	n := openCalm(t)
	begin, over := make(chan time.Time, 1), make(chan struct{})
	go func() {
		defer close(over)
		n.drain(n.front.Load(), begin)
	}()
	for _, addr := range []string{n.AdminAddr(), n.MetricsAddr()} {
		for {
			code, r := says(t, addr)
			if r.Status == "draining" && code == http.StatusServiceUnavailable {
				break
			}
			if r.Status != "ready" { // it may still be
				t.Fatalf("%s: %d %+v", addr, code, r)
			}
		}
	}
	late := n.dial(t)
	res, err := http.Get("http://" + n.Addr().String() + "/v1/stock")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || !res.Close {
		t.Errorf("%s, and the connection is kept", res.Status)
	}
	begin <- time.Time{}
	for {
		_, last, err := late.Read(t.Context())
		if err == nil {
			if !strings.HasPrefix(string(last), `{"op":"goaway","reason":"drain"`) {
				t.Fatalf("%s", last)
			}
			continue
		}
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != 4200 {
			t.Fatal(err)
		}
		break
	}
	<-over
	if conn, err := net.Dial("tcp", n.Addr().String()); err == nil {
		conn.Close()
		t.Fatal("the door is open after the drain")
	}
}

func TestDrainRunsOnce(t *testing.T) {
	n := openCalm(t)
	listen(t, n.dial(t))
	for _, bad := range []string{"61s", "-1s", "soon"} {
		if status, body, err := n.askDrain("?delay=" + bad); status != http.StatusBadRequest || err != nil {
			t.Fatalf("%s: %d %s %v", bad, status, body, err)
		}
	}
	for range 2 {
		status, body, err := n.askDrain("?delay=1ms")
		if want := `{"status":"drained","connections":0}`; status != http.StatusOK || body != want || err != nil {
			t.Fatalf("%d %s %v", status, body, err)
		}
	}
	// It runs on without clients until it is told to end.
	select {
	case err := <-n.ended:
		t.Fatal(err)
	default:
	}
	if _, r := says(t, n.AdminAddr()); r.Status != "draining" {
		t.Fatalf("%+v", r)
	}
	n.stop()
	if err := <-n.ended; err != nil {
		t.Fatal(err)
	}
}

// Whoever wants the clients gone, and whenever: they are sent away once, and the node
// ends as it should.
func TestDrainMeetsStop(t *testing.T) {
	n := openCalm(t)
	listen(t, n.dial(t))
	var asked sync.WaitGroup
	for i := range 4 {
		asked.Go(func() {
			status, body, err := n.askDrain(fmt.Sprintf("?delay=%dms", i))
			if err != nil {
				return // the node had ended before it came
			}
			if status != http.StatusOK || !strings.Contains(body, "drained") {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	n.stop()
	if err := <-n.ended; err != nil {
		t.Fatal(err)
	}
	asked.Wait()
	n.drain(n.front.Load(), nil) // does nothing
}

// Who stops the node doesn't wait for the delay of a drain that has begun: soon it is
// killed.
func TestStopEndsTheWaitOfADrain(t *testing.T) {
	n := openCalm(t)
	listen(t, n.dial(t))
	over := make(chan struct{})
	go func() {
		defer close(over)
		n.drain(n.front.Load(), make(chan time.Time)) // for ever
	}()
	for {
		if _, r := says(t, n.AdminAddr()); r.Status == "draining" {
			break
		}
	}
	n.stop()
	if err := <-n.ended; err != nil {
		t.Fatal(err)
	}
	<-over
}

// Nothing is drained that hasn't begun.
func TestDrainBeforeTheStart(t *testing.T) {
	s, err := New(Default())
	if err != nil {
		t.Fatal(err)
	}
	n := &calm{Server: s}
	var stops stack
	s.config.Admin = "127.0.0.1:0"
	if err := s.startAdmin(&stops); err != nil {
		t.Fatal(err)
	}
	status, body, err := n.askDrain("")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "still starting") || err != nil {
		t.Errorf("%d %s %v", status, body, err)
	}
	if err := stops.unwind(); err != nil {
		t.Error(err)
	}
}
