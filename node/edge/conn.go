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
	stateSilent   state = iota // over TLS, and has said nothing yet
	stateQueued                // the first bytes can be read; waiting for the TLS handshake to begin
	stateSecuring              // in the TLS handshake
	stateProxied               // of a trusted proxy: a PROXY header may come first
	stateHead                  // collecting the request's head
	stateChecking              // the token of its handshake is being checked
	stateOpen                  // a WebSocket
	stateClosing               // the last word was said; waiting for the peer to hear it
)

// waits reports whether nothing was begun that will end by itself.
func (s state) waits() bool {
	return s == stateSilent || s == stateQueued || s == stateProxied || s == stateHead
}

// conn is one connection. An idle one is this struct and nothing else, so each byte
// of it is paid thousands of times: what most connections don't have at a given
// moment belongs into rare.
type conn struct {
	slot, gen uint32
	sock      poll.Socket
	inFlight  int16
	state     state
	form
	admitted  bool // counted by the edge, under its address
	blocked   bool // the socket takes no more; waiting for it to be writable
	muted     bool // not read from, because its outbox is over the limit
	queued    bool // in loop.dirty
	closeSent bool // a close frame is the last thing in out

	since   moment // when the state began, then when a partial message began
	heardAt moment
	pingAt  moment // of the last ping
	takenAt moment // when the socket last took bytes, or had nothing to take
	bornAt  int64  // when it was accepted, ms

	address [16]byte // see ip
	session uint64
	out     []byte // whole frames, of which sent bytes are gone
	sent    int
	who     *client     // whom it speaks for; nil: not asked yet
	sub     *subscriber // nil until it subscribes
	rare    *rare       // nil: nothing of that
}

// rare is what a plain connection that just waits has nothing of.
type rare struct {
	in     []byte              // incomplete head or frame
	frag   *fragments          // of the message under way; nil: none
	tls    *secure             // nil: plain
	budget *budget             // nil until its first command, or without limits
	made   map[string]struct{} // reservations it made that are still held
}

func (c *conn) token() uint64 { return uint64(c.gen)<<32 | uint64(c.slot) }

// own is the connection's rare things, to be changed.
func (c *conn) own() *rare {
	if c.rare == nil {
		c.rare = &rare{}
	}
	return c.rare
}

// tidy frees what has become empty. It is left to the sweep: who sent part of a
// message is likely to do so again soon.
func (c *conn) tidy() {
	if r := c.rare; r != nil && r.in == nil && r.frag == nil && r.tls == nil && r.budget == nil && len(r.made) == 0 {
		c.rare = nil
	}
}

// kept is the incomplete head or frame that has come so far.
func (c *conn) kept() []byte {
	if c.rare == nil {
		return nil
	}
	return c.rare.in
}

// keep replaces what is kept; nil keeps nothing.
func (c *conn) keep(b []byte) {
	if b != nil || c.rare != nil {
		c.own().in = b
	}
}

// frag is the message under way in several frames; nil: none.
func (c *conn) frag() *fragments {
	if c.rare == nil {
		return nil
	}
	return c.rare.frag
}

// deaf reports whether it isn't read from for what it waits for itself.
func (c *conn) deaf() bool { return c.state == stateQueued || c.checking() }

// tls is nil for a plain connection, and before the first byte of a handshake.
func (c *conn) tls() *secure {
	if c.rare == nil {
		return nil
	}
	return c.rare.tls
}

// ip is the client's address, as far as known; not valid: it was never admitted.
func (c *conn) ip() netip.Addr {
	if !c.admitted {
		return netip.Addr{}
	}
	return netip.AddrFrom16(c.address).Unmap()
}

// moment is a time of the loop's clock, in ms, that is good for 49 days: what is
// measured from one is over much sooner. See loop.ago.
type moment uint32

// moment is the present one.
func (l *loop) moment() moment { return moment(l.now) }

// ago is how many ms have passed since.
func (l *loop) ago(m moment) int64 { return int64(l.moment() - m) }

// add takes in an accepted socket.
func (l *loop) add(sock poll.Socket, ip netip.Addr) {
	ip = ip.Unmap().WithZone("") // a zone isn't kept
	now := l.moment()
	c := &conn{sock: sock, address: ip.As16(), state: stateHead, bornAt: l.now, since: now, heardAt: now, pingAt: now, takenAt: now}
	l.place(c)
	status := l.edge.admit(ip)
	c.admitted = status == 0
	if err := l.poller.Add(sock, c.token()); err != nil {
		l.logger.Warn("watching a connection", "error", err)
		if c.admitted {
			l.edge.dismiss(ip)
		}
		l.forget(c)
		return
	}
	if !c.admitted {
		l.edge.metrics.rejected.WithLabelValues("connections").Inc()
		l.refuse(c, status, tooMany, 1)
		return
	}
	c.state = l.firstState()
	if l.edge.trusts(ip) {
		c.state = stateProxied
	}
}

const tooMany = "too many connections"

func (l *loop) place(c *conn) {
	l.edge.churn.Add(1)
	if n := len(l.free); n > 0 {
		c.slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c.slot = uint32(len(l.slots))
		l.slots = append(l.slots, nil)
	}
	if l.gen++; l.gen == 0 {
		l.gen++ // no connection has the token 0
	}
	c.gen = l.gen
	c.who = l.anybody
	l.slots[c.slot] = c
}

