package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// Entry is one command of a shop, from its first call to its last answer.
type Entry struct {
	Client  int
	Command protocol.Command
	Call    time.Duration // since the shop opened
	Return  time.Duration // of the answer that counts
	Reply   client.Reply  // where Err is nil
	Err     error         // a *protocol.Error where the command was refused for good
	Unknown bool          // never answered, and outcome does not tell either
	Behind  bool          // a get whose node was behind for longer than it waits

	// Home is the region that decides the command and knows its key.
	Home string
	// CutOff: its home could not be reached. It is not sent again: outcome tells.
	CutOff bool

	// Failures are answers a client should not have to see: the command was sent again.
	Failures []Failure

	// after is when the write began whose version the get asked for at least.
	after time.Duration
}

// Failure is an answer that tells a client to try again.
type Failure struct {
	At   time.Duration
	Node string // that answered, as far as known
	Err  error
}

func (e *Entry) applied() bool { return e.Err == nil && !e.Unknown }

// refused tells whether the answer is one that stock and rules ask for.
func refused(err error) bool {
	return errors.Is(err, &protocol.Error{Code: protocol.CodeInsufficientStock}) ||
		errors.Is(err, &protocol.Error{Code: protocol.CodeReservationEnded})
}

// customer is one client of a shop. It has one command under way at a time.
type customer struct {
	shop   *Shop
	n      int
	client *client.Client
	rng    *rand.Rand
	acked  atomic.Int64
	keys   int

	entries []*Entry
	newest  map[string]seen // by SKU: what its own writes were told
}

// seen is a version of an item and when the write was called that made it.
type seen struct {
	version string
	since   time.Duration
}

func newCustomer(s *Shop, n int) (*customer, error) {
	nodes := slices.Clone(s.region.nodes)
	first := n % len(nodes)
	nodes = append(nodes[first:], nodes[:first]...)
	c, err := s.region.dial(nodes, true)
	if err != nil {
		return nil, err
	}
	return &customer{
		shop: s, n: n, client: c, newest: make(map[string]seen),
		rng: rand.New(rand.NewPCG(s.load.seed, uint64(n))),
	}, nil
}

func (c *customer) run(ctx context.Context) {
	pause := time.NewTicker(c.shop.load.pause)
	defer pause.Stop()
	for ctx.Err() == nil {
		c.do(ctx, c.choose())
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// tillEvery is that every so many-th client sells nothing but ample items, where there
// are any. Others may wait for what another region has to say.
const tillEvery = 3

// choose makes up a command. Adjusts go both ways, so that stock is short at times
// and never runs out for good.
func (c *customer) choose() protocol.Command {
	if ample := c.shop.ample; len(ample) > 0 && c.n%tillEvery == 0 {
		line := protocol.Line{SKU: ample[c.rng.IntN(len(ample))], Quantity: 1}
		return protocol.Command{Op: protocol.OpSell, Lines: []protocol.Line{line}}
	}
	sku := c.sku()
	switch n := c.rng.IntN(100); {
	case n < 15:
		return protocol.Command{Op: protocol.OpAdjust, SKU: sku, Delta: int64(c.rng.IntN(40)) - 10 | 1}
	case n < 30:
		return protocol.Command{Op: protocol.OpSell, Lines: c.lines(sku)}
	case n < 40:
		return protocol.Command{Op: protocol.OpGet, SKUs: []string{sku}, AtLeast: c.newest[sku].version}
	case n < 80:
		if id, ok := c.shop.shelf.take(c.rng); ok {
			op := protocol.OpConfirm
			if c.rng.IntN(2) == 0 {
				op = protocol.OpRelease
			}
			return protocol.Command{Op: op, Reservation: id}
		}
	}
	cmd := protocol.Command{Op: protocol.OpReserve, Lines: c.lines(sku)}
	if c.shop.load.expiring && c.rng.IntN(5) == 0 {
		cmd.TTLMS = protocol.Ptr(int64(1000 + c.rng.IntN(1500)))
	}
	return cmd
}

// homeOf is the region that decides a command sent to this one.
func (r *Region) homeOf(cmd protocol.Command) string {
	if home, _, found := strings.Cut(cmd.Reservation, "."); found {
		return home
	}
	return r.Name
}

func (c *customer) sku() string { return c.shop.skus[c.rng.IntN(len(c.shop.skus))] }

func (c *customer) lines(sku string) []protocol.Line {
	lines := []protocol.Line{{SKU: sku, Quantity: int64(1 + c.rng.IntN(5))}}
	for c.shop.load.baskets && c.rng.IntN(3) == 0 {
		lines = append(lines, protocol.Line{SKU: c.sku(), Quantity: 1})
	}
	return lines
}

// do sends a command until it is answered for good, and notes all of it. When the shop
// closes, the answer is waited for a while longer.
func (c *customer) do(ctx context.Context, cmd protocol.Command) *Entry {
	if cmd.Op.IsWrite() {
		c.keys++
		cmd.Key = fmt.Sprintf("%s-%d-%d", c.shop.name, c.n, c.keys)
	}
	e := &Entry{Client: c.n, Command: cmd, Call: c.shop.now(), Home: c.shop.region.homeOf(cmd)}
	if cmd.Op == protocol.OpGet {
		e.after = c.newest[cmd.SKUs[0]].since
	}
	c.entries = append(c.entries, e)
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopWait, cancel) })()
	for c.try(late, e) {
	}
	e.Return = c.shop.now()
	c.learn(e)
	return e
}

