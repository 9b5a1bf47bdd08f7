package api

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// tracer notes what commands it is asked to follow have said, and what became of them.
type tracer struct {
	mu          sync.Mutex
	said, ended []string
}

func (*tracer) Drawn() bool { return false }

func (r *tracer) Begin(via, said string, drawn bool, read time.Time) *protocol.Trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, said)
	if via != "http" || drawn || said == "" || read.IsZero() {
		return nil
	}
	return new(protocol.Trace)
}

func (r *tracer) End(c *protocol.Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, string(c.Command.Op))
}

func TestFollowedRequests(t *testing.T) {
	r := &tracer{}
	var timed []string
	var failed []protocol.Code
	f := newFixture(t, func(c *Config) {
		c.Tracer = r
		c.Observe = func(op protocol.Op, took time.Duration) { timed = append(timed, string(op)) }
		c.Failed = func(code protocol.Code) { failed = append(failed, code) }
	})
	f.do("POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"1"}`, "Traceparent: head")
	f.do("POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"2","traceparent":"body"}`)
	f.do("POST", "/v1/adjustments", `{"sku":"A","delta":9,"key":"3"}`, "Traceparent: one", "Traceparent: two")
	f.do("GET", "/v1/stock/A", "", "Traceparent: read")
	f.do("POST", "/v1/batch", `[{"op":"get","skus":["A"],"traceparent":"own"},{"op":"sell","key":"4","lines":[{"sku":"A","quantity":1}]}]`, "Traceparent: all")
	f.do("GET", "/v1/mesh", "", "Traceparent: none")
	f.do("GET", "/v1/nothing", "", "Traceparent: none")
	f.do("POST", "/v1/batch", `[{"op":"auth","token":"t"}]`)
	if want := []protocol.Code{protocol.CodeNotFound, protocol.CodeBadRequest}; !slices.Equal(failed, want) {
		t.Errorf("failed: %v, want %v", failed, want)
	}
	if diff := cmp.Diff([]string{"head", "body", "", "read", "own", "all"}, r.said); diff != "" {
		t.Error(diff)
	}
	all := []string{"adjust", "adjust", "adjust", "get", "get", "sell"}
	if !slices.Equal(timed, all) {
		t.Errorf("timed: %v", timed)
	}
	slices.Sort(r.ended) // a batch's are answered in any order
	if want := slices.Delete(all, 2, 3); !slices.Equal(r.ended, want) {
		t.Errorf("ended: %v, want %v", r.ended, want)
	}
}
