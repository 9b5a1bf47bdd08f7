package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// crowd is an open-loop load whose clients outlive their connections. When a node
// ends, or says that it is about to, its clients go to another one and send again,
// under the same keys, what it has not answered. All but during and call belongs to
// the goroutine that runs during.
type crowd struct {
	gen       *generator
	endpoints []string
	each      int // endpoints of a region: a client stays in its own, which alone knows its keys
	members   []*member
	accounts  []*account
	rate      float64 // commands per second; 0: none
	step      func()  // before each turn
	patient   bool    // nodes may fail: an error that asks to try again is no fault
	alone     bool    // no other region may have the stock that one lacks, and nobody else takes any
	phase     string  // what is going on, to be told with a fault

	began   int64 // ns: when rate was set
	offered int64 // since
	again   []retry
	outage  *outage // the one that nobody has seen the end of

	acked, refused int64
	falselyRefused int64 // those of refused for which other regions may have had stock
	wronglyRefused int64 // those for which there was stock, if nobody else can have it
	failed         int64 // commands that got an error they should not have
	retried        int64 // errors that a patient crowd has put up with
	resent         int64 // sends after a connection was lost
	broken         int64 // connections that ended without the node saying so
	moves          int64
	ages           latencies
	late           latencies // how much later than due we were ourselves
	lastAck, gap   int64     // gap: the longest time without a success
	faults         []string  // the first few

	journal   *journal                   // of each send and answer; nil: nobody keeps one
	onAck     func(m *member, age int64) // nil: nobody wants to know
	onRefusal func(m *member, lacksRights bool)

	ctx      context.Context // of the dials
	cancel   context.CancelFunc
	dials    sync.WaitGroup
	landings chan landing
	calls    chan func()
}

// retry is an errand that a node asked to send again.
type retry struct {
	member *member
	errand int
	number uint64
	at     int64
}

// landing is a new connection of a member.
type landing struct {
	member *member
	node   int
	dialed *dialed
}

// outage begins with the end of a node and is over when a client of another one of
// its region gets a command answered with success that was not even due before.
type outage struct {
	node   int
	killed int64 // ns: just before
	dead   int64 // ns: just after; nothing is decided there from here on
	over   chan time.Duration
}

