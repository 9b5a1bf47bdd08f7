package quota

import "sync/atomic"

// Account is what one subject uses at this node. Its methods but Release take no lock
// and never wait.
type Account struct {
	table *table

	rate          rate
	bucket        bucket
	used, refused atomic.Uint64 // commands
	connections   count
	subscriptions count

	// What follows is guarded by the table's mu.
	subject string
	key     key
	place   int // in the table's list
	holders int
	others  others
	share   share
	told    told
	evicted evicted
}

// Spend takes up to n commands. retryAfterMS says when one more may be there, if it
// could not take all.
func (a *Account) Spend(n int) (allowed int, retryAfterMS int64) {
	if !a.rate.on() || n <= 0 {
		return max(n, 0), 0
	}
	allowed, wait := a.rate.take(&a.bucket, a.table.now(), n)
	if allowed > 0 {
		a.used.Add(uint64(allowed))
	}
	if allowed == n {
		return n, 0
	}
	a.refused.Add(uint64(n - allowed))
	a.table.refusals.commands.Add(float64(n - allowed))
	// How much a node may use is decided anew at each beat, so a long wait is a guess.
	return allowed, (min(wait, max(waitNSMax, a.rate.each)) + 1e6 - 1) / 1e6
}

// waitNSMax is the longest that a client is told to wait, if one command doesn't take
// longer.
const waitNSMax = 1e9

// Connect takes a connection; false: there is no room, and nothing was taken. Where it
// is only that another node's word of an ended connection is on its way, there is room
// within a second.
func (a *Account) Connect() bool {
	ok := a.connections.take(1)
	if !ok {
		a.table.refusals.connections.Inc()
	}
	return ok
}

// Disconnect gives a connection back.
func (a *Account) Disconnect() { a.connections.give(1) }

// Subscribe takes n selectors, all or none.
func (a *Account) Subscribe(n int) bool {
	ok := a.subscriptions.take(n)
	if !ok {
		a.table.refusals.subscriptions.Inc()
	}
	return ok
}

// Unsubscribe gives n selectors back.
func (a *Account) Unsubscribe(n int) { a.subscriptions.give(n) }

// Release says that the one who asked for the account doesn't use it any more.
func (a *Account) Release() { a.table.release(a) }

// count is how many of something are used, here and by the other nodes.
type count struct {
	limit  int64 // 0: none
	own    atomic.Int64
	others atomic.Int64
}

func (c *count) take(n int) bool {
	for n := int64(min(max(n, 0), countMax)); ; {
		own := c.own.Load()
		if c.limit > 0 && n > 0 && own+c.others.Load()+n > c.limit {
			return false
		}
		if c.own.CompareAndSwap(own, own+n) {
			return true
		}
	}
}

// give never goes below 0: whoever gives back twice must not gain by it.
func (c *count) give(n int) {
	for n := int64(max(n, 0)); ; {
		own := c.own.Load()
		if c.own.CompareAndSwap(own, max(0, own-n)) {
			return
		}
	}
}

func (c *count) over() bool { return c.limit > 0 && c.own.Load()+c.others.Load() > c.limit }
