package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// reservationsMax bounds the reservation pushes a slow consumer leaves behind.
const reservationsMax = 1_000

// SubscribeOptions refine a subscription. Both are optional.
type SubscribeOptions struct {
	Users    []string      // reservation pushes of these users
	Interval time.Duration // least time between two pushes of one item
}

// Update is what happened since the Update before it.
type Update struct {
	// Items are the newest states of the items that changed, each once. At
	// first all that are selected. An item never goes back.
	Items []protocol.Item
	// Reservations are the newest states of the reservations that ended or
	// were changed by somebody else: those this client made and those of the
	// subscribed users.
	Reservations []protocol.Reservation
	// Lost counts reservations that were dropped because nobody took them.
	Lost int
	// Current is true where nothing older than the node's state is missing:
	// the connection stands and the snapshot is complete.
	Current bool
	// Cursor is how far this goes, "" before the first snapshot is complete.
	Cursor string
}

// Subscription follows items and reservations through every reconnect. It holds
// the newest state of each item and no queue of older ones.
type Subscription struct {
	client *Client
	match  matcher
	base   protocol.Command // the subscribe without since
	cancel context.CancelFunc
	wake   chan struct{}

	mu           sync.Mutex
	states       map[protocol.ItemKey]*state
	changed      []*state
	reservations []protocol.Reservation
	lost         int
	cursor       protocol.Vector
	filled       bool  // cursor counts
	link         *link // complete on this link; nil: not current
	news         bool  // Current or Cursor differ from the last Update
	err          error
}

// state is the newest that is known of an item.
type state struct {
	item    protocol.Item
	version protocol.Vector
	waiting bool // is in changed
}

// Subscribe follows the selected items and returns when the first snapshot is
// complete. ctx bounds only that; Close ends the subscription.
func (c *Client) Subscribe(ctx context.Context, sel protocol.Selector, opts SubscribeOptions) (*Subscription, error) {
	s := &Subscription{
		client: c,
		match:  newMatcher(&sel, len(opts.Users) > 0),
		base: protocol.Command{Op: protocol.OpSubscribe, SKUs: sel.SKUs, Prefixes: sel.Prefixes, All: sel.All,
			Locations: sel.Locations, Users: opts.Users, IntervalMS: opts.Interval.Milliseconds()},
		wake:   make(chan struct{}, 1),
		states: map[protocol.ItemKey]*state{},
	}
	if err := check(&s.base); err != nil {
		return nil, err
	}
	keep, cancel := context.WithCancel(c.ctx)
	s.cancel = cancel
	if err := c.addSub(s); err != nil {
		cancel()
		return nil, err
	}
	first := make(chan error, 1)
	c.spawn(func() { s.keep(keep, first) })
	select {
	case err := <-first:
		if err != nil {
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, ctx.Err()
	case <-c.ctx.Done():
		s.end(c.reason())
		return nil, c.reason()
	}
}

// Next waits for something new and returns all of it. It is for one goroutine
// at a time. Errors: the context's, ErrClosed, what ended the client, or the
// *protocol.Error a node answered when the subscription was to be resumed.
func (s *Subscription) Next(ctx context.Context) (Update, error) {
	for {
		u, ready, err := s.poll()
		if ready || err != nil {
			return u, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Update{}, ctx.Err()
		}
	}
}

func (s *Subscription) poll() (u Update, ready bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Update{}, false, s.err
	}
	if len(s.changed) == 0 && len(s.reservations) == 0 && !s.news {
		return Update{}, false, nil
	}
	u = Update{
		Items:        make([]protocol.Item, len(s.changed)),
		Reservations: s.reservations,
		Lost:         s.lost,
		Current:      s.link != nil,
	}
	for i, st := range s.changed {
		u.Items[i] = st.item
		st.waiting = false
	}
	if s.filled {
		u.Cursor = s.cursor.String()
	}
	s.changed, s.reservations, s.lost, s.news = s.changed[:0], nil, 0, false
	return u, true, nil
}

