package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// closeWait bounds the closing handshake.
const closeWait = time.Second

// link is one connection to one node. The client's mu guards pending.
type link struct {
	client   *Client
	endpoint string
	conn     *websocket.Conn
	codec    protocol.Codec
	hello    protocol.Hello
	since    time.Time

	ctx      context.Context
	cancel   context.CancelFunc
	pending  map[uint64]*call // sent and not answered
	wake     chan struct{}    // something may be sent
	answered chan struct{}    // something was answered
	heard    atomic.Uint64    // messages and pings of the node
	goaway   chan struct{}    // closed when another node should be looked for
	away     sync.Once        // of goaway
	refused  atomic.Int64     // when the node last could not serve a command, ns since `since`
	leaveBy  atomic.Int64     // its deadline_ms
	ended    chan struct{}    // closed when err is set and all is handed back
	err      error
	stock    stockPush // reused by the reader

	credential credential    // the token that it was made with
	asked      chan struct{} // the node wants another token
	renewals   int           // tries to give it one that came to something; the client's mu guards it

	// undecided is the node's answer to the last token it was given, where it could not
	// tell yet whether that is good. The client's mu guards it.
	undecided *protocol.Error
}

func newLink(c *Client, endpoint string) *link {
	l := &link{
		client:   c,
		endpoint: endpoint,
		since:    time.Now(),
		pending:  map[uint64]*call{},
		wake:     make(chan struct{}, 1),
		answered: make(chan struct{}, 1),
		goaway:   make(chan struct{}),
		ended:    make(chan struct{}),
		asked:    make(chan struct{}, 1),
	}
	// Not the client's context: a closing client still says goodbye.
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *link) readHello(ctx context.Context) error {
	_, msg, err := l.conn.Read(ctx)
	if err != nil {
		return err
	}
	if err := l.codec.Unmarshal(msg, &l.hello); err != nil {
		return err
	}
	if l.hello.Op != "hello" || l.hello.Protocol != protocol.ProtocolVersion {
		return fmt.Errorf("want a hello of protocol %d, not %.80q", protocol.ProtocolVersion, msg)
	}
	limits := &l.hello.Limits
	if limits.MessageBytes <= 0 {
		limits.MessageBytes = protocol.MessageBytesMax
	}
	if limits.InFlight <= 0 {
		limits.InFlight = protocol.InFlightMax
	}
	return nil
}

// run serves the link until it fails or is closed, then gives back what was not
// answered.
func (l *link) run() {
	var wg sync.WaitGroup
	wg.Go(l.write)
	wg.Go(l.watch)
	if l.client.cfg.Token != nil {
		wg.Go(l.renew)
	}
	err := l.read()
	l.cancel()
	l.conn.CloseNow()
	wg.Wait()
	l.err = err
	l.client.detach(l, err)
	close(l.ended)
}

// close ends the link in good order, or without it where the node does not
// answer the closing handshake in time.
func (l *link) close() {
	timer := time.AfterFunc(closeWait, l.cancel)
	defer timer.Stop()
	l.conn.Close(websocket.StatusNormalClosure, "")
	l.cancel()
}

func (l *link) hasEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

func (l *link) deadline() time.Duration { return time.Duration(l.leaveBy.Load()) * time.Millisecond }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write sends the queue, as much as fits into each message.
func (l *link) write() {
	kind := websocket.MessageText
	if l.codec == protocol.CBOR {
		kind = websocket.MessageBinary
	}
	buf := make([]byte, 0, 4096)
	for {
		var msg []byte
		if buf, msg = l.client.take(l, buf); len(msg) == 0 {
			select {
			case <-l.wake:
				// Others who were just answered are about to queue more.
				runtime.Gosched()
				continue
			case <-l.ctx.Done():
				return
			}
		}
		if err := l.conn.Write(l.ctx, kind, msg); err != nil {
			l.conn.CloseNow()
			return
		}
	}
}

