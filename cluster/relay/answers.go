package relay

import (
	"encoding/binary"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// Verdict says what became of a batch as a whole.
type Verdict uint8

// The verdicts, and Gap: not taken, as batches before it are missing. The values
// stand on the wire.
const (
	Done       Verdict = 0 // taken, each call is answered
	NotOwner   Verdict = 2 // not taken: the node does not own the shard, or not any more
	Unreadable Verdict = 3 // taken, and all calls refused: the node can't read them
)

// Answers goes back for a Batch.
type Answers struct {
	From            string // node that answers
	Session, Number uint64 // of the batch
	Verdict         Verdict
	Seq             uint64   // Done: what of the shard's log must be applied before these are shown
	Owner           string   // NotOwner: who is, as far as known; "": unknown
	Results         []Answer // Done: in the order of the batch's calls
}

// Answer is what a call was answered with. Result holds where Err is nil.
type Answer struct {
	Result   protocol.Result
	Err      *protocol.Error
	Replayed bool
}

// An answer begins with a byte: the result's kind and what else there is to it.
const (
	kindBits   = 0x07
	isError    = 0x08
	isReplayed = 0x10
	isBehind   = 0x20
	isKnown    = 0x40 // KindOutcome
	hasOutcome = 0x80 // KindOutcome
)

// Flags of an error.
const (
	isRetryable = 1 << iota
	hasDetails
	hasItem
	errorFlagsEnd
)

// The least that an answer, an item and a shortage take in bytes.
const (
	answerBytesMin   = 1
	itemBytesMin     = 8
	shortageBytesMin = 5
)

func appendAnswersHeader(b []byte, from string, session, number uint64, v Verdict) []byte {
	b = append(b, answersFormat)
	b = appendString(b, from)
	b = binary.AppendUvarint(b, session)
	b = binary.AppendUvarint(b, number)
	return append(b, byte(v))
}

// AppendAnswers appends the answers to a batch's calls, which are all of the
// batch's, in its order: their Result, Err and Replayed. A result that no write,
// outcome or barrier has becomes an error: it can't be carried.
func AppendAnswers(b []byte, from string, session, number, seq uint64, calls []*protocol.Call) []byte {
	b = appendAnswersHeader(b, from, session, number, Done)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(calls)))
	for _, c := range calls {
		b = appendAnswer(b, c)
	}
	return b
}

// AppendRefusal appends the answer to a batch that was not taken, or is Unreadable.
func AppendRefusal(b []byte, from string, session, number uint64, verdict Verdict, owner string) []byte {
	b = appendAnswersHeader(b, from, session, number, verdict)
	return appendString(b, owner)
}

func appendAnswer(b []byte, c *protocol.Call) []byte {
	var head byte
	if c.Replayed {
		head = isReplayed
	}
	err := c.Err
	if err == nil && !carries(&c.Result) {
		err = protocol.NewError(protocol.CodeUnavailable, "a result of kind %d can't be relayed", c.Result.Kind)
	}
	if err != nil {
		return appendError(append(b, head|isError), err)
	}
	if c.Result.Kind == protocol.KindOutcome {
		return appendOutcome(b, head, &c.Result)
	}
	return appendPlain(b, head, &c.Result)
}

// carries reports whether a result has a form on the wire.
func carries(res *protocol.Result) bool {
	if res.Kind == protocol.KindOutcome {
		return res.Outcome == nil || carriesPlain(res.Outcome)
	}
	return carriesPlain(res)
}

func carriesPlain(res *protocol.Result) bool {
	switch res.Kind {
	case protocol.KindEmpty, protocol.KindItem, protocol.KindItems:
		return true
	case protocol.KindReservation:
		return res.Reservation != nil
	}
	return false
}

func appendOutcome(b []byte, head byte, res *protocol.Result) []byte {
	head |= byte(protocol.KindOutcome)
	if res.Known {
		head |= isKnown
	}
	if res.Outcome == nil {
		return append(b, head)
	}
	return appendPlain(append(b, head|hasOutcome), 0, res.Outcome)
}

// appendPlain appends a result that holds no other.
func appendPlain(b []byte, head byte, res *protocol.Result) []byte {
	head |= byte(res.Kind)
	if res.Behind {
		head |= isBehind
	}
	b = append(b, head)
	switch res.Kind {
	case protocol.KindItem, protocol.KindItems:
		b = binary.AppendUvarint(b, uint64(len(res.Items)))
		for i := range res.Items {
			b = appendItem(b, &res.Items[i])
		}
	case protocol.KindReservation:
		b = appendReservation(b, res.Reservation)
	}
	return b
}

func appendItem(b []byte, it *protocol.Item) []byte {
	b = appendString(b, it.SKU)
	b = appendString(b, it.Location)
	b = binary.AppendVarint(b, it.Available)
	b = binary.AppendVarint(b, it.OnHand)
	b = binary.AppendVarint(b, it.Reserved)
	b = appendString(b, it.Version)
	b = binary.AppendVarint(b, int64(it.UpdatedAt))
	return appendBool(b, it.Low)
}

func appendReservation(b []byte, v *protocol.Reservation) []byte {
	b = appendString(b, v.ID)
	b = appendString(b, v.State)
	b = binary.AppendVarint(b, int64(v.ExpiresAt))
	b = appendString(b, v.User)
	return appendLines(b, v.Lines)
}

