package bus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// healthTries bounds how often the server is asked until it has looked at more than
// its listeners.
const healthTries = 20

// healthz asks the server how it is.
func (b *Bus) healthz(o server.HealthzOptions) *server.HealthStatus {
	return unhurried(func() *server.HealthStatus { return b.srv.Healthz(&o) })
}

// unhurried asks until the answer is about more than listeners. The server gives itself
// one millisecond to see that they are up; on a busy machine that is over before it has
// looked. They are up once start has returned, so there is nothing to wait for.
func unhurried(ask func() *server.HealthStatus) *server.HealthStatus {
	for try := 1; ; try++ {
		h := ask()
		if try == healthTries || !hurried(h) {
			return h
		}
	}
}

// hurried reports whether the server did not get as far as its streams.
func hurried(h *server.HealthStatus) bool {
	return strings.Contains(h.Error, "to be ready for connections") ||
		slices.ContainsFunc(h.Errors, func(e server.HealthzError) bool { return e.Type == server.HealthzErrorConn })
}

// health asks the server, which finds what it would not tell a publisher: after
// a write error a standalone stream does not answer at all.
func (b *Bus) health() error {
	if !b.srv.JetStreamEnabled() {
		return fmt.Errorf("bus: %w: JetStream is switched off", ErrBroken)
	}
	if b.Clustered() {
		return b.memberHealth()
	}
	h := b.healthz(server.HealthzOptions{})
	if h.Error == "" {
		return nil
	}
	return complaintOf(h.Error)
}

// complaintOf is what is wrong with a stored stream.
func complaintOf(says string) error {
	switch {
	case isNoSpace(says):
		return fmt.Errorf("%w: %w: %s", ErrBroken, ErrFull, says)
	case strings.Contains(says, "write error"):
		return fmt.Errorf("bus: %w: %s", ErrBroken, says)
	}
	return fmt.Errorf("bus: %s", says)
}

// memberHealth leaves out of the server's complaints what is not this server's
// fault, and what passes by itself.
func (b *Bus) memberHealth() error {
	h := b.healthz(server.HealthzOptions{Details: true})
	for _, e := range h.Errors {
		switch {
		case e.Type == server.HealthzErrorConsumer, catchesUp(e.Error):
		case awaitsLeader(e.Error):
			return fmt.Errorf("bus: %w: %s", ErrNoLeader, e.Error)
		default:
			return complaintOf(e.Error)
		}
	}
	return nil
}

// catchesUp tells the states of a stream which was just created, moved or restarted.
func catchesUp(complaint string) bool {
	return hasAny(complaint, "not current with the meta leader", "stream catching up", "group node unhealthy",
		"group node missing", "stream node missing", "stream not found", "monitor goroutine not running",
		"node skew detected")
}

func awaitsLeader(complaint string) bool {
	return hasAny(complaint, "not established contact with a meta leader", "recovering meta layer")
}
