package poll

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	for _, word := range []string{"a", "stock", string(make([]byte, 10_000))} {
		send(t, peer, word)
		l.write(s, l.read(s, len(word)))
		if got := receive(t, peer, len(word)); got != word {
			t.Fatalf("got %q, want %q", got, word)
		}
	}
	must(t, s.Close())
}

func TestZeroSocket(t *testing.T) {
	var s Socket
	if s.Valid() || s != (Socket{}) {
		t.Fatal("the zero value is a socket")
	}
	l := newLoop(t)
	_, readErr := s.Read(make([]byte, 1))
	_, writeErr := s.Write(make([]byte, 1))
	_, connErr := s.NetConn()
	for name, err := range map[string]error{
		"Add": l.Add(s, 1), "Modify": l.Modify(s, 1, true, true), "Remove": l.Remove(s),
		"Read": readErr, "Write": writeErr, "NetConn": connErr, "Close": s.Close(), "CloseWrite": s.CloseWrite(),
		"SetKeepAlive": s.SetKeepAlive(time.Second, time.Second, 1), "SetLinger0": s.SetLinger0(),
	} {
		if !errors.Is(err, syscall.EBADF) {
			t.Errorf("%s: %v, want EBADF", name, err)
		}
	}
}

func TestEmptyBuffers(t *testing.T) {
	l := newLoop(t)
	s, _ := l.pair()
	defer s.Close()
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
	if n, err := s.Write(nil); n != 0 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if _, err := s.Read(make([]byte, 1)); err != ErrWouldBlock {
		t.Errorf("Read of a silent peer: %v, want ErrWouldBlock", err)
	}
}

// fill writes until there is no room and returns what was taken.
func fill(t *testing.T, s Socket) (taken []byte) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{})
	block := make([]byte, 10_000)
	for {
		random.Read(block)
		n, err := s.Write(block)
		if err == ErrWouldBlock {
			return taken
		}
		must(t, err)
		taken = append(taken, block[:n]...)
	}
}

func TestPartialWriteResumes(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()

	sent := fill(t, s)
	rest := bytes.Repeat([]byte("0123456789"), 100_000)
	got := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		io.Copy(h, peer)
		got <- [32]byte(h.Sum(nil))
	}()
	l.write(s, rest)
	must(t, s.CloseWrite())
	if <-got != sha256.Sum256(append(sent, rest...)) {
		t.Error("the bytes arrived damaged or out of order")
	}
}

func TestNotWritableWhileFull(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	must(t, l.Modify(s, socketToken, true, true))
	l.await(socketToken, writable)

	fill(t, s)
	// The twin's writer may still be moving bytes into the system's buffers.
	for n := 1; n > 0; {
		before := len(fill(t, s))
		_, err := l.Wait(l.events[:], 20*time.Millisecond)
		must(t, err)
		n = before + len(fill(t, s))
	}
	if e, ok := l.look()[socketToken]; ok {
		t.Errorf("%+v while the peer doesn't read", e)
	}
	go io.Copy(io.Discard, peer)
	l.await(socketToken, writable)
	must(t, s.Close())
}

func TestPeerHangsUp(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	send(t, peer, "last words")
	must(t, peer.Close())
	if got := l.read(s, 10); string(got) != "last words" {
		t.Errorf("got %q", got)
	}
	e := l.await(socketToken, closed)
	if !e.Readable {
		t.Error("the end isn't readable")
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v, want io.EOF", err)
	}
}

func TestPeerResets(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	must(t, l.Modify(s, socketToken, false, false))
	must(t, peer.SetLinger(0))
	must(t, peer.Close())
	l.await(socketToken, closed)
	if err := l.readError(s); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %v, want ECONNRESET", err)
	}
}

func TestWriteToGonePeerFails(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	must(t, peer.SetLinger(0))
	must(t, peer.Close())
	l.await(socketToken, closed)
	must(t, l.Modify(s, socketToken, true, true))
	for {
		_, err := s.Write([]byte("anyone there?"))
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return
		}
		if err != nil && err != ErrWouldBlock {
			t.Fatal(err)
		}
		l.await(socketToken, writable)
	}
}

func TestPeerHalfCloses(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	must(t, peer.CloseWrite())
	l.await(socketToken, closed)
	if err := l.readError(s); err != io.EOF {
		t.Fatalf("Read: %v, want io.EOF", err)
	}
	must(t, l.Modify(s, socketToken, false, false))
	if e, ok := l.look()[socketToken]; ok {
		t.Errorf("%+v though reading is switched off", e)
	}
	l.write(s, []byte("still here"))
	if got := receive(t, peer, 10); got != "still here" {
		t.Errorf("got %q", got)
	}
}

