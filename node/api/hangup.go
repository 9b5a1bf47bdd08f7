package api

import (
	"crypto/tls"
	"net"
	"syscall"
)

// hangsUp reports whether the reader of a stream has closed its side, which nobody would
// notice who only writes; or perhaps has, for it may only have nothing more to say. It
// takes one system call and doesn't block.
//
// Behind TLS the end stands after a goodbye, so whatever arrives may be that.
func hangsUp(c net.Conn) bool {
	bare, encrypted := bareConn(c)
	sc, ok := bare.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	_ = raw.Read(func(fd uintptr) bool { // fails on a connection that is closed, which is known then
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == nil:
			gone = n == 0 || encrypted
		default:
			gone = err != syscall.EAGAIN && err != syscall.EINTR
		}
		return true
	})
	return gone
}

// bareConn is the connection that others lie upon; encrypted says whether one of those
// is TLS.
func bareConn(c net.Conn) (bare net.Conn, encrypted bool) {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c, encrypted
		}
		_, isTLS := c.(*tls.Conn)
		encrypted = encrypted || isTLS
		c = w.NetConn()
	}
}
