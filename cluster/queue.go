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

// put appends calls and answers those that find no room.
func (q *queue) put(calls ...*protocol.Call) {
	q.mu.Lock()
	room := q.limit - len(q.calls)
	if q.closed {
		room = 0
	}
	n := min(max(room, 0), len(calls))
	q.calls = append(q.calls, calls[:n]...)
	closed := q.closed
	q.mu.Unlock()
	if n > 0 {
		q.signal()
	}
	for _, c := range calls[n:] {
		if closed {
			c.Fail(protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node is stopping"))
		} else {
			c.Fail(protocol.RetryLater(protocol.CodeOverloaded, 100, "%d commands are waiting already", q.limit))
		}
	}
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
