package api

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// streamItems is how many items go out in one write. A state is read just before
// its write, so this also bounds how old it can be when a reader is slow.
const streamItems = 256

// errOver ends a stream between two writes: its reader has left or the node drains.
var errOver = errors.New("the stream is over")

func serveStream(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	c, err := streamCommand(r)
	if err != nil {
		return err
	}
	select {
	case <-a.hub.quit:
		return protocol.RetryLater(protocol.CodeUnavailable, retrySoonMS, "the node is draining: resume on another one")
	default:
	}
	if err := a.permit(r, c); err != nil {
		return err
	}
	s := newStream(a, w, r, c)
	if r.Method == http.MethodHead {
		s.writeHead(r)
		return nil
	}
	guest, leave, err := a.stay(w, r, selectorsOf(c))
	if err != nil {
		return err
	}
	defer leave()
	s.guest = guest
	s.writeHead(r)
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	s.run(r)
	return nil
}

// streamCommand reads a stream's parameters as the subscribe they stand for.
func streamCommand(r *request) (*protocol.Command, *protocol.Error) {
	all, err := r.flag("all")
	if err != nil {
		return nil, err
	}
	pick := r.selector()
	c := &protocol.Command{Op: protocol.OpSubscribe, SKUs: pick.SKUs, Prefixes: pick.Prefixes, Locations: pick.Locations, All: all}
	since, sent, err := r.header("Last-Event-ID")
	if err != nil {
		return nil, err
	}
	// An empty one says that nothing has arrived yet.
	if sent && since != "" {
		c.Since = &since
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, checkPicked(c)
}

// selectorsOf counts what a stream takes of its subject's subscriptions.
func selectorsOf(c *protocol.Command) int { return max(1, len(c.SKUs)+len(c.Prefixes)) }

// stream writes one reader's events.
type stream struct {
	api *API
	w   http.ResponseWriter
	rc  *http.ResponseController

	guest  *guest
	access *protocol.Access

	named     protocol.Selector // what the reader asked for
	pick      protocol.Selector // where to look for what they may see of it
	since     protocol.Vector   // where the reader resumes, nil: from nothing
	delivered protocol.Vector   // everything up to here has been written

	ids   []protocol.ItemID
	items []protocol.Item
	buf   []byte
}

func newStream(a *API, w http.ResponseWriter, r *request, c *protocol.Command) *stream {
	s := &stream{api: a, w: w, rc: http.NewResponseController(w), access: r.who.Access, named: c.Selector()}
	s.pick = narrowed(s.access, s.named)
	if c.Since != nil {
		// Check has read it before.
		s.since, _ = protocol.ParseVector(*c.Since)
		s.delivered = s.since
	}
	return s
}

func (s *stream) writeHead(r *request) {
	h := s.w.Header()
	h.Set("Content-Type", mediaEvents)
	h.Set("Cache-Control", cacheRead)
	h.Set("X-Accel-Buffering", "no")
	if r.ProtoMajor == 1 {
		// The connection's deadlines have been ours; it is not used again.
		h.Set("Connection", "close")
	}
	s.w.WriteHeader(http.StatusOK)
}

func (s *stream) run(r *request) {
	// What net/http writes after us must not hang on a reader that has stalled.
	defer func() { s.guest.writeBy(time.Now().Add(s.api.cfg.WriteTimeout)) }()
	// Following starts before reading: a change is in the snapshot, in the
	// pending ids, or in both, but never in neither.
	f := s.api.hub.follow(s.pick, s.access)
	defer s.api.hub.leave(f)
	beat := time.NewTicker(s.api.cfg.Heartbeat)
	defer beat.Stop()

	err := s.flush()
	if err == nil {
		err = s.snapshot(r)
	}
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-s.api.hub.quit:
			return
		case <-beat.C:
			s.buf = append(s.buf, ": heartbeat\n\n"...)
			err = s.changes(r, f)
		case <-f.wake:
			err = s.changes(r, f)
		}
	}
}

// sinceWait is how long a stream waits until this node has what its reader has seen on
// another one. After it the reader is told what there is.
const sinceWait = 3 * time.Second

func (s *stream) awaitSince(r *request) {
	limit, look := time.NewTimer(sinceWait), time.NewTicker(20*time.Millisecond)
	defer limit.Stop()
	defer look.Stop()
	for !protocol.Reaches(s.api.ledger.Cursor(), s.since) {
		select {
		case <-look.C:
		case <-limit.C:
			return
		case <-r.Context().Done():
			return
		case <-s.api.hub.quit:
			return
		}
	}
}

