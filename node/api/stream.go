package api

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// errOver ends a stream that somebody else than its reader has ended.
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
	if r.Method == http.MethodHead {
		setStreamHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return a.openStream(w, r, c)
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

// stream is one reader's connection, which net/http has given away. It has no goroutine
// and, while nothing is due, no buffer: the crew's workers give it turns, one at a time.
type stream struct {
	api       *API
	conn      net.Conn
	who       *protocol.Caller
	account   Account // the stream's own, given back when it ends
	selectors int     // taken of the account
	follower  *follower
	berth     berth

	// Of the worker whose turn it is.
	named     protocol.Selector // what the reader asked for
	since     protocol.Vector   // where the reader resumes, nil: from nothing; never changed
	sinceBy   time.Time         // when it gets what there is; never changed
	head      []byte            // of the answer, until it is written
	fill      *fill             // until the snapshot has been written
	delivered protocol.Vector   // everything up to here has been written
	ids       []protocol.ItemID // taken from the follower and not yet written
	upTo      protocol.Vector   // what holds once they are

	mu   sync.Mutex // held for setting conn's deadlines
	over bool
}

// openStream takes the connection over and leaves it to the crew.
func (a *API) openStream(w http.ResponseWriter, r *request, c *protocol.Command) *protocol.Error {
	s := &stream{api: a, who: r.who, account: r.account, selectors: selectorsOf(c), named: c.Selector(), fill: &fill{}}
	if c.Since != nil {
		// Check has read it before.
		s.since, _ = protocol.ParseVector(*c.Since)
		s.delivered = s.since
	}
	s.sinceBy = time.Now().Add(sinceWait)
	if err := occupy(s.account, s.selectors); err != nil {
		return err
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		vacate(s.account, s.selectors)
		return protocol.BadRequest("a stream needs a connection of its own, as in HTTP/1.1")
	}
	r.account = nil
	s.conn, s.head = conn, streamHead(w.Header())
	a.metrics.streams.Inc()
	// Following starts before reading: a change is in the snapshot, in the
	// pending ids, or in both, but never in neither.
	s.follower = a.hub.follow(s, narrowed(s.who.Access, s.named), s.who.Access)
	a.guests.join(s)
	if !a.hub.crew.join(s) {
		s.leave() // Drain was quicker: the reader comes back elsewhere
	}
	return nil
}

func setStreamHeader(h http.Header) {
	h.Set("Content-Type", mediaEvents)
	h.Set("Cache-Control", cacheWrite)
	h.Set("X-Accel-Buffering", "no")
	// The connection's end is the stream's, and nothing else is served on it.
	h.Set("Connection", "close")
}

// streamHead is the head of an answer with what the header has been given so far.
func streamHead(h http.Header) []byte {
	setStreamHeader(h)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&b) // a Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}

// caller implements guest.
func (s *stream) caller() *protocol.Caller { return s.who }

// turnOut implements guest.
func (s *stream) turnOut() { s.end() }

// wake implements owner.
func (s *stream) wake() { s.api.hub.crew.put(s) }

// end has the stream end within leaveTime, whatever its reader does; false if that is
// so already.
func (s *stream) end() bool {
	if !s.finish() {
		return false
	}
	s.api.hub.crew.put(s)
	return true
}

func (s *stream) finish() (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.over = true
	// A write to a reader that has stalled would outlast the caller's time.
	_ = s.conn.SetWriteDeadline(time.Now().Add(leaveTime))
	return true
}

func (s *stream) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// writeBy sets the time by which a write must be done, unless the stream is over.
func (s *stream) writeBy(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errOver
	}
	return s.conn.SetWriteDeadline(t)
}

// leave gives everything back. Its connection is closed last: a reader that comes back
// then finds room.
func (s *stream) leave() {
	s.finish()
	s.api.guests.leave(s)
	s.api.hub.leave(s.follower)
	s.api.metrics.streams.Dec()
	vacate(s.account, s.selectors)
	s.account.Release()
	// One that has to go before its first turn is told at least that it was a stream.
	if len(s.head) > 0 {
		_, _ = s.conn.Write(s.head)
	}
	_ = s.conn.Close() // what fails here is the reader's goodbye
}

// turn writes once, if anything is due. An error, or a panic, is the end of this stream
// and of nothing else.
func (s *stream) turn(w *worker, beat bool) (left verdict) {
	defer func() {
		if v := recover(); v != nil {
			s.api.log.Error("http: panic", "route", "GET /v1/stream", "panic", v, "stack", string(debug.Stack()))
			left = isOver
		}
	}()
	if s.isOver() {
		return isOver
	}
	w.buf = append(w.buf[:0], s.head...)
	s.head = nil
	left = s.compose(w, beat)
	if err := w.write(s); err != nil {
		return isOver
	}
	return left
}
