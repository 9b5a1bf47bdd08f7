package edge

import (
	"net"
	"net/netip"
	"sync"
)

// handover is the net.Listener through which net/http gets the connections that
// turned out not to be WebSockets.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn, 256), done: make(chan struct{})}
}

// give passes a connection on; false if nobody takes it.
func (h *handover) give(c net.Conn) bool {
	select {
	case <-h.done:
		return false
	default:
	}
	select {
	case h.conns <- c:
		// Closed meanwhile, perhaps after Close has looked for what is left.
		select {
		case <-h.done:
			h.Close()
		default:
		}
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections not yet accepted are closed.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	for {
		select {
		case c := <-h.conns:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }

// replayConn is a connection whose first bytes were read already.
type replayConn struct {
	net.Conn
	prefix []byte
	remote net.Addr // the client's, nil where it is the peer
	once   sync.Once
	closed func()
}

func (c *replayConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.prefix = nil // which would hold the request's head for as long as a stream lasts
		}
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn is the connection below, as with tls.Conn.
func (c *replayConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr implements net.Conn.
func (c *replayConn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// remoteAddr is a client's address where it is not the peer's, nil where it is. Its
// port is not kept.
func remoteAddr(peer net.Conn, client netip.Addr) net.Addr {
	if a, ok := peer.RemoteAddr().(*net.TCPAddr); !ok || a.AddrPort().Addr().Unmap().WithZone("") == client {
		return nil
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
}

func (c *replayConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
