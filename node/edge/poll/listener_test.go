package poll

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestListenAddresses(t *testing.T) {
	for address, dial := range map[string]string{
		"127.0.0.1:0": "127.0.0.1",
		"[::1]:0":     "::1",
		":0":          "127.0.0.1",
		"localhost:0": "localhost",
	} {
		t.Run(address, func(t *testing.T) {
			l, err := Listen(address)
			must(t, err)
			defer l.Close()
			if l.Addr().Port() == 0 {
				t.Error("Addr has no port")
			}
			testPeerAddress(t, l, dial)
		})
	}
}

func testPeerAddress(t *testing.T, l *Listener, host string) {
	p, err := New()
	must(t, err)
	defer p.Close()
	must(t, p.Watch(l, 7))
	_, port, _ := net.SplitHostPort(l.Addr().String())
	peer, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), patience)
	must(t, err)
	defer peer.Close()
	events := make([]Event, 1)
	if n, err := p.Wait(events, patience); n != 1 || err != nil || !events[0].Readable {
		t.Fatalf("Wait: %d, %v, %+v", n, err, events)
	}
	s, addr, err := l.Accept()
	must(t, err)
	defer s.Close()
	if want := netip.MustParseAddrPort(peer.LocalAddr().String()); addr != want {
		t.Errorf("peer is %v, want %v", addr, want)
	}
}

func TestListenFails(t *testing.T) {
	l := newLoop(t)
	for _, address := range []string{"nonsense", "127.0.0.1:99999", l.listener.Addr().String()} {
		if _, err := Listen(address); err == nil {
			t.Errorf("Listen(%q) succeeded", address)
		}
	}
}

func TestListenAgainAtOnce(t *testing.T) {
	first := newLoop(t)
	s, peer := first.pair()
	must(t, s.Close()) // our side is the one in TIME-WAIT
	peer.Close()
	l, err := Listen("127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	l, err = Listen(address)
	must(t, err)
	must(t, l.Close())
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, _, err := l.Accept(); err == nil || err == ErrWouldBlock {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestAcceptMany(t *testing.T) {
	const count = 200
	l := newLoop(t)
	if _, _, err := l.listener.Accept(); err != ErrWouldBlock {
		t.Fatalf("Accept: %v, want ErrWouldBlock", err)
	}
	peers := map[netip.AddrPort]bool{}
	for range count {
		peers[netip.MustParseAddrPort(l.dial().LocalAddr().String())] = true
	}
	for range count {
		s, addr := l.acceptFrom()
		defer s.Close()
		if !peers[addr] {
			t.Errorf("%v never dialled, or comes twice", addr)
		}
		delete(peers, addr)
	}
}

func (l *loop) acceptFrom() (Socket, netip.AddrPort) {
	l.Helper()
	for {
		s, addr, err := l.listener.Accept()
		if err != ErrWouldBlock {
			must(l, err)
			return s, addr
		}
		l.await(listenerToken, readable)
	}
}

func TestUnwatch(t *testing.T) {
	l := newLoop(t)
	if err := l.Watch(l.listener, 3); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Watch: %v", err)
	}
	l.dial()
	l.await(listenerToken, readable)
	must(t, l.Unwatch(l.listener))
	if e, ok := l.look()[listenerToken]; ok {
		t.Errorf("%+v after Unwatch", e)
	}
	if err := l.Unwatch(l.listener); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second Unwatch: %v", err)
	}
	must(t, l.Watch(l.listener, 3))
	l.await(3, readable)
	s, _, err := l.listener.Accept()
	must(t, err)
	must(t, s.Close())
}

func TestOneListenerTwoLoops(t *testing.T) {
	a, b := newLoop(t), newLoop(t)
	must(t, b.Watch(a.listener, 9))
	a.dial()
	a.await(listenerToken, readable)
	b.await(9, readable)
	s := a.accept()
	must(t, s.Close())
	if e, ok := b.look()[9]; ok {
		t.Errorf("%+v though the connection is taken", e)
	}
}

func TestCloseResetsBacklog(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	must(t, err)
	peer, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer peer.Close()
	must(t, l.Close())
	must(t, peer.SetReadDeadline(time.Now().Add(patience)))
	if _, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("peer read: %v, want a reset", err)
	}
}