// watch gives the link up when its node was silent for two periods.
func (l *link) watch() {
	period := time.Duration(l.hello.HeartbeatMS) * time.Millisecond
	if period <= 0 {
		return
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for silent, last := 0, l.heard.Load(); silent < 2; silent++ {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		if now := l.heard.Load(); now != last {
			silent, last = -1, now
		}
	}
	l.client.cfg.Logger.Warn("node is silent", "endpoint", l.endpoint)
	l.cancel()
}

// read handles the node's messages until the connection ends.
func (l *link) read() error {
	var buf bytes.Buffer
	for {
		_, r, err := l.conn.Reader(l.ctx)
		if err != nil {
			return err
		}
		buf.Reset()
		if _, err := io.Copy(&buf, r); err != nil {
			return err
		}
		l.heard.Add(1)
		if err := l.handle(message{l.codec, buf.Bytes()}); err != nil {
			return fmt.Errorf("%s: %w", l.endpoint, err)
		}
	}
}

func (l *link) handle(msg message) error {
	h, err := msg.peek()
	if err != nil {
		return err
	}
	switch {
	case h.isReply && h.hasID:
		l.client.answer(l, h.id, message{msg.codec, bytes.Clone(msg.body)})
		return nil
	case h.isReply:
		return l.client.answerAll(l, msg)
	}
	return l.push(h.op, msg)
}

func (l *link) push(op string, msg message) error {
	switch op {
	case "stock":
		clear(l.stock.Items) // or what this push omits stays as it was
		l.stock.Items = l.stock.Items[:0]
		if err := msg.decode(&l.stock); err != nil {
			return err
		}
		l.client.eachSub(func(s *Subscription) { s.items(l.stock.Items) })
	case "cursor":
		var p cursorPush
		if err := msg.decode(&p); err != nil {
			return err
		}
		v, err := protocol.ParseVector(p.Cursor)
		if err != nil {
			return err
		}
		l.client.eachSub(func(s *Subscription) { s.advance(l, v) })
	case "reservation":
		var p reservationPush
		if err := msg.decode(&p); err != nil {
			return err
		}
		l.client.eachSub(func(s *Subscription) { s.reservation(p.Reservation) })
	case "goaway":
		return l.leave(msg)
	}
	return nil // an op of a later version
}

func (l *link) leave(msg message) error {
	var g protocol.Goaway
	if err := msg.decode(&g); err != nil {
		return err
	}
	l.away.Do(func() {
		l.client.cfg.Logger.Info("node goes away", "endpoint", l.endpoint, "reason", g.Reason)
		l.client.endpoints.learn(l.endpoint, slices.Concat(g.Endpoints, l.hello.Endpoints))
		l.leaveBy.Store(g.DeadlineMS)
		close(l.goaway)
	})
	return nil
}

// Bounds of giving a node up that answers, but can't serve: one that is cut off from
// its region. Twice within the first is twice; the second keeps clients from going round
// in circles where no node can.
const (
	unservedWindow = 10 * time.Second
	unservedStay   = 3 * time.Second
	unservedSame   = 100 * time.Millisecond // refusals as close as this count once
	unservedLeave  = 5 * time.Second        // for the answers that are still to come
)

// unserved notes that the node could not serve a command. The second time the client
// looks for another node.
func (l *link) unserved() {
	now := time.Since(l.since)
	last := time.Duration(l.refused.Load())
	if last != 0 && now-last < unservedSame {
		return
	}
	l.refused.Store(int64(now))
	if last == 0 || now-last > unservedWindow || now < unservedStay || len(l.client.endpoints.others(l.endpoint)) == 0 {
		return
	}
	l.away.Do(func() {
		l.client.cfg.Logger.Info("node can't serve; looking for another", "endpoint", l.endpoint)
		l.leaveBy.Store(unservedLeave.Milliseconds())
		close(l.goaway)
	})
}

// detach takes an ended link from under the client. What it had not answered
// goes back to the head of the queue, except calls that were meant for it only.
func (c *Client) detach(l *link, err error) {
	c.mu.Lock()
	var lost, again []*call
	for _, p := range l.pending {
		switch {
		case p.abandoned:
		case p.only == l || c.err != nil:
			lost = append(lost, p)
		default:
			again = append(again, p)
		}
	}
	l.pending = nil
	slices.SortFunc(again, func(a, b *call) int { return int(a.id) - int(b.id) })
	c.queue = append(again, c.queue...)
	if c.link == l {
		c.link = nil
		c.signal()
	}
	c.wakeLink()
	reason := errLinkLost
	if c.err != nil {
		reason = c.err
	}
	c.mu.Unlock()
	for _, p := range lost {
		p.finish(message{}, reason)
	}
	if !errors.Is(err, context.Canceled) {
		c.cfg.Logger.Info("connection ended", "endpoint", l.endpoint, "resend", len(again), "error", err)
	}
}

// sameNode reports whether both links lead to one node, which may be known
// under several endpoints.
func (l *link) sameNode(o *link) bool {
	return l.hello.Region == o.hello.Region && l.hello.Node == o.hello.Node
}
