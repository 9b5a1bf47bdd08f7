package protocol

import (
	"encoding/binary"
	"strings"
)

// Op names a command.
type Op string

// The commands.
const (
	OpAuth        Op = "auth"
	OpSubscribe   Op = "subscribe"
	OpUnsubscribe Op = "unsubscribe"
	OpGet         Op = "get"
	OpAdjust      Op = "adjust"
	OpCount       Op = "count"
	OpReserve     Op = "reserve"
	OpConfirm     Op = "confirm"
	OpRelease     Op = "release"
	OpReservation Op = "reservation"
	OpExtend      Op = "extend"
	OpSell        Op = "sell"
	OpMove        Op = "move"
	OpConfigure   Op = "configure"
	OpHistory     Op = "history"
	OpOutcome     Op = "outcome"
	OpPing        Op = "ping"
)

// The commands that nodes give each other about orders over several shards. Check
// refuses them: no client can send one.
const (
	OpSettle  Op = "settle"  // ends the part named by Reservation; Quantity 1: sold, 0: dropped
	OpResolve Op = "resolve" // tells what became of Order.ID; an order that is not decided is given up
)

// Command is any command, as a client sends it. Which fields count depends on
// Op; Check says what is wrong with the others.
type Command struct {
	Op Op  `json:"op"`
	ID Raw `json:"id,omitzero" cbor:"-"` // a number or string, echoed as it came

	// Writes.
	Key       string `json:"key,omitzero"`
	Home      string `json:"home,omitzero"`
	Reason    string `json:"reason,omitzero"`
	Reference string `json:"reference,omitzero"`

	SKU            string  `json:"sku,omitzero"`
	Location       string  `json:"location,omitzero"`
	Delta          int64   `json:"delta,omitzero"`
	OnHand         *int64  `json:"on_hand,omitzero"`
	IfVersion      *string `json:"if_version,omitzero"` // "" = only if it does not exist yet
	Lines          []Line  `json:"lines,omitzero"`
	TTLMS          *int64  `json:"ttl_ms,omitzero"`
	User           string  `json:"user,omitzero"`
	Reservation    string  `json:"reservation,omitzero"`
	From           string  `json:"from,omitzero"`
	To             string  `json:"to,omitzero"`
	Quantity       int64   `json:"quantity,omitzero"`
	SafetyStock    *int64  `json:"safety_stock,omitzero"`
	BackorderLimit *int64  `json:"backorder_limit,omitzero"`
	LowStock       *int64  `json:"low_stock,omitzero"`

	// Reads and subscriptions.
	SKUs       []string `json:"skus,omitzero"`
	Prefixes   []string `json:"prefixes,omitzero"`
	All        bool     `json:"all,omitzero"`
	Locations  []string `json:"locations,omitzero"`
	Users      []string `json:"users,omitzero"`
	Since      *string  `json:"since,omitzero"`
	Have       []Have   `json:"have,omitzero"`
	IntervalMS int64    `json:"interval_ms,omitzero"`
	AtLeast    string   `json:"at_least,omitzero"`
	Region     string   `json:"region,omitzero"`
	Limit      int      `json:"limit,omitzero"`
	Before     string   `json:"before,omitzero"`
	Token      string   `json:"token,omitzero"`

	// Of any command: the place in its caller's trace, as W3C says. A malformed one is
	// as none.
	Traceparent string `json:"traceparent,omitzero"`

	// The node's own.
	Order  *Order `json:"-" cbor:"-"`
	Within Scope  `json:"-" cbor:"-"` // what the reservation must be within; nil: no limit
}

// Order ties the commands of one order over several shards together. A node's own:
// never on the wire to clients.
type Order struct {
	ID    string   // of this attempt: a retry has another
	Home  int      // shard whose log decides
	Part  bool     // a hold that waits for the home's decision; otherwise the decision itself
	Lines []Line   // decision: all lines as the client sent them
	Parts []string // decision: reservation ids of the parts
}

// Ptr returns a pointer to v, for the optional fields of a Command.
func Ptr[T any](v T) *T { return &v }

// IsWrite reports whether the op changes something; a client's then needs a key.
func (op Op) IsWrite() bool {
	switch op {
	case OpAdjust, OpCount, OpReserve, OpConfirm, OpRelease, OpExtend, OpSell, OpMove, OpConfigure,
		OpSettle, OpResolve:
		return true
	}
	return false
}

