package api

import (
	"bufio"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A reader that hangs up is noticed long before its heartbeats can't be written, and one
// that only listens is left alone.
func TestReaderThatHangsUpIsNoticed(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){"plain": (*httptest.Server).Start, "TLS": (*httptest.Server).StartTLS} {
		t.Run(name, func(t *testing.T) {
			// Each is listened to every eighth of this. Heartbeats would take two of it.
			f := newFixture(t, func(c *Config) { c.Heartbeat = 12 * time.Second })
			srv := httptest.NewUnstartedServer(f.api)
			start(srv)
			t.Cleanup(srv.Close)
			t.Cleanup(f.api.Drain)
			f.ledger.write(adjust("A", 1))
			open := func() *reader {
				res, err := srv.Client().Do(get(t, srv.URL+"/v1/stream?all"))
				if err != nil || res.StatusCode != 200 {
					t.Fatal(res, err)
				}
				t.Cleanup(func() { res.Body.Close() })
				r := &reader{t, res, bufio.NewScanner(res.Body)}
				r.want("A eu:1 eu:1")
				return r
			}
			stays, leaves := open(), open()
			leaves.res.Body.Close()
			waitFor(t, func() bool { return f.api.hub.count.Load() == 1 })
			f.ledger.write(adjust("A", 1))
			stays.want("A eu:2 eu:2")
		})
	}
}

// Who has closed its sending side may read on.
func TestReaderThatSaysNoMoreIsServed(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Heartbeat = time.Second })
	srv := f.serve()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = io.WriteString(c, "GET /v1/stream?all HTTP/1.1\r\nHost: "+srv.Listener.Addr().String()+"\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(c)
	await := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("no %q: %v", want, lines.Err())
	}
	await("HTTP/1.1 200")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 8 { // sooner than once in a heartbeat's interval, so they are for who seems to have left
		await(": heartbeat")
	}
	f.ledger.write(adjust("A", 1))
	await(`"on_hand":1`)
}
