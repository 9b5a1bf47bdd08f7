package edge

import (
	"runtime"
	"testing"
)

// A queue is first come, first served, and leaves nothing behind.
func TestShakesInOrder(t *testing.T) {
	s := newShakes(1)
	for token := range uint64(100) {
		s.queue = append(s.queue, token)
	}
	for want := range uint64(100) {
		if got, ok := s.pop(); got != want || !ok {
			t.Fatalf("got %d, %v, want %d", got, ok, want)
		}
	}
	if _, ok := s.pop(); ok || s.queue != nil {
		t.Errorf("left: %v", s.queue)
	}
}

// A handshake holds one slot, however often it goes on or rests.
func TestShakesSlots(t *testing.T) {
	s := newShakes(1)
	all := make([]secure, shakesPerCPU*runtime.GOMAXPROCS(0))
	for i := range all {
		if !s.free() {
			t.Fatalf("only %d slots", i)
		}
		s.compute(&all[i])
		s.compute(&all[i])
	}
	if s.free() {
		t.Fatal("more slots than expected")
	}
	s.rest(&all[0])
	s.rest(&all[0])
	if !s.free() || s.computing != len(all)-1 {
		t.Errorf("%d compute, of %d one rests", s.computing, len(all))
	}
	if s.begun = s.room; s.free() {
		t.Error("more than there is room for")
	}
}

// Several loops share the slots, and each has one at least.
func TestShakesShares(t *testing.T) {
	for _, loops := range []int{1, 2, 3, 1000} {
		if s := newShakes(loops); s.slots < 1 || s.slots*loops < shakesPerCPU*runtime.GOMAXPROCS(0) || s.room*loops < shakesMax {
			t.Errorf("%d loops: %+v", loops, s)
		}
	}
}
