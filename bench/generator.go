package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

// generator holds many WebSocket connections on one goroutine. It parses frames
// where they were read and writes what a connection has to say once per read.
type generator struct {
	poller *poller
	conns  []*conn
	start  time.Time
	now    int64 // ns since start, when the bytes at hand were read
	err    error // of the first connection that broke
	pings  int64 // heard and answered

	chronicle *chronicle // that what is received is drawn from; nil: none
}

// conn is one connection of a generator.
type conn struct {
	socket   *socket
	receiver receiver
	mask     [4]byte
	in       []byte // a frame that is not complete
	out      []byte // to be written at the end of the read, or by flush
	gone     bool
}

// receiver gets a connection's text messages; the bytes are its only for the
// call.
type receiver interface {
	received(c *conn, message []byte)
}

// mover is a receiver that goes on without its connection. With any other the
// generator fails.
type mover interface {
	receiver
	lost(c *conn, err error)
}

func newGenerator() (*generator, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &generator{poller: p, start: time.Now()}, nil
}

// add takes a connection over.
func (g *generator) add(d *dialed, r receiver) (*conn, error) {
	s, err := adopt(d.TCPConn)
	if err != nil {
		return nil, err
	}
	c := &conn{socket: s, receiver: r}
	if len(d.ahead) > 0 {
		c.in = append(c.in, d.ahead...)
	}
	_, _ = rand.Read(c.mask[:]) // never fails
	g.conns = append(g.conns, c)
	return c, g.poller.add(s)
}

// turn waits once for bytes, at most for timeout, and deals with them. It fails
// as soon as a connection has broken that its receiver can't do without.
func (g *generator) turn(timeout time.Duration) error {
	return errors.Join(g.poller.wait(timeout, g.got), g.err)
}

func (g *generator) got(token int, b []byte, err error) {
	g.tick()
	c := g.conns[token]
	if err == nil {
		err = g.frames(c, b)
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		g.broken(c, err)
	}
}

// broken takes a connection out that is of no more use.
func (g *generator) broken(c *conn, err error) {
	m, ok := c.receiver.(mover)
	switch {
	case c.gone:
	case ok:
		g.drop(c)
		m.lost(c, err)
	case g.err == nil:
		g.err = fmt.Errorf("connection %d: %w", slices.Index(g.conns, c)+1, err)
	}
}

// drop closes a connection and forgets what it had to say.
func (g *generator) drop(c *conn) {
	c.gone, c.out = true, nil
	_ = g.poller.remove(c.socket) // whoever drops it has no use for an error
}

func (g *generator) tick() { g.now = int64(time.Since(g.start)) }

func (g *generator) frames(c *conn, b []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, b...)
		b = c.in
	}
	for !c.gone {
		f, n, err := nextFrame(b)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		b = b[n:]
		if f.op == opPing {
			g.pings++
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
	c.in = append(c.in[:0], b...) // the rest of c.in itself moves to its front
	return nil
}

func (c *conn) frame(f frame) error {
	switch f.op {
	case opText:
		c.receiver.received(c, f.payload)
	case opPing:
		c.out = appendClientFrame(c.out, opPong, c.mask, f.payload)
	case opClose:
		return closedBy(f.payload)
	}
	return nil
}

// flush writes what the connection has to say.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.socket.send(c.out)
	c.out = c.out[:0]
	return err
}

func (g *generator) close() error { return g.poller.close() }
