package relay

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
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
	c.Trace = rapid.Ptr(traces, true).Draw(t, "trace")
	return c
}

// traces are as another node sees them.
var traces = rapid.Custom(func(t *rapid.T) protocol.Trace {
	var tr protocol.Trace
	copy(tr.Context.Trace[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace"))
	copy(tr.Handover[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "span"))
	tr.Context.Span, tr.Context.Sampled = tr.Handover, true
	return tr
})

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
	end, all := len(b), uint32(0)
	for _, c := range calls {
		var flags uint32
		b, flags = appendCall(b, c, 0)
		all |= flags
	}
	seal(b, end, len(calls), all)
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
	"ID": true, "Tag": true, "Came": true, "Turn": true, "Sender": true, "Due": true, "Relayed": true, "Done": true, "Result": true, "Err": true, "Replayed": true,
	"SKUs": true, "Prefixes": true, "All": true, "Locations": true, "Users": true, "Since": true, "Have": true,
	"IntervalMS": true, "AtLeast": true, "Region": true, "Limit": true, "Before": true, "Token": true,
	"Traceparent": true, // Trace goes on from it
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
		if tr, ok := v.Interface().(*protocol.Trace); ok {
			tr.Context.Sampled = true // or there were none
		}
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
	answers[0]++
	if _, err := DecodeAnswers(answers); err == nil || !strings.Contains(err.Error(), "format 0x22, this version reads 0x21") {
		t.Errorf("answers of a later version: %v", err)
	}
}

// laterBatch is a batch of a version that is not there yet.
func laterBatch(from string, session, number uint64) []byte {
	b := appendHeader(nil, from, session, number)
	b[0] = BatchFormat + 1
	return append(b, "what nobody knows yet"...)
}

// Who sent what can't be read is known, so that it can be told.
func TestUnreadableBatchesHaveASender(t *testing.T) {
	good := appendBatch(nil, "eu-1", 7, 3, sampleCalls())
	for name, tt := range map[string]struct {
		data []byte
		from string
		want string
	}{
		"later":        {laterBatch("eu-1", 7, 3), "eu-1", "format 0x14, this version reads 0x11 to 0x13: the nodes run different versions, upgrade"},
		"cut short":    {good[:len(good)-1], "eu-1", "malformed"},
		"longer":       {append(bytes.Clone(good), 0), "eu-1", "malformed"},
		"header alone": {good[:8], "eu-1", "malformed"},
		"half of that": {good[:6], "", "malformed"},
		"nothing":      {nil, "", "malformed"},
		"no batch":     {append([]byte{answersFormat}, good[1:]...), "", "0x21 is not that of a batch"},
	} {
		got, err := DecodeBatch(tt.data)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q in it", name, err, tt.want)
		}
		want := Batch{}
		if tt.from != "" {
			want = Batch{From: tt.from, Session: 7, Number: 3}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// oldBatch was written by the version before addresses and scopes.
const oldBatch = "110465752d3107010200000001d9013800026b310473686f7001750474696c6c022331026575010141046d61696e048080808080808080100321000000016b0465752e31"

// Whatever an older version can read is written as it wrote it, and what it can't
// has another format.
func TestFormatIsTheFirstThatWillDo(t *testing.T) {
	old, err := hex.DecodeString(oldBatch)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := DecodeBatch(old)
	if err != nil {
		t.Fatal(err)
	}
	write := func() []byte { return appendBatch(nil, batch.From, batch.Session, batch.Number, batch.Calls) }
	if again := write(); !bytes.Equal(again, old) {
		t.Fatalf("%x read, written again it is %x", old, again)
	}
	last := batch.Calls[len(batch.Calls)-1]
	plain := *last
	for name, tt := range map[string]struct {
		format byte
		set    func()
	}{
		"address": {batchFormat2, func() { last.Address = "192.0.2.1" }},
		"within":  {batchFormat2, func() { last.Command.Within = protocol.Scope{} }},
		"trace":   {batchFormat3, func() { last.Trace = new(protocol.Trace) }},
	} {
		*last = plain
		tt.set()
		b := write()
		if b[0] != tt.format {
			t.Errorf("%s: written in format %#x", name, b[0])
		}
		b[0]--
		if _, err := DecodeBatch(b); err == nil {
			t.Errorf("%s: read in the format before", name)
		}
	}
	old[0] = batchFormat2
	if _, err := DecodeBatch(old); err == nil {
		t.Error("read in a later format than it needs")
	}
}
