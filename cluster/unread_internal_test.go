package cluster

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// carrier is a messenger that carries messages to one other desk, at once.
type carrier struct {
	to     *desk
	change func([]byte) []byte // on the way; nil: nothing
}

func (w *carrier) Publish(subject string, data []byte) error {
	data = bytes.Clone(data)
	if w.change != nil {
		data = w.change(data)
	}
	deliver := w.to.answered
	if strings.Contains(subject, ".commands.") {
		deliver = w.to.relayed
	}
	go deliver(subject, data) // a desk publishes with its lock held
	return nil
}

func (w *carrier) Subscribe(string, func(string, []byte)) (func(), error) { return func() {}, nil }

// later makes a batch one of a version that is not there yet.
func later(batch []byte) []byte {
	batch[0] = 0x1f
	return batch
}

// deskPair is a's desk, and that of b which decides and can't read what a sends.
func deskPair(t *testing.T) (a, b *desk, config *Config) {
	t.Helper()
	a, config = memberDesk(time.Minute)
	other := *config
	other.Node = "b"
	b = newDesk(&other, 0, &carrier{to: a}, newQueue(100), nil)
	a.wire = &carrier{to: b, change: later}
	return a, b, config
}

// What the owner can't read is refused at once, as something that was not done.
func TestUnreadCommandIsRefusedAtOnce(t *testing.T) {
	a, b, c := deskPair(t)
	b.enter(2)
	answered := make(chan *protocol.Call, 1)
	for range 3 { // what comes after one that can't be read is no less in order
		a.put(sale(c, answered))
		err := expire(t, a, answered).Err
		if err == nil || err.Code != protocol.CodeUnavailable || !err.Retryable || err.Details != nil || !strings.Contains(err.Message, "version") {
			t.Fatalf("got %+v", err)
		}
	}
	if n := b.queue.len(); n != 0 {
		t.Fatalf("%d calls are being decided", n)
	}
	if got := b.receiver.Accept("a", 1, 1); got != relay.Duplicate {
		t.Errorf("the sessions of a are not known: %d", got)
	}
}

// Where an owner before may have done it, it is not said to be undone.
func TestUnreadCommandMayHaveBeenDone(t *testing.T) {
	t.Run("by an owner before", func(t *testing.T) {
		a, b, c := deskPair(t)
		wire := a.wire
		a.wire = deaf{}
		answered := make(chan *protocol.Call, 1)
		a.put(sale(c, answered))
		a.send()
		a.wire = wire
		b.enter(2)
		a.follow(&frame{epoch: 2, node: "b", seq: 2})
		expectUnknown(t, a, answered)
	})
	t.Run("in a term of its own", func(t *testing.T) {
		a, b, c := deskPair(t)
		answered := make(chan *protocol.Call, 1)
		a.enter(2)
		a.put(sale(c, answered))
		a.leave(nil)
		b.enter(3)
		a.follow(&frame{epoch: 3, node: "b", seq: 3})
		expectUnknown(t, a, answered)
	})
}

func expectUnknown(t *testing.T, d *desk, answered <-chan *protocol.Call) {
	t.Helper()
	if err := expire(t, d, answered).Err; err == nil || err.Details == nil || err.Details.Outcome != "unknown" {
		t.Fatalf("got %+v", err)
	}
}

// Who does not decide says so, whatever it can read: the owner may be able to.
func TestUnreadCommandsOfAnotherShardsOwner(t *testing.T) {
	a, b, c := deskPair(t)
	answered := make(chan *protocol.Call, 1)
	a.put(sale(c, answered))
	a.send()
	eventually(t, "a looks for another owner", func() bool {
		owner, _ := a.ownerKnown()
		return owner == ""
	})
	if a.len() != 1 || len(answered) != 0 || b.queue.len() != 0 {
		t.Errorf("%d calls wait, %d are answered", a.len(), len(answered))
	}
}
