//go:build !linux || portable

package main

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// socket is a connection with a goroutine that reads it: good enough to try the
// scenarios on, too dear to measure a node's limits with.
type socket struct {
	nc    *net.TCPConn
	token int

	paused bool
	gate   sync.Mutex // held while it is paused
}

func adopt(nc *net.TCPConn) (*socket, error) { return &socket{nc: nc}, nil }

// connect is not at once here: it waits until the connection stands.
func connect(from netip.Addr, to netip.AddrPort, greeting []byte) (*socket, error) {
	nc, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	s := &socket{nc: nc}
	if err := errors.Join(nc.SetLinger(0), s.send(greeting)); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return s, nil
}

// narrow is a socketOption; here, what the kernel buffers is left alone.
func narrow(_, _ string, _ syscall.RawConn) error { return nil }

// pause stops or resumes the reading of a socket that a poller has.
func (s *socket) pause(on bool) error {
	s.paused = on
	if on {
		s.gate.Lock()
	} else {
		s.gate.Unlock()
	}
	return nil
}

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
		s.gate.Lock()
		s.gate.Unlock() //nolint:staticcheck // waits while it is paused
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
