package edge

import (
	"net/http"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// draining is how far a loop is with sending its clients elsewhere.
type draining struct {
	begun int64 // ms
	over  int64 // ms
	total int   // open connections when it began
	shut  int   // closed since
	done  func()
}

// drain tells every client, then closes them evenly over the given time.
func (l *loop) drain(over time.Duration, elsewhere []string, done func()) {
	l.drained = &draining{begun: l.now, over: over.Milliseconds(), done: done}
	away := protocol.Goaway{Op: "goaway", Reason: "drain", DeadlineMS: over.Milliseconds(), Endpoints: elsewhere}
	for _, c := range l.slots {
		if c == nil || c.state != stateOpen {
			continue
		}
		l.drained.total++
		l.say(c, func(b []byte) []byte { return c.codec.AppendMessage(b, &away) })
		l.mark(c)
	}
	l.drainSome()
}

// linger is how long a closed peer has to read what was last said, in ms: less where
// a node waits for it to stop.
func (l *loop) linger() int64 {
	if l.drained != nil {
		return lingerMS / 8
	}
	return lingerMS
}

// drainSome closes as many as should be closed by now, and those that came since.
func (l *loop) drainSome() {
	d := l.drained
	want := d.total
	if gone := l.now - d.begun; gone < d.over {
		want = int(int64(d.total) * gone / d.over)
	}
	left := 0
	for _, c := range l.slots {
		if c == nil {
			continue
		}
		left++
		switch {
		case c.state == stateOpen && d.shut < want:
			d.shut++
			l.close(c, protocol.CloseDrain, "the node is draining")
		case c.state.waits() && l.now-d.begun >= d.over:
			l.refuse(c, http.StatusServiceUnavailable, "the node is draining", 1)
		}
	}
	if left == 0 && d.done != nil {
		d.done()
		d.done = nil
	}
}
