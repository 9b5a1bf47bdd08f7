package edge

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// limits are the rates of commands, and the buckets of who shares one.
type limits struct {
	connection rate
	addresses  *buckets[netip.Addr]
}

// newLimits returns nil where nothing is limited, which costs nothing then.
func newLimits(c *Config) *limits {
	l := &limits{
		connection: newRate(c.CommandsPerConnection, c.CommandsBurst),
		addresses:  newBuckets[netip.Addr](newRate(c.CommandsPerIP, c.CommandsBurst)),
	}
	if !l.connection.on() && !l.addresses.rate.on() {
		return nil
	}
	return l
}

// budget is what a connection may ask for. It is made with its first command, so
// that an idle connection has none.
type budget struct {
	own     bucket
	address *bucket
	until   int64 // of the generation in which address was found
}

// spend takes a command from all budgets of its connection or from none.
func (l *loop) spend(c *conn) *protocol.Error {
	if err := l.spendOwn(c); err != nil {
		return err
	}
	if c.who == nil || c.who.account == nil {
		return nil
	}
	if allowed, retryAfterMS := c.who.account.Spend(1); allowed == 0 {
		l.giveBack(c)
		return l.edge.rateLimited("user", retryAfterMS*int64(time.Millisecond))
	}
	return nil
}

// giveBack undoes spendOwn.
func (l *loop) giveBack(c *conn) {
	lim := l.edge.limits
	if lim == nil {
		return
	}
	if lim.connection.on() {
		lim.connection.giveBack(&c.own().budget.own, 1)
	}
	if lim.addresses.rate.on() {
		lim.addresses.rate.giveBack(c.own().budget.address, 1)
	}
}

// spendOwn takes a command from the budgets that are known without its caller.
func (l *loop) spendOwn(c *conn) *protocol.Error {
	lim := l.edge.limits
	if lim == nil {
		return nil
	}
	now := l.now * int64(time.Millisecond)
	own := c.own()
	if own.budget == nil {
		own.budget = &budget{}
	}
	b := own.budget
	if lim.connection.on() {
		if taken, wait := lim.connection.take(&b.own, now, 1); taken == 0 {
			return l.edge.rateLimited("connection", wait)
		}
	}
	if !lim.addresses.rate.on() {
		return nil
	}
	if !lim.addresses.current(b.until, now) {
		b.address, b.until = lim.addresses.find(addressKey(c.ip()), now)
	}
	if taken, wait := lim.addresses.rate.take(b.address, now, 1); taken == 0 {
		if lim.connection.on() {
			lim.connection.giveBack(&b.own, 1)
		}
		return l.edge.rateLimited("address", wait)
	}
	return nil
}

// rateLimited takes the wait in ns.
func (e *Edge) rateLimited(by string, wait int64) *protocol.Error {
	e.metrics.limited.WithLabelValues(by).Inc()
	ms := (wait + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	return &protocol.Error{
		Code: protocol.CodeRateLimited, Message: "too many commands from this " + by,
		Retryable: true, RetryAfterMS: max(1, ms),
	}
}

// Allow takes commands that come by HTTP from the budget of their client's address:
// as many as it holds, up to n. Where it holds fewer, the error says why and when to
// come again.
func (e *Edge) Allow(r *http.Request, n int) (allowed int, err *protocol.Error) {
	if e.limits == nil || !e.limits.addresses.rate.on() {
		return n, nil
	}
	t, now := e.limits.addresses, int64(time.Since(e.start))
	b, _ := t.find(addressKey(e.client(r)), now)
	allowed, wait := t.rate.take(b, now, n)
	if allowed < n {
		err = e.rateLimited("address", wait)
	}
	return allowed, err
}

// Address is where an HTTP request comes from, without port: what a trusted proxy says,
// else its peer.
func (e *Edge) Address(r *http.Request) string { return e.client(r).String() }

// client is the address that a request came from.
func (e *Edge) client(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // unknown ones share a budget
	ip := peer.Addr().Unmap()
	if !e.trusts(ip) {
		return ip
	}
	return forwardedFor(ip, strings.Join(r.Header.Values("X-Forwarded-For"), ","), e.trusts)
}

func newLimitedCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_commands_rate_limited_total", Help: "Commands refused with rate_limited, by whose budget was used up.",
	}, []string{"by"})
}
