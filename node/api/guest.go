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
// Lock order: guests.mu, then what a guest locks.
type guests struct {
	guard Guard            // nil: nobody is ever turned out
	tick  <-chan time.Time // while there are guests; nil without a guard

	mu     sync.Mutex
	all    map[guest]struct{}
	ticker *time.Ticker
}

func newGuests(g Guard) *guests {
	gs := &guests{guard: g, all: make(map[guest]struct{})}
	if g != nil {
		gs.ticker = time.NewTicker(recheckEvery)
		gs.ticker.Stop()
		gs.tick = gs.ticker.C
	}
	return gs
}

func (gs *guests) join(g guest) {
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
func (gs *guests) leave(g guest) {
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
		if !gs.guard.Valid(g.caller()) {
			g.turnOut()
		}
	}
}

// guest is one request that lasts.
type guest interface {
	caller() *protocol.Caller
	// turnOut ends it within leaveTime. It may be called again.
	turnOut()
}

// pollGuest is a long poll.
type pollGuest struct {
	who *protocol.Caller
	rc  *http.ResponseController
	end context.CancelCauseFunc

	mu  sync.Mutex
	out bool
}

func (g *pollGuest) caller() *protocol.Caller { return g.who }

func (g *pollGuest) turnOut() {
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

// occupy takes a connection and selectors of the account's.
func occupy(account Account, selectors int) *protocol.Error {
	if !account.Connect() {
		return protocol.RetryLater(protocol.CodeRateLimited, retrySoonMS, "no more connections for this subject now")
	}
	if !account.Subscribe(selectors) {
		account.Disconnect()
		return protocol.RetryLater(protocol.CodeRateLimited, retrySoonMS, "no more subscriptions for this subject now")
	}
	return nil
}

// vacate gives back what occupy took.
func vacate(account Account, selectors int) {
	account.Unsubscribe(selectors)
	account.Disconnect()
}

// stay lets a request last: it takes a connection and a selector of the caller's, and
// lifts the server's time limits. From then on the request's context ends when the
// caller is no longer valid. leave must be called.
func (a *API) stay(w http.ResponseWriter, r *request) (leave func(), err *protocol.Error) {
	if err := occupy(r.account, 1); err != nil {
		return nil, err
	}
	// Before anybody may turn the guest out: that sets a deadline which must stand.
	liftDeadlines(w)
	ctx, end := context.WithCancelCause(r.Context())
	r.Request = r.WithContext(ctx)
	g := &pollGuest{who: r.who, rc: http.NewResponseController(w), end: end}
	a.guests.join(g)
	return func() {
		a.guests.leave(g)
		end(nil)
		vacate(r.account, 1)
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
