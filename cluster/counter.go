package cluster

import (
	"hash/fnv"
	"sync/atomic"

	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// errNotOwner marks a call of another node that this one can't decide any more. It
// never reaches a client: the batch goes back and is sent to the next owner.
var errNotOwner = protocol.RetryLater(protocol.CodeUnavailable, 0, "not the owner")

// batch is commands of another node on their way through the owner's queue.
type batch struct {
	desk            *desk
	from            string
	session, number uint64
	calls           []*protocol.Call
	unread          bool // its calls can't be read
	left            atomic.Int32
	refused         atomic.Bool
}

// relayed takes a batch of another node.
func (d *desk) relayed(_ string, data []byte) {
	in, err := relay.DecodeBatch(data)
	if err != nil {
		d.logger.Error("commands of another node can't be read", "node", in.From, "error", err)
		if in.From == "" {
			return // nobody to answer
		}
	}
	b := &batch{desk: d, from: in.From, session: in.Session, number: in.Number, calls: in.Calls, unread: err != nil}
	b.left.Store(int32(len(in.Calls)))
	due := d.config.elapsed() + int64(d.config.Patience)
	sender := fnv.New64a()
	sender.Write([]byte(in.From))
	for _, c := range b.calls {
		if c.Session != 0 {
			c.Sender = sender.Sum64() ^ c.Session
		}
		// Its session is one of the other node's: here it would be somebody else.
		c.Relayed, c.Session, c.Due, c.Done = true, 0, due, b.done
		d.received(c)
	}
	left, verdict := d.admit(b)
	if verdict != relay.Done {
		d.refuseBatch(b, verdict)
	}
	for _, c := range left {
		c.Fail(d.errFull())
	}
}

// admit puts a batch into the owner's queue if this node decides and the batch is the
// next one of its node. It returns the calls that found no room. A batch that can't be
// read is taken as one whose calls are all refused: those that follow it are next then.
func (d *desk) admit(b *batch) (left []*protocol.Call, verdict relay.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.deciding || d.closed {
		return nil, relay.NotOwner
	}
	switch d.receiver.Accept(b.from, b.session, b.number) {
	case relay.Take:
		if b.unread {
			return nil, relay.Unreadable
		}
		return d.queue.put(b.calls...), relay.Done
	case relay.Gap:
		return nil, relay.Gap
	}
	return nil, relay.Done // a duplicate has been taken before
}

// done is called as each call of the batch is decided.
func (b *batch) done(c *protocol.Call) {
	if c.Err == errNotOwner {
		b.refused.Store(true)
	}
	b.tell(c)
	if b.left.Add(-1) > 0 {
		return
	}
	if b.refused.Load() {
		b.desk.refuseBatch(b, relay.NotOwner)
		return
	}
	d := b.desk
	d.reply(b.from, func(buf []byte) []byte {
		return relay.AppendAnswers(buf, d.config.Node, b.session, b.number, d.applied.Load(), b.calls)
	})
}

func (d *desk) refuseBatch(b *batch, verdict relay.Verdict) {
	owner, _ := d.ownerKnown()
	d.reply(b.from, func(buf []byte) []byte {
		return relay.AppendRefusal(buf, d.config.Node, b.session, b.number, verdict, owner)
	})
}

// reply sends an answer to a node. If it gets lost, the node asks again.
func (d *desk) reply(node string, appendTo func([]byte) []byte) {
	d.replyMu.Lock()
	defer d.replyMu.Unlock()
	d.replyBuf = appendTo(d.replyBuf[:0])
	if err := d.wire.Publish(d.subject("answers", node), d.replyBuf); err != nil {
		d.logger.Warn("answers could not be sent; the node will ask again", "node", node, "error", err)
	}
}