// try sends the command once and reports whether to send it again.
func (c *customer) try(ctx context.Context, e *Entry) (again bool) {
	reply, err := c.client.Do(ctx, e.Command)
	e.Reply, e.Err = reply, err
	var wire *protocol.Error
	switch {
	case err == nil || refused(err):
		e.Behind = reply.Behind
		return false
	case ctx.Err() != nil || !errors.As(err, &wire):
		e.Unknown = true
		return false
	}
	if wire.Code == protocol.CodeRegionUnreachable {
		e.CutOff, e.Unknown = true, true
		return false
	}
	e.Failures = append(e.Failures, Failure{c.shop.now(), c.client.Hello().Node, err})
	if !wire.Retryable {
		return false
	}
	if !retryLater(ctx, wire) {
		e.Unknown = true
		return false
	}
	return true
}

// retryLater waits as long as the answer says, and reports whether ctx lasted.
func retryLater(ctx context.Context, err *protocol.Error) bool {
	wait := time.NewTimer(max(50*time.Millisecond, time.Duration(err.RetryAfterMS)*time.Millisecond))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// learn keeps what the answer is good for.
func (c *customer) learn(e *Entry) {
	if !e.applied() {
		return
	}
	if e.Command.Op.IsWrite() {
		c.acked.Add(1)
	}
	// Of the reservations that end soon only some are taken up, and that may be too late.
	if e.Command.Op == protocol.OpReserve && (e.Command.TTLMS == nil || c.rng.IntN(2) == 0) {
		c.shop.shelf.put(e.Reply.Reservation.ID)
	}
	if !e.Command.Op.IsWrite() {
		return
	}
	for _, it := range itemsOf(e) {
		c.newest[it.SKU] = seen{it.Version, e.Call}
	}
}

// itemsOf returns the items that an answer shows.
func itemsOf(e *Entry) []protocol.Item {
	if e.Reply.Item != nil {
		return []protocol.Item{*e.Reply.Item}
	}
	return e.Reply.Items
}

// resolve asks what became of commands that were never answered.
func (c *customer) resolve() {
	ctx, cancel := context.WithTimeout(context.Background(), convergeWait*Slow)
	defer cancel()
	for _, e := range c.entries {
		if !e.Unknown || !e.Command.Op.IsWrite() {
			continue
		}
		reply, err := c.outcome(ctx, e)
		if err != nil {
			continue // it stays unknown, and the account says so
		}
		e.Unknown = false
		e.Return = c.shop.now()
		if reply != nil {
			e.Reply, e.Err = *reply, nil
		} else {
			e.Err = errNeverApplied
		}
	}
}

// outcome asks until it is told: a busy machine is cut off for a moment even now.
func (c *customer) outcome(ctx context.Context, e *Entry) (*client.Reply, error) {
	for {
		reply, err := c.client.Outcome(ctx, e.Command.Key, e.Home)
		var wire *protocol.Error
		if err == nil || !errors.As(err, &wire) || !wire.Retryable || !retryLater(ctx, wire) {
			return reply, err
		}
	}
}

var errNeverApplied = errors.New("never applied, as outcome says")
