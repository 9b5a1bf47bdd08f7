package relay

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

var (
	texts   = rapid.OneOf(rapid.Just(""), rapid.StringN(1, 8, 32))
	numbers = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
	lines   = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) protocol.Line {
		return protocol.Line{SKU: texts.Draw(t, "sku"), Location: texts.Draw(t, "location"), Quantity: numbers.Draw(t, "quantity")}
	}), 0, 4)
	items = rapid.Custom(func(t *rapid.T) protocol.Item {
		return protocol.Item{
			SKU: texts.Draw(t, "sku"), Location: texts.Draw(t, "location"), Version: texts.Draw(t, "version"),
			Available: numbers.Draw(t, "available"), OnHand: numbers.Draw(t, "on_hand"), Reserved: numbers.Draw(t, "reserved"),
			UpdatedAt: protocol.Time(numbers.Draw(t, "at")), Low: rapid.Bool().Draw(t, "low"),
		}
	})
	orders = rapid.Custom(func(t *rapid.T) protocol.Order {
		return protocol.Order{
			ID: texts.Draw(t, "order"), Home: int(numbers.Draw(t, "home")), Part: rapid.Bool().Draw(t, "part"),
			Lines: lines.Draw(t, "lines"), Parts: rapid.SliceOfN(texts, 0, 3).Draw(t, "parts"),
		}
	})
	nameLists = rapid.OneOf(rapid.Just([]string(nil)), rapid.SliceOfN(texts, 0, 3))
	scopes    = rapid.OneOf(rapid.Just(protocol.Scope(nil)), rapid.Map(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) protocol.Grant {
		return protocol.Grant{SKUs: nameLists.Draw(t, "skus"), Locations: nameLists.Draw(t, "locations"), Users: nameLists.Draw(t, "users")}
	}), 0, 3), func(list []protocol.Grant) protocol.Scope { return list }))
	opNames = rapid.OneOf(
		rapid.SampledFrom(ops[1:]), rapid.Just(protocol.OpPing), rapid.Map(texts, func(s string) protocol.Op { return protocol.Op(s) }),
	)
)

// drawCall fills every field that is carried.
func drawCall(t *rapid.T) *protocol.Call {
	c := &protocol.Call{Ordered: rapid.Bool().Draw(t, "ordered"), Session: uint64(numbers.Draw(t, "session"))}
	m := &c.Command
	m.Op, m.Lines = opNames.Draw(t, "op"), lines.Draw(t, "lines")
	for _, p := range textsOf(c) {
		*p = texts.Draw(t, "text")
	}
	for _, p := range totalsOf(m) {
		*p = numbers.Draw(t, "total")
	}
	for _, p := range optionsOf(m) {
		*p = rapid.Ptr(numbers, true).Draw(t, "option")
	}
	m.IfVersion = rapid.Ptr(texts, true).Draw(t, "if_version")
	m.Order = rapid.Ptr(orders, true).Draw(t, "order")
	c.Address, m.Within = texts.Draw(t, "address"), scopes.Draw(t, "within")
	return c
}

func drawCalls(t *rapid.T) []*protocol.Call {
	return rapid.SliceOfN(rapid.Custom(drawCall), 1, 6).Draw(t, "calls")
}

func drawPlain(t *rapid.T) protocol.Result {
	res := protocol.Result{Behind: rapid.Bool().Draw(t, "behind")}
	res.Kind = rapid.SampledFrom([]protocol.Kind{
		protocol.KindEmpty, protocol.KindItem, protocol.KindItems, protocol.KindReservation,
	}).Draw(t, "kind")
	switch res.Kind {
	case protocol.KindItem, protocol.KindItems:
		res.Items = rapid.SliceOfN(items, 0, 3).Draw(t, "items")
	case protocol.KindReservation:
		res.Reservation = &protocol.Reservation{
			ID: texts.Draw(t, "id"), State: protocol.State(texts.Draw(t, "state")), User: texts.Draw(t, "user"),
			ExpiresAt: protocol.Time(numbers.Draw(t, "expires")), Lines: lines.Draw(t, "lines"),
		}
	}
	return res
}

func drawResult(t *rapid.T) protocol.Result {
	if rapid.Bool().Draw(t, "plain") {
		return drawPlain(t)
	}
	res := protocol.Result{Kind: protocol.KindOutcome, Known: rapid.Bool().Draw(t, "known")}
	res.Outcome = rapid.Ptr(rapid.Custom(drawPlain), true).Draw(t, "outcome")
	return res
}

func drawError(t *rapid.T) *protocol.Error {
	return &protocol.Error{
		Code: protocol.Code(texts.Draw(t, "code")), Message: texts.Draw(t, "message"),
		Retryable: rapid.Bool().Draw(t, "retryable"), RetryAfterMS: numbers.Draw(t, "after"),
		Details: rapid.Ptr(rapid.Custom(drawDetails), true).Draw(t, "details"),
	}
}

func drawDetails(t *rapid.T) protocol.Details {
	return protocol.Details{
		State: protocol.State(texts.Draw(t, "state")), Outcome: texts.Draw(t, "outcome"),
		Item: rapid.Ptr(items, true).Draw(t, "item"),
		Lines: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) protocol.Shortage {
			return protocol.Shortage{
				SKU: texts.Draw(t, "sku"), Location: texts.Draw(t, "location"), Requested: numbers.Draw(t, "requested"),
				Available: numbers.Draw(t, "available"), Elsewhere: numbers.Draw(t, "elsewhere"),
			}
		}), 0, 3).Draw(t, "lines"),
	}
}

