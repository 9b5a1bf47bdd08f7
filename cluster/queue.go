package cluster

import (
	"sync"

	"github.com/stockmesh/stockmesh/protocol"
)

// queue holds the calls that wait for the owner.
type queue struct {
	limit int
	wake  chan struct{} // holds a token while there may be something to take

	mu     sync.Mutex
	calls  []*protocol.Call
	closed bool
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, wake: make(chan struct{}, 1)}
}

// put appends calls and returns those that find no room.
func (q *queue) put(calls ...*protocol.Call) (left []*protocol.Call) {
	q.mu.Lock()
	room := q.limit - len(q.calls)
	if q.closed {
		room = 0
	}
	n := min(max(room, 0), len(calls))
	q.calls = append(q.calls, calls[:n]...)
	q.mu.Unlock()
	if n > 0 {
		q.signal()
	}
	return calls[n:]
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take swaps the waiting calls for an empty list that the caller gave.
func (q *queue) take(empty []*protocol.Call) []*protocol.Call {
	q.mu.Lock()
	defer q.mu.Unlock()
	calls := q.calls
	q.calls = empty[:0]
	return calls
}

// takeDue removes the calls that must be answered by now.
func (q *queue) takeDue(now int64) (due []*protocol.Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	due, q.calls = splitDue(q.calls, now)
	return due
}

// splitDue parts calls that must be answered by now from the others, in order. The
// list itself is used again for the others.
func splitDue(calls []*protocol.Call, now int64) (due, later []*protocol.Call) {
	later = calls[:0]
	for _, c := range calls {
		if c.Due != 0 && c.Due <= now {
			due = append(due, c)
		} else {
			later = append(later, c)
		}
	}
	clear(calls[len(later):])
	return due, later
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.calls)
}

// close refuses further calls; those taken in are still to be answered.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}
