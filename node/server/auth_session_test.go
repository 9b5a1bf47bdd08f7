package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// said is one message of a node.
type said struct {
	raw   string
	ID    any             `json:"id"`
	Op    string          `json:"op"`
	OK    map[string]any  `json:"ok"`
	Error *protocol.Error `json:"error"`
	Items []protocol.Item `json:"items"`
}

// code is "ok", or that of the error.
func (m said) code() string {
	if m.Error != nil {
		return string(m.Error.Code)
	}
	return "ok"
}

// session is a WebSocket, all of whose messages are kept.
type session struct {
	t    *testing.T
	conn *websocket.Conn
	n    int

	mu      sync.Mutex
	heard   []said
	ended   error         // why it was closed; nil: it is open
	changed chan struct{} // closed with the next message
}

// dial opens a WebSocket. Where that is refused, the answer is returned.
func (l *lodge) dial(path, token string, headers ...string) (*session, *http.Response) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), hang)
	defer cancel()
	o := &websocket.DialOptions{HTTPClient: l.http, HTTPHeader: http.Header{}}
	if token != "" {
		o.HTTPHeader.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		o.HTTPHeader.Set(headers[i], headers[i+1])
	}
	conn, res, err := websocket.Dial(ctx, l.url(path), o)
	if err != nil {
		if res == nil {
			l.t.Fatal(err)
		}
		return nil, res
	}
	conn.SetReadLimit(1 << 20)
	s := &session{t: l.t, conn: conn, changed: make(chan struct{})}
	go s.listen()
	l.t.Cleanup(func() { _ = conn.CloseNow() })
	return s, res
}

// open opens a WebSocket with a token in its handshake.
func (l *lodge) open(token string, headers ...string) *session {
	l.t.Helper()
	s, res := l.dial("/v1/ws", token, headers...)
	if s == nil {
		l.t.Fatalf("handshake: %s", res.Status)
	}
	return s
}

func (s *session) listen() {
	for {
		_, data, err := s.conn.Read(context.Background()) // ends with the connection
		m := said{raw: string(data)}
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		s.mu.Lock()
		if s.ended = err; err == nil {
			s.heard = append(s.heard, m)
		}
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// await waits until look, which sees all messages so far, returns true.
func (s *session) await(what string, look func(heard []said) bool) {
	s.t.Helper()
	if err := s.awaits(what, look); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) awaits(what string, look func(heard []said) bool) error {
	limit := time.NewTimer(hang)
	defer limit.Stop()
	for {
		s.mu.Lock()
		heard, ended, changed := s.heard, s.ended, s.changed
		s.mu.Unlock()
		if look(heard) {
			return nil
		}
		if ended != nil {
			return fmt.Errorf("%s: the session has ended: %w; heard %v", what, ended, heard)
		}
		select {
		case <-changed:
		case <-limit.C:
			return fmt.Errorf("%s: not within %v; heard %v", what, hang, heard)
		}
	}
}

// tell sends a command without waiting for its reply.
func (s *session) tell(command string) {
	s.t.Helper()
	if err := s.conn.Write(context.Background(), websocket.MessageText, []byte(command)); err != nil {
		s.t.Fatalf("%.100s: %v", command, err)
	}
}

// ask sends a command, written without id, and returns its reply and how many messages
// came before it.
func (s *session) ask(format string, args ...any) (reply said, at int) {
	s.t.Helper()
	reply, at, err := s.try(format, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply, at
}

// try is ask for goroutines, which can't end the test.
func (s *session) try(format string, args ...any) (reply said, at int, err error) {
	s.n++
	id := fmt.Sprintf("c%d", s.n)
	command := strings.Replace(fmt.Sprintf(format, args...), "{", fmt.Sprintf(`{"id":%q,`, id), 1)
	if err := s.conn.Write(context.Background(), websocket.MessageText, []byte(command)); err != nil {
		return reply, 0, fmt.Errorf("%.100s: %w", command, err)
	}
	err = s.awaits(command[:min(len(command), 100)], func(heard []said) bool {
		for i, m := range heard {
			if m.ID == id {
				reply, at = m, i
				return true
			}
		}
		return false
	})
	return reply, at, err
}

// must asks for what must succeed.
func (s *session) must(format string, args ...any) (reply said, at int) {
	s.t.Helper()
	reply, at = s.ask(format, args...)
	if reply.Error != nil {
		s.t.Fatalf("%s: %v", fmt.Sprintf(format, args...), reply.Error)
	}
	return reply, at
}

// auth shows a token and returns the reply's code.
func (s *session) auth(token string) string {
	s.t.Helper()
	reply, _ := s.ask(`{"op":"auth","token":%q}`, token)
	return reply.code()
}

// pushedAfter says whether an item was pushed after so many messages.
func pushedAfter(heard []said, at int, sku string) bool {
	for _, m := range heard[min(at, len(heard)):] {
		for _, it := range m.Items {
			if it.SKU == sku {
				return true
			}
		}
	}
	return false
}

func (s *session) messages() []said {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// closed is the code that the session was closed with, -1 while it is open.
func (s *session) closed() websocket.StatusCode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		return -1
	}
	var c websocket.CloseError
	if !errors.As(s.ended, &c) {
		return 0
	}
	return c.Code
}

// awaitClosed waits until the session is closed and checks with which code.
func (s *session) awaitClosed(code websocket.StatusCode, limit time.Duration) {
	s.t.Helper()
	eventually(s.t, "to be closed", limit, func() error {
		if s.closed() == -1 {
			return errors.New("it is still open")
		}
		return nil
	})
	if got := s.closed(); got != code {
		s.t.Errorf("closed with %d (%v), want %d", got, s.ended, code)
	}
}
