package edge_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// tracer follows each third command and whatever says "yes".
type tracer struct {
	mu    sync.Mutex
	ended []string // id and code
}

func (*tracer) Gap() uint64 { return 2 }

func (*tracer) Begin(via, said string, drawn bool, read time.Time) *protocol.Trace {
	if via != "ws" || read.IsZero() || said != "yes" && !drawn {
		return nil
	}
	return new(protocol.Trace)
}

func (r *tracer) End(c *protocol.Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	code := "ok"
	if c.Err != nil {
		code = string(c.Err.Code)
	}
	r.ended = append(r.ended, string(c.Command.ID)+" "+code)
}

func TestFollowedCommands(t *testing.T) {
	r := &tracer{}
	f := start(t, func(c *edge.Config) { c.Tracer, c.Loops = r, 1 })
	p := f.dial()
	p.do(`{"op":"ping"}`)
	p.do(`{"op":"get","skus":["A"],"traceparent":"yes"}`)
	p.do(`{"op":"get","skus":["A"]}`) // the third
	p.do(`{"op":"sell"}`)
	p.do(`{"op":"get","skus":["A"],"traceparent":"no"}`)
	p.do(`{"op":"nonsense"}`) // the sixth
	p.do(`{"op":"subscribe","skus":["A"],"traceparent":"yes"}`)
	p.do(`{"op":"ping"}`) // what went before it is over
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff([]string{"2 ok", "3 ok", "6 bad_request", "7 ok"}, r.ended); diff != "" {
		t.Error(diff)
	}
}

// What the node could not do is counted, what a command got wrong is not.
func TestFailedCommands(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.CommandsPerConnection, c.CommandsBurst = 1, 2 })
	p := f.dial()
	p.do(`{"op":"nonsense"}`)
	p.do(`{"op":"ping"}`)
	limited := 0.0
	for range 3 {
		if m := p.do(`{"op":"ping"}`); m.Error != nil {
			limited++
		}
	}
	want := map[string]float64{"rate_limited": limited, "unavailable": 0, "overloaded": 0, "region_unreachable": 0}
	if diff := cmp.Diff(want, f.metrics("stockmesh_commands_failed_total")); diff != "" || limited == 0 {
		t.Errorf("%v were refused: %s", limited, diff)
	}
}
