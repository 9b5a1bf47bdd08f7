package edge

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	eventsMax   = 512
	acceptsMax  = 128        // connections taken in one pass, so that others get a turn
	readBytes   = 64 << 10   // of one read
	listenToken = ^uint64(0) // no connection's: slots are 32 bits, generations start at 1
	lingerMS    = 2000       // for a closed peer to read what was last said
	lingers     = 10         // as many of these while it takes some
)

// loop serves its connections. All but inbox belongs to run's goroutine.
type loop struct {
	edge    *Edge
	config  *Config
	logger  *slog.Logger
	poller  *poll.Poller
	inbox   inbox
	stopped bool

	listener   *poll.Listener // of the loop that accepts
	listening  bool
	relistenAt int64
	nextLoop   int

	slots []*conn // by slot; nil: free
	free  []uint32
	gen   uint32 // of the connection added last

	now        int64     // milliseconds since start
	begun      int64     // microseconds since start: this turn
	answeredAt int64     // too: the answers of this turn were taken
	gap        uint64    // commands before the next that is followed
	start      time.Time // the edge's
	sweepAt    int64
	settler    settler
	pingFrame  []byte
	stripe     int
	timers     timers
	drained    *draining

	read  []byte
	plain []byte           // of a TLS record; nil until there is one
	calls []*protocol.Call // decoded in this pass, not yet submitted
	asked map[*conn]int    // what the unanswered reads of a connection ask for
	pool  []*protocol.Call
	dirty []*conn // with something to write in this pass
	later []*conn // with more to write in the next
	hub   hub
	outs  buffers

	shakes shakes

	deflater deflater
	inflater inflater

	anybody *client // of all who are not asked who they are; nil: everybody is asked
	audits  audits

	done   func(*protocol.Call) // inbox.answered, made once
	tally  tally                // of this pass
	gauged gauged               // too
}

func newLoop(e *Edge, n int) (*loop, error) {
	p, err := poll.New()
	if err != nil {
		return nil, err
	}
	l := &loop{
		edge: e, config: &e.config, logger: e.logger.With("loop", n), poller: p,
		start: e.start, read: make([]byte, readBytes), asked: make(map[*conn]int),
		gauged: e.metrics.histograms.forLoop(),
	}
	l.inbox.poller, l.inbox.start = p, l.start
	l.done = l.inbox.answered
	l.pingFrame = appendFrame(nil, opPing, nil)
	if e.config.Guard == nil {
		l.anybody = &client{caller: protocol.Anybody()}
	}
	if e.config.Tracer != nil {
		l.gap = e.config.Tracer.Gap()
	}
	l.hub = newHub(l)
	l.shakes = newShakes(e.config.Loops)
	return l, nil
}

func (l *loop) run() {
	events := make([]poll.Event, eventsMax)
	spare := mail{}
	ended := l.clock()
	for !l.stopped {
		n, err := l.poller.Wait(events, l.timeout(ended))
		if err != nil {
			l.logger.Error("waiting for sockets", "error", err)
			break
		}
		l.begun = l.clock()
		l.now, l.answeredAt = l.begun/1000, l.begun
		for _, ev := range events[:n] {
			l.event(ev)
		}
		l.submit()
		full := l.inbox.take(spare)
		l.deliver(&full)
		l.submit() // what had waited for a token, or came with a handshake over TLS
		spare = full.reset()
		l.tick()
		l.gauged.flush() // first: who has an answer may look at the figures at once
		l.flush()
		ended = l.clock()
		l.gauged.lag.observe(ended - l.begun)
		l.gauged.lag.flush()
		l.gauged.pushAge.flush() // of what was just written
		l.edge.metrics.add(&l.tally)
	}
	l.shutdown()
}

// clock is in microseconds since start.
func (l *loop) clock() int64 { return time.Since(l.start).Microseconds() }

// timeout is how long there is nothing to do, if no socket wakes the loop.
func (l *loop) timeout(clock int64) time.Duration {
	if len(l.dirty) > 0 {
		return 0
	}
	next := l.sweepBy()
	if at, ok := l.timers.next(); ok {
		next = min(next, at)
	}
	return time.Duration(max(0, next-clock/1000)) * time.Millisecond
}

func (l *loop) deliver(m *mail) {
	// What was read before the mail was taken may be older than its answers.
	l.hub.forgetPass()
	for _, task := range m.tasks {
		task(l)
	}
	if len(m.changes) > 0 {
		l.hub.changed(m.changes, m.changedAt)
	}
	if len(m.answers) > 0 {
		l.answeredAt = l.clock()
	}
	for _, call := range m.answers {
		l.answer(call)
	}
}

