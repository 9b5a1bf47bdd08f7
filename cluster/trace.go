package cluster

import (
	"time"

	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// A command that is followed has a Trace, into which each stage here writes its time. The
// others cost a look at a pointer. A Trace belongs to whoever has the call, so what is
// answered early, because it can't wait, is written to by nobody any more.

func submitted(c *protocol.Call) {
	if c.Trace != nil {
		c.Trace.Submitted = time.Now()
	}
}

// follow notes that a call was taken out of the queue. One that waits for rights comes
// here again. One that is refused never comes to stored, so its shard is noted here.
func (o *owner) follow(t *protocol.Trace) {
	o.followed = true
	t.Shard = o.replica.state.Shard()
	if t.Taken.IsZero() {
		t.Taken = time.Now()
	}
}

// stored notes that the round with the current calls is on disk.
func (o *owner) stored() {
	if !o.followed {
		return
	}
	now := time.Now()
	for _, c := range o.current {
		if t := c.Trace; t != nil {
			t.Committed, t.Sequence, t.Commands = now, o.last, len(o.current)
		}
	}
}

// returned notes that another node of the region has answered.
func (d *desk) returned(delivery *relay.Delivery) {
	if d.config.Traced != nil {
		returnedBy(delivery, "")
	}
}

// returnedBy notes who has answered; the region is named where it is another one.
func returnedBy(delivery *relay.Delivery, region string) {
	for _, c := range delivery.Calls {
		if t := c.Trace; t != nil {
			t.Returned, t.Owner, t.OwnerRegion = time.Now(), delivery.From, region
		}
	}
}

// received notes when another node's command came, if this one sends traces anywhere.
func (d *desk) received(c *protocol.Call) {
	if c.Trace == nil {
		return
	}
	if d.config.Traced == nil {
		c.Trace = nil
		return
	}
	now := time.Now()
	c.Trace.Received, c.Trace.Submitted = now, now
}

// tell hands over the trace of another node's command that was decided here.
func (b *batch) tell(c *protocol.Call) {
	if c.Trace != nil && c.Err != errNotOwner {
		b.desk.config.Traced(c)
	}
}

// reads tells the newest format of batches that a node of the region reads, 0 where it
// did not say: an older version.
func (r *region) reads(node string) byte {
	if formats := r.formats.Load(); formats != nil {
		return (*formats)[node]
	}
	return 0
}

// learnFormats looks at what the other nodes say.
func (r *region) learnFormats() {
	formats := make(map[string]byte)
	for _, m := range r.others() {
		formats[m.Name] = byte(min(m.Batches, 0xff))
	}
	r.formats.Store(&formats)
}
