package edge

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

// state is what a connection is.
type state uint8

const (
	stateSecuring state = iota // in the TLS handshake
	stateProxied               // of a trusted proxy: a PROXY header may come first
	stateHead                  // collecting the request's head
	stateOpen                  // a WebSocket
	stateClosing               // the last word was said; waiting for the peer to hear it
)

// conn is one connection. An idle one is this struct and nothing else.
type conn struct {
	slot, gen uint32
	sock      poll.Socket
	inFlight  int16
	state     state
	form
	blocked   bool // the socket takes no more; waiting for it to be writable
	muted     bool // not read from, because its outbox is over the limit
	queued    bool // in loop.dirty
	closeSent bool // a close frame is the last thing in out

	ip      netip.Addr // of the client, as far as known; not valid: was never admitted
	bornAt  int64      // when it was accepted, ms
	since   int64      // when the state began, then when a partial message began; ms
	heardAt int64
	pingAt  int64 // of the last ping
	takenAt int64 // when the socket last took bytes, or had nothing to take

	in   []byte     // incomplete head or frame
	frag *fragments // of the message under way; nil: none
	out  []byte     // whole frames, of which sent bytes are gone
	sent int

	tls     *secure // nil: plain
	budget  *budget // nil until its first command, or without limits
	session uint64
	sub     *subscriber         // nil until it subscribes
	made    map[string]struct{} // reservations it made that are still held
}

func (c *conn) token() uint64 { return uint64(c.gen)<<32 | uint64(c.slot) }

// add takes in an accepted socket.
func (l *loop) add(sock poll.Socket, ip netip.Addr) {
	c := &conn{sock: sock, ip: ip.Unmap(), state: stateHead, bornAt: l.now, since: l.now, heardAt: l.now, pingAt: l.now, takenAt: l.now}
	l.place(c)
	status := l.edge.admit(c.ip)
	if err := l.poller.Add(sock, c.token()); err != nil {
		l.logger.Warn("watching a connection", "error", err)
		if status == 0 {
			l.edge.dismiss(c.ip)
		}
		l.forget(c)
		return
	}
	if status != 0 {
		c.ip = netip.Addr{} // was not admitted: nothing to undo
		l.edge.metrics.rejected.WithLabelValues("connections").Inc()
		l.refuse(c, status, tooMany, 1)
		return
	}
	c.state = l.firstState()
	if l.edge.trusts(c.ip) {
		c.state = stateProxied
	}
}

const tooMany = "too many connections"

func (l *loop) place(c *conn) {
	if n := len(l.free); n > 0 {
		c.slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c.slot = uint32(len(l.slots))
		l.slots = append(l.slots, nil)
		l.gens = append(l.gens, 0)
	}
	l.gens[c.slot]++
	c.gen = l.gens[c.slot]
	l.slots[c.slot] = c
}

// drop ends a connection at once and forgets it, unless that was done before.
func (l *loop) drop(c *conn) {
	if l.slots[c.slot] != c {
		return
	}
	l.leave(c)
	if c.ip.IsValid() {
		l.edge.dismiss(c.ip)
	}
	// Remove fails where the socket broke; closing it removes it anyway.
	_ = l.poller.Remove(c.sock)
	l.forget(c)
}

// leave takes a session out of everything that would send it something.
func (l *loop) leave(c *conn) {
	if c.state == stateOpen {
		l.edge.metrics.open.Add(-1)
	}
	l.hub.leave(c)
	c.state = stateClosing
}

func (l *loop) forget(c *conn) {
	delete(l.asked, c)
	if c.tls != nil {
		c.tls.link.end(net.ErrClosed)
	}
	l.slots[c.slot] = nil
	l.free = append(l.free, c.slot)
	_ = c.sock.Close() // nothing to do about a failure to close
	c.sock = poll.Socket{}
	l.outs.put(c.out)
	c.in, c.frag, c.out = nil, nil, nil
}

