package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// readBytesMax bounds one message of a node.
const readBytesMax = 8 << 20

// busyError is a connection that was turned away for now.
type busyError struct {
	endpoint string
	status   int // of the handshake, or the close code
	after    time.Duration
	why      *protocol.Error // where it is told: above all a token that can't be checked yet
}

func (e *busyError) Error() string {
	if e.why != nil {
		return fmt.Sprintf("%s: not now: %v", e.endpoint, e.why)
	}
	return fmt.Sprintf("%s is busy (%d)", e.endpoint, e.status)
}

func (e *busyError) Unwrap() error {
	if e.why == nil {
		return nil
	}
	return e.why
}

func isBusy(err error) bool {
	var busy *busyError
	return errors.As(err, &busy)
}

// pauseOf is how long a node asked to be left alone.
func pauseOf(err error) time.Duration {
	var busy *busyError
	if !errors.As(err, &busy) {
		return 0
	}
	return busy.after
}

// isPermanent reports whether a failed attempt to connect forbids another.
func isPermanent(err error) bool {
	var refused *protocol.Error
	var closed *CloseError
	var token *refusal
	if isBusy(err) {
		return false
	}
	if errors.As(err, &token) {
		return token.final()
	}
	return errors.As(err, &refused) || errors.As(err, &closed)
}

// dialOne connects to an endpoint and reads the node's hello.
func (c *Client) dialOne(ctx context.Context, endpoint string) (*link, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	header := http.Header{}
	bear(header, token)
	l := newLink(c, endpoint)
	l.credential = newCredential(token)
	conn, response, err := websocket.Dial(ctx, endpoint+"/v1/ws", &websocket.DialOptions{
		HTTPClient:   c.http,
		HTTPHeader:   header,
		Subprotocols: c.cfg.subprotocols(),
		OnPingReceived: func(context.Context, []byte) bool {
			l.heard.Add(1)
			return true
		},
	})
	if err != nil {
		return nil, handshakeError(endpoint, response, err)
	}
	conn.SetReadLimit(readBytesMax)
	l.conn = conn
	l.codec, _ = protocol.CodecOf(conn.Subprotocol()) // none picked: JSON
	if err := l.readHello(ctx); err != nil {
		conn.CloseNow()
		if endingOf(err) == endForGood {
			return nil, closeError(endpoint, err)
		}
		return nil, fmt.Errorf("%s: no hello: %w", endpoint, err)
	}
	return l, nil
}

func handshakeError(endpoint string, r *http.Response, err error) error {
	if r == nil {
		var plain *net.OpError
		if errors.As(err, &plain) {
			err = plain // what failed, without the layers that passed it on
		}
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		refused := problem(r, refusedAs(r.StatusCode))
		if refused.Retryable {
			return &busyError{endpoint, r.StatusCode, max(retryAfter(r), retryPause(refused)), refused}
		}
		return refused
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &busyError{endpoint, r.StatusCode, retryAfter(r), nil}
	}
	return fmt.Errorf("%s: %w", endpoint, err)
}

// refusedAs is the code for a status that came without one, from a proxy say.
func refusedAs(status int) protocol.Code {
	switch status {
	case http.StatusUnauthorized:
		return protocol.CodeUnauthorized
	case http.StatusForbidden:
		return protocol.CodeForbidden
	}
	return protocol.CodeUnavailable
}

func retryAfter(r *http.Response) time.Duration {
	seconds, err := strconv.Atoi(strings.TrimSpace(r.Header.Get("Retry-After")))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 60)) * time.Second
}

// problem reads an RFC 9457 body as the error it stands for; code is used where
// the body says nothing.
func problem(r *http.Response, code protocol.Code) *protocol.Error {
	body, _ := io.ReadAll(io.LimitReader(r.Body, protocol.MessageBytesMax))
	var p struct {
		protocol.Error
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if protocol.UnmarshalJSON(body, &p) != nil || p.Code == "" {
		return protocol.NewError(code, "%s", r.Status)
	}
	e := p.Error
	for _, text := range []string{p.Detail, p.Title} {
		if e.Message == "" {
			e.Message = text
		}
	}
	return &e
}
