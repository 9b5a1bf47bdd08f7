//go:build !linux || portable

package poll

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	readAheadBytesMax = 32 << 10
	unsentBytesMax    = 64 << 10

	// How long Close lets unsent bytes linger, as the system does with its own.
	lingerMax = 2 * time.Second
)

// longAgo as a deadline interrupts a call.
var longAgo = time.Unix(1, 0)

// Socket is one connection: a small value to copy and compare, whose zero
// value is no socket. One goroutine may use it at a time. After Close or
// NetConn the value must be forgotten.
type Socket struct {
	conn *conn
}

// conn has a goroutine that reads ahead as long as it lives, and one that
// writes as long as there is something unsent.
type conn struct {
	source
	tcp *net.TCPConn

	// Guarded by source.mu.
	ahead   []byte // read, not yet asked for; the reader waits until it is empty
	readErr error  // comes after ahead
	reading bool   // the reader runs

	unsent   []byte
	sending  int // bytes in the writer's hands, out of unsent
	writeErr error
	writing  bool // the writer runs

	finished bool // CloseWrite was called
	reset    bool // SetLinger0 was called
	closed   bool
	given    bool // to NetConn
}

func newConn(tcp *net.TCPConn) *conn {
	c := &conn{tcp: tcp, reading: true}
	c.changed.L = &c.mu
	c.state = c.readiness
	go c.readAll()
	return c
}

func (c *conn) readiness() readiness {
	ended := c.readErr == io.EOF
	return readiness{
		readable: len(c.ahead) > 0,
		writable: len(c.unsent)+c.sending <= unsentBytesMax/2,
		ended:    ended,
		broken:   c.writeErr != nil || c.readErr != nil && !ended || ended && c.finished,
	}
}

func (c *conn) readAll() {
	buf := make([]byte, readAheadBytesMax)
	for more := true; more; {
		n, err := c.tcp.Read(buf)
		more = c.deliver(buf[:n], err)
	}
	c.update(func() { c.reading = false })
}

// deliver waits until the bytes are taken and returns whether to read on.
func (c *conn) deliver(ahead []byte, err error) bool {
	c.update(func() { c.ahead, c.readErr = ahead, err })
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ahead) > 0 && !c.closed && !c.given {
		c.changed.Wait()
	}
	return err == nil && !c.closed && !c.given
}

func (c *conn) writeAll() {
	var buf []byte
	for c.fetch(&buf) {
		_, err := c.tcp.Write(buf)
		c.update(func() { c.sending, c.writeErr = 0, err })
	}
}

// fetch swaps the writer's empty buffer for what is unsent. If there is
// nothing the writer ends, in the same critical section: a Write right after
// must start another.
func (c *conn) fetch(buf *[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unsent) == 0 || c.writeErr != nil {
		c.endWriting()
		return false
	}
	*buf, c.unsent = c.unsent, (*buf)[:0]
	c.sending = len(*buf)
	return true
}

// endWriting does what had to wait for the last byte; called with mu held.
func (c *conn) endWriting() {
	c.writing = false
	c.changed.Broadcast()
	if c.finished {
		_ = c.tcp.CloseWrite()
	}
	if c.closed {
		_ = c.tcp.Close()
	}
}

// Valid tells a socket from the zero value.
func (s Socket) Valid() bool { return s.conn != nil }

