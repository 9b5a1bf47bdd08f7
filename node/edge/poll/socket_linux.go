//go:build linux && !portable

package poll

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is one connection: a small value to copy and compare, whose zero
// value is no socket. One goroutine may use it at a time. After Close or
// NetConn the value must be forgotten: the system gives its number to the next
// connection.
type Socket struct {
	id int32 // descriptor + 1
}

func (s Socket) fd() int { return int(s.id) - 1 }

// Valid tells a socket from the zero value.
func (s Socket) Valid() bool { return s.id != 0 }

// Read reads what is there. It fails with ErrWouldBlock when nothing is,
// io.EOF when the peer has finished sending, or the connection's error.
func (s Socket) Read(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(s.fd(), buf)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case err != unix.EINTR:
			return 0, failed("read", err)
		}
	}
}

// Write takes as many bytes as there is room for, which may be fewer than
// given, without an error. It fails with ErrWouldBlock when there is no room,
// or the connection's error. It raises no SIGPIPE.
func (s Socket) Write(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for {
		n, err := sendTo(s.fd(), buf)
		switch err {
		case 0:
			return n, nil
		case unix.EAGAIN:
			return 0, ErrWouldBlock
		case unix.EINTR:
		default:
			return 0, failed("write", err)
		}
	}
}

// sendTo is sendto(2), which package unix has only as sendmsg(2), with a header to build and
// to copy, or without the count. It is most of what a fan-out costs. It never blocks, so
// the scheduler needn't know of it.
func sendTo(fd int, buf []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// Close ends the connection and its Add. Bytes already taken by Write are
// still sent, unless SetLinger0 was called.
func (s Socket) Close() error { return failed("close", unix.Close(s.fd())) }

// CloseWrite tells the peer that nothing more will be sent; reading goes on.
func (s Socket) CloseWrite() error {
	return failed("close write", unix.Shutdown(s.fd(), unix.SHUT_WR))
}

// NetConn turns a socket into an ordinary connection, for instance for
// net/http. The socket must have been removed from its Poller, or its events
// go on for ever; it is used up even if NetConn fails.
func (s Socket) NetConn() (net.Conn, error) {
	if !s.Valid() {
		return nil, failed("net conn", unix.EBADF)
	}
	file := os.NewFile(uintptr(s.fd()), "tcp")
	defer file.Close() // FileConn works on a duplicate
	conn, err := net.FileConn(file)
	return conn, failed("net conn", err)
}

// SetKeepAlive lets the system probe a peer that was silent for idle, then
// every interval, and break the connection after count probes without an
// answer. Durations are rounded up to whole seconds.
func (s Socket) SetKeepAlive(idle, interval time.Duration, count int) error {
	options := []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(idle)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(interval)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(s.fd(), o.level, o.name, o.value); err != nil {
			return failed("keep alive", err)
		}
	}
	return nil
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// SetLinger0 makes Close throw unsent bytes away and reset the peer.
func (s Socket) SetLinger0() error {
	linger := unix.Linger{Onoff: 1}
	return failed("linger", unix.SetsockoptLinger(s.fd(), unix.SOL_SOCKET, unix.SO_LINGER, &linger))
}
