package edge

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
)

// Reader is one WebSocket session as its node sees it.
type Reader struct {
	Session       string `json:"session"`
	Address       string `json:"address"` // of the client
	Form          string `json:"form"`    // subprotocol, with "+deflate" where messages are compressed
	AgeMS         int64  `json:"age_ms"`  // since it was accepted
	QueuedBytes   int    `json:"queued_bytes"`
	DueItems      int    `json:"due_items"`     // to be pushed when it reads again
	Conflated     uint64 `json:"conflated"`     // states never pushed, as newer ones took their place
	Subscriptions int    `json:"subscriptions"` // selectors
	InFlight      int    `json:"in_flight"`     // commands without answer
	BlockedMS     int64  `json:"blocked_ms"`    // since its socket last took anything, 0 if it takes all
}

// Slowest returns those sessions for which most waits: bytes first, then items, then
// what was conflated. Each loop looks through its own connections.
func (e *Edge) Slowest(ctx context.Context, top int) ([]Reader, error) {
	answers := make(chan []Reader, len(e.loops)) // a late one finds room too
	for _, l := range e.loops {
		l.inbox.do(func(l *loop) { answers <- l.slowest(top) })
	}
	all := []Reader{} // a JSON array also where there is none
	for range e.loops {
		select {
		case list := <-answers:
			all = append(all, list...)
		case <-e.closed:
			return nil, fmt.Errorf("looking for slow readers: %w", net.ErrClosed)
		case <-ctx.Done():
			return nil, fmt.Errorf("looking for slow readers, a loop has not answered: %w", ctx.Err())
		}
	}
	slices.SortStableFunc(all, func(a, b Reader) int {
		return cmp.Or(cmp.Compare(b.QueuedBytes, a.QueuedBytes), cmp.Compare(b.DueItems, a.DueItems), cmp.Compare(b.Conflated, a.Conflated))
	})
	return all[:min(top, len(all))], nil
}

// slowest keeps the list short while it looks, as others wait for the loop.
func (l *loop) slowest(top int) []Reader {
	worst := make([]*conn, 0, top+1)
	for _, c := range l.slots {
		if c == nil || c.state != stateOpen || len(worst) == top && compareSlowness(c, worst[top-1]) >= 0 {
			continue
		}
		place, _ := slices.BinarySearchFunc(worst, c, func(a, b *conn) int { return cmp.Or(compareSlowness(a, b), -1) })
		worst = slices.Insert(worst, place, c)
		worst = worst[:min(top, len(worst))]
	}
	list := make([]Reader, len(worst))
	for i, c := range worst {
		list[i] = l.reader(c)
	}
	return list
}

// compareSlowness puts the slower one first.
func compareSlowness(a, b *conn) int {
	if d := cmp.Compare(b.queuedBytes(), a.queuedBytes()); d != 0 {
		return d
	}
	var x, y subscriber
	if a.sub != nil {
		x.due, x.conflated = a.sub.due, a.sub.conflated
	}
	if b.sub != nil {
		y.due, y.conflated = b.sub.due, b.sub.conflated
	}
	return cmp.Or(cmp.Compare(len(y.due), len(x.due)), cmp.Compare(y.conflated, x.conflated))
}

func (c *conn) queuedBytes() int { return len(c.out) - c.sent }

func (l *loop) reader(c *conn) Reader {
	r := Reader{
		Session: sessionName(c.session), Address: c.ip().String(), Form: c.codec.Subprotocol(),
		AgeMS: l.now - c.bornAt, QueuedBytes: c.queuedBytes(), InFlight: int(c.inFlight),
	}
	if c.deflate {
		r.Form += "+deflate"
	}
	if c.blocked {
		r.BlockedMS = max(1, l.ago(c.takenAt))
	}
	if s := c.sub; s != nil {
		r.DueItems, r.Conflated, r.Subscriptions = len(s.due), s.conflated, len(s.entries)
	}
	return r
}
