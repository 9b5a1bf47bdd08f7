package relay

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// CallsMax bounds the calls of one batch, so that a damaged message can't ask for
// more memory than that of so many calls.
const CallsMax = 1 << 14

// A Batch is commands of one node, to be decided in this order.
type Batch struct {
	From    string // node that sends
	Session uint64 // a run of batches; a larger one of the same From began later
	Number  uint64 // 1, 2, 3... within the session
	Calls   []*protocol.Call
}

// The first byte of a message: which it is in the high half, its version in the
// low half. A batch of any version goes on with from, session and number, so that
// who can't read it can say so. A batch is written in the first version that has
// what its calls need.
const (
	isBatch       = 0x10
	batchFormat   = 0x11
	batchFormat2  = 0x12 // with flags of flags2
	batchFormat3  = 0x13 // with flags of flags3
	answersFormat = 0x21
)

// BatchFormat is the newest format of batches that DecodeBatch reads.
const BatchFormat = batchFormat3

// ops are the commands by their code on the wire, which never changes. The search
// for a code is linear: the most frequent come first. Code 0 is followed by the
// name, for those that a later version may have.
var ops = [...]protocol.Op{
	"", protocol.OpSell, protocol.OpReserve, protocol.OpConfirm, protocol.OpAdjust,
	protocol.OpGet, protocol.OpRelease, protocol.OpExtend, protocol.OpMove, protocol.OpCount,
	protocol.OpConfigure, protocol.OpReservation, protocol.OpOutcome, protocol.OpHistory,
}

// A call is its op, a set of flags and the fields that the flags name, in this
// order: texts, totals, options, if_version, lines, session, order, address, within, trace.
const (
	textsAt   = 0
	totalsAt  = 11
	optionsAt = 13

	hasIfVersion = 1 << 18
	hasLines     = 1 << 19
	hasSession   = 1 << 20
	isOrdered    = 1 << 21
	hasOrder     = 1 << 22
	hasAddress   = 1 << 23
	hasWithin    = 1 << 24
	hasTrace     = 1 << 25

	flags2 = hasAddress | hasWithin // what batchFormat does not have
	flags3 = hasTrace               // what batchFormat2 does not have either
)

// The least that a call, a line and a number take in bytes.
const (
	callBytesMin   = 5
	lineBytesMin   = 3
	numberBytesMin = 1
)

func textsOf(c *protocol.Call) [11]*string {
	m := &c.Command
	return [...]*string{
		&m.Key, &m.SKU, &m.Location, &c.Subject, &m.User, &m.Reservation,
		&m.Reason, &m.Reference, &m.Home, &m.From, &m.To,
	}
}

func totalsOf(m *protocol.Command) [2]*int64 { return [...]*int64{&m.Delta, &m.Quantity} }

func optionsOf(m *protocol.Command) [5]**int64 {
	return [...]**int64{&m.OnHand, &m.TTLMS, &m.SafetyStock, &m.BackorderLimit, &m.LowStock}
}

// flagsOf tells which fields of a call are not at their zero.
func flagsOf(c *protocol.Call) (f uint32) {
	m := &c.Command
	for i, p := range textsOf(c) {
		if *p != "" {
			f |= 1 << (textsAt + i)
		}
	}
	for i, p := range totalsOf(m) {
		if *p != 0 {
			f |= 1 << (totalsAt + i)
		}
	}
	for i, p := range optionsOf(m) {
		if *p != nil {
			f |= 1 << (optionsAt + i)
		}
	}
	return f | rareFlagsOf(c)
}

func rareFlagsOf(c *protocol.Call) (f uint32) {
	if c.Command.IfVersion != nil {
		f |= hasIfVersion
	}
	if len(c.Command.Lines) > 0 {
		f |= hasLines
	}
	if c.Session != 0 {
		f |= hasSession
	}
	if c.Ordered {
		f |= isOrdered
	}
	if c.Command.Order != nil {
		f |= hasOrder
	}
	if c.Address != "" {
		f |= hasAddress
	}
	if c.Command.Within != nil {
		f |= hasWithin
	}
	if c.Trace != nil {
		f |= hasTrace
	}
	return f
}

