package api

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// flight is a set of calls on their way. Until a call's Done the ledger owns it,
// and that may be long after its client has gone: nothing of it is ever reused.
type flight struct {
	done  chan struct{} // closed when all are answered
	began time.Time
	api   *API

	mu      sync.Mutex
	answers []*protocol.Call // by Call.Tag, nil while not answered
	left    int
}

// flightSession marks the sessions of flights: no connection of the edge has one.
const flightSession = 1 << 63

// launch submits calls of r's, together and as one session, so that those on one item
// keep their order.
func (a *API) launch(r *request, calls []*protocol.Call) *flight {
	session := flightSession | a.flights.Add(1)
	f := &flight{
		done:    make(chan struct{}),
		answers: make([]*protocol.Call, len(calls)),
		left:    len(calls),
		began:   time.Now(),
		api:     a,
	}
	for i, c := range calls {
		a.follow(r, c, f.began)
		c.Subject, c.Address = r.who.Subject, r.address
		c.Session, c.Tag, c.Done, c.Ordered = session, uint64(i), f.land, i > 0
	}
	a.ledger.Submit(calls)
	return f
}

func (f *flight) land(c *protocol.Call) {
	if c.Trace != nil {
		f.api.cfg.Tracer.End(c) // also where nobody waits any more
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[c.Tag] = c
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// wait returns the answers in the order the calls were submitted in, nil for
// those that did not come before the client left or the limit passed.
func (f *flight) wait(ctx context.Context, limit time.Duration) []*protocol.Call {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	took := time.Since(f.began)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.answers {
		if c != nil {
			f.api.cfg.Observe(c.Command.Op, took)
		}
	}
	return slices.Clone(f.answers)
}

// ask submits one command if its sender may, and waits for what they may see of its
// answer.
func (a *API) ask(r *request, c protocol.Command) (*protocol.Call, *protocol.Error) {
	if err := a.permit(r, &c); err != nil {
		return nil, err
	}
	call := a.launch(r, []*protocol.Call{{Command: c}}).wait(r.Context(), a.cfg.AnswerTimeout)[0]
	if call == nil {
		return nil, unanswered(c.Op)
	}
	r.show(call)
	return call, call.Err
}

// unanswered is what a client is told about a call that is still on its way.
func unanswered(op protocol.Op) *protocol.Error {
	e := protocol.RetryLater(protocol.CodeUnavailable, retrySoonMS, "%s was not answered in time", op)
	if op.IsWrite() {
		e.Message += "; send it again with the same key, or ask for its outcome"
		e.Details = &protocol.Details{Outcome: "unknown"}
	}
	return e
}
