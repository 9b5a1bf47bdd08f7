package clustertest

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// ends are the two sides of connections that a linkNet leads from us to eu.
type ends struct {
	net  *linkNet
	addr string // of the proxy
	far  net.Listener
}

var usToEU = way{"us", "eu"}

func lead(t *testing.T) *ends {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	n := newLinkNet()
	t.Cleanup(n.close)
	addr, err := n.lead("127.0.0.1", usToEU, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return &ends{n, addr, l}
}

// link dials, and makes sure that it passes both ways.
func (e *ends) link(t *testing.T) (us, eu net.Conn) {
	t.Helper()
	us, eu = connected(t, e.addr, e.far)
	t.Cleanup(func() { _ = us.Close(); _ = eu.Close() })
	send(t, us, "to eu")
	expect(t, eu, "to eu")
	send(t, eu, "to us")
	expect(t, us, "to us")
	return us, eu
}

// rest is what still comes until the connection is closed.
func rest(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("it was not closed")
	}
	return string(b)
}

func TestLinkCutBothWays(t *testing.T) {
	e := lead(t)
	us, eu := e.link(t)
	e.net.cut(usToEU)
	e.net.cut(usToEU.back())
	send(t, us, "lost")
	send(t, eu, "lost")
	for e.net.standing("eu", "us") > 0 {
		waitBriefly(t)
	}
	e.net.heal()
	if got := rest(t, us) + rest(t, eu); got != "" {
		t.Errorf("%q came through a cut", got)
	}
	e.link(t)
}

func TestLinkCutOneWay(t *testing.T) {
	e := lead(t)
	us, eu := e.link(t)
	e.net.cut(usToEU)
	send(t, us, "lost")
	send(t, eu, "comes through")
	expect(t, us, "comes through")
	for e.net.standing("eu", "us") > 0 {
		waitBriefly(t)
	}
	e.net.heal()
	if got := rest(t, eu); got != "" {
		t.Errorf("%q came through a cut", got)
	}
}

// TestLinkIdleDuringCut: what has lost nothing goes on, as on a real network.
func TestLinkIdleDuringCut(t *testing.T) {
	e := lead(t)
	us, eu := e.link(t)
	e.net.cut(usToEU)
	e.net.heal()
	send(t, us, "still here")
	expect(t, eu, "still here")
}

func TestLinkSevered(t *testing.T) {
	e := lead(t)
	us, eu := e.link(t)
	e.net.sever(usToEU.back())
	if got := rest(t, us) + rest(t, eu); got != "" {
		t.Errorf("got %q", got)
	}
	again, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.SetDeadline(time.Now().Add(lookWait)); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, again); got != "" {
		t.Errorf("a severed region got %q", got)
	}
	// The proxy had dialled before it looked: that connection is not for the next link.
	if tried, err := e.far.Accept(); err != nil {
		t.Fatal(err)
	} else {
		_ = tried.Close()
	}
	e.net.heal()
	e.link(t)
}

func TestLinkSlow(t *testing.T) {
	const delay = 50 * time.Millisecond
	e := lead(t)
	us, eu := e.link(t)
	e.net.slow(usToEU, delay)
	begun := time.Now()
	for range 20 {
		send(t, us, "a piece ")
	}
	for range 20 {
		expect(t, eu, "a piece ")
	}
	took := time.Since(begun)
	if took < delay {
		t.Errorf("it took %v", took)
	}
	if took > 20*delay*Slow/2 {
		t.Errorf("%v: the pieces waited for each other", took)
	}
	begun = time.Now()
	send(t, eu, "back")
	expect(t, us, "back")
	if took := time.Since(begun); took < delay {
		t.Errorf("the way back took %v", took)
	}
}

func TestLinkFlaps(t *testing.T) {
	e := lead(t)
	us, eu := e.link(t)
	e.net.flap(usToEU, 20*time.Millisecond)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(us, "x"); err != nil {
				return // the flap has closed it
			}
		}
	}()
	rest(t, eu)
	<-ended
	e.net.heal()
	e.link(t)
	if e.net.bytes(usToEU) == 0 {
		t.Error("no bytes were counted")
	}
}

// waitBriefly is the pause of a poll that a test's own deadline bounds.
func waitBriefly(t *testing.T) {
	t.Helper()
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal("the test has ended")
	}
}
