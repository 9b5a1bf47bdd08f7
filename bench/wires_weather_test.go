package main

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// openWire leads a connection from region 0 to an echo in region 1.
func openWire(t *testing.T) (*wires, *lines) {
	t.Helper()
	w := newWires()
	t.Cleanup(w.close)
	addr, err := w.lead(0, 1, startEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	l := openLines(t, addr)
	if err := l.echo(aLongWhile); err != nil {
		t.Fatal(err)
	}
	return w, l
}

func TestASlowWireTakesItsTime(t *testing.T) {
	w, l := openWire(t)
	w.worsen(1, 0, conditions{delay: 30 * time.Millisecond})
	began := time.Now()
	for range 2 {
		if err := l.echo(aLongWhile); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 4*30*time.Millisecond {
		t.Errorf("there and back twice in %v", took)
	}
	w.worsen(0, 1, conditions{delay: time.Hour})
	if err := l.echo(aShortWhile); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in an hour: %v", err)
	}
}

func TestANarrowWireCarriesLittle(t *testing.T) {
	w, l := openWire(t)
	w.worsen(0, 1, conditions{perSecond: 100})
	began := time.Now()
	if err := l.echo(aLongWhile); err != nil { // six bytes
		t.Fatal(err)
	}
	if took := time.Since(began); took < 120*time.Millisecond {
		t.Errorf("twelve bytes at 100 a second in %v", took)
	}
	w.clear(1, 0)
	if len(w.weather) > 0 {
		t.Error("it stays narrow")
	}
}

func TestALossyWireLosesTimeOnly(t *testing.T) {
	w, l := openWire(t)
	w.worsen(0, 1, conditions{lossShare: 0.1})
	for range 5 {
		if err := l.echo(aLongWhile); err != nil {
			t.Fatal(err)
		}
	}
	if lost := (conditions{lossShare: 1}).lost(); lost != 15*resendAfter {
		t.Errorf("what is lost again and again takes %v longer", lost)
	}
	if lost := (conditions{}).lost(); lost != 0 {
		t.Errorf("nothing is lost, which takes %v", lost)
	}
}

func TestAWireThatPassesOneWay(t *testing.T) {
	for _, c := range []struct {
		from, to int
		heard    bool // who listens hears who dials
	}{{0, 1, false}, {1, 0, true}} {
		w := newWires()
		defer w.close()
		heard, target := startEar(t)
		addr, err := w.lead(0, 1, target)
		if err != nil {
			t.Fatal(err)
		}
		l := openLines(t, addr)
		if err := l.echo(aLongWhile); err != nil {
			t.Fatal(err)
		}
		<-heard
		if hit := w.hush(c.from, c.to); hit != 1 {
			t.Errorf("%d connections hit", hit)
		}
		if err := l.echo(aShortWhile); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an answer comes through: %v", err)
		}
		if got := len(heard) > 0; got != c.heard {
			t.Errorf("mute from %d to %d: heard %v", c.from, c.to, got)
		}
		w.unhush(c.from, c.to)
		if err := l.echo(aLongWhile); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection with holes goes on: %v", err)
		}
		if err := openLines(t, addr).echo(aLongWhile); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// TestWhatIsOnTheRoadIsCutOffToo has parcels under way when the road is cut.
func TestWhatIsOnTheRoadIsCutOffToo(t *testing.T) {
	for _, c := range []struct {
		from, to int
		want     string
	}{{0, 1, ""}, {1, 0, "parcel"}} {
		w := newWires()
		near, target := net.Pipe()
		back, source := net.Pipe()
		j := &joint{from: 0, to: 1, conns: [2]net.Conn{dialler: back, listener: near}, ended: make(chan struct{})}
		if !w.add(j) {
			t.Fatal("closed")
		}
		arrived := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(target) // ends with the joint
			arrived <- string(b)
		}()
		road := make(chan parcel, 1)
		road <- parcel{[]byte("parcel"), time.Now()}
		close(road)
		w.hush(c.from, c.to)
		w.deliver(j, dialler, road)
		w.close()
		if got := <-arrived; got != c.want {
			t.Errorf("mute from %d to %d: %q arrives, want %q", c.from, c.to, got, c.want)
		}
		source.Close()
		target.Close()
	}
}

// startEar is startEcho; what it hears is counted.
func startEar(t *testing.T) (heard chan struct{}, addr string) {
	heard = make(chan struct{}, 100)
	return heard, startServer(t, func(rw io.ReadWriter) {
		buf := make([]byte, 100)
		for {
			n, err := rw.Read(buf)
			if err != nil {
				return
			}
			heard <- struct{}{}
			if _, err := rw.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

func TestAWireIsMendedWhileAnotherIsCut(t *testing.T) {
	w := newWires()
	defer w.close()
	addr, err := w.lead(0, 1, startEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	w.sever(1)
	w.sever(2)
	if err := openLines(t, addr).echo(aShortWhile); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("through a cut: %v", err)
	}
	w.rejoin(1)
	if err := openLines(t, addr).echo(aLongWhile); err != nil {
		t.Errorf("rejoined: %v", err)
	}
	if !w.cut[2] {
		t.Error("the other one is not cut off any more")
	}
}
