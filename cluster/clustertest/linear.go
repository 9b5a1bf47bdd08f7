package clustertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/stockmesh/stockmesh/protocol"
)

// linearWait bounds the search for an order of the commands on one item.
const linearWait = 30 * time.Second

// Linearizable fails the test where the clients' answers can't be put into one order
// per item that explains them all: every write takes effect at one moment between its
// call and its answer. A get takes its at some moment after the client's own write
// that it names, for it may be answered from a node's own memory. The shop must have
// neither Baskets nor Expiring.
func (r *Report) Linearizable() {
	r.t.Helper()
	homes := make(map[string]string) // SKU of each reservation
	for _, e := range r.Entries {
		if e.Command.Op == protocol.OpReserve && e.applied() {
			homes[e.Reply.Reservation.ID] = e.Command.Lines[0].SKU
		}
	}
	histories := make(map[string][]porcupine.Operation)
	for _, e := range r.Entries {
		if e.Unknown && e.Command.Op.IsWrite() {
			r.t.Errorf("can't be checked: the fate of %s is unknown", e.Command.Key)
			return
		}
		if sku := e.sku(homes); sku != "" && !e.Unknown {
			histories[sku] = append(histories[sku], e.operation())
		}
	}
	for sku, history := range histories {
		r.linear(sku, history)
	}
}

func (r *Report) linear(sku string, history []porcupine.Operation) {
	r.t.Helper()
	result, info := porcupine.CheckOperationsVerbose(itemModel, history, linearWait*Slow)
	switch result {
	case porcupine.Ok:
	case porcupine.Unknown:
		r.t.Errorf("%s: no order of %d commands found within %v (seed %d)", sku, len(history), linearWait*Slow, r.shop.load.seed)
	default:
		r.t.Errorf("%s: %d commands are not linearizable (seed %d); the longest part that is ends before:\n%s",
			sku, len(history), r.shop.load.seed, stuck(history, info))
	}
}

// stuck shows where the longest linearization ends: the last commands of it, and those
// that should have been next.
func stuck(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, part := range info.PartialLinearizationsOperations() {
		for _, l := range part {
			if len(l) > len(longest) {
				longest = l
			}
		}
	}
	done := make(map[*Entry]bool)
	state := itemModel.Init()
	for _, op := range longest {
		done[op.Input.(*Entry)] = true
		_, state = itemModel.Step(state, op.Input, op.Output)
	}
	var b strings.Builder
	for _, op := range longest[max(0, len(longest)-4):] {
		fmt.Fprintf(&b, "  done %s\n", op.Input.(*Entry))
	}
	fmt.Fprintf(&b, "  state %+v\n", state)
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	shown := 0
	for _, op := range history {
		if e := op.Input.(*Entry); !done[e] && shown < 6 {
			fmt.Fprintf(&b, "  next %s\n", e)
			shown++
		}
	}
	return b.String()
}

// String is the command and its answer, for a failed test.
func (e *Entry) String() string {
	what := fmt.Sprintf("%d: %s %s", e.Client, e.Command.Op, e.Command.Key)
	switch e.Command.Op {
	case protocol.OpAdjust:
		what += fmt.Sprintf(" %+d", e.Command.Delta)
	case protocol.OpSell, protocol.OpReserve:
		what += fmt.Sprintf(" %d", e.Command.Lines[0].Quantity)
	case protocol.OpConfirm, protocol.OpRelease:
		what += " " + e.Command.Reservation
	}
	answer := fmt.Sprint(e.Err)
	if e.Err == nil {
		answer = "ok"
		for _, it := range itemsOf(e) {
			answer += fmt.Sprintf(" %d/%d %s", it.OnHand, it.Reserved, it.Version)
		}
		if e.Command.Op == protocol.OpReserve {
			answer += " " + e.Reply.Reservation.ID
		}
	}
	return fmt.Sprintf("%s [%v..%v, %d failures]: %s", what, e.Call, e.Return, len(e.Failures), answer)
}

// sku is the item that the command is about.
func (e *Entry) sku(homes map[string]string) string {
	switch e.Command.Op {
	case protocol.OpAdjust:
		return e.Command.SKU
	case protocol.OpSell, protocol.OpReserve:
		return e.Command.Lines[0].SKU
	case protocol.OpGet:
		return e.Command.SKUs[0]
	}
	return homes[e.Command.Reservation]
}

func (e *Entry) operation() porcupine.Operation {
	call := e.Call
	if e.Command.Op == protocol.OpGet {
		call = e.after
	}
	if e.Behind {
		call = 0 // the node said that it is older than that
	}
	return porcupine.Operation{ClientId: e.Client, Input: e, Call: int64(call), Return: int64(e.Return)}
}

// item is the model's state of one item; open names the reservations that hold units.
type item struct {
	onHand, held int64
	version      uint64
	open         string
}

var itemModel = porcupine.Model{
	Init: func() any { return item{} },
	Step: func(state, input, _ any) (bool, any) { return state.(item).step(input.(*Entry)) },
}

// step tells whether the command can have got its answer in this state, and which
// state follows.
func (s item) step(e *Entry) (bool, item) {
	if e.Err != nil {
		return s.refuses(e), s
	}
	if e.Command.Op == protocol.OpGet {
		return s.shownBy(e), s
	}
	next, ok := s.apply(e)
	return ok && next.shownBy(e) && next.held >= 0 && next.onHand >= next.held, next
}

func (s item) apply(e *Entry) (item, bool) {
	s.version++
	ok := true
	switch e.Command.Op {
	case protocol.OpAdjust:
		s.onHand += e.Command.Delta
	case protocol.OpSell:
		s.onHand -= e.Command.Lines[0].Quantity
	case protocol.OpReserve:
		s.held += e.Command.Lines[0].Quantity
		s.open += e.Reply.Reservation.ID + " "
	case protocol.OpConfirm:
		s.onHand -= e.Reply.Reservation.Lines[0].Quantity
		s.open, ok = s.ended(e)
		s.held -= e.Reply.Reservation.Lines[0].Quantity
	case protocol.OpRelease:
		s.open, ok = s.ended(e)
		s.held -= e.Reply.Reservation.Lines[0].Quantity
	default:
		return s, false
	}
	return s, ok
}

// ended takes a reservation out of the open ones.
func (s item) ended(e *Entry) (open string, ok bool) {
	before, after, ok := strings.Cut(s.open, e.Command.Reservation+" ")
	return before + after, ok
}

// shownBy tells whether the answer shows this state, where it shows any.
func (s item) shownBy(e *Entry) bool {
	for _, it := range itemsOf(e) {
		if it.OnHand != s.onHand || it.Reserved != s.held || versionOf(it) != s.version {
			return false
		}
	}
	return true
}

func versionOf(it protocol.Item) uint64 {
	v, err := protocol.ParseVector(it.Version)
	if err != nil {
		return 0
	}
	return v.Get(RegionName)
}

// refuses tells whether the command must be refused as it was.
func (s item) refuses(e *Entry) bool {
	var wire *protocol.Error
	if !errors.As(e.Err, &wire) {
		return true // never applied: it asks for nothing
	}
	switch wire.Code {
	case protocol.CodeReservationEnded:
		return !strings.Contains(s.open, e.Command.Reservation+" ")
	case protocol.CodeInsufficientStock:
		free := s.onHand - s.held
		return wire.Details != nil && wire.Details.Lines[0].Available == free && free < wire.Details.Lines[0].Requested
	}
	return true // a failure, which is counted elsewhere
}
