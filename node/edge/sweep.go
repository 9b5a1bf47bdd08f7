package edge

import "time"

const (
	// sweepStripes: a sweep looks at one part of the connections, so that others don't
	// wait for it.
	sweepStripes = 8

	// restlessMS is how long after a change there may be cursors still to be told.
	restlessMS = 3000
)

// sweepInterval is the time between two stripes, so that a full round takes about
// a second, or a quarter of a heartbeat where that is shorter.
func (l *loop) sweepInterval() int64 {
	round := min(1000, l.config.Heartbeat.Milliseconds()/4, l.config.HandshakeTimeout.Milliseconds()/4, l.config.AuthTimeout.Milliseconds()/4)
	return max(1, round/sweepStripes)
}

// sweepBy is when a loop that has nothing to do must wake up for a sweep. While
// nothing happens, stripes wait for the last one of their round: waking up a process
// that sleeps costs as much as looking at thousands of connections (1.1 ms on a virtual
// machine, most of it in the runtime's monitor thread, which doesn't sleep at once).
func (l *loop) sweepBy() int64 {
	if l.restless() {
		return l.sweepAt
	}
	return l.sweepAt + (sweepStripes-1)*l.sweepInterval()
}

// restless reports whether somebody counts on every stripe coming in time.
func (l *loop) restless() bool {
	return l.drained != nil || len(l.hub.waiting) > 0 || l.stormy() || l.listener != nil && !l.listening ||
		l.now-l.hub.changedAt/1000 < restlessMS
}

// ping sends a heartbeat, without a buffer where nothing else waits: the connections
// of a storm are pinged at the same time.
func (l *loop) ping(c *conn) {
	c.pingAt = l.moment()
	if len(c.out) > 0 || c.blocked {
		c.out = appendFrame(l.outs.get(c.out), opPing, nil)
	} else if l.writeNow(c, l.pingFrame) {
		return
	}
	l.mark(c)
}

// firstPing is when a new session was pinged, so to speak: some time ago, so that
// those which came together are not pinged together for ever.
func (l *loop) firstPing(c *conn) moment {
	period := uint64(l.config.Heartbeat.Milliseconds())
	return l.moment() - moment(c.session*0x9e3779b97f4a7c15>>32%max(1, period)) // spread by the golden ratio
}

// sweepDue looks after the stripes whose time has come.
func (l *loop) sweepDue() {
	l.audits.tell(l)
	interval := l.sweepInterval()
	for range sweepStripes {
		l.sweep()
		if l.sweepAt += interval; l.now < l.sweepAt {
			break
		}
	}
	l.sweepAt = max(l.sweepAt, l.now) // a round that was missed is not made up for
	l.settle()
	if l.drained != nil {
		l.drainSome()
	}
	if lim := l.edge.limits; lim != nil {
		lim.addresses.tidy(l.now * int64(time.Millisecond))
	}
	if !l.listening && l.listener != nil && l.now >= l.relistenAt {
		l.listen(l.listener)
	}
}

// sweep looks after one stripe of the connections: deadlines, heartbeats and
// cursors.
func (l *loop) sweep() {
	l.stripe = (l.stripe + 1) % sweepStripes
	for slot := l.stripe; slot < len(l.slots); slot += sweepStripes {
		if c := l.slots[slot]; c != nil {
			l.look(c)
		}
	}
}