// drawAnswered gives a call what it was answered with.
func drawAnswered(t *rapid.T) *protocol.Call {
	c := &protocol.Call{Replayed: rapid.Bool().Draw(t, "replayed")}
	if rapid.Bool().Draw(t, "failed") {
		c.Err = drawError(t)
	} else {
		c.Result = drawResult(t)
	}
	return c
}

var same = cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(protocol.Call{}, "Done")}

// appendBatch is Next without a sender.
func appendBatch(b []byte, from string, session, number uint64, calls []*protocol.Call) []byte {
	b = appendHeader(b, from, session, number)
	end := len(b)
	for _, c := range calls {
		b = appendCall(b, c)
	}
	setCount(b, end, len(calls))
	return b
}

func TestBatchesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		calls := drawCalls(t)
		want := Batch{From: texts.Draw(t, "from"), Session: rapid.Uint64().Draw(t, "session"), Number: rapid.Uint64().Draw(t, "number"), Calls: calls}
		got, err := DecodeBatch(appendBatch(nil, want.From, want.Session, want.Number, calls))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Fatal(diff)
		}
	})
}

// What stays at home: who is to be answered, and what only reads hold.
var notCarried = map[string]bool{
	"ID": true, "Tag": true, "Turn": true, "Sender": true, "Due": true, "Relayed": true, "Done": true, "Result": true, "Err": true, "Replayed": true,
	"SKUs": true, "Prefixes": true, "All": true, "Locations": true, "Users": true, "Since": true, "Have": true,
	"IntervalMS": true, "AtLeast": true, "Region": true, "Limit": true, "Before": true, "Token": true,
}

// TestEveryFieldIsCarriedOrNamed fails where protocol gets a field that nobody
// has decided about.
func TestEveryFieldIsCarriedOrNamed(t *testing.T) {
	var c protocol.Call
	for _, v := range []reflect.Value{reflect.ValueOf(&c).Elem(), reflect.ValueOf(&c.Command).Elem()} {
		for i := range v.NumField() {
			name, field := v.Type().Field(i).Name, v.Field(i)
			if notCarried[name] || name == "Command" {
				continue
			}
			fill(t, name, field)
			got, err := DecodeBatch(appendBatch(nil, "n", 1, 1, []*protocol.Call{&c}))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(&c, got.Calls[0], same); diff != "" {
				t.Errorf("%s is lost: %s", name, diff)
			}
			field.SetZero()
		}
	}
}

// fill sets a field to anything but its zero.
func fill(t *testing.T, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Int64, reflect.Int:
		v.SetInt(-7)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem())) // to a zero, which differs from nil
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	default:
		t.Fatalf("%s: a %s", name, v.Kind())
	}
}

func TestAnswersComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		calls := rapid.SliceOfN(rapid.Custom(drawAnswered), 0, 6).Draw(t, "calls")
		want := Answers{From: texts.Draw(t, "from"), Session: rapid.Uint64().Draw(t, "session"), Number: 3, Seq: rapid.Uint64().Draw(t, "seq")}
		for _, c := range calls {
			want.Results = append(want.Results, Answer{Result: c.Result, Err: c.Err, Replayed: c.Replayed})
		}
		got, err := DecodeAnswers(AppendAnswers(nil, want.From, want.Session, want.Number, want.Seq, calls))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestRefusalsComeBackAsTheyWere(t *testing.T) {
	for _, want := range []Answers{
		{From: "a", Session: 1, Number: 2, Verdict: Gap},
		{From: "a", Session: 1 << 63, Number: 2, Verdict: NotOwner},
		{From: "a", Session: 1, Number: 1 << 63, Verdict: NotOwner, Owner: "b"},
	} {
		got, err := DecodeAnswers(AppendRefusal(nil, want.From, want.Session, want.Number, want.Verdict, want.Owner))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestResultsOfOtherCommandsBecomeErrors(t *testing.T) {
	movements := protocol.Result{Kind: protocol.KindMovements}
	for _, res := range []protocol.Result{
		movements, {Kind: protocol.KindSubscribed}, {Kind: protocol.KindAuth}, {Kind: 99},
		{Kind: protocol.KindReservation}, // without one
		{Kind: protocol.KindOutcome, Known: true, Outcome: &movements},
		{Kind: protocol.KindOutcome, Known: true, Outcome: &protocol.Result{Kind: protocol.KindOutcome}},
	} {
		calls := []*protocol.Call{{Result: res}, {Result: protocol.Result{Kind: protocol.KindItem}}}
		got, err := DecodeAnswers(AppendAnswers(nil, "a", 1, 1, 1, calls))
		if err != nil {
			t.Fatal(err)
		}
		if e := got.Results[0].Err; e == nil || e.Code != protocol.CodeUnavailable {
			t.Errorf("%+v: %v", res, e)
		}
		if e := got.Results[1].Err; e != nil {
			t.Errorf("the answer after it: %v", e)
		}
	}
}

func TestOtherVersionsAreErrors(t *testing.T) {
	batch := appendBatch(nil, "n", 1, 1, []*protocol.Call{{}})
	answers := AppendAnswers(nil, "n", 1, 1, 1, []*protocol.Call{{}})
	if _, err := DecodeBatch(answers); err == nil {
		t.Error("answers were read as a batch")
	}
	if _, err := DecodeAnswers(batch); err == nil {
		t.Error("a batch was read as answers")
	}
	batch[0]++
	answers[0]++
	if _, err := DecodeBatch(batch); err == nil {
		t.Error("a batch of a later version was read")
	}
	if _, err := DecodeAnswers(answers); err == nil {
		t.Error("answers of a later version were read")
	}
}
