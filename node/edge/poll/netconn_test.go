package poll

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func (l *loop) netConn(s Socket) net.Conn {
	l.Helper()
	must(l, l.Remove(s))
	conn, err := s.NetConn()
	must(l, err)
	l.Cleanup(func() { conn.Close() })
	return conn
}

// oneConn is a listener with a single connection to give.
type oneConn struct {
	conns chan net.Conn
	addr  net.Addr
}

func (o oneConn) Accept() (net.Conn, error) {
	conn, ok := <-o.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (o oneConn) Close() error   { return nil }
func (o oneConn) Addr() net.Addr { return o.addr }

func TestNetConnServesHTTP(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	// The loop has sent something, and bytes wait that it never asked for.
	l.write(s, []byte("HTTP/1.1 100 Continue\r\n\r\n"))
	send(t, peer, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
	l.await(socketToken, readable)
	conn := l.netConn(s)

	listener := oneConn{make(chan net.Conn, 1), conn.LocalAddr()}
	listener.conns <- conn
	server := &http.Server{
		ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, io.MultiReader(strings.NewReader(r.URL.Path), r.Body))
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	send(t, peer, "body")
	replies := bufio.NewReader(peer)
	for _, want := range []string{"/abody", "/b"} {
		reply, err := http.ReadResponse(replies, nil)
		if err == nil && reply.StatusCode == http.StatusContinue {
			reply, err = http.ReadResponse(replies, nil)
		}
		must(t, err)
		body, err := io.ReadAll(reply.Body)
		if string(body) != want || err != nil {
			t.Errorf("reply %q, %v; want %q", body, err, want)
		}
		if want == "/abody" {
			send(t, peer, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	close(listener.conns)
	<-served
	must(t, server.Close())
}

func TestNetConnDeadline(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	conn := l.netConn(s)
	must(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v, want a timeout", err)
	}
	must(t, conn.SetReadDeadline(time.Time{}))
	send(t, peer, "x")
	if got := receive(t, conn, 1); got != "x" {
		t.Errorf("got %q", got)
	}
}

func TestNetConnIsSilentInTheLoop(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	conn := l.netConn(s)
	send(t, peer, "for net.Conn only")
	receive(t, conn, 17)
	if e, ok := l.look()[socketToken]; ok {
		t.Errorf("%+v of a socket given away", e)
	}
}

func TestNetConnKeepsOrder(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	n := len(fill(t, s))
	conn := l.netConn(s)
	go func() {
		io.WriteString(conn, "end")
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(peer)
	if len(got) != n+3 || !strings.HasSuffix(string(got), "end") || err != nil {
		t.Errorf("peer read %d bytes, %v; want %d", len(got), err, n+3)
	}
}

func TestNetConnOfEndedStream(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	send(t, peer, "tail")
	must(t, peer.CloseWrite())
	l.await(socketToken, readable)
	conn := l.netConn(s)
	if got, err := io.ReadAll(conn); string(got) != "tail" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}
