package relay

import (
	"math"

	"github.com/stockmesh/stockmesh/protocol"
)

// Expire takes out the calls whose Due has come. Those of never were not sent to
// anybody: nothing happened. Those of maybe were, in this session or an earlier
// one, and may have taken effect, or may yet. It costs next to nothing while
// nothing is due.
func (s *Sender) Expire(now int64) (never, maybe []*protocol.Call) {
	if now < s.due {
		return nil, nil
	}
	maybe, more := s.expireFlight(now)
	if more {
		var late []*protocol.Call
		never, late = s.expireWaiting(now)
		maybe = append(maybe, late...)
	}
	for _, c := range maybe {
		s.forget(c)
	}
	return never, maybe
}

// overdue calls take with the place of each call that is due, up to the first
// that is not, whose time it notes. It reports whether there was none.
func (s *Sender) overdue(calls []*protocol.Call, now int64, take func(i int)) (more bool) {
	for i, c := range calls {
		if c == nil || c.Due == 0 {
			continue
		}
		if c.Due > now {
			s.due = c.Due
			return false
		}
		take(i)
	}
	s.due = math.MaxInt64
	return true
}

// expireFlight leaves holes: the owner answers by position.
func (s *Sender) expireFlight(now int64) (maybe []*protocol.Call, more bool) {
	for _, b := range s.flight {
		more = s.overdue(b.calls, now, func(i int) {
			maybe = append(maybe, b.calls[i])
			b.calls[i] = nil
			s.under--
		})
		if !more {
			return maybe, false
		}
	}
	return maybe, true
}

func (s *Sender) expireWaiting(now int64) (never, maybe []*protocol.Call) {
	live, sent, end := s.waiting.live(), s.again, 0
	s.overdue(live, now, func(i int) {
		if i < sent {
			maybe = append(maybe, live[i])
			s.again--
		} else {
			never = append(never, live[i])
		}
		live[i] = nil
		end = i + 1
	})
	s.waiting.squeeze(end)
	return never, maybe
}