func (l *loop) event(ev poll.Event) {
	if ev.Token == listenToken {
		l.accept()
		return
	}
	c := l.conn(ev.Token)
	if c == nil {
		return // closed earlier in this pass
	}
	if ev.Writable {
		l.mark(c)
	}
	switch {
	case c.deaf() || c.state == stateSilent && ev.Closed:
		if ev.Closed {
			l.hangUp(c) // broken: there is nobody to be answered
		}
	case c.state == stateSilent:
		l.speaks(c)
	case ev.Readable || ev.Closed:
		l.readable(c)
	}
}

// conn returns the connection of a token, nil if it is gone: slots are used
// again, generations are not.
func (l *loop) conn(token uint64) *conn {
	slot := uint32(token)
	if int(slot) >= len(l.slots) {
		return nil
	}
	if c := l.slots[slot]; c != nil && c.gen == uint32(token>>32) {
		return c
	}
	return nil
}

func (l *loop) listen(listener *poll.Listener) {
	l.listener = listener
	if err := l.poller.Watch(listener, listenToken); err != nil {
		l.logger.Error("accepting connections", "error", err)
		return
	}
	l.listening = true
}

// unlisten stops accepting for good; the port is free from here on.
func (l *loop) unlisten() {
	if l.listener == nil {
		return
	}
	if err := l.listener.Close(); err != nil {
		l.logger.Warn("closing the listener", "error", err)
	}
	l.listener, l.listening = nil, false
}

func (l *loop) accept() {
	for range acceptsMax {
		if l.listener == nil {
			return
		}
		sock, addr, err := l.listener.Accept()
		switch {
		case err == nil:
			next := l.edge.loops[l.nextLoop%len(l.edge.loops)]
			l.nextLoop++
			if next == l {
				l.add(sock, addr.Addr())
			} else {
				next.inbox.do(func(l *loop) { l.add(sock, addr.Addr()) })
			}
		case err == poll.ErrWouldBlock:
			return
		case err == poll.ErrTooManyFiles:
			// The connection keeps waiting; looking again at once would spin.
			l.edge.metrics.rejected.WithLabelValues("files").Inc()
			l.pauseListening()
			return
		default:
			l.logger.Warn("accept", "error", err)
			l.pauseListening()
			return
		}
	}
}

func (l *loop) pauseListening() {
	if err := l.poller.Unwatch(l.listener); err != nil {
		l.logger.Error("accepting connections", "error", err)
	}
	l.listening, l.relistenAt = false, l.now+250
}

// readable takes what one read gives; level-triggered readiness brings the rest
// in the next pass, after the others had their turn.
func (l *loop) readable(c *conn) {
	n, err := c.sock.Read(l.read)
	if n > 0 {
		c.heardAt = l.moment()
		if c.tls() != nil && c.state != stateSecuring {
			l.decrypt(c, l.read[:n])
		} else {
			l.input(c, l.read[:n])
		}
		return
	}
	switch {
	case err == poll.ErrWouldBlock:
	case errors.Is(err, io.EOF):
		l.hangUp(c)
	default:
		l.drop(c)
	}
}

// hangUp deals with a peer that will send nothing more.
func (l *loop) hangUp(c *conn) {
	if c.state == stateOpen {
		l.edge.metrics.closed(0)
	}
	l.drop(c)
}

// input hands bytes to what the connection is at present.
func (l *loop) input(c *conn, b []byte) {
	switch c.state {
	case stateProxied:
		l.proxied(c, b)
	case stateSilent: // it came behind a PROXY header
		c.keep(b)
		l.speaks(c)
	case stateSecuring:
		l.secure(c, b)
	case stateHead:
		l.head(c, b)
	case stateChecking:
		c.keep(append(c.kept(), b...)) // of a TLS record, or what came with it: bounded by one read
	case stateOpen:
		l.frames(c, b)
	case stateClosing:
		l.closingInput(c, b)
	}
}

// tick does what is due by time.
func (l *loop) tick() {
	for {
		t, ok := l.timers.pop(l.now)
		if !ok {
			break
		}
		if c := l.conn(t.token); c != nil {
			l.hub.paceDue(c, t.id)
		}
	}
	if l.now >= l.sweepAt {
		l.sweepDue()
	}
}

func (l *loop) shutdown() {
	l.unlisten()
	for _, c := range l.slots {
		if c != nil && c.state == stateOpen {
			l.close(c, protocol.CloseGoingAway, "the node is stopping")
			l.write(c)
		}
	}
	l.dropAll()
}

func (l *loop) dropAll() {
	for _, c := range l.slots {
		if c != nil {
			l.drop(c)
		}
	}
}

// bury ends what reached a loop after its end, once no other loop runs either: the
// accepting one may have sent it connections until then.
func (l *loop) bury() {
	last := l.inbox.take(mail{})
	for _, task := range last.tasks {
		task(l)
	}
	l.dropAll()
	if err := l.poller.Close(); err != nil {
		l.logger.Warn("closing the poller", "error", err)
	}
}