// Read reads what is there. It fails with ErrWouldBlock when nothing is,
// io.EOF when the peer has finished sending, or the connection's error.
func (s Socket) Read(buf []byte) (int, error) {
	c := s.conn
	if c == nil {
		return 0, failed("read", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(buf) == 0:
		return 0, nil
	case len(c.ahead) > 0:
		n := copy(buf, c.ahead)
		c.ahead = c.ahead[n:]
		c.changed.Broadcast()
		return n, nil
	case c.readErr == io.EOF:
		return 0, io.EOF
	case c.readErr != nil:
		return 0, failed("read", c.readErr)
	}
	return 0, ErrWouldBlock
}

// Write takes as many bytes as there is room for, which may be fewer than
// given, without an error. It fails with ErrWouldBlock when there is no room,
// or the connection's error. It raises no SIGPIPE.
func (s Socket) Write(buf []byte) (int, error) {
	c := s.conn
	if c == nil {
		return 0, failed("write", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(buf), unsentBytesMax-len(c.unsent)-c.sending)
	switch {
	case len(buf) == 0:
		return 0, nil
	case c.writeErr != nil:
		return 0, failed("write", c.writeErr)
	case c.finished:
		return 0, failed("write", syscall.EPIPE)
	case n == 0:
		return 0, ErrWouldBlock
	}
	c.unsent = append(c.unsent, buf[:n]...)
	if !c.writing {
		c.writing = true
		go c.writeAll()
	}
	return n, nil
}

// Close ends the connection and its Add. Bytes already taken by Write are
// still sent, unless SetLinger0 was called.
func (s Socket) Close() error {
	c := s.conn
	if c == nil {
		return failed("close", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return failed("close", net.ErrClosed)
	}
	c.closed = true
	c.detachAll()
	c.changed.Broadcast()
	if c.reset || !c.writing {
		return failed("close", c.tcp.Close())
	}
	_ = c.tcp.SetReadDeadline(longAgo)
	return failed("close", c.tcp.SetWriteDeadline(time.Now().Add(lingerMax)))
}

// CloseWrite tells the peer that nothing more will be sent; reading goes on.
func (s Socket) CloseWrite() error {
	c := s.conn
	if c == nil {
		return failed("close write", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	c.touch()
	if c.writing {
		return nil // the writer does it after the last byte
	}
	return failed("close write", c.tcp.CloseWrite())
}

// NetConn turns a socket into an ordinary connection, for instance for
// net/http. The socket must have been removed from its Poller, or its events
// go on for ever; it is used up even if NetConn fails.
func (s Socket) NetConn() (net.Conn, error) {
	c := s.conn
	if c == nil {
		return nil, failed("net conn", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given = true
	c.changed.Broadcast()
	_ = c.tcp.SetReadDeadline(longAgo)
	for c.reading {
		c.changed.Wait()
	}
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil {
		_ = c.tcp.Close()
		return nil, failed("net conn", err)
	}
	if isTimeout(c.readErr) {
		c.readErr = nil // our own interruption
	}
	return &givenConn{Conn: c.tcp, c: c}, nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// SetKeepAlive lets the system probe a peer that was silent for idle, then
// every interval, and break the connection after count probes without an
// answer. Durations are rounded up to whole seconds.
func (s Socket) SetKeepAlive(idle, interval time.Duration, count int) error {
	if s.conn == nil {
		return failed("keep alive", syscall.EBADF)
	}
	config := net.KeepAliveConfig{Enable: true, Idle: idle, Interval: interval, Count: count}
	return failed("keep alive", s.conn.tcp.SetKeepAliveConfig(config))
}

// SetLinger0 makes Close throw unsent bytes away and reset the peer.
func (s Socket) SetLinger0() error {
	c := s.conn
	if c == nil {
		return failed("linger", syscall.EBADF)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset = true
	return failed("linger", c.tcp.SetLinger(0))
}

// givenConn begins with what was read ahead and writes after what is unsent.
type givenConn struct {
	net.Conn
	c *conn
}

func (g *givenConn) Read(buf []byte) (int, error) {
	if n, err := g.readAhead(buf); n > 0 || err != nil {
		return n, err
	}
	return g.Conn.Read(buf)
}

// NetConn is the connection below, as with tls.Conn.
func (g *givenConn) NetConn() net.Conn { return g.Conn }

func (g *givenConn) readAhead(buf []byte) (int, error) {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	n := copy(buf, g.c.ahead)
	g.c.ahead = g.c.ahead[n:]
	if n > 0 || len(buf) == 0 {
		return n, nil
	}
	return 0, g.c.readErr
}

func (g *givenConn) Write(buf []byte) (int, error) {
	if err := g.settle(); err != nil {
		return 0, err
	}
	return g.Conn.Write(buf)
}

// CloseWrite is what net/http looks for before it closes.
func (g *givenConn) CloseWrite() error {
	if err := g.settle(); err != nil {
		return err
	}
	return g.c.tcp.CloseWrite()
}

// Close doesn't wait for the writer to send all, only for its end.
func (g *givenConn) Close() error {
	err := g.Conn.Close()
	_ = g.settle()
	return err
}

// settle waits for the writer; a write deadline ends that too.
func (g *givenConn) settle() error {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	for g.c.writing {
		g.c.changed.Wait()
	}
	return g.c.writeErr
}
