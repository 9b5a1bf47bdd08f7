package poll

import (
	"io"
	"testing"
	"time"
)

// BenchmarkEcho is one round trip of 130 bytes between a net.Conn and a loop.
func BenchmarkEcho(b *testing.B) {
	l := newLoop(b)
	s, peer := l.pair()
	defer s.Close()
	must(b, peer.SetDeadline(time.Time{}))
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		serveEcho(l, s)
	}()
	buf := make([]byte, 130)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := peer.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(peer, buf); err != nil {
			b.Fatal(err)
		}
	}
	peer.Close()
	<-stop
}

func serveEcho(l *loop, s Socket) {
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		switch err {
		case nil:
			s.Write(buf[:n])
		case ErrWouldBlock:
			l.Wait(l.events[:], -1)
		default:
			return
		}
	}
}

// BenchmarkWrite is a push of 130 bytes to a peer that reads.
func BenchmarkWrite(b *testing.B) {
	l := newLoop(b)
	s, peer := l.pair()
	defer s.Close()
	must(b, peer.SetDeadline(time.Time{}))
	go io.Copy(io.Discard, peer)
	must(b, l.Modify(s, socketToken, true, true))
	buf := make([]byte, 130)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		for sent := 0; sent < len(buf); {
			n, err := s.Write(buf[sent:])
			if err == ErrWouldBlock {
				l.Wait(l.events[:], -1)
			}
			sent += n
		}
	}
}

func BenchmarkWake(b *testing.B) {
	l := newLoop(b)
	b.ReportAllocs()
	for b.Loop() {
		l.Wake()
	}
}
