//go:build !linux || portable

package poll

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Poller watches sockets and listeners for one loop. Wait and Close belong to
// that loop's goroutine. Wake may be called from any at any time, the rest from
// any until Close.
type Poller struct {
	signal chan struct{} // holds at most one: look again

	mu     sync.Mutex // taken after source.mu
	hot    []*watch   // may be ready; all others surely are not
	woken  bool
	closed bool
}

// watch is one source's registration with one Poller.
type watch struct {
	poller *Poller
	source *source
	hot    bool // guarded by poller.mu

	// Guarded by source.mu.
	token       uint64
	read, write bool
	removed     bool
}

// source is what sockets and listeners have in common: a state that their
// goroutines change, and the Pollers to tell.
type source struct {
	mu      sync.Mutex
	changed sync.Cond // on mu; what the goroutines wait for
	watches []*watch
	state   func() readiness // called with mu held
}

// readiness is finer than an Event: what is reported depends on the interest.
type readiness struct {
	readable, writable, ended, broken bool
}

// New makes a Poller.
func New() (*Poller, error) {
	return &Poller{signal: make(chan struct{}, 1)}, nil
}

// Wait fills events and returns their number. A timeout below zero waits
// without limit, zero only looks. Wait returns early after a Wake, so the
// number may be 0 before the timeout.
func (p *Poller) Wait(events []Event, timeout time.Duration) (int, error) {
	if len(events) == 0 {
		return 0, errNoRoom
	}
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		n, woken, err := p.collect(events)
		if n > 0 || woken || err != nil || timeout == 0 {
			return n, err
		}
		select {
		case <-p.signal:
		case <-expired:
			timeout = 0 // one last look
		}
	}
}

// collect looks at the hot sources only. Those reported stay hot, behind those
// there was no room for, until a later look finds them no longer ready.
func (p *Poller) collect(events []Event) (n int, woken bool, err error) {
	hot, woken, err := p.take()
	var reported []*watch
	for n < len(events) && len(hot) > 0 {
		w := hot[0]
		hot = hot[1:]
		if event, ready := w.look(); ready {
			events[n] = event
			n++
			reported = append(reported, w)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heat(hot...)
	p.heat(reported...)
	return n, woken, err
}

func (p *Poller) take() (hot []*watch, woken bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, failed("wait", net.ErrClosed)
	}
	hot, woken = p.hot, p.woken
	p.hot, p.woken = nil, false
	for _, w := range hot {
		w.hot = false // a change during the look makes it hot again
	}
	return hot, woken, nil
}

// heat is called with mu held.
func (p *Poller) heat(watches ...*watch) {
	for _, w := range watches {
		if !w.hot {
			w.hot = true
			p.hot = append(p.hot, w)
		}
	}
}

func (p *Poller) notify() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (w *watch) look() (Event, bool) {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	if w.removed {
		return Event{}, false
	}
	is := w.source.state()
	e := Event{
		Token:    w.token,
		Readable: w.read && (is.readable || is.ended || is.broken),
		Writable: w.write && (is.writable || is.broken),
		Closed:   w.read && is.ended || is.broken,
	}
	return e, e.Readable || e.Writable || e.Closed
}

// touch reports a change of state to the pollers; called with mu held.
func (s *source) touch() {
	for _, w := range s.watches {
		w.poller.mu.Lock()
		w.poller.heat(w)
		w.poller.mu.Unlock()
		w.poller.notify()
	}
}

// update changes the state and lets everybody know.
func (s *source) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.changed.Broadcast()
	s.touch()
}

// find is called with mu held.
func (s *source) find(p *Poller) int {
	return slices.IndexFunc(s.watches, func(w *watch) bool { return w.poller == p })
}

func (s *source) attach(p *Poller, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(p) >= 0 {
		return syscall.EEXIST
	}
	s.watches = append(s.watches, &watch{poller: p, source: s, token: token, read: true})
	s.touch()
	return nil
}

func (s *source) modify(p *Poller, token uint64, read, write bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(p)
	if i < 0 {
		return syscall.ENOENT
	}
	w := s.watches[i]
	w.token, w.read, w.write = token, read, write
	s.touch()
	return nil
}

func (s *source) detach(p *Poller) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(p)
	if i < 0 {
		return syscall.ENOENT
	}
	s.watches[i].removed = true
	s.watches = slices.Delete(s.watches, i, i+1)
	return nil
}

// detachAll is called with mu held.
func (s *source) detachAll() {
	for _, w := range s.watches {
		w.removed = true
	}
	s.watches = nil
}

// Wake makes the current Wait, or else the next one, return. What the caller
// did before Wake is visible after that Wait. After Close it does nothing.
func (p *Poller) Wake() error {
	p.mu.Lock()
	p.woken = true
	p.mu.Unlock()
	p.notify()
	return nil
}

// Close releases the Poller. Sockets and listeners stay open, unwatched.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return failed("close poller", net.ErrClosed)
	}
	p.closed, p.hot = true, nil
	return nil
}

// Watch reports waiting connections as Readable events under token. Watching
// twice is an error (fs.ErrExist).
func (p *Poller) Watch(l *Listener, token uint64) error {
	return failed("watch", l.attach(p, token))
}

// Unwatch ends Watch; connections keep queueing. It fails with fs.ErrNotExist
// if l isn't watched.
func (p *Poller) Unwatch(l *Listener) error {
	return failed("unwatch", l.detach(p))
}

// Add reports under token when s is readable or closed. Adding twice is an
// error (fs.ErrExist).
func (p *Poller) Add(s Socket, token uint64) error {
	if !s.Valid() {
		return failed("add", syscall.EBADF)
	}
	return failed("add", s.conn.attach(p, token))
}

// Modify replaces the token and says which readiness to report from now on. A
// broken connection is reported even with both off. It fails with
// fs.ErrNotExist if s wasn't added.
func (p *Poller) Modify(s Socket, token uint64, read, write bool) error {
	if !s.Valid() {
		return failed("modify", syscall.EBADF)
	}
	return failed("modify", s.conn.modify(p, token, read, write))
}

// Remove ends Add. Events of s that an earlier Wait already returned are still
// in the caller's hands. It fails with fs.ErrNotExist if s wasn't added.
func (p *Poller) Remove(s Socket) error {
	if !s.Valid() {
		return failed("remove", syscall.EBADF)
	}
	return failed("remove", s.conn.detach(p))
}