// appendHeader begins a batch. What it can't know before the calls are appended
// is set by seal.
func appendHeader(b []byte, from string, session, number uint64) []byte {
	b = append(b, batchFormat)
	b = appendString(b, from)
	b = binary.AppendUvarint(b, session)
	b = binary.AppendUvarint(b, number)
	return append(b, 0, 0, 0, 0)
}

// seal ends a batch that begins with b: it fills in how many calls follow the
// header, which ends at end, and the format that all their flags need.
func seal(b []byte, end, n int, flags uint32) {
	b[0] = formatOf(flags)
	binary.LittleEndian.PutUint32(b[end-4:], uint32(n))
}

func formatOf(flags uint32) byte {
	switch {
	case flags&flags3 != 0:
		return batchFormat3
	case flags&flags2 != 0:
		return batchFormat2
	}
	return batchFormat
}

// appendCall leaves out the fields of some flags, and returns those of the others that
// the call has.
func appendCall(b []byte, c *protocol.Call, without uint32) (_ []byte, flags uint32) {
	m, f := &c.Command, flagsOf(c)&^without
	b = appendOp(b, m.Op)
	b = binary.LittleEndian.AppendUint32(b, f)
	for _, p := range textsOf(c) {
		if *p != "" {
			b = appendString(b, *p)
		}
	}
	for _, p := range totalsOf(m) {
		if *p != 0 {
			b = binary.AppendVarint(b, *p)
		}
	}
	for _, p := range optionsOf(m) {
		if *p != nil {
			b = binary.AppendVarint(b, **p)
		}
	}
	if m.IfVersion != nil {
		b = appendString(b, *m.IfVersion)
	}
	if len(m.Lines) > 0 {
		b = appendLines(b, m.Lines)
	}
	if c.Session != 0 {
		b = binary.AppendUvarint(b, c.Session)
	}
	if m.Order != nil {
		b = appendOrder(b, m.Order)
	}
	if c.Address != "" {
		b = appendString(b, c.Address)
	}
	if m.Within != nil {
		b = appendScope(b, m.Within)
	}
	if f&hasTrace != 0 {
		b = appendTrace(b, c.Trace)
	}
	return b, f
}

func appendOrder(b []byte, o *protocol.Order) []byte {
	b = appendString(b, o.ID)
	b = binary.AppendVarint(b, int64(o.Home))
	b = appendBool(b, o.Part)
	b = appendLines(b, o.Lines)
	b = binary.AppendUvarint(b, uint64(len(o.Parts)))
	for _, id := range o.Parts {
		b = appendString(b, id)
	}
	return b
}

func appendOp(b []byte, op protocol.Op) []byte {
	if code := slices.Index(ops[:], op); code > 0 {
		return append(b, byte(code))
	}
	return appendString(append(b, 0), op)
}

func appendLines(b []byte, lines []protocol.Line) []byte {
	b = binary.AppendUvarint(b, uint64(len(lines)))
	for i := range lines {
		l := &lines[i]
		b = appendString(b, l.SKU)
		b = appendString(b, l.Location)
		b = binary.AppendVarint(b, l.Quantity)
	}
	return b
}

// batchReader is a reader with pieces of what calls point to.
type batchReader struct {
	reader
	flags   uint32 // of all calls together
	numbers []int64
	texts   []string
	lines   []protocol.Line
	grants  []protocol.Grant
}

