//go:build unix

package poll

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestRaiseFileLimit(t *testing.T) {
	raised, err := RaiseFileLimit()
	must(t, err)
	now, err := FileLimit()
	must(t, err)
	if now == 0 || now != raised {
		t.Errorf("limit is %d, raised to %d", now, raised)
	}
}

func TestTooManyFiles(t *testing.T) {
	const count = 4
	l := newLoop(t)
	for range count {
		l.dial()
	}
	restore := forbidFiles(t)
	accepted, err := l.acceptUntilError()
	restore()
	if err != ErrTooManyFiles {
		t.Errorf("Accept: %v, want ErrTooManyFiles", err)
	}
	for len(accepted) < count {
		accepted = append(accepted, l.acceptPatiently())
	}
	for _, s := range accepted {
		must(t, s.Close())
	}
}

// forbidFiles lets every new descriptor fail with EMFILE; open ones live on.
func forbidFiles(t *testing.T) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	return func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }
}

func (l *loop) acceptUntilError() (accepted []Socket, err error) {
	for {
		s, _, err := l.listener.Accept()
		switch err {
		case nil:
			accepted = append(accepted, s)
		case ErrWouldBlock:
			l.await(listenerToken, readable)
		default:
			return accepted, err
		}
	}
}

// acceptPatiently lets the twin report what it met while files were forbidden.
func (l *loop) acceptPatiently() Socket {
	l.Helper()
	for {
		l.await(listenerToken, readable)
		s, _, err := l.listener.Accept()
		if err != ErrTooManyFiles {
			must(l, err)
			return s
		}
	}
}
