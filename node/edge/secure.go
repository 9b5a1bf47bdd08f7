package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/node/edge/poll"
)

// secure is the TLS of one connection. The loop moves ciphertext between the
// socket and the link; crypto/tls reads and writes the link and never sees the
// socket. The handshake runs on a goroutine of its own, as crypto/tls can't pause
// one; from then on everything runs on the loop.
type secure struct {
	conn *tls.Conn
	link *link
}

// errWouldBlock is what the link answers where a socket would block. It is
// Temporary, or crypto/tls would take it for the end of the connection.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "edge: no ciphertext yet" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// link is the net.Conn under crypto/tls: two buffers of ciphertext, and after a
// hand-over the socket itself.
type link struct {
	mu       sync.Mutex
	fed      sync.Cond // of mu: in, ended or raw changed
	in       []byte    // from the peer, not yet read
	out      []byte    // for the peer, not yet written
	ended    error     // why no more will come
	blocking bool      // Read waits: during the handshake
	raw      net.Conn  // after the hand-over
}

// linkBytesMax bounds the ciphertext kept for a handshake under way: more than any
// client hello takes.
const linkBytesMax = 64 << 10

var errTooMuch = errors.New("edge: handshake is too large")

func newSecure(config *tls.Config) *secure {
	l := &link{blocking: true}
	l.fed.L = &l.mu
	return &secure{conn: tls.Server(l, config), link: l}
}

// feed takes ciphertext that the loop has read.
func (l *link) feed(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocking && len(l.in)+len(b) > linkBytesMax {
		return errTooMuch
	}
	l.in = append(l.in, b...)
	l.fed.Signal()
	return nil
}

// end has Read fail once what was fed is read.
func (l *link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = err
	}
	l.fed.Broadcast()
}

// unblock ends the handshake's mode of waiting.
func (l *link) unblock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocking = false
}

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	l.mu.Lock()
	for len(l.in) == 0 && l.ended == nil && l.blocking {
		l.fed.Wait()
	}
	if len(l.in) > 0 {
		defer l.mu.Unlock()
		n := copy(b, l.in)
		if l.in = l.in[n:]; len(l.in) == 0 {
			l.in = nil // an idle connection keeps no buffer
		}
		return n, nil
	}
	ended, raw := l.ended, l.raw
	l.mu.Unlock()
	switch {
	case raw != nil:
		return raw.Read(b)
	case ended != nil:
		return 0, ended
	}
	return 0, errWouldBlock
}

// Write implements net.Conn. It never blocks before a hand-over.
func (l *link) Write(b []byte) (int, error) {
	l.mu.Lock()
	raw := l.raw
	if raw == nil {
		l.out = append(l.out, b...)
	}
	l.mu.Unlock()
	if raw != nil {
		return raw.Write(b)
	}
	return len(b), nil
}

// flush writes ciphertext to the socket; poll.ErrWouldBlock if some is left.
func (l *link) flush(s poll.Socket) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.out) > 0 {
		n, err := s.Write(l.out)
		l.out = l.out[n:]
		if err != nil {
			return err
		}
	}
	l.out = nil
	return nil
}

// handOver lets crypto/tls go on over the socket itself, on anybody's goroutine.
func (l *link) handOver(raw net.Conn) error {
	l.mu.Lock()
	out := l.out
	l.out, l.raw = nil, raw
	l.mu.Unlock()
	_, err := raw.Write(out)
	return err
}

// The rest of net.Conn, used after a hand-over only.

// Close implements net.Conn.
func (l *link) Close() error {
	if l.raw != nil {
		return l.raw.Close()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (l *link) LocalAddr() net.Addr {
	if l.raw != nil {
		return l.raw.LocalAddr()
	}
	return &net.TCPAddr{}
}

// RemoteAddr implements net.Conn.
func (l *link) RemoteAddr() net.Addr {
	if l.raw != nil {
		return l.raw.RemoteAddr()
	}
	return &net.TCPAddr{}
}

// SetDeadline implements net.Conn.
func (l *link) SetDeadline(t time.Time) error {
	if l.raw != nil {
		return l.raw.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (l *link) SetReadDeadline(t time.Time) error {
	if l.raw != nil {
		return l.raw.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (l *link) SetWriteDeadline(t time.Time) error {
	if l.raw != nil {
		return l.raw.SetWriteDeadline(t)
	}
	return nil
}

// read returns plaintext of what was fed; poll.ErrWouldBlock when there is no more
// of it.
func (s *secure) read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, errWouldBlock):
		return 0, poll.ErrWouldBlock
	case err == nil:
		return 0, io.ErrNoProgress
	}
	return 0, err
}

// recordBytes is how much plaintext is encrypted at a time: no more than that is
// held as ciphertext for a socket that takes no more.
const recordBytes = 16 << 10

// write encrypts and sends. Bytes counted as written may still be ciphertext in
// the link when it returns poll.ErrWouldBlock; flush sends those.
func (s *secure) write(sock poll.Socket, b []byte) (n int, err error) {
	if err := s.link.flush(sock); err != nil {
		return 0, err
	}
	for n < len(b) {
		record := b[n:min(len(b), n+recordBytes)]
		if _, err := s.conn.Write(record); err != nil {
			return n, err
		}
		n += len(record)
		if err := s.link.flush(sock); err != nil {
			return n, err
		}
	}
	return n, nil
}
