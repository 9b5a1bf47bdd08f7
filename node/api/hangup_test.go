package api

import (
	"bufio"
	"net/http/httptest"
	"testing"
	"time"
)

// A reader that hangs up is noticed long before its heartbeat can't be written, and one
// that only listens is left alone.
func TestReaderThatHangsUpIsNoticed(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){"plain": (*httptest.Server).Start, "TLS": (*httptest.Server).StartTLS} {
		t.Run(name, func(t *testing.T) {
			// Each is listened to within an eighth of this. Heartbeats would take two of it.
			f := newFixture(t, func(c *Config) { c.Heartbeat = 16 * time.Second })
			srv := httptest.NewUnstartedServer(f.api)
			start(srv)
			t.Cleanup(srv.Close)
			t.Cleanup(f.api.Drain)
			f.ledger.write(adjust("A", 1))
			open := func() *reader {
				client := srv.Client()
				res, err := client.Do(get(t, srv.URL+"/v1/stream?all"))
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
