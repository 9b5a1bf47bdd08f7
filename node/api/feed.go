package api

import (
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// streamItems is how many items go out in one turn. A state is read just before its
// write, so this also bounds how old it can be when a reader is slow, and what a reader
// that stalls can hold.
const streamItems = 64

// sinceWait is how long a stream waits until this node has what its reader has seen on
// another one. After it the reader is told what there is.
const sinceWait = 3 * time.Second

// fill is how far a stream's snapshot is.
type fill struct {
	begun   bool
	query   protocol.Query
	upTo    protocol.Vector // the cursor from before the first page
	unknown *unknown
}

// compose appends to the worker's buffer what is due.
func (s *stream) compose(w *worker, beat bool) verdict {
	if s.fill == nil {
		return s.changes(w, beat)
	}
	if !s.fill.begun && !s.begin() {
		return rests
	}
	return s.page(w)
}

// begin starts the snapshot once this node has what the reader has seen.
func (s *stream) begin() bool {
	cursor := s.api.ledger.Cursor()
	if !protocol.Reaches(cursor, s.since) && time.Now().Before(s.sinceBy) {
		s.api.hub.crew.await(s)
		return false
	}
	s.fill.begun, s.fill.upTo = true, cursor
	s.fill.unknown = newUnknown(s)
	s.fill.query = protocol.Query{Selector: s.follower.pick, Since: s.since, Limit: streamItems}
	return true
}

// page appends the next page of the present state, or of what has changed since the
// reader left.
func (s *stream) page(w *worker) verdict {
	q := &s.fill.query
	items, next, more := s.api.ledger.Scan(q)
	q.After = next
	// What can't be seen is no sign either that a named SKU exists.
	items = s.who.Access.Visible(items)
	s.fill.unknown.strike(items)
	if more {
		w.buf = s.appendItems(w.buf, items, nil)
		return hasMore
	}
	w.buf = s.appendItems(w.buf, append(items, s.fill.unknown.items()...), s.fill.upTo)
	s.fill = nil
	return hasMore // changes that came meanwhile
}

// changes appends the newest state of what is pending.
func (s *stream) changes(w *worker, beat bool) verdict {
	if beat {
		w.buf = append(w.buf, ": heartbeat\n\n"...)
	}
	due, left := s.ids, rests
	if len(due) > 0 {
		left = hasMore // those that have come meanwhile woke us for this turn
	} else {
		w.ids, s.upTo = s.api.hub.take(s.follower, w.ids)
		due = w.ids
	}
	if len(due) == 0 {
		if beat {
			w.buf = s.appendItems(w.buf, nil, s.upTo)
		}
		return rests
	}
	n := min(streamItems, len(due))
	w.items = s.api.ledger.Items(w.items[:0], due[:n])
	if n == len(due) {
		s.ids = nil
		w.buf = s.appendItems(w.buf, w.items, s.upTo)
		return left
	}
	if s.ids == nil {
		s.ids = slices.Clone(due) // the worker's own are for the next stream
	}
	s.ids = s.ids[n:]
	w.buf = s.appendItems(w.buf, w.items, nil)
	return hasMore
}

// appendItems appends items; reached is the cursor that holds once the last of them has
// arrived. The others carry the one before, so that a reader cut off between two
// events misses nothing when it resumes.
func (s *stream) appendItems(b []byte, items []protocol.Item, reached protocol.Vector) []byte {
	before := s.delivered
	s.delivered = join(before, reached)
	for i := range items {
		id := before
		if i == len(items)-1 {
			id = s.delivered
		}
		b = appendEvent(b, id, &items[i])
	}
	if len(items) == 0 && !before.AtLeast(s.delivered) {
		// An id without data moves the reader's cursor and fires no event.
		b = append(b, "id: "...)
		b = append(s.delivered.Append(b), "\n\n"...)
	}
	return b
}

func appendEvent(b []byte, id protocol.Vector, it *protocol.Item) []byte {
	b = append(b, "event: stock\nid: "...)
	b = id.Append(b)
	b = append(b, "\ndata: "...)
	b = protocol.AppendItem(b, it)
	return append(b, "\n\n"...)
}

// join returns the greater of each component: what has been delivered up to
// either has been delivered.
func join(v, w protocol.Vector) protocol.Vector {
	if w.AtLeast(v) {
		return w // as it nearly always is: streams then share it
	}
	for _, c := range w {
		if v.Get(c.Region) < c.N {
			v = v.With(c.Region, c.N)
		}
	}
	return v
}
