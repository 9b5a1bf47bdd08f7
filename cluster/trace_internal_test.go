package cluster

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// tracedPair is a's desk, and that of b which decides; each tells followed what it decided
// of the other's followed commands.
func tracedPair(t *testing.T, reads byte, followed chan<- *protocol.Call) (a, b *desk, config *Config) {
	t.Helper()
	a, config = memberDesk(time.Minute)
	config.Traced = func(c *protocol.Call) { followed <- c }
	config.reads = func(string) byte { return reads }
	other := *config
	other.Node = "b"
	b = newDesk(&other, 0, &carrier{to: a}, newQueue(100), nil)
	a.wire = &carrier{to: b}
	b.enter(2)
	return a, b, config
}

// handOver has a hand a followed command to b, which decides it at once, and as often as a
// asks: it asks again where the answer takes long. The last decision is returned.
func handOver(t *testing.T, a, b *desk, c *Config) (theirs, answered *protocol.Call) {
	t.Helper()
	done := make(chan *protocol.Call, 1)
	call := sale(c, done)
	call.Trace = &protocol.Trace{Handover: [8]byte{7}}
	a.put(call)
	eventually(t, "b answers", func() bool {
		a.send()
		for _, theirs = range b.queue.take(nil) {
			theirs.Done(theirs)
		}
		select {
		case answered = <-done:
			return true
		default:
			return false
		}
	})
	return theirs, answered
}

func TestHandedOverCommandIsFollowed(t *testing.T) {
	followed := make(chan *protocol.Call, 1000) // more than b can be asked to decide
	a, b, c := tracedPair(t, relay.BatchFormat, followed)
	theirs, answered := handOver(t, a, b, c)
	if tr := theirs.Trace; tr == nil || tr.Context.Span != [8]byte{7} || tr.Submitted.IsZero() {
		t.Errorf("the owner goes on as %+v", tr)
	}
	var told *protocol.Call
	for len(followed) > 0 {
		told = <-followed
	}
	if told != theirs {
		t.Errorf("the last told of is %+v, not %+v", told, theirs)
	}
	if tr := answered.Trace; tr.Returned.IsZero() || tr.Owner != "b" {
		t.Errorf("it came back as %+v", tr)
	}
}

// An older owner must get commands that it can read: it does them without a trace.
func TestOlderOwnerGetsNoTrace(t *testing.T) {
	a, b, c := tracedPair(t, relay.BatchFormat-1, nil)
	theirs, answered := handOver(t, a, b, c)
	if theirs.Trace != nil || answered.Err != nil || answered.Trace.Returned.IsZero() {
		t.Errorf("the owner has %+v, answered %+v", theirs.Trace, answered.Err)
	}
}

func TestOwnerThatSendsNoTraces(t *testing.T) {
	a, b, c := tracedPair(t, relay.BatchFormat, nil)
	b.config.Traced = nil
	if theirs, _ := handOver(t, a, b, c); theirs.Trace != nil {
		t.Errorf("it follows %+v", theirs.Trace)
	}
}

// What is refused without a round has a span of its wait all the same.
func TestShardIsNotedBeforeTheCommit(t *testing.T) {
	o, tr := &owner{replica: newReplica(ledger.NewState("eu", 2))}, new(protocol.Trace)
	o.decideOne(waitingCall{call: &protocol.Call{Trace: tr}})
	if tr.Shard != 2 || tr.Taken.IsZero() {
		t.Errorf("it was stamped %+v", tr)
	}
}

func TestOwnerStampsWhatItCommits(t *testing.T) {
	o, _ := startOwner(t, &faultyJournal{})
	ask(o, "k1")
	answered := make(chan struct{})
	call := &protocol.Call{
		Command: protocol.Command{Op: protocol.OpAdjust, Key: "k2", SKU: "A", Location: "main", Delta: 1},
		Trace:   new(protocol.Trace), Done: func(*protocol.Call) { close(answered) },
	}
	o.desk.put(call)
	<-answered
	tr := call.Trace
	if tr.Taken.IsZero() || tr.Committed.Before(tr.Taken) || tr.Commands != 1 || tr.Sequence != 3 {
		t.Errorf("it was stamped %+v", tr) // behind the epoch and k1
	}
}
