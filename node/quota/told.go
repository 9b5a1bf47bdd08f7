package quota

const (
	// tellBeats is how often a change is told, for a message may be lost.
	tellBeats = 3
	// refreshNS is how often what doesn't change is told again.
	refreshNS = int64(5e9)
)

// told is what the others were told of an account.
type told struct {
	figures
	at       int64
	left     int    // how many times the last change is still to be told
	loud     bool   // whether it mattered to somebody then
	arrivals uint64 // the newcomers that were there then
}

// due reports whether the others must be told what is used now, and how; matters is
// whether any node uses enough of it.
func (t *told) due(now int64, is figures, matters bool, arrivals uint64) bool {
	changed := is.used != t.used || is.demand != t.demand || is.connections != t.connections || is.subscriptions != t.subscriptions
	switch {
	case (matters || t.loud) && (changed || matters && !t.loud || arrivals != t.arrivals):
		// Also what ceased to matter is told a last time: the others go by it until then.
		t.left, t.loud, t.arrivals = tellBeats, matters, arrivals
	case matters && now-t.at >= refreshNS && !is.none():
		t.left = max(t.left, 1)
	}
	return t.left > 0
}

// done is called when they were.
func (t *told) done(now int64, is figures) {
	t.figures, t.at = is, now
	t.left--
}

// quiet reports whether nothing is left to be told, for the others know or have
// forgotten it.
func (t *told) quiet(now int64) bool { return t.left == 0 && (t.none() || now-t.at > figuresNS) }

// evicted is what was asked to be closed and may still be under way.
type evicted struct {
	until int64
	goal  int64 // of own connections, once it is done
}

// evictNS is how long closing may take before it is asked for again.
const evictNS = int64(2e9)

// evict returns how many connections are to be closed now. The surplus is the last
// node's by name, as far as it has some: all nodes with the same figures agree on that.
func (a *Account) evict(now int64, node string) int {
	all, first := a.others.sum(now, node)
	a.connections.others.Store(all.connections)
	a.subscriptions.others.Store(all.subscriptions)
	own := a.connections.own.Load()
	surplus := max(a.connections.surplus(first.connections), a.withSelectors(first.subscriptions))
	if now < a.evicted.until {
		surplus -= max(0, own-a.evicted.goal)
	}
	if surplus = min(surplus, own); surplus <= 0 {
		return 0
	}
	a.evicted = evicted{until: now + evictNS, goal: own - surplus}
	return int(surplus)
}

// surplus is how many are too many here, if first of the others' have precedence.
func (c *count) surplus(first int64) int64 {
	if c.limit == 0 {
		return 0
	}
	return max(0, c.own.Load()-max(0, c.limit-first))
}

// withSelectors is how many connections hold the surplus of selectors, by the average.
func (a *Account) withSelectors(first int64) int64 {
	own := a.subscriptions.own.Load()
	surplus := a.subscriptions.surplus(first)
	if surplus == 0 || own == 0 {
		return 0
	}
	return (surplus*a.connections.own.Load() + own - 1) / own
}
