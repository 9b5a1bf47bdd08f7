package main

import (
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// resends are commands that a node has asked to send again, under the same key: it has
// done nothing yet, or can't say.
type resends struct {
	gen   *generator
	later []resend
	count int64 // so far
}

type resend struct {
	at   int64 // ns
	send func() error
}

// add has send called when the node wants it.
func (r *resends) add(e *protocol.Error, send func() error) {
	wait := max(time.Duration(e.RetryAfterMS)*time.Millisecond, retryPauseMin)
	r.later = append(r.later, resend{r.gen.now + int64(wait), send})
	r.count++
}

// sendDue sends those whose time has come.
func (r *resends) sendDue() error {
	if len(r.later) == 0 {
		return nil
	}
	r.gen.tick()
	left := r.later[:0]
	for _, one := range r.later {
		if one.at > r.gen.now {
			left = append(left, one)
			continue
		}
		if err := one.send(); err != nil {
			return err
		}
	}
	r.later = left
	return nil
}
