package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	// recheckEvery is how often it is looked whether those who stay still may.
	recheckEvery = time.Second
	// leaveTime is for the last write to somebody who may stay no longer.
	leaveTime = time.Second
)

// errTurnedOut is the cause with which a guest's request ends that may stay no longer.
var errTurnedOut = errors.New("the caller is no longer valid")

// guests are the requests that last: streams and long polls. Others end by themselves
// sooner than a caller must be gone.
//
// Lock order: guests.mu, then guest.mu.
type guests struct {
	guard Guard            // nil: nobody is ever turned out
	tick  <-chan time.Time // while there are guests; nil without a guard

	mu     sync.Mutex
	all    map[*guest]struct{}
	ticker *time.Ticker
}

func newGuests(g Guard) *guests {
	gs := &guests{guard: g, all: make(map[*guest]struct{})}
	if g != nil {
		gs.ticker = time.NewTicker(recheckEvery)
		gs.ticker.Stop()
		gs.tick = gs.ticker.C
	}
	return gs
}

func (gs *guests) join(g *guest) {
	if gs.guard == nil {
		return
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.all[g] = struct{}{}; len(gs.all) == 1 {
		gs.ticker.Reset(recheckEvery)
	}
}

// leave returns when nobody touches the guest's connection any more.
func (gs *guests) leave(g *guest) {
	if gs.guard == nil {
		return
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if delete(gs.all, g); len(gs.all) == 0 {
		gs.ticker.Stop()
	}
}

// recheck turns out those who may stay no longer.
func (gs *guests) recheck() {
	if gs.guard == nil {
		return
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for g := range gs.all {
		if !gs.guard.Valid(g.who) {
			g.turnOut()
		}
	}
}

// guest is one request that lasts.
type guest struct {
	who *protocol.Caller
	rc  *http.ResponseController
	end context.CancelCauseFunc

	mu  sync.Mutex
	out bool
}

func (g *guest) turnOut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out {
		return
	}
	g.out = true
	g.end(errTurnedOut)
	// A write to a reader that has stalled would outlast the caller's time.
	_ = g.rc.SetWriteDeadline(time.Now().Add(leaveTime))
}

// writeBy sets the time by which a write must be done, unless the guest's is up.
func (g *guest) writeBy(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.out {
		_ = g.rc.SetWriteDeadline(t)
	}
}

// stay lets a request last: it takes a connection and selectors of the caller's, and
// lifts the server's time limits. From then on the request's context ends when the
// caller is no longer valid. leave must be called.
func (a *API) stay(w http.ResponseWriter, r *request, selectors int) (g *guest, leave func(), err *protocol.Error) {
	if !r.account.Connect() {
		return nil, nil, protocol.RetryLater(protocol.CodeRateLimited, retrySoonMS, "no more connections for this subject now")
	}
	if !r.account.Subscribe(selectors) {
		r.account.Disconnect()
		return nil, nil, protocol.RetryLater(protocol.CodeRateLimited, retrySoonMS, "no more subscriptions for this subject now")
	}
	// Before anybody may turn the guest out: that sets a deadline which must stand.
	liftDeadlines(w)
	ctx, end := context.WithCancelCause(r.Context())
	r.Request = r.WithContext(ctx)
	g = &guest{who: r.who, rc: http.NewResponseController(w), end: end}
	a.guests.join(g)
	return g, func() {
		a.guests.leave(g)
		end(nil)
		r.account.Unsubscribe(selectors)
		r.account.Disconnect()
	}, nil
}

// turnedOut is the answer to one who may stay no longer, nil to others.
func (r *request) turnedOut(w http.ResponseWriter) *protocol.Error {
	if !errors.Is(context.Cause(r.Context()), errTurnedOut) {
		return nil
	}
	if r.ProtoMajor == 1 {
		// The guest's last deadline stays on the connection: it is not used again.
		w.Header().Set("Connection", "close")
	}
	return unauthorized("expired or revoked")
}
