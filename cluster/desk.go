package cluster

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// messenger carries messages between the nodes of a region: at most once, in the
// order of each sender.
type messenger interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, fn func(subject string, data []byte)) (stop func(), err error)
}

// desk takes a shard's commands on one node and sees to it that each is answered:
// by the owner on this node, or by the owner on another, whoever that may be in the
// end. A command whose owner is lost is sent to the next one (its key makes that
// safe), until it is due.
//
// Lock order: mu, then the queue's.
type desk struct {
	config *Config
	shard  int
	wire   messenger // nil where the node is alone
	queue  *queue    // of the owner on this node
	read   func(*protocol.Call)
	// showFirst calls done once this node shows what an answer speaks of; nil where it
	// always does.
	showFirst func(call *protocol.Call, done func())
	kick      chan struct{} // holds a token while there may be something to send
	logger    *slog.Logger

	applied atomic.Uint64 // log sequence that this node's replica shows

	mu       sync.Mutex
	closed   bool
	deciding bool // the owner is this node
	sender   *relay.Sender
	receiver *relay.Receiver
	owner    string // the node that decides, as far as known
	epoch    uint64 // of owner
	heard    int64  // when the owner last gave a sign of life
	head     uint64 // highest log sequence heard of
	doubt    int64  // a call that is due by then may have been sent, or in a round of unknown fate, before
	looked   int64  // when send last ran
	mercy    int64  // until then nothing is overdue: this process stood still
	held     []relay.Delivery
	heldAt   []int64
	heldLen  int

	replyMu  sync.Mutex
	replyBuf []byte
}

// Times of a desk.
const (
	deskTick    = 25 * time.Millisecond
	resendAfter = 700 * time.Millisecond // without an answer of the owner
	stoodStill  = 500 * time.Millisecond // between two ticks
)

func newDesk(c *Config, shard int, wire messenger, q *queue, read func(*protocol.Call)) *desk {
	return &desk{
		config: c, shard: shard, wire: wire, queue: q, read: read, logger: c.Logger,
		kick:   make(chan struct{}, 1),
		sender: relay.NewSender(c.Node, uint64(time.Now().UnixNano()), relay.Options{}),
		// A node that just started has heard nobody yet; that is no reason to refuse.
		receiver: relay.NewReceiver(), heard: c.elapsed(),
	}
}

func (d *desk) subject(what, node string) string {
	s := "shard." + strconv.Itoa(d.shard) + "." + what
	if node != "" {
		s += "." + node
	}
	return s
}

// put takes calls; each is answered by its Due.
func (d *desk) put(calls ...*protocol.Call) {
	left, why := d.accept(calls)
	for _, c := range left {
		switch why {
		case refusedStopping:
			c.Fail(errStopping())
		case refusedNoOwner:
			c.Fail(errNoOwner())
		default:
			c.Fail(d.errFull())
		}
	}
}

// Why calls were not accepted.
const (
	refusedFull = iota
	refusedStopping
	refusedNoOwner
)

func (d *desk) accept(calls []*protocol.Call) (left []*protocol.Call, why int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return calls, refusedStopping
	case d.deciding:
		return d.queue.put(calls...), refusedFull
	case d.config.elapsed()-d.heard > int64(d.config.Patience):
		return calls, refusedNoOwner
	}
	room := max(0, d.config.QueueMax-d.sender.Len()-d.heldLen)
	n := min(room, len(calls))
	d.sender.Add(calls[:n]...)
	d.signal()
	return calls[n:], refusedFull
}

func errStopping() *protocol.Error {
	return protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node is stopping")
}

func errNoOwner() *protocol.Error {
	return protocol.RetryLater(protocol.CodeUnavailable, 500, "no node decides at present: the region has no quorum")
}

func (d *desk) errFull() *protocol.Error {
	return protocol.RetryLater(protocol.CodeOverloaded, 100, "%d commands are waiting already", d.config.QueueMax)
}

func (d *desk) signal() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// len is how many calls are unanswered here.
func (d *desk) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.len() + d.sender.Len() + d.heldLen
}

// busy tells whether calls are unanswered here, or an owner has not ended yet.
func (d *desk) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deciding || d.queue.len()+d.sender.Len()+d.heldLen > 0
}

// close refuses further calls.
func (d *desk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.deciding {
		d.queue.close()
	}
}

