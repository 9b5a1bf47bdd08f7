//go:build !linux || portable

package poll

import (
	"net"
	"net/netip"
)

// Listener accepts TCP connections. One goroutine may use it at a time.
type Listener struct {
	source
	tcp  *net.TCPListener
	done chan struct{} // the acceptor has ended

	// Guarded by source.mu. The acceptor waits until its last result is taken.
	next   *net.TCPConn
	err    error
	closed bool
}

// Listen opens "host:port" for IPv4, IPv6 or, with an empty host, both. Port 0
// picks a free one. The address may be reused at once after a restart and the
// backlog is the system's maximum.
func Listen(address string) (*Listener, error) {
	tcp, err := listen(address)
	if err != nil {
		return nil, err
	}
	l := &Listener{tcp: tcp, done: make(chan struct{})}
	l.changed.L = &l.mu
	l.state = func() readiness { return readiness{readable: l.next != nil || l.err != nil} }
	go l.acceptAll()
	return l, nil
}

func (l *Listener) acceptAll() {
	defer close(l.done)
	for l.offer(l.tcp.AcceptTCP()) {
	}
}

// offer waits until the result is taken and returns false after Close.
func (l *Listener) offer(next *net.TCPConn, err error) bool {
	l.update(func() { l.next, l.err = next, err })
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && (l.next != nil || l.err != nil) {
		l.changed.Wait()
	}
	if l.next != nil {
		_ = l.next.SetLinger(0) // as the system does with its backlog
		_ = l.next.Close()
	}
	return !l.closed
}

// Addr is the address in use, with the real port.
func (l *Listener) Addr() netip.AddrPort { return addrPort(l.tcp.Addr()) }

// Accept takes one waiting connection, with Nagle's delay switched off, and
// the peer's address. It fails with ErrWouldBlock when none waits and
// ErrTooManyFiles when no descriptor is left. Connections that died while
// waiting are skipped.
func (l *Listener) Accept() (Socket, netip.AddrPort, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tcp, err := l.next, l.err
	switch {
	case l.closed:
		return Socket{}, netip.AddrPort{}, failed("accept", net.ErrClosed)
	case tcp == nil && err == nil:
		return Socket{}, netip.AddrPort{}, ErrWouldBlock
	}
	l.next, l.err = nil, nil
	l.changed.Broadcast()
	if err != nil {
		return Socket{}, netip.AddrPort{}, acceptFailed(err)
	}
	// Not the system's megabytes for a slow reader, all of them old by the time they are
	// read. Best effort: it bounds staleness, nothing depends on it.
	_ = tcp.SetWriteBuffer(unsentBytesMax)
	return Socket{newConn(tcp)}, addrPort(tcp.RemoteAddr()), nil
}

// Close stops listening, ends every Watch and resets connections not yet
// accepted.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return failed("close listener", net.ErrClosed)
	}
	l.closed = true
	l.detachAll()
	l.changed.Broadcast()
	l.mu.Unlock()
	err := l.tcp.Close()
	<-l.done
	return failed("close listener", err)
}
