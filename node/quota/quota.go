package quota

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits are what one subject may use in the whole region. 0: no limit.
type Limits struct {
	Commands      int // a second
	Burst         int // commands at once, at one node; 0: a second's worth
	Connections   int
	Subscriptions int // selectors
}

// Config says what is limited and how nodes reach each other. Zero values mean the
// stated defaults.
type Config struct {
	Limits Limits
	// Node is this node's name in its region, at most 64 bytes.
	Node string
	// Send passes a message of at most 32 KiB to Heard of each other node of the
	// region, at most once. It must not wait for them. nil: the node is alone.
	Send func(message []byte)
	// Evict names connections that are too many, because two nodes let them in at the
	// same time: so many of the subject are to be closed, the newest first. It is
	// called on the goroutine of the beat, and again until they are gone. nil: they stay.
	Evict func(subject string, connections int)

	Now        func() time.Time // time.Now
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Limits.Burst <= 0 {
		c.Limits.Burst = c.Limits.Commands
	}
	if c.Send == nil {
		c.Send = func([]byte) {}
	}
	if c.Evict == nil {
		c.Evict = func(string, int) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// clock returns the time since now as nanoseconds, and now as the incarnation of
// this node: it is greater than that of an earlier process.
func (c *Config) clock() (now func() int64, incarnation uint64) {
	if c.Now == nil {
		start := time.Now()
		return func() int64 { return int64(time.Since(start)) }, uint64(start.UnixNano())
	}
	start := c.Now()
	return func() int64 { return int64(c.Now().Sub(start)) }, uint64(max(0, start.UnixNano()))
}

// Quota counts what subjects use. Its methods may be called by any goroutine.
type Quota struct {
	config Config
	table  *table

	close   sync.Once
	closing chan struct{}
	closed  chan struct{}
}

// New starts to count and to tell the others. Close ends it.
func New(config Config) *Quota {
	ticker := time.NewTicker(time.Duration(beatNS))
	return start(config, ticker.C, ticker.Stop)
}

// start takes the moments of the beat from ticks.
func start(config Config, ticks <-chan time.Time, stopTicks func()) *Quota {
	config = config.withDefaults()
	now, incarnation := config.clock()
	q := &Quota{config: config, closing: make(chan struct{}), closed: make(chan struct{})}
	q.table = newTable(config.Node, incarnation, config.Limits, now, newRefusals(config.Registerer))
	registerSubjects(config.Registerer, q.table)
	go func() {
		defer close(q.closed)
		defer stopTicks()
		q.run(ticks)
	}()
	return q
}

func (q *Quota) run(ticks <-chan time.Time) {
	q.beat() // the others learn at once that there is a newcomer, and tell it what they use
	full := false
	for {
		select {
		case <-q.closing:
			return
		case <-ticks:
			q.beat()
		}
		if was := full; q.table.isFull() != was {
			full = !was
			q.config.Logger.Warn("limits per subject: other nodes' subjects that this node can remember", "full", full, "subjects", subjectsMax)
		}
	}
}

func (q *Quota) beat() {
	messages, evictions := q.table.beat()
	for _, m := range messages {
		q.config.Send(m)
	}
	for _, e := range evictions {
		q.config.Evict(e.subject, e.connections)
	}
}

// Account returns a subject's account, which all who ask for it share. Each call is
// paired with one of Release. The subject "" is nobody's, and has no limits.
func (q *Quota) Account(subject string) *Account { return q.table.account(subject) }

// Heard takes a message that another node has sent. It keeps nothing of it, and passes
// over what it can't read.
func (q *Quota) Heard(message []byte) { q.table.heard(message) }

// Close ends the beat and tells the others that nothing is used here any more. Accounts
// go on, for this node alone.
func (q *Quota) Close() {
	q.close.Do(func() {
		close(q.closing)
		<-q.closed
		q.config.Send(q.table.end())
	})
}
