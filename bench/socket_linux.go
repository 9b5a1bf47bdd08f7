//go:build linux && !portable

package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// socket is a bare file descriptor: no goroutine waits for it and a read costs
// one system call, not two.
type socket struct {
	fd     int
	token  int32
	poller *poller // nil: not added
	unsent []byte
	paused bool // it is not read from
}

// adopt takes a connection away from package net.
func adopt(nc *net.TCPConn) (*socket, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1}
	controlErr := raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if s.fd, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(s.fd)
		}
	})
	if err := errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	// The duplicate stays open, and non-blocking.
	return s, nc.Close()
}

// bindAddressNoPort (IP_BIND_ADDRESS_NO_PORT of ip(7)) leaves the choice of a port to
// connect, which knows the peer, so that one port serves towards many.
const bindAddressNoPort = 24

// connect begins a connection from one of our addresses and doesn't wait for it. The
// greeting is sent as soon as it stands, once a poller has the socket.
func connect(from netip.Addr, to netip.AddrPort, greeting []byte) (*socket, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, unsent: greeting}
	err = errors.Join(
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}), // closed means reset
		syscall.SetsockoptInt(fd, syscall.SOL_IP, bindAddressNoPort, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from.As4()}))
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil && err != syscall.EINPROGRESS {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// What a reader of little memory behind an Ethernet has: over loopback, with segments of
// 64 KB, the kernel would buffer megabytes for somebody who doesn't read.
const (
	narrowSegment = 1460
	narrowBuffer  = 8 << 10
)

// narrow is a socketOption.
func narrow(_, _ string, c syscall.RawConn) error {
	var err error
	controlErr := c.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, narrowSegment),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, narrowBuffer))
	})
	return errors.Join(controlErr, err)
}

// pause stops or resumes the reading of a socket that a poller has.
func (s *socket) pause(on bool) error {
	s.paused = on
	return s.poller.interest(s, syscall.EPOLL_CTL_MOD)
}

// send writes b; what the socket doesn't take now is written as it takes more.
func (s *socket) send(b []byte) error {
	if len(s.unsent) > 0 {
		s.unsent = append(s.unsent, b...)
		return nil
	}
	n, err := s.write(b)
	if n < len(b) && err == nil {
		s.unsent = append(s.unsent, b[n:]...)
		err = s.poller.interest(s, syscall.EPOLL_CTL_MOD)
	}
	return err
}

// writeAll writes b, for those who have nothing else to do until it is gone.
func (s *socket) writeAll(b []byte) error {
	for len(b) > 0 {
		n, err := s.write(b)
		if err != nil {
			return err
		}
		if b = b[n:]; n == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return nil
}

// write returns how much the socket has taken.
func (s *socket) write(b []byte) (int, error) {
	for {
		n, err := syscall.Write(s.fd, b)
		switch err {
		case nil:
			return n, nil
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}

func (s *socket) sendRest() error {
	n, err := s.write(s.unsent)
	s.unsent = s.unsent[:copy(s.unsent, s.unsent[n:])]
	if len(s.unsent) > 0 || err != nil {
		return err
	}
	return s.poller.interest(s, syscall.EPOLL_CTL_MOD)
}

func (s *socket) close() error { return syscall.Close(s.fd) }

const (
	eventsMax = 512
	readBytes = 256 << 10
)

// poller waits for many sockets on one goroutine.
type poller struct {
	epoll   int
	sockets []*socket // by token
	events  [eventsMax]syscall.EpollEvent
	buf     []byte
}

func newPoller() (*poller, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &poller{epoll: epoll, buf: make([]byte, readBytes)}, nil
}

// add has a socket waited for; its token counts up from 0.
func (p *poller) add(s *socket) error {
	s.poller, s.token = p, int32(len(p.sockets))
	p.sockets = append(p.sockets, s)
	return p.interest(s, syscall.EPOLL_CTL_ADD)
}

// remove closes a socket; nothing that it said is handed over any more.
func (p *poller) remove(s *socket) error {
	p.sockets[s.token] = nil
	return s.close() // which ends the waiting for it, too
}

func (p *poller) interest(s *socket, op int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: s.token}
	if s.paused {
		event.Events = 0
	}
	if len(s.unsent) > 0 {
		event.Events |= syscall.EPOLLOUT
	}
	return syscall.EpollCtl(p.epoll, op, s.fd, &event)
}

// wait waits once, a millisecond at least unless timeout is 0, and hands over
// what each ready socket has to say. The bytes are good until got returns.
func (p *poller) wait(timeout time.Duration, got func(token int, b []byte, err error)) error {
	n, err := syscall.EpollWait(p.epoll, p.events[:], int((timeout+time.Millisecond-1)/time.Millisecond))
	if err == syscall.EINTR {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range p.events[:n] {
		p.serve(&p.events[i], got)
	}
	return nil
}

func (p *poller) serve(e *syscall.EpollEvent, got func(int, []byte, error)) {
	s := p.sockets[e.Fd]
	if s == nil {
		return // removed in this very turn
	}
	if e.Events&syscall.EPOLLOUT != 0 {
		if err := s.sendRest(); err != nil {
			got(int(s.token), nil, err)
			return
		}
	}
	if e.Events&^syscall.EPOLLOUT == 0 || s.paused && e.Events&syscall.EPOLLERR == 0 {
		return
	}
	n, err := syscall.Read(s.fd, p.buf)
	switch {
	case n > 0:
		got(int(s.token), p.buf[:n], nil)
	case err == nil:
		got(int(s.token), nil, io.EOF)
	case err != syscall.EAGAIN && err != syscall.EINTR:
		got(int(s.token), nil, err)
	}
}

func (p *poller) close() error {
	var errs []error
	for _, s := range p.sockets {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(append(errs, syscall.Close(p.epoll))...)
}