// enter begins this node's term as the owner: what waits here is now its own.
func (d *desk) enter(epoch uint64) {
	d.mu.Lock()
	d.deciding, d.owner, d.epoch = true, d.config.Node, epoch
	d.receiver.Reset()
	left := d.queue.put(d.sender.TakeAll()...)
	d.mu.Unlock()
	for _, c := range left {
		c.Fail(unknownOutcome("the node is stopping, or has too much to do")) // it may have been sent before
	}
}

// leave ends the term. Calls that were taken and not answered, and those that still
// wait, go to the next owner; the ones of other nodes go back to their own desks.
func (d *desk) leave(left []*protocol.Call) {
	d.mu.Lock()
	d.deciding, d.owner = false, ""
	d.heard = d.config.elapsed() // of ourselves: the next owner has all its time
	// What waits may have been sent before the term, or be of its last round.
	d.doubt = d.config.elapsed() + int64(d.config.Patience)
	var relayed []*protocol.Call
	for _, calls := range [][]*protocol.Call{left, d.queue.take(nil)} {
		for _, c := range calls {
			forget(c)
			if c.Relayed {
				relayed = append(relayed, c)
			} else {
				d.sender.Add(c)
			}
		}
	}
	d.mu.Unlock()
	for _, c := range relayed {
		c.Fail(errNotOwner)
	}
}

// end is the end of the only owner there is.
func (d *desk) end(left []*protocol.Call, err error) {
	for _, c := range left {
		forget(c)
		c.Fail(unknownOutcome("not decided: %v", err))
	}
	d.abandon()
}

// follow takes a frame of an owner: who decides, and how far the log goes.
func (d *desk) follow(f *frame) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head = max(d.head, f.seq)
	if f.epoch < d.epoch || d.deciding {
		return // of an owner that was followed by another
	}
	d.heard = d.config.elapsed()
	if f.epoch > d.epoch || f.node != d.owner {
		d.epoch, d.owner = f.epoch, f.node
		d.sender.Restart()
		d.signal()
	}
}

// show is told that the replica shows the log up to seq: answers that waited for it
// are given.
func (d *desk) show(seq uint64) {
	for have := d.applied.Load(); have < seq && !d.applied.CompareAndSwap(have, seq); have = d.applied.Load() {
	}
	d.mu.Lock()
	if len(d.held) == 0 {
		d.mu.Unlock()
		return
	}
	var ready []relay.Delivery
	n := 0
	for n < len(d.held) && d.held[n].Seq <= seq {
		d.heldLen -= len(d.held[n].Calls)
		ready = append(ready, d.held[n])
		n++
	}
	d.held, d.heldAt = d.held[n:], d.heldAt[n:]
	d.mu.Unlock()
	for i := range ready {
		d.finish(ready[i].Calls)
	}
}

// finish hands answered calls back. A read that waited for commands is done here.
func (d *desk) finish(calls []*protocol.Call) {
	for _, c := range calls {
		switch {
		case c.Err == nil && isBarrier(c):
			d.read(c)
		case d.showFirst != nil:
			d.showFirst(c, func() { c.Done(c) })
		default:
			c.Done(c)
		}
	}
}

// answered takes an owner's answers. They are shown once the replica holds what they
// speak of, so that nobody is told of a state that this node can't show.
func (d *desk) answered(_ string, data []byte) {
	d.mu.Lock()
	delivery, err := d.sender.Answer(data, d.config.elapsed())
	if err != nil {
		d.mu.Unlock()
		d.logger.Error("answers of another node can't be read", "error", err)
		return
	}
	d.returned(&delivery)
	if delivery.Unread {
		d.doubtUnread(delivery.Calls)
	}
	switch {
	case delivery.NotOwner && d.owner == delivery.From:
		d.owner = "" // until one gives a sign of life; asking again at once would only be refused again
	case delivery.Restarted || len(delivery.Calls) > 0:
		d.signal() // there is room for another batch, or all go again
	}
	hold := len(delivery.Calls) > 0 && (delivery.Seq > d.applied.Load() || len(d.held) > 0)
	if hold {
		d.head = max(d.head, delivery.Seq)
		d.held, d.heldAt = append(d.held, delivery), append(d.heldAt, d.config.elapsed())
		d.heldLen += len(delivery.Calls)
	}
	d.mu.Unlock()
	if !hold {
		d.finish(delivery.Calls)
	} else if seq := d.applied.Load(); seq >= delivery.Seq {
		d.show(seq) // it came between the look and the entry
	}
}

// doubtUnread takes back that calls which the owner can't read are undone, where others
// may have done them before; mu is held.
func (d *desk) doubtUnread(calls []*protocol.Call) {
	for _, c := range calls {
		if d.doubt > 0 && c.Due <= d.doubt {
			c.Err.Details = &protocol.Details{Outcome: "unknown"}
		}
	}
}

