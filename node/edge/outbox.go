package edge

import (
	"github.com/stockmesh/stockmesh/node/edge/poll"
)

// buffers keeps output buffers for use again, so that an idle connection owns
// none and a busy loop allocates none.
type buffers struct {
	free  [][]byte
	bytes int // in free
}

const (
	bufferBytes     = 1 << 10
	buffersBytesMax = 1 << 20 // more than that goes to the garbage collector
)

// get returns b, or an empty buffer where b is nil.
func (p *buffers) get(b []byte) []byte {
	if b != nil {
		return b
	}
	if n := len(p.free); n > 0 {
		b = p.free[n-1]
		p.free = p.free[:n-1]
		p.bytes -= cap(b)
		return b
	}
	return make([]byte, 0, bufferBytes)
}

func (p *buffers) put(b []byte) {
	if b != nil && p.bytes+cap(b) <= buffersBytesMax {
		p.free = append(p.free, b[:0])
		p.bytes += cap(b)
	}
}

// mark has the connection written to at the end of the pass.
func (l *loop) mark(c *conn) {
	if !c.queued {
		c.queued = true
		l.dirty = append(l.dirty, c)
	}
}

// flush writes what the pass has left for each connection: everything that is due
// in one call.
func (l *loop) flush() {
	for _, c := range l.dirty {
		c.queued = false
		if l.slots[c.slot] == c {
			l.write(c)
		}
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	for _, c := range l.later {
		l.mark(c)
	}
	clear(l.later)
	l.later = l.later[:0]
	l.hub.forgetPass()
}

// write gives the socket what it takes. A socket that takes no more is waited
// for; meanwhile pushes are kept as names of items, not as bytes.
func (l *loop) write(c *conn) {
	if c.state == stateOpen && len(c.out) == 0 {
		if l.hub.writeShared(c) {
			return
		}
	}
	if c.state == stateOpen && !c.blocked {
		l.hub.pushDue(c)
		l.hub.fill(c)
	}
	if !l.writeOut(c) {
		return
	}
	if c.state == stateOpen && l.hub.hasMore(c) {
		l.later = append(l.later, c) // after the others had their turn
	}
	if c.closeSent {
		l.saidAll(c)
	}
}

// writeOut writes c.out and reports whether all of it went.
func (l *loop) writeOut(c *conn) bool {
	if s := c.tls(); s != nil && !l.flushSecure(c, s) {
		return false
	}
	for c.sent < len(c.out) {
		n, err := c.write(c.out[c.sent:])
		if n > 0 {
			c.sent += n
			c.takenAt = l.moment()
			l.tally.bytes += n
		}
		if err == poll.ErrWouldBlock {
			l.block(c)
			return false
		}
		if err != nil {
			l.drop(c)
			return false
		}
	}
	l.outs.put(c.out)
	c.out, c.sent = nil, 0
	l.pushed(c.sub)
	l.unblock(c)
	return true
}

// writeNow writes a frame past an empty outbox, without copying it, and reports
// whether nothing is left to be written: the socket took all of it, or is broken.
func (l *loop) writeNow(c *conn, frame []byte) bool {
	n, err := c.write(frame)
	switch {
	case n == len(frame) && err == nil:
		c.takenAt = l.moment()
		l.tally.bytes += n
		return true
	case err != nil && err != poll.ErrWouldBlock:
		l.drop(c)
		return true
	}
	c.out, c.sent = append(l.outs.get(nil), frame...), n
	return false
}

// write gives bytes to the socket, through TLS where there is one.
func (c *conn) write(b []byte) (int, error) {
	if s := c.tls(); s != nil {
		return s.write(c.sock, b)
	}
	return c.sock.Write(b)
}

// block waits for the socket to take more. Over the outbox limit the connection's
// commands are left unread, so that its answers can't pile up.
func (l *loop) block(c *conn) {
	mute := c.state == stateOpen && len(c.out)-c.sent > l.config.OutboxBytes
	if c.blocked && c.muted == mute {
		return
	}
	if !c.blocked {
		c.takenAt = l.moment()
	}
	c.blocked, c.muted = true, mute
	l.interest(c)
}

func (l *loop) unblock(c *conn) {
	if !c.blocked {
		return
	}
	if c.muted {
		c.heardAt = l.moment() // nobody listened
	}
	c.blocked, c.muted = false, false
	l.interest(c)
}

func (l *loop) unmute(c *conn) {
	if c.muted {
		c.muted = false
		l.interest(c)
	}
}

func (l *loop) interest(c *conn) {
	if err := l.poller.Modify(c.sock, c.token(), !c.muted && !c.deaf(), c.blocked); err != nil {
		l.logger.Debug("changing what a connection waits for", "error", err)
	}
}

// saidAll ends our side of a connection whose last word is out; the peer's end,
// or the sweep, closes it.
func (l *loop) saidAll(c *conn) {
	if s := c.tls(); s != nil {
		s.goodbye(c.sock)
	}
	if err := c.sock.CloseWrite(); err != nil {
		l.drop(c)
	}
}
