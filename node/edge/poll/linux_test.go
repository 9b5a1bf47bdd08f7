//go:build linux

package poll

import (
	"os"
	"testing"
)

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestNoFileIsLeaked(t *testing.T) {
	l := newLoop(t)
	round := func(i int) {
		s, peer := l.pair()
		switch i % 3 {
		case 0:
			must(t, s.Close())
		case 1:
			must(t, l.Remove(s))
			must(t, s.Close())
		case 2:
			must(t, l.netConn(s).Close())
		}
		must(t, peer.Close())
	}
	round(0) // opens what the runtime keeps
	before := openFiles(t)
	for i := range 1000 {
		round(i)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files open, %d before", after, before)
	}
}