// snapshot sends the present state, or what has changed since the reader left.
func (s *stream) snapshot(r *request) error {
	s.awaitSince(r)
	upTo := s.api.ledger.Cursor()
	unknown := newUnknown(s)
	q := protocol.Query{Selector: s.pick, Since: s.since, Limit: streamItems}
	for more := true; more; {
		if s.over(r) {
			return errOver
		}
		var items []protocol.Item
		items, more = s.api.ledger.Scan(&q)
		if len(items) == 0 {
			more = false
		}
		if more {
			q.After = items[len(items)-1].Key()
		}
		// What can't be seen is no sign either that a named SKU exists.
		items = s.access.Visible(items)
		unknown.strike(items)
		reached := protocol.Vector(nil)
		if !more {
			items = append(items, unknown.items()...)
			reached = upTo
		}
		if more && len(items) == 0 {
			continue
		}
		if err := s.send(items, reached); err != nil {
			return err
		}
	}
	return nil
}

// changes sends the newest state of what is pending.
func (s *stream) changes(r *request, f *follower) error {
	// In this order: what the cursor covers is pending by then, if not sent.
	upTo := *s.api.hub.passed.Load()
	s.ids = f.take(s.ids[:0])
	if len(s.ids) == 0 {
		return s.send(nil, upTo)
	}
	for len(s.ids) > 0 {
		if s.over(r) {
			return errOver
		}
		n := min(streamItems, len(s.ids))
		s.items = s.api.ledger.Items(s.items[:0], s.ids[:n])
		s.ids = s.ids[n:]
		reached := protocol.Vector(nil)
		if len(s.ids) == 0 {
			reached = upTo
		}
		if err := s.send(s.items, reached); err != nil {
			return err
		}
	}
	return nil
}

// over reports whether nobody waits for the rest.
func (s *stream) over(r *request) bool {
	select {
	case <-r.Context().Done():
		return true
	case <-s.api.hub.quit:
		return true
	default:
		return false
	}
}

// send writes items; reached is the cursor that holds once the last of them has
// arrived. The others carry the one before, so that a reader cut off between two
// events misses nothing when it resumes.
func (s *stream) send(items []protocol.Item, reached protocol.Vector) error {
	before := s.delivered
	s.delivered = join(before, reached)
	for i := range items {
		id := before
		if i == len(items)-1 {
			id = s.delivered
		}
		s.buf = appendEvent(s.buf, id, &items[i])
	}
	if len(items) == 0 && !before.AtLeast(s.delivered) {
		// An id without data moves the reader's cursor and fires no event.
		s.buf = append(s.buf, "id: "...)
		s.buf = append(s.delivered.Append(s.buf), "\n\n"...)
	}
	return s.flush()
}

func appendEvent(b []byte, id protocol.Vector, it *protocol.Item) []byte {
	b = append(b, "event: stock\nid: "...)
	b = id.Append(b)
	b = append(b, "\ndata: "...)
	b = protocol.AppendItem(b, it)
	return append(b, "\n\n"...)
}

// flush writes what is buffered within the time limit. The limit is taken off
// again, for HTTP/2 ends a stream whose deadline passes while it is idle.
func (s *stream) flush() error {
	s.guest.writeBy(time.Now().Add(s.api.cfg.WriteTimeout))
	defer s.guest.writeBy(time.Time{})
	_, err := s.w.Write(s.buf)
	s.buf = s.buf[:0]
	if err != nil {
		return err
	}
	return s.rc.Flush()
}

// join returns the greater of each component: what has been delivered up to
// either has been delivered.
func join(v, w protocol.Vector) protocol.Vector {
	for _, c := range w {
		if v.Get(c.Region) < c.N {
			v = v.With(c.Region, c.N)
		}
	}
	return v
}

// unknown finds the named SKUs that a snapshot has not shown: they are sent as
// zero items. A reader that resumes has had them.
type unknown struct {
	pick    protocol.Selector
	access  *protocol.Access
	missing map[protocol.ItemKey]bool // location "" where none are named
}

func newUnknown(s *stream) *unknown {
	u := &unknown{pick: s.named, access: s.access, missing: make(map[protocol.ItemKey]bool)}
	if s.since != nil {
		return u
	}
	for _, sku := range s.pick.SKUs {
		for _, location := range u.locations() {
			u.missing[protocol.ItemKey{SKU: sku, Location: location}] = true
		}
	}
	return u
}

func (u *unknown) locations() []string {
	if len(u.pick.Locations) == 0 {
		return []string{""}
	}
	return u.pick.Locations
}

func (u *unknown) strike(items []protocol.Item) {
	for i := range items {
		k := items[i].Key()
		if len(u.pick.Locations) == 0 {
			k.Location = ""
		}
		delete(u.missing, k)
	}
}

func (u *unknown) items() []protocol.Item {
	out := make([]protocol.Item, 0, len(u.missing))
	for k := range u.missing {
		if k.Location == "" {
			k.Location = protocol.DefaultLocation
		}
		if u.access.Sees(k.SKU, k.Location) {
			out = append(out, protocol.Item{SKU: k.SKU, Location: k.Location})
		}
	}
	slices.SortFunc(out, func(x, y protocol.Item) int { return x.Key().Compare(y.Key()) })
	return out
}