// Close ends the subscription; Next then returns ErrClosed.
func (s *Subscription) Close() {
	if s.end(ErrClosed) {
		s.client.spawn(s.unsubscribe)
	}
}

// end makes Next fail with err; false where it had ended before.
func (s *Subscription) end(err error) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.err = err
	s.states, s.changed = nil, nil
	s.mu.Unlock()
	s.cancel()
	s.client.dropSub(s)
	nudge(s.wake)
	return true
}

// keep fills the subscription on each link in turn.
func (s *Subscription) keep(ctx context.Context, first chan<- error) {
	var l *link
	for {
		var err error
		if l, err = s.client.linkAfter(ctx, l); err == nil {
			err = s.fill(ctx, l)
		}
		if errors.Is(err, errLinkLost) {
			continue
		}
		if err != nil {
			err = s.client.why(err)
			s.end(err)
		}
		if first != nil {
			first <- err
			first = nil
		}
		if err != nil {
			return
		}
		if err := s.client.linkGone(ctx, l); err != nil {
			s.end(s.client.why(err))
			return
		}
		s.stale(l)
	}
}

// fill subscribes over l and returns when the snapshot is complete.
func (s *Subscription) fill(ctx context.Context, l *link) error {
	since := s.resumeFrom()
	var cursor protocol.Vector
	for i, cmd := range split(s.base, l.hello.Limits.MessageBytes/2) {
		cmd.Since = since
		var ok subscribed
		err := s.client.do(ctx, cmd, l, func(msg message) error {
			_, err := decodeReply(msg, &ok)
			return err
		})
		if err != nil {
			return err
		}
		v, err := protocol.ParseVector(ok.Cursor)
		if err != nil {
			return err
		}
		if i == 0 {
			// The oldest of the parts' cursors is good for all of them.
			cursor = v
		}
	}
	s.complete(l, cursor)
	return nil
}

func (s *Subscription) resumeFrom() *string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.filled {
		return nil
	}
	return protocol.Ptr(s.cursor.String())
}

func (s *Subscription) complete(l *link, cursor protocol.Vector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.filled, s.news = l, true, true
	s.cursor = join(s.cursor, cursor)
	nudge(s.wake)
}

func (s *Subscription) stale(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l {
		s.link, s.news = nil, true
		nudge(s.wake)
	}
}

// advance takes a cursor that l's node says is delivered.
func (s *Subscription) advance(l *link, cursor protocol.Vector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l && s.err == nil {
		s.cursor, s.news = join(s.cursor, cursor), true
		nudge(s.wake)
	}
}

// items takes pushed items; those that would go back are dropped. That is safe:
// a later push brings the state that includes both.
func (s *Subscription) items(items []protocol.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	for i := range items {
		if s.match.item(&items[i]) {
			s.item(&items[i])
		}
	}
	if len(s.changed) > 0 {
		nudge(s.wake)
	}
}

func (s *Subscription) item(it *protocol.Item) {
	k := protocol.ItemKey{SKU: it.SKU, Location: it.Location}
	st := s.states[k]
	if st != nil && st.item.Version == it.Version {
		return
	}
	v, err := protocol.ParseVector(it.Version)
	if err != nil || st != nil && !v.AtLeast(st.version) {
		return
	}
	if st == nil {
		st = &state{}
		s.states[k] = st
	}
	st.item, st.version = *it, v
	if !st.waiting {
		st.waiting = true
		s.changed = append(s.changed, st)
	}
}

func (s *Subscription) reservation(r protocol.Reservation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	i := slices.IndexFunc(s.reservations, func(o protocol.Reservation) bool { return o.ID == r.ID })
	switch {
	case i >= 0:
		s.reservations[i] = r
	case len(s.reservations) >= reservationsMax:
		s.lost++
	default:
		s.reservations = append(s.reservations, r)
	}
	nudge(s.wake)
}

// join returns a cursor for what was delivered by v and by w together.
func join(v, w protocol.Vector) protocol.Vector {
	if w.AtLeast(v) {
		return w
	}
	for _, c := range w {
		if c.N > v.Get(c.Region) {
			v = v.With(c.Region, c.N)
		}
	}
	return v
}
