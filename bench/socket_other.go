//go:build !linux || portable

package main

import (
	"errors"
	"net"
	"time"
)

// socket is a connection with a goroutine that reads it: good enough to try the
// scenarios on, too dear to measure a node's limits with.
type socket struct {
	nc    *net.TCPConn
	token int
}

func adopt(nc *net.TCPConn) (*socket, error) { return &socket{nc: nc}, nil }

func (s *socket) send(b []byte) error {
	_, err := s.nc.Write(b)
	return err
}

func (s *socket) writeAll(b []byte) error { return s.send(b) }

func (s *socket) close() error { return s.nc.Close() }

const readBytes = 16 << 10

// poller gathers what the sockets' goroutines have read.
type poller struct {
	sockets  []*socket
	arrivals chan arrival
	done     chan struct{}
}

type arrival struct {
	token int
	b     []byte
	err   error
}

func newPoller() (*poller, error) {
	return &poller{arrivals: make(chan arrival, 1024), done: make(chan struct{})}, nil
}

// add has a socket waited for; its token counts up from 0.
func (p *poller) add(s *socket) error {
	s.token = len(p.sockets)
	p.sockets = append(p.sockets, s)
	go p.read(s)
	return nil
}

// remove closes a socket; nothing that it said is handed over any more.
func (p *poller) remove(s *socket) error {
	p.sockets[s.token] = nil
	return s.close()
}

func (p *poller) read(s *socket) {
	for {
		b := make([]byte, readBytes)
		n, err := s.nc.Read(b)
		select {
		case p.arrivals <- arrival{s.token, b[:n], err}:
		case <-p.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// wait waits once and hands over what the sockets have to say.
func (p *poller) wait(timeout time.Duration, got func(token int, b []byte, err error)) error {
	select {
	case a := <-p.arrivals:
		p.hand(a, got)
	case <-time.After(timeout):
	}
	for range len(p.arrivals) {
		p.hand(<-p.arrivals, got)
	}
	return nil
}

func (p *poller) hand(a arrival, got func(int, []byte, error)) {
	if p.sockets[a.token] != nil {
		got(a.token, a.b, a.err)
	}
}

func (p *poller) close() error {
	close(p.done)
	var errs []error
	for _, s := range p.sockets {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}