// ActsIn is the region that carries the command out, at a node of the region own. A
// command on a reservation is carried out where its id says; otherwise is its home, if
// that differs, which counts where there is no such region. Fields that the op doesn't
// have make no difference.
func (c *Command) ActsIn(own string) (region, otherwise string) {
	switch {
	case c.Op == OpHistory:
		region = c.Region
	case c.OnReservation():
		region, _, _ = strings.Cut(c.Reservation, ".")
		if c.Home != region {
			otherwise = c.Home
		}
	case c.Op == OpOutcome || c.Op.IsWrite():
		region = c.Home
	}
	if region == "" {
		region = own
	}
	return region, otherwise
}

// OnReservation reports whether the command is about the reservation it names.
func (c *Command) OnReservation() bool {
	switch c.Op {
	case OpConfirm, OpRelease, OpExtend, OpReservation:
		return true
	}
	return false
}

// AppendBody appends the canonical form of a write: every field that makes two
// commands the same or not (all but id, home and key), after Check has filled in
// the defaults. Fields are length-prefixed, so different bodies differ in bytes.
// The decision of an order has the form of the command that its client sent, in
// however many shards its lines lie.
func (c *Command) AppendBody(b []byte) []byte {
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	opt := func(p *int64) {
		if p == nil {
			b = append(b, 0)
			return
		}
		b = binary.AppendVarint(append(b, 1), *p)
	}
	str(string(c.Op))
	str(c.Reason)
	str(c.Reference)
	str(c.SKU)
	str(c.Location)
	b = binary.AppendVarint(b, c.Delta)
	opt(c.OnHand)
	if c.IfVersion == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		str(*c.IfVersion)
	}
	lines := c.Lines
	if c.Order != nil && !c.Order.Part {
		lines = c.Order.Lines
	}
	b = binary.AppendUvarint(b, uint64(len(lines)))
	for i := range lines {
		str(lines[i].SKU)
		str(lines[i].Location)
		b = binary.AppendVarint(b, lines[i].Quantity)
	}
	opt(c.TTLMS)
	str(c.User)
	str(c.Reservation)
	str(c.From)
	str(c.To)
	b = binary.AppendVarint(b, c.Quantity)
	opt(c.SafetyStock)
	opt(c.BackorderLimit)
	opt(c.LowStock)
	return b
}

// Result is the ok object of a reply. Kind tells which fields count.
type Result struct {
	Kind        Kind
	Items       []Item // one for KindItem
	Behind      bool
	Reservation *Reservation
	Movements   []Movement
	Next        string
	Known       bool    // KindOutcome
	Outcome     *Result // KindOutcome, where Known
	Region      string  // the node's own: of Outcome, where it is another one's that was not named
	Cursor      string  // KindSubscribed
	Count       int     // KindSubscribed: snapshot items sent before it
	Subject     string  // KindAuth
	ExpiresAt   Time    // KindAuth
}

// Kind is the shape of a Result.
type Kind uint8

// The shapes of an ok object.
const (
	KindEmpty       Kind = iota // {}
	KindItem                    // {"item":Item}
	KindItems                   // {"items":[Item...]}, "behind":true
	KindReservation             // {"reservation":Reservation}
	KindMovements               // {"movements":[...],"next":"..."}
	KindOutcome                 // {"known":true,"reply":{"ok":...}}
	KindSubscribed              // {"items":n,"cursor":"..."}
	KindAuth                    // {"subject":"...","expires_at":"..."}
)

// Call is a command on its way through a node: who asked, what, and, once Done
// has been called, the answer. The submitter owns it before Submit and again
// from Done on.
type Call struct {
	Command  Command
	Session  uint64 // who asks; that session gets no push about its own change
	Subject  string // of the caller's token; for the movement history
	Address  string // the caller comes from, without port; for the movement history
	Tag      uint64 // free for the submitter
	Due      int64  // the node's own: when it must have been answered, in ns of a clock of its own
	Ordered  bool   // commands of the same sender before it are unanswered: a read waits for them
	Came     int64  // free for the submitter: when it was read
	Turn     uint64 // the node's own: counts calls as they come to be decided
	Sender   uint64 // the node's own: tells senders apart, also those of other nodes
	Relayed  bool   // the node's own: another node asks on behalf of its client
	Result   Result
	Err      *Error // nil: Result holds
	Replayed bool   // the key had been applied before
	Trace    *Trace // nil: nobody follows it
	Done     func(*Call)
}

// Fail sets the answer to an error and hands the call back.
func (c *Call) Fail(err *Error) {
	c.Err = err
	c.Done(c)
}
