package server_test

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// A node without keys serves its own machine, and none of the web's pages.
func TestPagesOfOtherNamesWithoutKeys(t *testing.T) {
	s := run(t)
	base := s.Addr().String()
	for host, want := range map[string]int{base: 200, "localhost": 200, "evil.example": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+base+"/v1/stock", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, res.StatusCode, want)
		}
		conn, res, err := websocket.Dial(t.Context(), "ws://"+base+"/v1/ws", &websocket.DialOptions{Host: host})
		if (err == nil) != (want == 200) || err != nil && res.StatusCode != want {
			t.Errorf("WebSocket as %s: %v", host, err)
		}
		if err == nil {
			conn.CloseNow()
		}
	}
}
