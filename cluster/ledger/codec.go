package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/stockmesh/stockmesh/protocol"
)

// errMalformed is wrapped by every error of decoding a round, an outcome or a
// snapshot.
var errMalformed = errors.New("malformed")

// writer appends the primitives of the stored form: unsigned and zigzag varints,
// length-prefixed strings.
type writer struct{ b []byte }

func (w *writer) byte(v byte) { w.b = append(w.b, v) }
func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}
func (w *writer) uint(v uint64)   { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)     { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) fixed(v uint64)  { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *writer) string(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bytes(s []byte)  { w.uint(uint64(len(s))); w.b = append(w.b, s...) }

// reader reads them back. The first error sticks, after which every read gives
// zero; so a caller checks once, at the end. What it accepts has one form only:
// written again it gives the same bytes.
type reader struct {
	b   []byte
	err error

	// text is what b was at first, where strings may share one copy of it. They
	// keep all of it alive, so what is to last longer must be cloned.
	text string

	events []Event // free ones of a larger piece
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errMalformed, what)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("ends early")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // most are
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.b[n-1] == 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v := r.uint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("bad flag")
	}
	return v == 1
}

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail("ends early")
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// bytes returns a slice that aliases the input.
func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail("length beyond the end")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return r.share(r.bytes()) }

// share returns what was just read as a string.
func (r *reader) share(v []byte) string {
	if r.text == "" {
		return string(v)
	}
	end := len(r.text) - len(r.b)
	return r.text[end-len(v) : end]
}

// count reads the length of a list whose elements take at least size bytes each,
// so that a damaged length can't ask for more memory than the input justifies.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("count beyond the end")
		return 0
	}
	return int(n)
}

// index reads a number below n.
func (r *reader) index(n int) uint32 {
	v := r.uint()
	if v >= uint64(n) || v > math.MaxUint32 {
		r.fail("index out of range")
		return 0
	}
	return uint32(v)
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end")
	}
	return r.err
}

// The least an item and a line of an outcome take.
const (
	itemBytesMin = 8
	lineBytesMin = 3
)

// appendOutcome appends the stored form of a write's answer.
func appendOutcome(b []byte, res *protocol.Result) []byte {
	w := writer{b}
	w.byte(byte(res.Kind))
	switch res.Kind {
	case protocol.KindItem, protocol.KindItems:
		w.uint(uint64(len(res.Items)))
		for i := range res.Items {
			w.item(&res.Items[i])
		}
	case protocol.KindReservation:
		w.reservation(res.Reservation)
	}
	return w.b
}

func (w *writer) item(it *protocol.Item) {
	w.string(it.SKU)
	w.string(it.Location)
	w.int(it.Available)
	w.int(it.OnHand)
	w.int(it.Reserved)
	w.string(it.Version)
	w.int(int64(it.UpdatedAt))
	w.bool(it.Low)
}

func (r *reader) item() protocol.Item {
	return protocol.Item{
		SKU: r.string(), Location: r.string(), Available: r.int(), OnHand: r.int(), Reserved: r.int(),
		Version: r.string(), UpdatedAt: protocol.Time(r.int()), Low: r.bool(),
	}
}

func (w *writer) reservation(v *protocol.Reservation) {
	w.string(v.ID)
	w.string(string(v.State))
	w.int(int64(v.ExpiresAt))
	w.string(v.User)
	w.lines(v.Lines)
}

func (w *writer) lines(lines []protocol.Line) {
	w.uint(uint64(len(lines)))
	for i := range lines {
		l := &lines[i]
		w.string(l.SKU)
		w.string(l.Location)
		w.int(l.Quantity)
	}
}

func (r *reader) reservation() protocol.Reservation {
	return protocol.Reservation{
		ID: r.string(), State: protocol.State(r.string()), ExpiresAt: protocol.Time(r.int()), User: r.string(), Lines: r.lines(),
	}
}

func (r *reader) lines() []protocol.Line {
	lines := make([]protocol.Line, r.count(lineBytesMin))
	for i := range lines {
		lines[i] = protocol.Line{SKU: r.string(), Location: r.string(), Quantity: r.int()}
	}
	return lines
}

func (w *writer) strings(list []string) {
	w.uint(uint64(len(list)))
	for _, s := range list {
		w.string(s)
	}
}

func (r *reader) strings() []string {
	list := make([]string, r.count(1))
	for i := range list {
		list[i] = r.string()
	}
	return list
}

func decodeOutcome(b []byte) (protocol.Result, error) {
	r := reader{b: b}
	res := protocol.Result{Kind: protocol.Kind(r.byte())}
	switch res.Kind {
	case protocol.KindItem, protocol.KindItems:
		res.Items = make([]protocol.Item, r.count(itemBytesMin))
		for i := range res.Items {
			res.Items[i] = r.item()
		}
		if res.Kind == protocol.KindItem && len(res.Items) != 1 {
			r.fail("outcome without its item")
		}
	case protocol.KindReservation:
		v := r.reservation()
		res.Reservation = &v
	default:
		r.fail("unknown outcome")
	}
	return res, r.end()
}

// outcome reads past an outcome and returns its bytes: decodeOutcome without its
// memory, for those that are stored and seldom asked for.
func (r *reader) outcome() []byte {
	b := r.bytes()
	if r.err != nil {
		return nil
	}
	o := reader{b: b}
	switch kind := protocol.Kind(o.byte()); kind {
	case protocol.KindItem, protocol.KindItems:
		n := o.count(itemBytesMin)
		for range n {
			o.skipItem()
		}
		if kind == protocol.KindItem && n != 1 {
			o.fail("outcome without its item")
		}
	case protocol.KindReservation:
		o.skipReservation()
	default:
		o.fail("unknown outcome")
	}
	if o.end() != nil {
		r.fail("outcome " + o.err.Error())
	}
	return b
}

func (r *reader) skipItem() {
	r.bytes()
	r.bytes()
	r.int()
	r.int()
	r.int()
	r.bytes()
	r.int()
	r.bool()
}

func (r *reader) skipReservation() {
	r.bytes()
	r.bytes()
	r.int()
	r.bytes()
	for range r.count(lineBytesMin) {
		r.bytes()
		r.bytes()
		r.int()
	}
}

// outcomeOf decodes an outcome that Decode has already checked.
func outcomeOf(b []byte) protocol.Result {
	res, err := decodeOutcome(b)
	if err != nil {
		panic("ledger: a checked outcome: " + err.Error())
	}
	return res
}
