package ledger

import (
	"container/heap"

	"github.com/stockmesh/stockmesh/protocol"
)

// expiry is when a reservation was to end at the time the entry was made.
type expiry struct {
	at protocol.Time
	id string
}

// expiries is a min-heap by time, then id, so that replicas agree on the order.
type expiries []expiry

func (e *expiries) push(x expiry) { heap.Push((*expiryHeap)(e), x) }
func (e *expiries) pop() expiry   { return heap.Pop((*expiryHeap)(e)).(expiry) }

type expiryHeap []expiry

func (h expiryHeap) Len() int { return len(h) }
func (h expiryHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].id < h[j].id
}
func (h expiryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *expiryHeap) Push(x any)   { *h = append(*h, x.(expiry)) }
func (h *expiryHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = expiry{}
	*h = old[:len(old)-1]
	return x
}

// until returns up to limit entries that are due and valid, earliest first. It
// leaves the heap as it is, and looks at no more of it than it must.
func (e expiries) until(now protocol.Time, limit int, valid func(expiry) bool) []expiry {
	var due []expiry
	next := frontier{of: e}
	next.reach(0, now)
	for len(next.at) > 0 && len(due) < limit {
		i := heap.Pop(&next).(int)
		next.reach(2*i+1, now)
		next.reach(2*i+2, now)
		// Equal entries come one after the other.
		if n := len(due); (n == 0 || due[n-1] != e[i]) && valid(e[i]) {
			due = append(due, e[i])
		}
	}
	return due
}

// frontier is a min-heap of places in another heap whose parents were visited.
type frontier struct {
	of expiries
	at []int
}

func (f *frontier) reach(i int, now protocol.Time) {
	if i < len(f.of) && f.of[i].at <= now {
		heap.Push(f, i)
	}
}

func (f *frontier) Len() int           { return len(f.at) }
func (f *frontier) Less(i, j int) bool { return expiryHeap(f.of).Less(f.at[i], f.at[j]) }
func (f *frontier) Swap(i, j int)      { f.at[i], f.at[j] = f.at[j], f.at[i] }
func (f *frontier) Push(x any)         { f.at = append(f.at, x.(int)) }
func (f *frontier) Pop() any {
	x := f.at[len(f.at)-1]
	f.at = f.at[:len(f.at)-1]
	return x
}