// drop ends a connection at once and forgets it, unless that was done before.
func (l *loop) drop(c *conn) {
	if l.slots[c.slot] != c {
		return
	}
	l.leave(c)
	if c.admitted {
		l.edge.dismiss(c.ip())
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
	l.part(c)
	l.hub.leave(c)
	c.state = stateClosing
}

func (l *loop) forget(c *conn) {
	l.edge.churn.Add(1)
	delete(l.asked, c)
	if s := c.tls(); s != nil {
		s.link.end(net.ErrClosed)
	}
	l.slots[c.slot] = nil
	l.free = append(l.free, c.slot)
	_ = c.sock.Close() // nothing to do about a failure to close
	c.sock = poll.Socket{}
	l.outs.put(c.out)
	c.rare, c.out = nil, nil
}

// close says why and lets the peer hear it: what it has not taken yet is dropped
// down to the frame under way, the close frame follows, and the socket is closed
// when the peer does so, or has lingered.
func (l *loop) close(c *conn, code int, reason string) {
	if c.state == stateClosing {
		return
	}
	l.edge.metrics.closed(code)
	l.leave(c)
	c.since = l.moment()
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
	c.keep(nil)
	c.out = appendHTTPError(l.outs.get(c.out), status, message, retryAfter)
	l.finish(c)
}

// finish sends what is in out and closes.
func (l *loop) finish(c *conn) {
	c.state, c.since, c.closeSent = stateClosing, l.moment(), true
	l.mark(c)
}

// closingInput reads until the peer closes, so that the kernel doesn't reset the
// connection under what was last said.
func (l *loop) closingInput(c *conn, b []byte) {
	if l.lingered(c) {
		l.drop(c)
	}
}

// lingered reports whether a closed peer has had its time. One that takes what was left
// of a frame under way, however slowly, is on its way to the reason.
func (l *loop) lingered(c *conn) bool {
	idle := l.ago(c.since)
	if len(c.out) > 0 && idle <= lingers*l.linger() {
		idle = min(idle, l.ago(c.takenAt))
	}
	return idle > l.linger()
}

// look is what a sweep does for one connection.
func (l *loop) look(c *conn) {
	c.tidy()
	switch c.state {
	case stateSilent, stateQueued, stateSecuring:
		l.lookSecuring(c)
	case stateProxied, stateHead:
		if l.ago(c.since) >= l.config.HandshakeTimeout.Milliseconds() {
			l.edge.metrics.rejected.WithLabelValues("timeout").Inc()
			l.refuse(c, 408, "no complete request within "+l.config.HandshakeTimeout.String(), 0)
		}
	case stateClosing:
		if l.lingered(c) {
			l.drop(c)
		}
	case stateOpen:
		l.lookOpen(c)
	}
}

func (l *loop) lookOpen(c *conn) {
	period := l.config.Heartbeat.Milliseconds()
	switch {
	case l.outstays(c):
	case c.blocked && l.ago(c.takenAt) >= l.config.SlowTimeout.Milliseconds():
		l.close(c, protocol.CloseSlowConsumer, "nothing was read for "+l.config.SlowTimeout.String())
	case !c.muted && !c.checking() && l.ago(c.heardAt) >= 2*period: // we don't hear whom we don't listen to
		l.close(c, protocol.CloseIdle, "silent for two heartbeats")
	case c.partial() && !c.checking() && l.ago(c.since) >= 2*period:
		l.close(c, protocol.CloseAbuse, "a message took too long to arrive")
	default:
		if l.hub.isWaiting(c) {
			l.mark(c)
		}
		if l.ago(c.pingAt) >= period {
			l.ping(c)
		}
		l.hub.cursorDue(c)
	}
	l.gauged.outbox.observe(int64(c.queuedBytes()))
}

// partial reports whether a message has begun and not ended.
func (c *conn) partial() bool { return len(c.kept()) > 0 || c.frag() != nil }

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
	return appendProblem(b, status, &protocol.Error{
		Code: code, Message: message, Retryable: retryAfter > 0, RetryAfterMS: int64(retryAfter) * 1000,
	})
}

// appendProblem appends a whole response. A wait of the error's is told in full seconds.
func appendProblem(b []byte, status int, err *protocol.Error) []byte {
	retryAfter := (err.RetryAfterMS + 999) / 1000
	problem := protocol.AppendJSON(nil, problem{
		Type: "urn:stockmesh:error:" + string(err.Code), Title: statusText[status], Status: status, Detail: err.Message,
		Error: *err,
	})
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, statusText[status]...)
	b = append(b, "\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(problem)), 10)
	if retryAfter > 0 {
		b = append(b, "\r\nRetry-After: "...)
		b = strconv.AppendInt(b, retryAfter, 10)
	}
	if status == 401 {
		b = append(b, "\r\nWWW-Authenticate: Bearer"...)
	}
	b = append(b, "\r\n\r\n"...)
	return append(b, problem...)
}

var statusText = map[int]string{
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 408: "Request Timeout",
	429: "Too Many Requests", 503: "Service Unavailable",
}