// DecodeBatch reads what Sender.Next gave. The calls have no ID, Tag, Due and
// Done; of a read only the Op, Key and other fields of a write are there, not what
// it selects. They stand in one piece of memory and their strings share one copy
// of data: any of them keeps all alive, so what is to last must be cloned.
//
// With an error the batch has no calls, but From, Session and Number where they can
// be read: answer it with Unreadable. Else From is empty.
func DecodeBatch(data []byte) (Batch, error) {
	r := batchReader{reader: reader{b: data}}
	r.own(data)
	format := r.byte()
	if r.err == nil && format&^0x0f != isBatch {
		return Batch{}, fmt.Errorf("batch: %w: format %#x is not that of a batch", errMalformed, format)
	}
	batch := Batch{From: r.string(), Session: r.uint(), Number: r.uint()}
	if r.err != nil {
		return Batch{}, fmt.Errorf("batch: %w", r.err)
	}
	if format < batchFormat || format > BatchFormat {
		return batch, unknownFormat("batch", format, "%#x to %#x", batchFormat, BatchFormat)
	}
	calls := r.calls()
	if r.err == nil && format != formatOf(r.flags) {
		r.fail("flags that its format does not have, or a format without its flags")
	}
	if err := r.end(); err != nil {
		return batch, fmt.Errorf("batch: %w", err)
	}
	batch.Calls = calls
	return batch, nil
}

func (r *batchReader) calls() []*protocol.Call {
	n := uint64(r.fixed32())
	if n > CallsMax {
		r.fail("more calls than a batch may have")
	}
	piece := make([]protocol.Call, r.count(n, callBytesMin))
	calls := make([]*protocol.Call, len(piece))
	for i := range piece {
		r.call(&piece[i])
		calls[i] = &piece[i]
	}
	return calls
}

func (r *batchReader) call(c *protocol.Call) {
	m := &c.Command
	m.Op = r.op()
	f := r.fixed32()
	r.flags |= f
	for i, p := range textsOf(c) {
		if f&(1<<(textsAt+i)) != 0 {
			*p = r.string()
		}
	}
	for i, p := range totalsOf(m) {
		if f&(1<<(totalsAt+i)) != 0 {
			*p = r.int()
		}
	}
	for i, p := range optionsOf(m) {
		if f&(1<<(optionsAt+i)) != 0 {
			*p = &carve(&r.numbers, 1, len(r.b)/numberBytesMin)[0]
			**p = r.int()
		}
	}
	r.rare(c, f)
	if f != flagsOf(c) {
		r.fail("flags without their fields")
	}
}

// rare reads what follows the fields that have tables.
func (r *batchReader) rare(c *protocol.Call, f uint32) {
	m := &c.Command
	if f&hasIfVersion != 0 {
		m.IfVersion = &carve(&r.texts, 1, len(r.b))[0]
		*m.IfVersion = r.string()
	}
	if f&hasLines != 0 {
		m.Lines = r.readLines(&r.lines)
	}
	if f&hasSession != 0 {
		c.Session = r.uint()
	}
	c.Ordered = f&isOrdered != 0
	if f&hasOrder != 0 {
		m.Order = r.order()
	}
	if f&hasAddress != 0 {
		c.Address = r.string()
	}
	if f&hasWithin != 0 {
		m.Within = r.scope()
	}
	if f&hasTrace != 0 {
		c.Trace = r.trace()
	}
}

func (r *batchReader) order() *protocol.Order {
	o := &protocol.Order{ID: r.string(), Home: int(r.int()), Part: r.bool(), Lines: r.readLines(&r.lines)}
	o.Parts = carve(&r.texts, r.count(r.uint(), 1), len(r.b))
	for i := range o.Parts {
		o.Parts[i] = r.string()
	}
	return o
}

func (r *reader) op() protocol.Op {
	code := r.byte()
	if code == 0 {
		return r.namedOp()
	}
	if int(code) >= len(ops) {
		r.fail("unknown op")
		return ""
	}
	return ops[code]
}

// namedOp reads an op that has no code.
func (r *reader) namedOp() protocol.Op {
	op := protocol.Op(r.string())
	if slices.Contains(ops[1:], op) {
		r.fail("op by its name that has a code")
	}
	return op
}

// readLines reads a list of lines into a part of a larger piece.
func (r *reader) readLines(free *[]protocol.Line) []protocol.Line {
	n := r.count(r.uint(), lineBytesMin)
	lines := carve(free, n, len(r.b)/lineBytesMin)
	for i := range lines {
		lines[i] = protocol.Line{SKU: r.string(), Location: r.string(), Quantity: r.int()}
	}
	return lines
}