func TestCloseWrite(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	l.write(s, []byte("bye"))
	must(t, s.CloseWrite())
	if got, err := io.ReadAll(peer); string(got) != "bye" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write: %v, want EPIPE", err)
	}
	send(t, peer, "one more")
	if got := l.read(s, 8); string(got) != "one more" {
		t.Errorf("got %q", got)
	}
}

func TestCloseSendsWhatWasTaken(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	want := bytes.Repeat([]byte("x"), 50_000)
	n, err := s.Write(want)
	must(t, err)
	must(t, s.Close())
	if got, err := io.ReadAll(peer); len(got) != n || err != nil {
		t.Errorf("peer read %d bytes, %v; want %d", len(got), err, n)
	}
}

func TestLinger0Resets(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	must(t, s.SetLinger0())
	must(t, s.Close())
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer read: %v, want ECONNRESET", err)
	}
}

func TestKeepAlive(t *testing.T) {
	l := newLoop(t)
	s, _ := l.pair()
	must(t, s.SetKeepAlive(1500*time.Millisecond, time.Second, 3))
	must(t, s.Close())
}

func TestCloseWithUnreadBytes(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	send(t, peer, "never read")
	l.await(socketToken, readable)
	must(t, s.Close())
	if n, err := io.Copy(io.Discard, peer); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("peer read %d bytes, %v", n, err)
	}
}

func TestModify(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	send(t, peer, "waiting")
	l.await(socketToken, readable)

	must(t, l.Modify(s, socketToken, false, false))
	if e, ok := l.look()[socketToken]; ok {
		t.Errorf("%+v without interest", e)
	}
	must(t, l.Modify(s, socketToken, false, true))
	if e := l.await(socketToken, writable); e.Readable {
		t.Errorf("%+v without interest in reading", e)
	}
	must(t, l.Modify(s, socketToken+1, true, true))
	if e := l.await(socketToken+1, readable); !e.Writable {
		t.Errorf("%+v, want writable too", e)
	}
	if again := l.look()[socketToken+1]; !again.Readable {
		t.Error("readiness isn't level-triggered")
	}
}

func TestRemove(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	send(t, peer, "waiting")
	l.await(socketToken, readable)
	if err := l.Add(s, socketToken); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Add: %v", err)
	}
	must(t, l.Remove(s))
	if e, ok := l.look()[socketToken]; ok {
		t.Errorf("%+v after Remove", e)
	}
	if err := l.Remove(s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second Remove: %v", err)
	}
	if err := l.Modify(s, socketToken, true, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Modify after Remove: %v", err)
	}
	must(t, l.Add(s, socketToken)) // and back
	l.await(socketToken, readable)
}

func TestAllTokens(t *testing.T) {
	tokens := []uint64{0, 1 << 31, 1 << 32, 1 << 63, 0xFFFF_FFFF, 0xDEAD_BEEF_0123_4567, 1<<64 - 1}
	l := newLoop(t)
	for _, token := range tokens {
		peer := l.dial()
		s := l.accept()
		must(t, l.Add(s, token))
		send(t, peer, "x")
		l.await(token, readable)
		must(t, l.Modify(s, ^token, true, true))
		l.await(^token, writable)
		must(t, s.Close())
	}
}

// More ready sockets than room for events: each gets its turn.
func TestFewEventsManyReady(t *testing.T) {
	const count = 20
	l := newLoop(t)
	for i := range uint64(count) {
		peer := l.dial()
		s := l.accept()
		defer s.Close()
		must(t, l.Add(s, 100+i))
		send(t, peer, "x")
		l.await(100+i, readable)
	}
	seen := map[uint64]bool{}
	for range 2 * count {
		n, err := l.Wait(l.events[:3], patience)
		must(t, err)
		for _, e := range l.events[:n] {
			seen[e.Token] = true
		}
	}
	if len(seen) != count {
		t.Errorf("%d of %d sockets reported", len(seen), count)
	}
}

func TestReadAheadIsBounded(t *testing.T) {
	l := newLoop(t)
	s, peer := l.pair()
	defer s.Close()
	must(t, peer.SetWriteBuffer(8<<10))
	must(t, peer.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
	n, err := io.Copy(peer, endless{})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes, %v; want to be blocked", n, err)
	}
}

type endless struct{}

func (endless) Read(buf []byte) (int, error) { return len(buf), nil }