// run sends what waits until ctx ends, then refuses what is left.
func (d *desk) run(ctx context.Context) {
	tick := time.NewTicker(deskTick)
	defer tick.Stop()
	for {
		select {
		case <-d.kick:
		case <-tick.C:
		case <-ctx.Done():
			d.abandon()
			return
		}
		d.gather()
		d.send()
	}
}

// gather lets callers that were just answered ask again before the next batch goes: one
// command by itself would cost the owner a round. With nobody else to run it returns at
// once.
func (d *desk) gather() {
	const yieldsMax = 8
	waiting := d.waiting()
	for range yieldsMax {
		runtime.Gosched()
		n := d.waiting()
		if n == waiting {
			return
		}
		waiting = n
	}
}

func (d *desk) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sender.Len()
}

// send publishes batches for the owner and answers what is due.
func (d *desk) send() {
	now := d.config.elapsed()
	d.mu.Lock()
	d.forgive(now)
	var never, maybe []*protocol.Call
	if now >= d.mercy {
		never, maybe = d.sender.Expire(now)
		maybe = append(maybe, d.overdueHeld(now)...)
	}
	if !d.deciding && d.owner != "" && d.owner != d.config.Node {
		if d.sender.Stalled(now, int64(resendAfter)) {
			d.sender.Restart()
		}
		d.publish(now)
	}
	doubt := d.doubt
	d.mu.Unlock()
	for _, c := range never {
		if c.Due <= doubt {
			c.Fail(unknownOutcome("no answer in time: the region has no quorum"))
		} else {
			c.Fail(errNoOwner())
		}
	}
	for _, c := range maybe {
		forget(c)
		c.Fail(unknownOutcome("no answer in time: the region has no quorum, or its owner can't be reached"))
	}
}

// forgive gives commands the time back for which the whole process stood still, as a
// stopped or starved one does: the others have gone on, and can still do them. mu is
// held.
func (d *desk) forgive(now int64) {
	if lost := now - d.looked; d.looked > 0 && lost > int64(stoodStill) {
		lost = min(lost, int64(d.config.Patience))
		d.mercy = now + lost
		d.heard += lost
	}
	d.looked = now
}

// publish sends as many batches as may be under way; mu is held.
func (d *desk) publish(now int64) {
	if d.config.Traced != nil {
		d.sender.Reads(d.config.reads(d.owner))
	}
	for {
		data, ok := d.sender.Next(now)
		if !ok {
			return
		}
		if err := d.wire.Publish(d.subject("commands", d.owner), data); err != nil {
			d.logger.Warn("commands could not be sent; they are sent again", "owner", d.owner, "error", err)
			return
		}
	}
}

// overdueHeld takes out answers that waited too long for the replica; mu is held.
func (d *desk) overdueHeld(now int64) (calls []*protocol.Call) {
	for len(d.held) > 0 && now-d.heldAt[0] > int64(d.config.Patience) {
		calls = append(calls, d.held[0].Calls...)
		d.heldLen -= len(d.held[0].Calls)
		d.held, d.heldAt = d.held[1:], d.heldAt[1:]
	}
	return calls
}

// abandon refuses everything that still waits, as the node stops.
func (d *desk) abandon() {
	d.mu.Lock()
	d.closed, d.deciding = true, false
	calls := d.sender.TakeAll()
	for i := range d.held {
		calls = append(calls, d.held[i].Calls...)
	}
	d.held, d.heldAt, d.heldLen = nil, nil, 0
	calls = append(calls, d.queue.take(nil)...)
	d.mu.Unlock()
	for _, c := range calls {
		forget(c)
		c.Fail(unknownOutcome("the node stopped before this was decided"))
	}
}

// author tells the session on this node that caused a change, 0 if none did.
func (d *desk) author(key string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if session, ok := d.sender.SessionOf(key); ok {
		return session
	}
	for i := range d.held {
		for _, c := range d.held[i].Calls {
			if c.Command.Key == key {
				return c.Session
			}
		}
	}
	return 0
}

// ownerKnown tells who decides and whether a sign of life is recent.
func (d *desk) ownerKnown() (node string, alive bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deciding {
		return d.config.Node, true
	}
	return d.owner, d.owner != "" && d.config.elapsed()-d.heard < int64(ownerSilence)
}

// ownerSilence is how long an owner may be silent before the shard counts as having
// none.
const ownerSilence = 2 * time.Second

// target is the highest log sequence that this node has heard of.
func (d *desk) target() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.head
}
