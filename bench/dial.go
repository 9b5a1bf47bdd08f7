package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const dialTimeout = 10 * time.Second

// The key and answer of RFC 6455, section 1.3: nothing here needs a secret.
const (
	handshakeKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	handshakeAnswer = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// dialed is a connection after its handshake and the node's hello.
type dialed struct {
	*net.TCPConn
	hello protocol.Hello
	ahead []byte // read already, to be dealt with first
}

// dial opens a WebSocket connection. When it is closed it is reset, so that
// thousands of them leave no port waiting.
func dial(ctx context.Context, endpoint string) (*dialed, error) { return dialAs(ctx, endpoint, nil) }

// dialAs is dial over a socket that prepare, where there is one, has had its way with.
func dialAs(ctx context.Context, endpoint string, prepare socketOption) (*dialed, error) {
	nc, err := dialTCPAs(ctx, endpoint, prepare)
	if err != nil {
		return nil, err
	}
	d, err := shakeHands(nc, endpoint)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%s: %w", redacted(endpoint), err)
	}
	return d, nc.SetDeadline(time.Time{})
}

// socketOption changes a socket before it is connected.
type socketOption func(network, address string, c syscall.RawConn) error

func dialTCP(ctx context.Context, endpoint string) (*net.TCPConn, error) {
	return dialTCPAs(ctx, endpoint, nil)
}

func dialTCPAs(ctx context.Context, endpoint string, prepare socketOption) (*net.TCPConn, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1, Control: prepare}
	nc, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	tcp := nc.(*net.TCPConn)
	if err := tcp.SetLinger(0); err != nil {
		tcp.Close()
		return nil, err
	}
	return tcp, tcp.SetDeadline(time.Now().Add(dialTimeout))
}

func shakeHands(nc *net.TCPConn, endpoint string) (*dialed, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(nc)
	d := &dialed{TCPConn: nc}
	if d.hello, err = greet(nc, r, u); err != nil {
		return nil, err
	}
	d.ahead, err = r.Peek(r.Buffered())
	return d, err
}

// upgrade is the request that asks for a WebSocket.
func upgrade(u *url.URL, more string) string {
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %s\r\n%s\r\n",
		u.RequestURI(), u.Host, handshakeKey, protocol.SubprotocolJSON, more)
}

// greet does the handshake and waits for the node's hello.
func greet(w io.Writer, r *bufio.Reader, u *url.URL) (hello protocol.Hello, err error) {
	if _, err := io.WriteString(w, upgrade(u, authorization(u))); err != nil {
		return hello, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return hello, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != handshakeAnswer {
		return hello, fmt.Errorf("handshake refused: %s", resp.Status)
	}
	f, err := readFrame(r)
	if err != nil {
		return hello, err
	}
	if err := protocol.UnmarshalJSON(f.payload, &hello); err != nil || hello.Op != "hello" {
		return hello, fmt.Errorf("want a hello, not %q: %w", f.payload, err)
	}
	return hello, nil
}

// readFrame waits for one frame.
func readFrame(r *bufio.Reader) (frame, error) {
	for need := 2; ; need = r.Buffered() + 1 {
		if _, err := r.Peek(need); err != nil {
			return frame{}, err
		}
		b, _ := r.Peek(r.Buffered())
		f, n, err := nextFrame(b)
		if err != nil {
			return frame{}, err
		}
		if n > 0 {
			_, err = r.Discard(n)
			return frame{f.op, append([]byte(nil), f.payload...)}, err
		}
	}
}

// dialAll opens count connections, a few at a time, the i-th to the target's i-th
// endpoint, and gives each to each on the caller's goroutine, in the order in which
// they come.
func dialAll(ctx context.Context, t *target, count int, each func(i int, d *dialed) error) error {
	return inParallel(ctx, count, func(ctx context.Context, i int) (*dialed, error) {
		return dial(ctx, t.endpoint(i))
	}, each)
}

const dialsAtOnce = 8

func inParallel[T any](ctx context.Context, count int, make1 func(context.Context, int) (T, error), each func(int, T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type made struct {
		i     int
		value T
		err   error
	}
	results := make(chan made)
	for w := range dialsAtOnce {
		go func() {
			for i := w; i < count; i += dialsAtOnce {
				v, err := make1(ctx, i)
				results <- made{i, v, err}
			}
		}()
	}
	var failed error
	for range count {
		m := <-results
		if failed == nil && m.err == nil {
			m.err = each(m.i, m.value)
		}
		if failed == nil && m.err != nil {
			failed = fmt.Errorf("connection %d of %d: %w", m.i+1, count, m.err)
			cancel() // the others fail soon; each is waited for
		}
	}
	return failed
}

// answer is a reply to one of ask's commands.
type answer struct {
	ID int `json:"id"`
	OK struct {
		Item  protocol.Item   `json:"item"`
		Items []protocol.Item `json:"items"`
	} `json:"ok"`
	Error *protocol.Error `json:"error"`
}

// answerMax has room for the items that stock asks for at once.
const answerMax = 512 << 10

// ask opens a connection, sends one command and returns its answer.
func ask(ctx context.Context, endpoint string, c protocol.Command) (*answer, error) {
	d, err := dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := d.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	c.ID = []byte("1")
	if _, err := d.Write(appendClientFrame(nil, opText, [4]byte{}, protocol.AppendJSON(nil, &c))); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(d, answerMax)
	for {
		f, err := readFrame(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Op, err)
		}
		if f.op != opText {
			continue
		}
		var a answer
		if err := protocol.UnmarshalJSON(f.payload, &a); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Op, err)
		}
		if a.Error != nil {
			return nil, fmt.Errorf("%s: %s: %s", c.Op, a.Error.Code, a.Error.Message)
		}
		if a.ID == 1 {
			return &a, nil
		}
	}
}
