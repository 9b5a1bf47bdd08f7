// Package poll tells an event loop which sockets are ready.
//
// A loop owns a Poller, adds sockets to it under 64-bit tokens of its own and
// calls Wait; every call on a Socket or Listener returns at once, with
// ErrWouldBlock where it would have had to wait. Readiness is level-triggered:
// an event comes back with every Wait until its cause is dealt with.
//
// On Linux sockets are bare file descriptors under epoll: 4 bytes and no
// goroutine per connection. Elsewhere, and on Linux with the build tag
// "portable", a twin over package net behaves the same at the price of
// goroutines and buffers; it is there to develop and test on, not to carry
// load. In two points the twin only learns later what Linux sees at once: that
// a peer hung up behind bytes not yet read, and that bytes accepted by Write
// could not be sent.
//
// The package speaks TCP only. It knows no protocol, TLS, timers or limits.
package poll

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

var (
	// ErrWouldBlock says that nothing was read, written or accepted, and that
	// an event will tell when to try again.
	ErrWouldBlock = errors.New("poll: operation would block")

	// ErrTooManyFiles says that the process or the system is out of file
	// descriptors or socket memory. The connection still waits and so does its
	// event: Unwatch the listener for a while or every Wait returns at once.
	ErrTooManyFiles = errors.New("poll: too many open files")

	errNoRoom = errors.New("poll: Wait needs room for at least one event")
)

// Event is what Wait found out about one socket or listener.
type Event struct {
	Token uint64 // as given to Add, Modify or Watch

	// Readable: Read or Accept has something to say: bytes, a connection, the
	// end of the stream or an error.
	Readable bool

	// Writable: Write takes more bytes or fails. Only when asked for.
	Writable bool

	// Closed: the peer has finished sending, or the connection is broken.
	// Bytes sent before may still be waiting if Readable is set too. A peer
	// that merely finished sending isn't reported while reading is switched
	// off; a broken connection always is.
	Closed bool
}

// listen leaves names, ports, address families and the backlog (the system's
// maximum) to package net.
func listen(address string) (*net.TCPListener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false) // its sockets poll and cost differently
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, failed("listen", err)
	}
	return l.(*net.TCPListener), nil
}

// addrPort shows IPv4 peers of a dual-stack listener as IPv4.
func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("poll: %s: %w", op, err)
}

func acceptFailed(err error) error {
	for _, exhausted := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, exhausted) {
			return ErrTooManyFiles
		}
	}
	return failed("accept", err)
}
