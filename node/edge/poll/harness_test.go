package poll

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 10 * time.Second // nothing that works takes this long

	listenerToken = 1
	socketToken   = 2
)

// loop is a Poller with a listener, as the edge has one.
type loop struct {
	testing.TB
	*Poller
	listener *Listener
	events   [64]Event
}

func newLoop(t testing.TB) *loop {
	t.Helper()
	p, err := New()
	must(t, err)
	l, err := Listen("127.0.0.1:0")
	must(t, err)
	must(t, p.Watch(l, listenerToken))
	t.Cleanup(func() {
		must(t, l.Close())
		must(t, p.Close())
	})
	return &loop{TB: t, Poller: p, listener: l}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits for an event of token that satisfies want; others are dropped,
// as readiness comes back.
func (l *loop) await(token uint64, want func(Event) bool) Event {
	l.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, err := l.Wait(l.events[:], time.Until(end))
		must(l, err)
		for _, e := range l.events[:n] {
			if e.Token == token && want(e) {
				return e
			}
		}
	}
	l.Fatalf("no such event of token %#x", token)
	return Event{}
}

func readable(e Event) bool { return e.Readable }
func writable(e Event) bool { return e.Writable }
func closed(e Event) bool   { return e.Closed }

// look returns the events of this moment, by token.
func (l *loop) look() map[uint64]Event {
	l.Helper()
	n, err := l.Wait(l.events[:], 0)
	must(l, err)
	seen := map[uint64]Event{}
	for _, e := range l.events[:n] {
		seen[e.Token] = e
	}
	return seen
}

func (l *loop) dial() *net.TCPConn {
	l.Helper()
	peer, err := net.DialTimeout("tcp", l.listener.Addr().String(), patience)
	must(l, err)
	l.Cleanup(func() { peer.Close() })
	must(l, peer.SetDeadline(time.Now().Add(patience)))
	return peer.(*net.TCPConn)
}

func (l *loop) accept() Socket {
	l.Helper()
	for {
		s, _, err := l.listener.Accept()
		if err != ErrWouldBlock {
			must(l, err)
			return s
		}
		l.await(listenerToken, readable)
	}
}

// pair returns an added socket and its peer.
func (l *loop) pair() (Socket, *net.TCPConn) {
	l.Helper()
	peer := l.dial()
	s := l.accept()
	must(l, l.Add(s, socketToken))
	return s, peer
}

// read reads until n bytes have come.
func (l *loop) read(s Socket, n int) []byte {
	l.Helper()
	buf := make([]byte, n)
	for got := 0; got < n; {
		m, err := s.Read(buf[got:])
		if err == ErrWouldBlock {
			l.await(socketToken, readable)
			continue
		}
		must(l, err)
		got += m
	}
	return buf
}

// write writes all of data; the socket must not be asked for writability.
func (l *loop) write(s Socket, data []byte) {
	l.Helper()
	must(l, l.Modify(s, socketToken, true, true))
	for len(data) > 0 {
		n, err := s.Write(data)
		if err == ErrWouldBlock {
			l.await(socketToken, writable)
			continue
		}
		must(l, err)
		data = data[n:]
	}
	must(l, l.Modify(s, socketToken, true, false))
}

// readError reads until there is an error other than ErrWouldBlock.
func (l *loop) readError(s Socket) error {
	l.Helper()
	buf := make([]byte, 4096)
	for {
		_, err := s.Read(buf)
		switch err {
		case nil:
		case ErrWouldBlock:
			l.await(socketToken, readable)
		default:
			return err
		}
	}
}

func send(t testing.TB, peer net.Conn, data string) {
	t.Helper()
	_, err := io.WriteString(peer, data)
	must(t, err)
}

func receive(t testing.TB, peer net.Conn, n int) string {
	t.Helper()
	buf := make([]byte, n)
	_, err := io.ReadFull(peer, buf)
	must(t, err)
	return string(buf)
}