func appendError(b []byte, err *protocol.Error) []byte {
	var f byte
	if err.Retryable {
		f |= isRetryable
	}
	if err.Details != nil {
		f |= hasDetails
		if err.Details.Item != nil {
			f |= hasItem
		}
	}
	b = append(b, f)
	b = appendString(b, err.Code)
	b = appendString(b, err.Message)
	b = binary.AppendVarint(b, err.RetryAfterMS)
	if err.Details != nil {
		b = appendDetails(b, err.Details)
	}
	return b
}

func appendDetails(b []byte, d *protocol.Details) []byte {
	b = appendString(b, d.State)
	b = appendString(b, d.Outcome)
	b = binary.AppendUvarint(b, uint64(len(d.Lines)))
	for i := range d.Lines {
		l := &d.Lines[i]
		b = appendString(b, l.SKU)
		b = appendString(b, l.Location)
		b = binary.AppendVarint(b, l.Requested)
		b = binary.AppendVarint(b, l.Available)
		b = binary.AppendVarint(b, l.Elsewhere)
	}
	if d.Item != nil {
		b = appendItem(b, d.Item)
	}
	return b
}

// answersReader is a reader with pieces of what answers point to.
type answersReader struct {
	reader
	items     []protocol.Item
	lines     []protocol.Line
	shortages []protocol.Shortage
}

// DecodeAnswers reads what AppendAnswers or AppendRefusal wrote. All strings
// share one copy of data.
func DecodeAnswers(data []byte) (Answers, error) {
	r := answersReader{reader: reader{b: data}}
	r.own(data)
	a := r.header()
	if a.Verdict == Done {
		a.Seq = r.uint()
		n := r.uint()
		if n > CallsMax {
			r.fail("more answers than a batch may have calls")
		}
		a.Results = make([]Answer, r.count(n, answerBytesMin))
		r.results(a.Results)
	}
	if err := r.end(); err != nil {
		return Answers{}, fmt.Errorf("answers: %w", err)
	}
	return a, nil
}

// header reads up to the results.
func (r *answersReader) header() Answers {
	r.format(answersFormat, "answers")
	a := Answers{From: r.string(), Session: r.uint(), Number: r.uint(), Verdict: Verdict(r.byte())}
	switch a.Verdict {
	case Done:
	case Gap, NotOwner, Unreadable:
		a.Owner = r.string()
	default:
		r.fail("unknown verdict")
	}
	return a
}

func (r *answersReader) results(into []Answer) {
	for i := range into {
		r.answer(&into[i])
	}
}

func (r *answersReader) answer(a *Answer) {
	head := r.byte()
	a.Replayed = head&isReplayed != 0
	head &^= isReplayed
	switch {
	case head&isError != 0:
		if head != isError {
			r.fail("error with a result")
		}
		a.Err = r.error()
	case head&kindBits == byte(protocol.KindOutcome):
		r.outcome(&a.Result, head)
	default:
		r.plain(&a.Result, head)
	}
}

func (r *answersReader) outcome(res *protocol.Result, head byte) {
	if head&isBehind != 0 {
		r.fail("outcome that is behind")
	}
	res.Kind, res.Known = protocol.KindOutcome, head&isKnown != 0
	if head&hasOutcome == 0 {
		return
	}
	res.Outcome = new(protocol.Result)
	r.plain(res.Outcome, r.byte())
}

func (r *answersReader) plain(res *protocol.Result, head byte) {
	if head&^(kindBits|isBehind) != 0 {
		r.fail("flag that the result can't have")
	}
	res.Kind, res.Behind = protocol.Kind(head&kindBits), head&isBehind != 0
	switch res.Kind {
	case protocol.KindEmpty:
	case protocol.KindItem, protocol.KindItems:
		res.Items = carve(&r.items, r.count(r.uint(), itemBytesMin), len(r.b)/itemBytesMin)
		for i := range res.Items {
			r.item(&res.Items[i])
		}
	case protocol.KindReservation:
		res.Reservation = r.reservation()
	default:
		r.fail("unknown result")
	}
}

func (r *answersReader) item(it *protocol.Item) {
	*it = protocol.Item{
		SKU: r.string(), Location: r.string(), Available: r.int(), OnHand: r.int(), Reserved: r.int(),
		Version: r.string(), UpdatedAt: protocol.Time(r.int()), Low: r.bool(),
	}
}

func (r *answersReader) reservation() *protocol.Reservation {
	v := &protocol.Reservation{
		ID: r.string(), State: protocol.State(r.string()), ExpiresAt: protocol.Time(r.int()), User: r.string(),
	}
	v.Lines = r.readLines(&r.lines)
	return v
}

func (r *answersReader) error() *protocol.Error {
	f := r.byte()
	if f >= errorFlagsEnd || f&(hasItem|hasDetails) == hasItem {
		r.fail("bad flags of an error")
	}
	err := &protocol.Error{
		Code: protocol.Code(r.string()), Message: r.string(),
		Retryable: f&isRetryable != 0, RetryAfterMS: r.int(),
	}
	if f&hasDetails != 0 {
		err.Details = r.details(f&hasItem != 0)
	}
	return err
}

func (r *answersReader) details(item bool) *protocol.Details {
	d := &protocol.Details{State: protocol.State(r.string()), Outcome: r.string()}
	if n := r.count(r.uint(), shortageBytesMin); n > 0 {
		d.Lines = carve(&r.shortages, n, len(r.b)/shortageBytesMin)
	}
	for i := range d.Lines {
		d.Lines[i] = protocol.Shortage{
			SKU: r.string(), Location: r.string(), Requested: r.int(), Available: r.int(), Elsewhere: r.int(),
		}
	}
	if item {
		d.Item = &carve(&r.items, 1, len(r.b)/itemBytesMin)[0]
		r.item(d.Item)
	}
	return d
}
