package edge

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// Evict closes up to n of a subject's sessions, the newest first, with 4102: they are
// more than it may have over the region, where two nodes let them in at the same time.
// It returns how many there were, up to n, and waits for the loops, or until Close.
func (e *Edge) Evict(subject string, n int) int {
	found := make(chan []uint64, len(e.loops)) // a late answer finds room too
	for _, l := range e.loops {
		l.inbox.do(func(l *loop) { found <- l.sessionsOf(subject) })
	}
	var all []uint64
	for range e.loops {
		select {
		case list := <-found:
			all = append(all, list...)
		case <-e.closed:
			return 0
		}
	}
	slices.Sort(all)
	newest := all[max(0, len(all)-n):]
	for _, l := range e.loops {
		l.inbox.do(func(l *loop) { l.evict(newest) })
	}
	return len(newest)
}

func (l *loop) sessionsOf(subject string) (list []uint64) {
	for _, c := range l.slots {
		if c != nil && c.state == stateOpen && c.known() && c.who.caller.Subject == subject {
			list = append(list, c.session)
		}
	}
	return list
}

// evict closes sessions that are this loop's.
func (l *loop) evict(sessions []uint64) {
	for _, c := range l.slots {
		if c != nil && c.state == stateOpen && slices.Contains(sessions, c.session) {
			l.close(c, protocol.CloseTooManyConnections, "too many connections of this user")
		}
	}
}
