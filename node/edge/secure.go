package edge

import (
	"bytes"
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
// one (see shakes); from then on everything runs on the loop.
type secure struct {
	conn *tls.Conn
	link *link

	begun, computing bool // of the handshake; the loop's
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
	waiting  bool      // in Read, for more
	waits    func()    // tells the loop of it, with mu held; it flushes what was written
	sock     poll.Socket
	raw      net.Conn // after the hand-over
}

// linkBytesMax bounds the ciphertext kept for a handshake under way: more than any
// client hello takes.
const linkBytesMax = 64 << 10

var errTooMuch = errors.New("edge: handshake is too large")

func newLink(waits func()) *link {
	l := &link{blocking: true, waits: waits}
	l.fed.L = &l.mu
	return l
}

// feed takes ciphertext that the loop has read.
func (l *link) feed(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocking && len(l.in)+len(b) > linkBytesMax {
		return errTooMuch
	}
	l.in = append(l.in, b...)
	l.waiting = false // whoever waits goes on
	l.fed.Signal()
	return nil
}

// idle reports whether the handshake can't go on before more is fed.
func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// lend feeds without copying: what was lent is read before the loop reads on, or
// copied by handOver.
func (l *link) lend(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.in) > 0 {
		b = append(l.in, b...) // came behind the handshake
	}
	l.in = b
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

// unblock ends the handshake's mode of waiting: from now on Write is called by the
// loop alone, which may write to the socket.
func (l *link) unblock(sock poll.Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocking, l.sock = false, sock
}

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	l.mu.Lock()
	for len(l.in) == 0 && l.ended == nil && l.blocking {
		if !l.waiting {
			l.waiting = true
			l.waits()
		}
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

// Write implements net.Conn. It never blocks before a hand-over. What a handshake
// writes goes out when it waits for the answer, or ends.
func (l *link) Write(b []byte) (int, error) {
	l.mu.Lock()
	raw := l.raw
	if raw == nil {
		rest := b
		if !l.blocking && len(l.out) == 0 {
			n, _ := l.sock.Write(b) // an error comes back when the rest is flushed
			rest = b[n:]
		}
		l.out = append(l.out, rest...)
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

// unsent reports whether there is ciphertext to flush.
func (l *link) unsent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.out) > 0
}

// handOver lets crypto/tls go on over the socket itself, on anybody's goroutine.
func (l *link) handOver(raw net.Conn) error {
	l.mu.Lock()
	out := l.out
	l.in, l.out, l.raw = bytes.Clone(l.in), nil, raw
	l.mu.Unlock()
	if len(out) == 0 {
		return nil
	}
	// At most a few hundred bytes after the handshake's own; they hardly ever wait.
	if err := raw.SetWriteDeadline(time.Now().Add(handOverWait)); err != nil {
		return err
	}
	if _, err := raw.Write(out); err != nil {
		return err
	}
	return raw.SetWriteDeadline(time.Time{})
}

const handOverWait = 100 * time.Millisecond

// The rest of net.Conn, used after a hand-over only.

// Close implements net.Conn.
func (l *link) Close() error {
	if l.raw != nil {
		return l.raw.Close()
	}
	return nil
}

// NetConn is the connection below, as with tls.Conn.
func (l *link) NetConn() net.Conn { return l.raw }

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

// goodbye tells the peer that nothing follows. Where the socket takes no more the
// peer finds out by the end of the connection.
func (s *secure) goodbye(sock poll.Socket) {
	if s.conn.CloseWrite() == nil {
		_ = s.link.flush(sock)
	}
}

// handOver returns the connection for use over the socket itself.
func (s *secure) handOver(raw net.Conn) (net.Conn, error) {
	if err := s.link.handOver(raw); err != nil {
		return raw, err
	}
	return s.conn, nil
}

// decrypt hands on the plaintext of what came in.
func (l *loop) decrypt(c *conn, b []byte) {
	if l.plain == nil {
		l.plain = make([]byte, recordBytes)
	}
	s := c.tls()
	s.link.lend(b)
	var err error
	for err == nil {
		var n int
		if n, err = s.read(l.plain); n > 0 {
			l.input(c, l.plain[:n])
			if l.slots[c.slot] != c {
				return // gone, or net/http's now
			}
		}
	}
	switch {
	case err == poll.ErrWouldBlock:
		if s.link.unsent() { // crypto/tls may answer something of its own
			l.mark(c)
		}
	case errors.Is(err, io.EOF):
		l.hangUp(c)
	default:
		l.drop(c)
	}
}

// flushSecure sends ciphertext that is left and reports whether all of it went.
func (l *loop) flushSecure(c *conn, s *secure) bool {
	switch err := s.link.flush(c.sock); err {
	case nil:
		return true
	case poll.ErrWouldBlock:
		l.block(c)
	default:
		l.drop(c)
	}
	return false
}
