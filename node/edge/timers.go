package edge

import "container/heap"

// timers are the moments at which a connection has a push that was held back.
// Entries of connections that went, or were served earlier, are passed over.
type timers struct{ heap timerHeap }

type timer struct {
	at    int64
	token uint64
}

func (t *timers) add(at int64, c *conn) { heap.Push(&t.heap, timer{at, c.token()}) }

func (t *timers) next() (int64, bool) {
	if len(t.heap) == 0 {
		return 0, false
	}
	return t.heap[0].at, true
}

// pop returns the next connection whose moment has come.
func (t *timers) pop(now int64, l *loop) (*conn, bool) {
	for len(t.heap) > 0 && t.heap[0].at <= now {
		x := heap.Pop(&t.heap).(timer)
		if c := l.conn(x.token); c != nil && c.state == stateOpen {
			return c, true
		}
	}
	return nil, false
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