func newCrowd(gen *generator, endpoints []string) *crowd {
	c := &crowd{gen: gen, endpoints: endpoints, each: len(endpoints), step: func() {}, ages: gen.newLatencies("commands"), late: newLatencies(), calls: make(chan func())}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// open connects the members, spread over the nodes.
func (c *crowd) open(ctx context.Context, t *target, count int, make1 func(i, errands int) *member) error {
	c.landings = make(chan landing, count) // a member makes one connection at a time
	return dialAll(ctx, t, count, func(i int, d *dialed) error {
		m := make1(i, slotsFor(d.hello, protocol.InFlightMax))
		c.members = append(c.members, m)
		return c.take(landing{m, i % len(c.endpoints), d})
	})
}

func (c *crowd) take(l landing) error {
	cn, err := c.gen.add(l.dialed, l.member)
	if err == nil {
		l.member.land(l.node, cn)
	}
	return err
}

const redialPause = 20 * time.Millisecond

// dial finds a node for a member that leaves its own, on a goroutine.
func (c *crowd) dial(m *member) {
	from := m.at
	c.dials.Go(func() {
		if node, d := c.find(from, m.number); d != nil {
			c.landings <- landing{m, node, d}
		}
	})
}

// find connects to a node for the client of this number that leaves another one of the
// same region. It goes on until it has, or until the crowd is closed: then d is nil.
func (c *crowd) find(from, number int) (node int, d *dialed) {
	n := c.each
	region := from - from%n // its first node
	for try := 0; c.ctx.Err() == nil; try++ {
		node := region + elsewhere(from-region, number, try, n)
		d, err := dial(c.ctx, c.endpoints[node])
		if err == nil {
			return node, d
		}
		if node == from { // all have been tried
			_ = pause(c.ctx, redialPause) // the loop looks at ctx
		}
	}
	return 0, nil
}

// elsewhere is the node that a member tries next: all others first, and those who
// leave the same node spread over them.
func elsewhere(from, number, try, n int) int {
	k := try % n
	if k == n-1 {
		return from
	}
	return (from + 1 + (number+k)%(n-1)) % n
}

// set begins to offer commands at a rate.
func (c *crowd) set(perSecond float64) {
	c.gen.tick()
	c.rate, c.began, c.offered = perSecond, c.gen.now, 0
}

// turn sends what is due and deals with what was said.
func (c *crowd) turn(ctx context.Context) error {
	c.step()
	c.gen.tick()
	c.offer()
	c.retryDue()
	if err := c.landAll(); err != nil {
		return err
	}
	for _, m := range c.members {
		if m.conn == nil {
			continue
		}
		if err := m.conn.flush(); err != nil {
			c.gen.broken(m.conn, err)
		}
	}
	return errors.Join(ctx.Err(), c.gen.turn(pace))
}

// offer hands what is due by now to the members in turn.
func (c *crowd) offer() {
	for end := int64(float64(c.gen.now-c.began) / 1e9 * c.rate); c.offered < end; c.offered++ {
		due := c.began + int64(float64(c.offered)/c.rate*1e9)
		c.late.add(c.gen.now-due, 1)
		c.members[c.offered%int64(len(c.members))].offer(due)
	}
}

const retryPauseMin = 10 * time.Millisecond

func (c *crowd) later(m *member, i int, e *protocol.Error) {
	wait := max(time.Duration(e.RetryAfterMS)*time.Millisecond, retryPauseMin)
	c.again = append(c.again, retry{m, i, m.errands[i].number, c.gen.now + int64(wait)})
}

func (c *crowd) retryDue() {
	left := c.again[:0]
	for _, r := range c.again {
		e := &r.member.errands[r.errand]
		switch {
		case e.number != r.number || e.on != nil: // a new connection has taken it along
		case r.at > c.gen.now:
			left = append(left, r)
		default:
			r.member.send(r.errand)
		}
	}
	c.again = left
}

func (c *crowd) landAll() error {
	for {
		select {
		case l := <-c.landings:
			c.moves++
			if err := c.take(l); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// refuse takes a refusal for lack of stock.
func (c *crowd) refuse(m *member, e *protocol.Error) {
	c.refused++
	lacks := lacksRights(e)
	if lacks {
		c.falselyRefused++
	}
	if c.onRefusal != nil {
		c.onRefusal(m, lacks)
	}
}

// count takes a success.
func (c *crowd) count(m *member, e *errand) {
	now := c.gen.now
	c.acked++
	c.ages.add(now-e.due, 1)
	if c.onAck != nil {
		c.onAck(m, now-e.due)
	}
	if c.lastAck > 0 {
		c.gap = max(c.gap, now-c.lastAck)
	}
	c.lastAck = now
	if o := c.outage; o != nil && e.due >= o.dead && e.node != o.node && e.node/c.each == o.node/c.each {
		o.over <- time.Duration(now - o.killed)
		c.outage = nil
	}
}

func (c *crowd) fault(format string, args ...any) {
	if len(c.faults) < faultsMax {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

// during keeps the crowd going until fn, on a goroutine of its own, returns.
func (c *crowd) during(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	for {
		select {
		case err := <-done:
			cancel()
			return err
		case do := <-c.calls:
			do()
		default:
			if err := c.turn(ctx); err != nil {
				cancel()
				return errors.Join(err, <-done)
			}
		}
	}
}

// call has the crowd's goroutine run do; for the fn of during.
func (c *crowd) call(ctx context.Context, do func()) error {
	ran := make(chan struct{})
	select {
	case c.calls <- func() { do(); close(ran) }:
		<-ran
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain offers nothing more, waits for the answers that are still due and says how
// many never came.
func (c *crowd) drain(ctx context.Context) (missing int64, err error) {
	c.set(0)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && c.waiting() > 0; {
		if err := c.turn(ctx); err != nil {
			return c.waiting(), err
		}
	}
	return c.waiting(), nil
}

func (c *crowd) waiting() (sum int64) {
	for _, m := range c.members {
		sum += m.waiting()
	}
	return sum
}

// close ends the dials under way. The connections are the generator's to close.
func (c *crowd) close() {
	c.cancel()
	c.dials.Wait()
	for {
		select {
		case l := <-c.landings:
			l.dialed.Close()
		default:
			return
		}
	}
}