// close says why and lets the peer hear it: what it has not taken yet is dropped
// down to the frame under way, the close frame follows, and the socket is closed
// when the peer does so, or lingers no longer than lingerMS.
func (l *loop) close(c *conn, code int, reason string) {
	if c.state == stateClosing {
		return
	}
	l.edge.metrics.closed(code)
	l.leave(c)
	c.since = l.now
	if c.blocked {
		c.out = c.out[:frameEnd(c.out, c.sent)]
	}
	c.out = appendClose(l.outs.get(c.out), code, reason)
	c.closeSent = true
	l.unmute(c)
	l.mark(c)
}

// refuseHTTP answers a request's head with an error and closes.
func (l *loop) refuseHTTP(c *conn, status int, message string, retryAfter int) {
	c.in = nil
	c.out = appendHTTPError(l.outs.get(c.out), status, message, retryAfter)
	l.finish(c)
}

// finish sends what is in out and closes.
func (l *loop) finish(c *conn) {
	c.state, c.since, c.closeSent = stateClosing, l.now, true
	l.mark(c)
}

// closingInput reads until the peer closes, so that the kernel doesn't reset the
// connection under what was last said.
func (l *loop) closingInput(c *conn, b []byte) {
	if l.now-c.since > l.linger() {
		l.drop(c)
	}
}

// look is what a sweep does for one connection.
func (l *loop) look(c *conn) {
	switch c.state {
	case stateSecuring:
		if l.now-c.since >= l.config.HandshakeTimeout.Milliseconds() {
			l.edge.metrics.rejected.WithLabelValues("timeout").Inc()
			l.drop(c)
		}
	case stateProxied, stateHead:
		if l.now-c.since >= l.config.HandshakeTimeout.Milliseconds() {
			l.edge.metrics.rejected.WithLabelValues("timeout").Inc()
			l.refuse(c, 408, "no complete request within "+l.config.HandshakeTimeout.String(), 0)
		}
	case stateClosing:
		if l.now-c.since > l.linger() {
			l.drop(c)
		}
	case stateOpen:
		l.lookOpen(c)
	}
}

func (l *loop) lookOpen(c *conn) {
	period := l.config.Heartbeat.Milliseconds()
	switch {
	case c.blocked && l.now-c.takenAt >= l.config.SlowTimeout.Milliseconds():
		l.close(c, protocol.CloseSlowConsumer, "nothing was read for "+l.config.SlowTimeout.String())
	case !c.muted && l.now-c.heardAt >= 2*period: // we don't hear whom we don't listen to
		l.close(c, protocol.CloseIdle, "silent for two heartbeats")
	case c.partial() && l.now-c.since >= 2*period:
		l.close(c, protocol.CloseAbuse, "a message took too long to arrive")
	default:
		if l.hub.isWaiting(c) {
			l.mark(c)
		}
		if l.now-c.pingAt >= period {
			c.pingAt = l.now
			c.out = appendFrame(l.outs.get(c.out), opPing, nil)
			l.mark(c)
		}
		l.hub.cursorDue(c)
	}
	l.gauged.outbox.observe(int64(c.queuedBytes()))
}

// partial reports whether a message has begun and not ended.
func (c *conn) partial() bool { return len(c.in) > 0 || c.frag != nil }

// problem is the RFC 9457 form of an error, for a handshake that failed.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	protocol.Error
}

func appendHTTPError(b []byte, status int, message string, retryAfter int) []byte {
	code := map[int]protocol.Code{
		400: protocol.CodeBadRequest, 401: protocol.CodeUnauthorized, 403: protocol.CodeForbidden, 408: protocol.CodeBadRequest,
		429: protocol.CodeRateLimited, 503: protocol.CodeOverloaded,
	}[status]
	problem := protocol.AppendJSON(nil, problem{
		Type: "urn:stockmesh:error:" + string(code), Title: statusText[status], Status: status, Detail: message,
		Error: protocol.Error{Code: code, Message: message, Retryable: retryAfter > 0, RetryAfterMS: int64(retryAfter) * 1000},
	})
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, statusText[status]...)
	b = append(b, "\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(problem)), 10)
	if retryAfter > 0 {
		b = append(b, "\r\nRetry-After: "...)
		b = strconv.AppendInt(b, int64(retryAfter), 10)
	}
	b = append(b, "\r\n\r\n"...)
	return append(b, problem...)
}

var statusText = map[int]string{
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 408: "Request Timeout",
	429: "Too Many Requests", 503: "Service Unavailable",
}
