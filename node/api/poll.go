package api

import (
	"net/http"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// poll waits for one item's next change. It has the goroutine of its request, which a
// change wakes once: then it answers, unless its client has named that version too.
type poll struct {
	hub      *hub
	follower *follower // nil: changes don't matter, or not any more
	woken    chan struct{}
	timer    *time.Timer
	end      func() // gives back what stay took
}

// openPoll follows from now on, so that no change between reading and waiting is lost.
func (a *API) openPoll(w http.ResponseWriter, r *request, c *protocol.Command, wait time.Duration) (*poll, *protocol.Error) {
	if wait == 0 {
		return &poll{}, nil
	}
	end, err := a.stay(w, r)
	if err != nil {
		return nil, err
	}
	p := &poll{hub: a.hub, woken: make(chan struct{}, 1), timer: time.NewTimer(wait), end: end}
	p.follower = a.hub.follow(p, c.Selector(), r.who.Access)
	return p, nil
}

// wake implements owner.
func (p *poll) wake() { nudge(p.woken) }

// changed waits for a change; false when the client has waited long enough.
func (p *poll) changed(r *request) bool {
	if p.timer == nil {
		return false
	}
	woken := p.woken
	if p.follower == nil {
		woken = nil
	}
	select {
	case <-woken:
		p.hub.take(p.follower, nil)
		return true
	case <-p.timer.C:
	case <-p.hub.quit:
	case <-r.Context().Done():
	}
	return false
}

func (p *poll) unfollow() {
	if p.follower != nil {
		p.hub.leave(p.follower)
		p.follower = nil
	}
}

func (p *poll) leave() {
	if p.timer == nil {
		return
	}
	p.timer.Stop()
	p.unfollow()
	p.end()
}
