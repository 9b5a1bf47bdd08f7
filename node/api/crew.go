package api

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long a worker may take over a write before another takes its place.
	patience = 5 * time.Millisecond
	// stuckMax is how many workers may be stuck in writes. Readers that stall beyond
	// that are left at once: they resume when they come back.
	stuckMax = 4096
	// beatsApart is how many times in a heartbeat's interval it is looked who is due.
	beatsApart = 32
	// listens is in how many of those looks each stream is listened to once.
	listens = 4
	// sinceLook is how often it is looked whether this node has caught up.
	sinceLook = 20 * time.Millisecond
)

// crew serves the streams with a few goroutines, its workers. A stream to which
// something is due stands in a queue, at most once; whoever is free gives it one turn.
// A turn writes once, and a stream that has more to write goes to the end of the queue.
//
// Streams that have their snapshot yet to come stand in a queue of their own, as a page
// of it may be looked for through all items. At most half of the workers serve that one.
//
// A worker's write may block, because crypto/tls can't resume one that has timed out.
// One that blocks for longer than its patience counts as stuck: it is replaced, and
// when it returns there is one too many, which ends. So a stalled reader costs a
// goroutine, but only until the write's time is up, and keeps none from the others.
type crew struct {
	size      int // of workers that aren't stuck
	stuckMax  int
	heartbeat time.Duration
	beats     *time.Ticker // while streams are open
	looks     *time.Ticker // while some await what their readers have seen elsewhere

	workers sync.WaitGroup

	mu       sync.Mutex // the last to be taken
	ready    sync.Cond  // of mu; who signals takes one off idle
	changes  queue
	fills    queue
	open     map[*stream]struct{}
	awaiting map[*stream]struct{}
	opened   uint64 // streams so far
	looked   uint64 // beats so far
	idle     int
	free     int // workers that aren't stuck, idle ones included
	filling  int // those of them that serve fills
	stuck    int
	closed   bool
}

// queue is a list of streams, linked by themselves.
type queue struct{ first, last *stream }

func (q *queue) push(s *stream) {
	if q.first == nil {
		q.first = s
	} else {
		q.last.berth.next = s
	}
	q.last = s
}

func (q *queue) pop() *stream {
	s := q.first
	q.first, s.berth.next = s.berth.next, nil
	return s
}

func newCrew(heartbeat time.Duration) *crew {
	c := &crew{
		size:      2 * runtime.GOMAXPROCS(0),
		stuckMax:  stuckMax,
		heartbeat: heartbeat,
		beats:     stoppedTicker(),
		looks:     stoppedTicker(),
		open:      make(map[*stream]struct{}),
		awaiting:  make(map[*stream]struct{}),
	}
	c.ready.L = &c.mu
	return c
}

func stoppedTicker() *time.Ticker {
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

// place is where a stream stands with the crew.
type place uint8

const (
	placeOutside place = iota // not yet in, or out again
	placeIdle
	placeQueued
	placeTaken // by a worker
)

// berth is what the crew keeps of a stream, guarded by crew.mu.
type berth struct {
	place  place
	fills  bool // its snapshot is yet to come
	again  bool // put while taken
	beat   bool // a heartbeat is due
	beatAt time.Time
	number uint64 // in order of opening
	next   *stream
}

// join takes a stream in and gives it its first turn; false once the crew is closed.
func (c *crew) join(s *stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.opened++
	s.berth = berth{place: placeIdle, fills: true, number: c.opened, beatAt: time.Now().Add(c.heartbeat)}
	if c.open[s] = struct{}{}; len(c.open) == 1 {
		c.beats.Reset(max(time.Millisecond, c.heartbeat/beatsApart))
	}
	c.push(s)
	return true
}

// put gives a stream a turn. Outside it does nothing.
func (c *crew) put(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.push(s)
}

func (c *crew) push(s *stream) {
	switch s.berth.place {
	case placeTaken:
		s.berth.again = true
	case placeIdle:
		s.berth.place = placeQueued
		if s.berth.fills {
			c.fills.push(s)
		} else {
			c.changes.push(s)
		}
		c.staff()
	}
}

// pop takes a stream off one of the queues, nil if there is none to be served now. Who
// served one queue last looks into the other one first.
func (c *crew) pop(fillFirst bool) *stream {
	mayFill := c.fills.first != nil && c.filling < c.size/2
	switch {
	case mayFill && (fillFirst || c.changes.first == nil):
		c.filling++
		return c.fills.pop()
	case c.changes.first != nil:
		return c.changes.pop()
	}
	return nil
}

// staff finds somebody for what is in the queue.
func (c *crew) staff() {
	switch {
	case c.idle > 0:
		c.idle--
		c.ready.Signal()
	case c.free < c.size:
		c.free++
		w := &worker{crew: c}
		w.timer = time.AfterFunc(time.Hour, w.relieve)
		w.timer.Stop()
		c.workers.Go(w.run)
	}
}

// beat marks the streams whose heartbeat is due. It appends those whose turn it is to be
// listened to: whoever hangs up says so, long before a heartbeat can't be written.
func (c *crew) beat(now time.Time, listen []*stream) []*stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked++
	for s := range c.open {
		if (s.berth.number+c.looked)%listens == 0 {
			listen = append(listen, s)
		}
		if now.Before(s.berth.beatAt) {
			continue
		}
		// One that has been late isn't made up for.
		s.berth.beatAt, s.berth.beat = now.Add(c.heartbeat), true
		c.push(s)
	}
	return listen
}

// try has a heartbeat written at once: where nobody reads any more, that or the next one
// fails.
func (c *crew) try(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.berth.beat = true
	c.push(s)
}

// await has look ask about a stream.
func (c *crew) await(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awaiting[s] = struct{}{}; len(c.awaiting) == 1 {
		c.looks.Reset(sinceLook)
	}
}

// look gives those that await something, and are due, their turn.
func (c *crew) look(due func(*stream) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.awaiting {
		if due(s) {
			delete(c.awaiting, s)
			c.push(s)
		}
	}
	if len(c.awaiting) == 0 {
		c.looks.Stop()
	}
}

// newest returns the open streams of a subject, the newest first.
func (c *crew) newest(subject string) []*stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*stream
	for s := range c.open {
		if s.who.Subject == subject {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(x, y *stream) int { return cmp.Compare(y.berth.number, x.berth.number) })
	return found
}

// close ends all streams and returns when they have ended.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	all := slices.Collect(maps.Keys(c.open))
	c.mu.Unlock()
	for _, s := range all {
		s.end()
	}
	c.mu.Lock()
	c.idle = 0
	c.ready.Broadcast()
	c.mu.Unlock()
	c.workers.Wait()
}
