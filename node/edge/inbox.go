package edge

import (
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

// inbox is how other goroutines reach a loop.
type inbox struct {
	poller *poll.Poller
	start  time.Time // the edge's

	mu sync.Mutex
	mail
}

// mail is what has come in since the loop last looked. Changes are dealt with
// before answers: a round's changes are put in before its answers, so no client
// sees an item's version in an answer and later an older one pushed.
type mail struct {
	changes   []*protocol.Changes
	changedAt int64 // when the first of them came, microseconds since start
	answers   []*protocol.Call
	tasks     []func(*loop)
}

func (b *inbox) changed(ch *protocol.Changes) {
	at := time.Since(b.start).Microseconds()
	b.mu.Lock()
	if len(b.changes) == 0 {
		b.changedAt = max(1, at)
	}
	b.changes = append(b.changes, ch)
	b.mu.Unlock()
	b.wake()
}

// answered is the Done of every call that the loop submits.
func (b *inbox) answered(call *protocol.Call) {
	b.mu.Lock()
	b.answers = append(b.answers, call)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) do(task func(*loop)) {
	b.mu.Lock()
	b.tasks = append(b.tasks, task)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) wake() {
	// The only failure is a closed poller, whose loop has nobody left to serve.
	_ = b.poller.Wake()
}

// take swaps the mail for the caller's emptied one.
func (b *inbox) take(empty mail) mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	full := b.mail
	b.mail = empty
	return full
}

// reset empties the mail, keeping the memory.
func (m *mail) reset() mail {
	clear(m.changes)
	clear(m.answers)
	clear(m.tasks)
	return mail{changes: m.changes[:0], answers: m.answers[:0], tasks: m.tasks[:0]}
}
