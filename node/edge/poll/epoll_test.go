//go:build linux && !portable

package poll

import (
	"encoding/binary"
	"os"
	"os/signal"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSocketIsFourBytes(t *testing.T) {
	if size := unsafe.Sizeof(Socket{}); size != 4 {
		t.Errorf("a Socket takes %d bytes", size)
	}
}

func TestManyWakesAreOneWrite(t *testing.T) {
	l := newLoop(t)
	wakes := func() uint64 {
		var count [8]byte
		unix.Read(l.wakeFD, count[:]) // leaves zero when there was no write
		return binary.NativeEndian.Uint64(count[:])
	}
	for range 1000 {
		must(t, l.Wake())
	}
	if n := wakes(); n != 0 {
		t.Errorf("%d writes while the loop works, want none", n)
	}
	l.state.Store(asleep)
	for range 1000 {
		must(t, l.Wake())
	}
	if n := wakes(); n != 1 && n != 1<<56 { // one, in either byte order
		t.Errorf("%d writes while the loop waits, want one", n)
	}
}

func TestTimeoutIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: -1, 0: 0, 1: 1, time.Microsecond: 1, time.Millisecond: 1, time.Millisecond + 1: 2,
		1<<63 - 1: 1<<31 - 1,
	} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v are %d ms, want %d", d, got, want)
		}
	}
}

func TestNoSIGPIPE(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGPIPE)
	defer signal.Stop(signals)
	l := newLoop(t)
	s, _ := l.pair()
	must(t, s.CloseWrite())
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("Write after CloseWrite succeeded")
	}
	must(t, s.Close())
	select {
	case <-signals:
		t.Error("SIGPIPE raised")
	default:
	}
}

func TestNoAllocations(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	message, buf := make([]byte, 130), make([]byte, 130)
	allocs := testing.AllocsPerRun(100, func() {
		s.Write(message)
		peer.Read(buf)
		peer.Write(buf)
		l.Wait(l.events[:], patience)
		s.Read(buf)
		s.Read(buf) // would block
		l.Modify(s, socketToken, true, false)
		l.Wake()
		l.Wait(l.events[:], time.Microsecond)
	})
	if allocs != 0 {
		t.Errorf("%v allocations a round", allocs)
	}
}

func TestAcceptedSocketOptions(t *testing.T) {
	l := newLoop(t)
	s, _ := l.pair()
	defer s.Close()
	noDelay, err := unix.GetsockoptInt(s.fd(), unix.IPPROTO_TCP, unix.TCP_NODELAY)
	if noDelay != 1 || err != nil {
		t.Errorf("TCP_NODELAY is %d, %v", noDelay, err)
	}
	protocol, err := unix.GetsockoptInt(s.fd(), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if protocol != unix.IPPROTO_TCP || err != nil {
		t.Errorf("protocol is %d, %v", protocol, err)
	}
	for name, fd := range map[string]int{"socket": s.fd(), "listener": l.listener.fd} {
		testFlags(t, name, fd)
	}
}

func testFlags(t *testing.T, name string, fd int) {
	status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if status&unix.O_NONBLOCK == 0 || err != nil {
		t.Errorf("%s may block: %#x, %v", name, status, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if flags&unix.FD_CLOEXEC == 0 || err != nil {
		t.Errorf("%s survives exec: %#x, %v", name, flags, err)
	}
}
