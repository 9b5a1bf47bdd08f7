package client

import (
	"context"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// Option sets an optional field of a command. Options that a command doesn't
// have are ignored by the node.
type Option func(*protocol.Command)

// Key sets the idempotency key of a write: the same for every try of one
// intention, across processes too. Without it the client makes one.
func Key(key string) Option { return func(c *protocol.Command) { c.Key = key } }

// Home names the region a write was first sent to by an earlier process.
func Home(region string) Option { return func(c *protocol.Command) { c.Home = region } }

// Reason is kept in the movement.
func Reason(text string) Option { return func(c *protocol.Command) { c.Reason = text } }

// Reference is kept in the movement: an invoice or order number.
func Reference(text string) Option { return func(c *protocol.Command) { c.Reference = text } }

// IfVersion makes an adjust or count apply to this version of the item only;
// "" means that it must not exist yet.
func IfVersion(version string) Option {
	return func(c *protocol.Command) { c.IfVersion = &version }
}

// TTL is how long a new reservation holds; the node's default is ten minutes.
func TTL(d time.Duration) Option {
	return func(c *protocol.Command) { c.TTLMS = protocol.Ptr(d.Milliseconds()) }
}

// Traceparent says where the command belongs in its caller's trace, as W3C Trace Context
// writes it: 00-TRACE-SPAN-01.
func Traceparent(s string) Option { return func(c *protocol.Command) { c.Traceparent = s } }

// User is whom a reservation is for.
func User(user string) Option { return func(c *protocol.Command) { c.User = user } }

// Locations narrows a Get.
func Locations(locations ...string) Option {
	return func(c *protocol.Command) { c.Locations = locations }
}

// AtLeast makes a Get wait until the node has this version, up to a second.
func AtLeast(version string) Option { return func(c *protocol.Command) { c.AtLeast = version } }

// Region asks for another region's history.
func Region(region string) Option { return func(c *protocol.Command) { c.Region = region } }

// Limit bounds a History page.
func Limit(n int) Option { return func(c *protocol.Command) { c.Limit = n } }

// Before continues a History: the next value of the page before.
func Before(next string) Option { return func(c *protocol.Command) { c.Before = next } }

func (c *Client) send(ctx context.Context, cmd protocol.Command, opts []Option) (Reply, error) {
	for _, o := range opts {
		o(&cmd)
	}
	return c.Do(ctx, cmd)
}

func itemOf(r Reply, err error) (protocol.Item, error) {
	if err != nil || r.Item == nil {
		return protocol.Item{}, err
	}
	return *r.Item, nil
}

func reservationOf(r Reply, err error) (protocol.Reservation, error) {
	if err != nil || r.Reservation == nil {
		return protocol.Reservation{}, err
	}
	return *r.Reservation, nil
}

// Get reads the items of the SKUs at all locations or those of Locations. With
// AtLeast it may return items and ErrBehind.
func (c *Client) Get(ctx context.Context, skus []string, opts ...Option) ([]protocol.Item, error) {
	r, err := c.send(ctx, protocol.Command{Op: protocol.OpGet, SKUs: skus}, opts)
	if err == nil && r.Behind {
		err = ErrBehind
	}
	return r.Items, err
}

// Adjust changes the units on hand by delta. location "" is the default one.
func (c *Client) Adjust(ctx context.Context, sku, location string, delta int64, opts ...Option) (protocol.Item, error) {
	return itemOf(c.send(ctx, protocol.Command{Op: protocol.OpAdjust, SKU: sku, Location: location, Delta: delta}, opts))
}

// Count sets the units on hand after a stock take.
func (c *Client) Count(ctx context.Context, sku, location string, onHand int64, opts ...Option) (protocol.Item, error) {
	return itemOf(c.send(ctx, protocol.Command{Op: protocol.OpCount, SKU: sku, Location: location, OnHand: &onHand}, opts))
}

// Reserve holds the units of all lines or of none.
func (c *Client) Reserve(ctx context.Context, lines []protocol.Line, opts ...Option) (protocol.Reservation, error) {
	return reservationOf(c.send(ctx, protocol.Command{Op: protocol.OpReserve, Lines: copyLines(lines)}, opts))
}

// Confirm sells what a reservation holds.
func (c *Client) Confirm(ctx context.Context, id string, opts ...Option) (protocol.Reservation, error) {
	return reservationOf(c.send(ctx, protocol.Command{Op: protocol.OpConfirm, Reservation: id}, opts))
}

// Release gives a reservation's units back.
func (c *Client) Release(ctx context.Context, id string, opts ...Option) (protocol.Reservation, error) {
	return reservationOf(c.send(ctx, protocol.Command{Op: protocol.OpRelease, Reservation: id}, opts))
}

// Extend makes a reservation hold for ttl from now; it never shortens it.
func (c *Client) Extend(ctx context.Context, id string, ttl time.Duration, opts ...Option) (protocol.Reservation, error) {
	cmd := protocol.Command{Op: protocol.OpExtend, Reservation: id, TTLMS: protocol.Ptr(ttl.Milliseconds())}
	return reservationOf(c.send(ctx, cmd, opts))
}

// Reservation reads a reservation.
func (c *Client) Reservation(ctx context.Context, id string) (protocol.Reservation, error) {
	return reservationOf(c.Do(ctx, protocol.Command{Op: protocol.OpReservation, Reservation: id}))
}

// Sell sells the units of all lines or of none.
func (c *Client) Sell(ctx context.Context, lines []protocol.Line, opts ...Option) ([]protocol.Item, error) {
	r, err := c.send(ctx, protocol.Command{Op: protocol.OpSell, Lines: copyLines(lines)}, opts)
	return r.Items, err
}

// Move moves units between two locations of a SKU.
func (c *Client) Move(ctx context.Context, sku, from, to string, quantity int64, opts ...Option) ([]protocol.Item, error) {
	r, err := c.send(ctx, protocol.Command{Op: protocol.OpMove, SKU: sku, From: from, To: to, Quantity: quantity}, opts)
	return r.Items, err
}

// Settings are an item's settings in the region asked; nil ones stay.
type Settings struct {
	SafetyStock    *int64
	BackorderLimit *int64
	LowStock       *int64
}

// Configure changes an item's settings.
func (c *Client) Configure(ctx context.Context, sku, location string, s Settings, opts ...Option) (protocol.Item, error) {
	return itemOf(c.send(ctx, protocol.Command{Op: protocol.OpConfigure, SKU: sku, Location: location,
		SafetyStock: s.SafetyStock, BackorderLimit: s.BackorderLimit, LowStock: s.LowStock}, opts))
}

// History reads an item's movements, newest first. next goes into Before for
// the page after it; "" means that there is none.
func (c *Client) History(ctx context.Context, sku, location string, opts ...Option) (movements []protocol.Movement, next string, err error) {
	r, err := c.send(ctx, protocol.Command{Op: protocol.OpHistory, SKU: sku, Location: location}, opts)
	return r.Movements, r.Next, err
}

// Outcome asks what became of a write: its reply, or nil where the key is not
// known (not applied, refused, or forgotten). home may be "".
func (c *Client) Outcome(ctx context.Context, key, home string) (*Reply, error) {
	r, err := c.Do(ctx, protocol.Command{Op: protocol.OpOutcome, Key: key, Home: home})
	if err != nil || !r.Known || r.Earlier == nil {
		return nil, err
	}
	return &r.Earlier.OK, nil
}

// Ping waits for one round trip.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.Do(ctx, protocol.Command{Op: protocol.OpPing})
	return err
}

// copyLines keeps the caller's lines as they are: Check fills in what they omit.
func copyLines(lines []protocol.Line) []protocol.Line {
	return append([]protocol.Line(nil), lines...)
}
