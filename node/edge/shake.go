package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"runtime"

	"github.com/stockmesh/stockmesh/node/edge/poll"
)

const (
	// shakesPerCPU is how many TLS handshakes compute at a time. With more, none is done
	// sooner and the loops get less of the processors: while 10,000 clients arrive a ping
	// takes 2.7 ms in the median with 1, 7 with 4, 12 with 16.
	shakesPerCPU = 2

	// shakesMax bounds the handshakes under way, most of which wait for their peers. Each
	// has a goroutine and crypto/tls's buffers, 21 KB: 170 MB at the worst.
	shakesMax = 8192

	// patientTimeouts is how many HandshakeTimeouts a connection may wait for its
	// handshake to begin: it costs next to nothing, and its client can give up.
	patientTimeouts = 6
)

// shakes are a loop's TLS handshakes: those under way, and a queue, first come first
// served, of the connections whose first bytes can be read.
//
// Only those that compute hold a slot. One that waits for its peer has given its own
// back, so whoever stalls keeps nobody waiting; when more comes it goes on at once,
// before those that have not begun.
type shakes struct {
	slots, room int // of computing, of begun

	computing int
	begun     int      // and not ended
	queue     []uint64 // tokens; of those that are gone, too

	patientTill int64 // ms; see lookSecuring
}

func newShakes(loops int) shakes {
	share := func(n int) int { return max(1, (n+loops-1)/loops) }
	return shakes{slots: share(shakesPerCPU * runtime.GOMAXPROCS(0)), room: share(shakesMax)}
}

// free reports whether another handshake may begin.
func (s *shakes) free() bool { return s.computing < s.slots && s.begun < s.room }

// pop takes the token that has waited longest.
func (s *shakes) pop() (token uint64, ok bool) {
	if len(s.queue) == 0 {
		s.queue = nil // a storm's
		return 0, false
	}
	token, s.queue = s.queue[0], s.queue[1:]
	return token, true
}

// compute counts a handshake that goes on, or begins.
func (s *shakes) compute(of *secure) {
	if !of.computing {
		of.computing = true
		s.computing++
	}
}

// rest is the opposite of compute.
func (s *shakes) rest(of *secure) {
	if of.computing {
		of.computing = false
		s.computing--
	}
}

// speaks deals with a TLS connection whose first bytes can be read. Where they must
// wait they do so in the kernel.
func (l *loop) speaks(c *conn) {
	if len(l.shakes.queue) == 0 && l.shakes.free() {
		l.shake(c)
		return
	}
	c.state, c.since = stateQueued, l.moment()
	l.interest(c)
	l.shakes.queue = append(l.shakes.queue, c.token())
	l.patient()
}

// patient notes that others queue.
func (l *loop) patient() {
	l.shakes.patientTill = l.now + l.config.HandshakeTimeout.Milliseconds()
}

// lookSecuring closes a connection that takes too long, without a word: there is no TLS
// to say it by. Who has its first bytes read, or its own part to do, has one
// HandshakeTimeout for it. In a storm clients may be as busy as we are, or share a line:
// so while others queue they are waited for as long as those, unless what they hold is
// needed.
func (l *loop) lookSecuring(c *conn) {
	s := &l.shakes
	if len(s.queue) > 0 {
		l.patient()
	}
	needed := l.drained != nil || c.state == stateSilent && l.edge.full() || c.state == stateSecuring && s.begun >= s.room
	limit := l.config.HandshakeTimeout.Milliseconds()
	if c.state == stateQueued || l.now < s.patientTill && !needed {
		limit *= patientTimeouts
	}
	if l.ago(c.since) >= limit {
		l.edge.metrics.rejected.WithLabelValues("timeout").Inc()
		l.drop(c)
	}
}

// shakeNext begins handshakes of the queue while there are slots.
func (l *loop) shakeNext() {
	for !l.stopped && l.shakes.free() {
		token, ok := l.shakes.pop()
		if !ok {
			return
		}
		if c := l.conn(token); c != nil && c.state == stateQueued {
			l.shake(c)
		}
	}
}

// shake begins a handshake. Whoever has given up by now costs none.
func (l *loop) shake(c *conn) {
	waited := c.state == stateQueued
	c.state, c.since = stateSecuring, l.moment()
	if waited {
		l.interest(c)
	}
	hello := c.kept()
	c.keep(nil)
	var err error
	if len(hello) == 0 {
		hello, err = l.readHello(c)
	}
	switch {
	case err == nil:
		l.secure(c, hello)
	case err == poll.ErrWouldBlock:
		c.state = stateSilent // nothing was there after all
	case errors.Is(err, io.EOF):
		l.hangUp(c)
	default:
		l.drop(c)
	}
}

// readHello reads what came first, and whether anything can follow.
func (l *loop) readHello(c *conn) ([]byte, error) {
	n, err := c.sock.Read(l.read)
	if err != nil || n == len(l.read) {
		return l.read[:n], err
	}
	more, err := c.sock.Read(l.read[n:])
	if err == poll.ErrWouldBlock {
		err = nil
	}
	return l.read[:n+more], err
}

// secure takes ciphertext of a handshake, the first of which starts its goroutine.
func (l *loop) secure(c *conn, b []byte) {
	s := c.tls()
	if s == nil {
		s = l.newSecure(c)
	}
	if err := s.link.feed(b); err != nil {
		l.edge.metrics.rejected.WithLabelValues("tls").Inc()
		l.drop(c)
		return
	}
	l.shakes.compute(s)
	if !s.begun {
		s.begun = true
		l.shakes.begun++
		token := c.token()
		l.edge.shaking.Go(func() {
			err := s.conn.Handshake()
			l.inbox.do(func(l *loop) { l.secured(token, s, err) })
		})
	}
}

func (l *loop) newSecure(c *conn) *secure {
	token := c.token()
	s := &secure{}
	s.link = newLink(func() { l.inbox.do(func(l *loop) { l.rests(token, s) }) })
	s.conn = tls.Server(s.link, l.config.TLS)
	c.own().tls = s
	return s
}

// rests takes note that a handshake waits for its peer, and sends what it has to say.
func (l *loop) rests(token uint64, s *secure) {
	if !s.link.idle() {
		return // more has come in the meantime
	}
	l.shakes.rest(s)
	if c := l.conn(token); c != nil {
		l.mark(c)
	}
	l.shakeNext()
}

// secured goes on after a handshake, with what came behind it.
func (l *loop) secured(token uint64, s *secure, err error) {
	l.shakes.rest(s)
	l.shakes.begun--
	l.edge.churn.Add(1)
	if c := l.conn(token); c != nil && c.state == stateSecuring {
		l.securedConn(c, s, err)
	}
	l.shakeNext()
}

func (l *loop) securedConn(c *conn, s *secure, err error) {
	if err != nil {
		l.edge.metrics.rejected.WithLabelValues("tls").Inc()
		_ = s.link.flush(c.sock) // the alert that says why
		l.drop(c)
		return
	}
	s.link.unblock(c.sock)
	c.state, c.since = stateHead, l.moment()
	l.decrypt(c, nil)
	l.mark(c)
}
