package edge

import (
	"container/heap"

	"github.com/stockmesh/stockmesh/protocol"
)

// timers are the moments at which an item's interval for a subscriber is over.
// Those of connections that went are passed over.
type timers struct{ heap timerHeap }

type timer struct {
	at    int64
	token uint64
	id    protocol.ItemID
}

func (t *timers) add(at int64, c *conn, id protocol.ItemID) {
	heap.Push(&t.heap, timer{at, c.token(), id})
}

func (t *timers) next() (int64, bool) {
	if len(t.heap) == 0 {
		return 0, false
	}
	return t.heap[0].at, true
}

// pop returns the next timer that is due.
func (t *timers) pop(now int64) (timer, bool) {
	if len(t.heap) == 0 || t.heap[0].at > now {
		return timer{}, false
	}
	return heap.Pop(&t.heap).(timer), true
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
