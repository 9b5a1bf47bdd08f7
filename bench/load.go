package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// load sends one command over and over on many connections and accounts for
// every answer.
type load struct {
	gen     *generator
	clients []*client

	closed bool // each answer is followed by the next command
	ages   latencies
	late   latencies // open loop: how much later than due we were ourselves

	sent, acked, refused int64
	falselyRefused       int64    // for lack of stock that other regions may have: not among refused
	faults               []string // the first few answers that must not be

	onAck func(c *client, number uint64, message []byte) // nil: nobody wants to know
}

// client is one connection of a load. A command's number names its slot: number
// modulo slots.
type client struct {
	load     *load
	conn     *conn
	template *template
	slots    []slot
	free     []int
	next     uint64  // number of slot 0's next command
	backlog  []int64 // open loop: when commands were due that found no slot
}

// slot is a command that waits for its answer.
type slot struct {
	number uint64 // 0: free
	due    int64  // ns: when it was, or should have been, sent
}

const faultsMax = 5

func newLoad(gen *generator) *load {
	return &load{gen: gen, ages: gen.newLatencies("commands"), late: newLatencies()}
}

// add gives the load a connection; command is what it sends, its number in the
// place of each '#' and that of one of so many items in the place of each '~'.
func (l *load) add(d *dialed, slots int, command string, items int) error {
	c := &client{load: l, slots: make([]slot, slots), next: numberMin}
	var err error
	if c.conn, err = l.gen.add(d, c); err != nil {
		return err
	}
	c.next += uint64(slots) - numberMin%uint64(slots) // a multiple of slots
	c.template = newTemplate(c.conn.mask, command)
	c.template.items = uint64(items)
	for i := range slots {
		c.free = append(c.free, i)
	}
	l.clients = append(l.clients, c)
	return nil
}

func (l *load) conn(i int) *conn { return l.clients[i].conn }

// send puts one command on its way.
func (c *client) send(to *conn, due int64) {
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	number := c.next + uint64(i)
	c.next += uint64(len(c.slots))
	c.slots[i] = slot{number, due}
	to.out = c.template.append(to.out, number)
	c.load.sent++
}

// due sends a command that should go out now, or remembers it.
func (c *client) due(to *conn, at int64) {
	if len(c.free) == 0 {
		c.backlog = append(c.backlog, at)
		return
	}
	c.send(to, at)
}

// received implements receiver.
func (c *client) received(from *conn, message []byte) {
	id, result := scanReply(message)
	if result == push {
		return
	}
	i := int(id % uint64(len(c.slots)))
	s := &c.slots[i]
	if result == malformed || s.number != id || id == 0 {
		c.load.fault("an answer to nothing that was asked", message)
		return
	}
	c.load.count(result, s.due, message)
	if result == acked && c.load.onAck != nil {
		c.load.onAck(c, id, message)
	}
	s.number = 0
	c.free = append(c.free, i)
	c.follow(from)
}

// follow sends what the free slot was waited for.
func (c *client) follow(to *conn) {
	if c.load.closed {
		c.send(to, c.load.gen.now)
		return
	}
	if len(c.backlog) > 0 {
		c.send(to, c.backlog[0])
		c.backlog = c.backlog[1:]
	}
}

func (l *load) count(result outcome, due int64, message []byte) {
	if result == refused {
		if lacksRights(readError(message)) {
			l.falselyRefused++
			return
		}
		l.refused++
		l.fault("refused", message)
		return
	}
	l.acked++
	l.ages.add(l.gen.now-due, 1)
}

func (l *load) fault(what string, message []byte) {
	if len(l.faults) < faultsMax {
		l.faults = append(l.faults, fmt.Sprintf("%s: %.300s", what, message))
	}
}

// saturate fills every connection's depth and from then on sends a command for
// each answer, until length is over.
func (l *load) saturate(ctx context.Context, depth int, length time.Duration, each func()) error {
	l.closed = true
	l.gen.tick()
	for i, c := range l.clients {
		for range depth - (len(c.slots) - len(c.free)) {
			c.send(l.conn(i), l.gen.now)
		}
		if err := l.conn(i).flush(); err != nil {
			return err
		}
	}
	return l.run(ctx, length, time.Millisecond, func() error { each(); return nil })
}

const (
	pace  = time.Millisecond
	turns = 8 // a connection has its turn every 8 ms, so that a write carries several commands
)

// offer sends at a fixed rate whether answers come or not. Ages count from the
// moment a command was due, so a node that stalls can't hide what piles up.
func (l *load) offer(ctx context.Context, perSecond float64, length time.Duration, each func()) error {
	l.closed = false
	l.gen.tick()
	begin, turn, due := l.gen.now, 0, 0.0
	return l.run(ctx, length, pace, func() error {
		each()
		l.gen.tick()
		for ; begin+int64(turn)*int64(pace) <= l.gen.now; turn++ {
			at := begin + int64(turn)*int64(pace)
			due += perSecond * pace.Seconds()
			l.late.add(l.gen.now-at, 1)
			if err := l.offerTurn(turn, int(due), at); err != nil {
				return err
			}
			due -= float64(int(due))
		}
		return nil
	})
}

// offerTurn spreads n commands over the connections whose turn it is.
func (l *load) offerTurn(turn, n int, at int64) error {
	stride := min(turns, len(l.clients))
	first := turn % stride
	width := (len(l.clients) - first + stride - 1) / stride
	for k := range n {
		i := first + k%width*stride
		l.clients[i].due(l.conn(i), at)
	}
	for i := first; i < len(l.clients); i += stride {
		if err := l.conn(i).flush(); err != nil {
			return err
		}
	}
	return nil
}

// run turns until length is over; step comes before each turn.
func (l *load) run(ctx context.Context, length, wait time.Duration, step func() error) error {
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := errors.Join(ctx.Err(), step(), l.gen.turn(wait)); err != nil {
			return err
		}
	}
	return nil
}

const drainTimeout = 15 * time.Second

// drain waits for the answers that are still due and says how many never came.
func (l *load) drain(ctx context.Context) (missing int64, err error) {
	l.closed = false
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && l.waiting() > 0; {
		if err := errors.Join(ctx.Err(), l.gen.turn(10*time.Millisecond)); err != nil {
			return l.waiting(), err
		}
	}
	return l.waiting(), nil
}

// waiting counts commands without an answer, and those not even sent.
func (l *load) waiting() int64 {
	n := l.sent - l.acked - l.refused - l.falselyRefused
	for _, c := range l.clients {
		n += int64(len(c.backlog))
	}
	return n
}

// slotsFor is how many unanswered commands a connection may have: what the node
// says, if that is less than ours.
func slotsFor(h protocol.Hello, want int) int {
	if limit := h.Limits.InFlight; limit > 0 {
		return min(want, limit)
	}
	return want
}
