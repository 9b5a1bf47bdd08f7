package clustertest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	// goneWithin is how soon a session is closed whose token no longer counts.
	goneWithin = 5 * time.Second * clustertest.Slow

	// hang ends what would otherwise wait for ever.
	hang = 30 * time.Second * clustertest.Slow
)

const anyStock = `[{"do":["watch","history","adjust","sell"]}]`

// visitor comes to nodes with tokens of its own.
type visitor struct {
	t    *testing.T
	keys *clustertest.Keys
	http *http.Client
}

func newVisitor(t *testing.T, keys *clustertest.Keys) *visitor {
	v := &visitor{t, keys, keys.HTTP()}
	t.Cleanup(v.http.CloseIdleConnections)
	return v
}

// idOf is a token's id.
func (v *visitor) idOf(token string) string {
	v.t.Helper()
	var claims struct {
		ID string `json:"jti"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil || claims.ID == "" {
		v.t.Fatal("a token without id", err)
	}
	return claims.ID
}

// ask sends a request; a token of "" is not sent.
func (v *visitor) ask(method, url, token, body string) (status int, answer string, err error) {
	r, err := http.NewRequestWithContext(v.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := v.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// revoke has a node refuse what the body names.
func (v *visitor) revoke(n *clustertest.Node, body string, args ...any) {
	v.t.Helper()
	status, answer, err := v.ask(http.MethodPost, n.Admin+"/revocations", "", fmt.Sprintf(body, args...))
	if err != nil || status != http.StatusOK {
		v.t.Fatalf("revoking at %s: %d %s %v", n, status, answer, err)
	}
}

// refused says that a token is refused by nodes, over HTTP and WebSocket.
func (v *visitor) refused(token string, nodes ...*clustertest.Node) {
	v.t.Helper()
	for _, n := range nodes {
		if status, answer, err := v.ask(http.MethodGet, n.HTTP+"/v1/stock", token, ""); err != nil || status != http.StatusUnauthorized {
			v.t.Errorf("%s, HTTP: %d %s %v", n, status, answer, err)
		}
		if s, status := v.dial(n, token); s != nil || status != http.StatusUnauthorized {
			v.t.Errorf("%s, WebSocket: %d", n, status)
		}
	}
}

// session is a WebSocket. It is read all the time, as the node's pings must be answered.
type session struct {
	v       *visitor
	node    *clustertest.Node
	conn    *websocket.Conn
	n       int
	replies chan reply
	ended   chan struct{}        // closed when it is
	code    websocket.StatusCode // it was closed with; once ended
}

type reply struct {
	ID    any             `json:"id"`
	Error *protocol.Error `json:"error"`
}

// dial opens a WebSocket; nil with a status where the handshake is refused.
func (v *visitor) dial(n *clustertest.Node, token string) (*session, int) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), hang)
	defer cancel()
	header := http.Header{"Authorization": {"Bearer " + token}}
	conn, res, err := websocket.Dial(ctx, n.Endpoint+"/v1/ws", &websocket.DialOptions{HTTPClient: v.http, HTTPHeader: header})
	if err != nil {
		if res == nil {
			v.t.Fatalf("%s: %v", n, err)
		}
		return nil, res.StatusCode
	}
	s := &session{v: v, node: n, conn: conn, replies: make(chan reply, 16), ended: make(chan struct{})}
	go s.listen()
	v.t.Cleanup(func() { _ = conn.CloseNow(); <-s.ended })
	return s, http.StatusSwitchingProtocols
}

func (s *session) listen() {
	defer close(s.ended)
	for {
		_, data, err := s.conn.Read(context.Background()) // ends with the connection
		var r reply
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			s.code = websocket.CloseStatus(err)
			return
		}
		if r.ID != nil {
			s.replies <- r // one command at a time: there is room
		}
	}
}

func (v *visitor) open(n *clustertest.Node, token string) *session {
	v.t.Helper()
	s, status := v.dial(n, token)
	if s == nil {
		v.t.Fatalf("%s: handshake: %d", n, status)
	}
	return s
}

// openAll opens a WebSocket at each node.
func (v *visitor) openAll(nodes []*clustertest.Node, token string) (list []*session) {
	v.t.Helper()
	for _, n := range nodes {
		list = append(list, v.open(n, token))
	}
	return list
}

// do sends a command, written without id, and returns "ok" or the error's code.
func (s *session) do(format string, args ...any) string {
	s.v.t.Helper()
	code, err := s.try(format, args...)
	if err != nil {
		s.v.t.Fatalf("%s: %v", s.node, err)
	}
	return code
}

func (s *session) try(format string, args ...any) (code string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	s.n++
	id := fmt.Sprintf("c%d", s.n)
	command := strings.Replace(fmt.Sprintf(format, args...), "{", fmt.Sprintf(`{"id":%q,`, id), 1)
	if err := s.conn.Write(ctx, websocket.MessageText, []byte(command)); err != nil {
		return "", err
	}
	select {
	case r := <-s.replies:
		switch {
		case r.ID != id:
			return "", fmt.Errorf("a reply to %v", r.ID)
		case r.Error != nil:
			return string(r.Error.Code), nil
		}
		return "ok", nil
	case <-s.ended:
		return "", fmt.Errorf("closed with %d", s.code)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// awaitClosed checks that sessions are closed with a code, within a limit from now.
func awaitClosed(t *testing.T, sessions []*session, code websocket.StatusCode, limit time.Duration) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, s := range sessions {
		select {
		case <-s.ended:
			if s.code != code {
				t.Errorf("%s: closed with %d, want %d", s.node, s.code, code)
			}
		case <-timer.C:
			t.Fatalf("%s: not closed within %v", s.node, limit)
		}
	}
}

// eventually looks again and again until look returns nil.
func eventually(t *testing.T, what string, limit time.Duration, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

// lets says whether a node lets a token in, as an error where not.
func (v *visitor) lets(n *clustertest.Node, token string) error {
	status, answer, err := v.ask(http.MethodGet, n.HTTP+"/v1/stock", token, "")
	if err == nil && status != http.StatusOK {
		err = errors.New(answer)
	}
	return err
}
