//go:build linux && !portable

package poll

import (
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Listener accepts TCP connections. One goroutine may use it at a time.
type Listener struct {
	fd   int // -1 once closed
	addr netip.AddrPort
}

// Listen opens "host:port" for IPv4, IPv6 or, with an empty host, both. Port 0
// picks a free one. The address may be reused at once after a restart and the
// backlog is the system's maximum.
func Listen(address string) (*Listener, error) {
	l, err := listen(address)
	if err != nil {
		return nil, err
	}
	defer l.Close() // the duplicate keeps the port open
	fd, err := duplicate(l)
	if err != nil {
		return nil, failed("listen", err)
	}
	// Accepted sockets inherit it. Without it the kernel takes megabytes for a slow
	// reader, all of them old by the time they are read. Best effort: it bounds
	// staleness, nothing depends on it.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	return &Listener{fd: fd, addr: addrPort(l.Addr())}, nil
}

// unsentBytes is how much a socket takes beyond what is on its way.
const unsentBytes = 64 << 10

// duplicate frees the descriptor from the runtime's own poller. The duplicate
// is non-blocking, as the original is.
func duplicate(l *net.TCPListener) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if controlErr != nil {
		return -1, controlErr
	}
	return fd, err
}

// Addr is the address in use, with the real port.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Accept takes one waiting connection, with Nagle's delay switched off, and
// the peer's address. It fails with ErrWouldBlock when none waits and
// ErrTooManyFiles when no descriptor is left. Connections that died while
// waiting are skipped.
func (l *Listener) Accept() (Socket, netip.AddrPort, error) {
	for {
		fd, peer, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			// Fails only on a connection that is dead already; reading tells.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			return Socket{id: int32(fd) + 1}, peerAddr(peer), nil
		case err == unix.EAGAIN:
			return Socket{}, netip.AddrPort{}, ErrWouldBlock
		case !transient(err):
			return Socket{}, netip.AddrPort{}, acceptFailed(err)
		}
	}
}

// transient errors belong to the connection that was waiting, not to the
// listener: see accept(2), "Error handling".
func transient(err error) bool {
	switch err {
	case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENOPROTOOPT, unix.EOPNOTSUPP,
		unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET:
		return true
	}
	return false
}

func peerAddr(peer unix.Sockaddr) netip.AddrPort {
	switch peer := peer.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(peer.Addr), uint16(peer.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(peer.Addr).Unmap()
		if peer.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(peer.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(peer.Port))
	}
	return netip.AddrPort{}
}

// Close stops listening, ends every Watch and resets connections not yet
// accepted.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return failed("close listener", net.ErrClosed)
	}
	err := unix.Close(l.fd)
	l.fd = -1
	return failed("close listener", err)
}
