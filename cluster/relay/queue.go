package relay

import "github.com/stockmesh/stockmesh/protocol"

// queue is a list of calls that is taken from at the front.
type queue struct {
	calls []*protocol.Call
	head  int // those before it are taken
}

func (q *queue) live() []*protocol.Call { return q.calls[q.head:] }
func (q *queue) len() int               { return len(q.calls) - q.head }

func (q *queue) push(calls []*protocol.Call) {
	// Sliding down costs what is live, so it must have paid: half of it is free.
	if len(q.calls)+len(calls) > cap(q.calls) && q.head > len(q.calls)/2 {
		n := copy(q.calls, q.live())
		clear(q.calls[n:])
		q.calls, q.head = q.calls[:n], 0
	}
	q.calls = append(q.calls, calls...)
}

// drop forgets the first n.
func (q *queue) drop(n int) {
	clear(q.calls[q.head : q.head+n])
	q.head += n
	if q.head == len(q.calls) {
		q.calls, q.head = q.calls[:0], 0
	}
}

// take hands over the first n.
func (q *queue) take(n int) []*protocol.Call {
	calls := append([]*protocol.Call(nil), q.live()[:n]...)
	q.drop(n)
	return calls
}

// replace makes the queue hold just these.
func (q *queue) replace(calls []*protocol.Call) { q.calls, q.head = calls, 0 }

// squeeze takes out the nil ones among the first n. Those in front move up, as
// they are few: mostly all n are nil.
func (q *queue) squeeze(n int) {
	first := q.live()[:n]
	to := n
	for i := n - 1; i >= 0; i-- {
		if first[i] != nil {
			to--
			first[to] = first[i]
		}
	}
	q.drop(to)
}
