package protocol

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// text draws strings as they pass Check: valid UTF-8, with and without what
// JSON must escape.
func text() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9 /.*>-]{0,8}`), rapid.StringMatching(`["\\<>&]{0,4}`), rapid.String())
}

func numbers() *rapid.Generator[int64] { return rapid.Int64Range(-QuantityMax, QuantityMax) }

func times() *rapid.Generator[Time] {
	return rapid.Custom(func(t *rapid.T) Time { return Time(rapid.Int64Range(0, 4102444800000).Draw(t, "time")) })
}

func versions() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string { return vectors().Draw(t, "vector").String() })
}

func items() *rapid.Generator[Item] {
	return rapid.Custom(func(t *rapid.T) Item {
		return Item{SKU: text().Draw(t, "sku"), Location: text().Draw(t, "location"), Available: numbers().Draw(t, "available"),
			OnHand: numbers().Draw(t, "on_hand"), Reserved: numbers().Draw(t, "reserved"), Version: versions().Draw(t, "version"),
			UpdatedAt: times().Draw(t, "updated_at"), Low: rapid.Bool().Draw(t, "low")}
	})
}

func reservations() *rapid.Generator[Reservation] {
	return rapid.Custom(func(t *rapid.T) Reservation {
		r := Reservation{ID: text().Draw(t, "id"), State: rapid.SampledFrom([]State{Held, Confirmed, Released, Expired}).Draw(t, "state"),
			ExpiresAt: times().Draw(t, "expires_at"), User: text().Draw(t, "user"), Lines: []Line{}}
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			r.Lines = append(r.Lines, Line{text().Draw(t, "sku"), text().Draw(t, "location"), numbers().Draw(t, "quantity")})
		}
		return r
	})
}

func movements() *rapid.Generator[Movement] {
	return rapid.Custom(func(t *rapid.T) Movement {
		s := func(name string) string { return text().Draw(t, name) }
		n := func(name string) int64 { return numbers().Draw(t, name) }
		return Movement{Sequence: "eu.0.1234.2", At: times().Draw(t, "at"), Region: "eu", Type: "adjust", SKU: s("sku"), Location: s("location"),
			OnHandDelta: n("on_hand_delta"), ReservedDelta: n("reserved_delta"), OnHand: n("on_hand"), Reserved: n("reserved"),
			Key: s("key"), Reservation: s("reservation"), Reason: s("reason"), Reference: s("reference"), Subject: s("subject")}
	})
}

func errorObjects() *rapid.Generator[Error] {
	return rapid.Custom(func(t *rapid.T) Error {
		e := Error{Code: CodeUnavailable, Message: text().Draw(t, "message"), Retryable: rapid.Bool().Draw(t, "retryable"),
			RetryAfterMS: numbers().Draw(t, "after")}
		if !rapid.Bool().Draw(t, "details") {
			return e
		}
		e.Details = &Details{State: rapid.SampledFrom([]State{"", Expired}).Draw(t, "state"), Outcome: rapid.SampledFrom([]string{"", "unknown"}).Draw(t, "outcome")}
		for range rapid.IntRange(0, 2).Draw(t, "lines") {
			e.Details.Lines = append(e.Details.Lines, Shortage{text().Draw(t, "sku"), text().Draw(t, "location"),
				numbers().Draw(t, "requested"), numbers().Draw(t, "available"), numbers().Draw(t, "elsewhere")})
		}
		if rapid.Bool().Draw(t, "item") {
			it := items().Draw(t, "item")
			e.Details.Item = &it
		}
		return e
	})
}

// equalsTags fails unless the hand-written bytes are what the struct tags give,
// as JSON values.
func equalsTags[T any](t *rapid.T, written []byte, want T) {
	t.Helper()
	var got T
	if err := UnmarshalJSON(written, &got); err != nil {
		t.Fatalf("%s: %v", written, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", written, d)
	}
	var a, b any
	if err := json.Unmarshal(written, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(AppendJSON(nil, want), &b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, a); d != "" {
		t.Fatalf("by hand and by tags (-tags +hand):\n%s", d)
	}
}

func TestEncodersEqualTheStructTags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := items().Draw(t, "item")
		equalsTags(t, AppendItem(nil, &it), it)
		r := reservations().Draw(t, "reservation")
		equalsTags(t, AppendReservation(nil, &r), r)
		m := movements().Draw(t, "movement")
		equalsTags(t, AppendMovement(nil, &m), m)
		e := errorObjects().Draw(t, "error")
		equalsTags(t, AppendError(nil, &e), e)
		p := Page{Items: append([]Item{}, rapid.SliceOfN(items(), 0, 3).Draw(t, "items")...), Next: text().Draw(t, "next")}
		equalsTags(t, AppendPage(nil, &p), p)
	})
}

func TestEncodersAppend(t *testing.T) {
	prefix := []byte("before")
	got := AppendReply(bytes.Clone(prefix), &Call{})
	if string(got) != `before{"id":null,"ok":{}}` {
		t.Errorf("%s", got)
	}
}

func TestAppendReply(t *testing.T) {
	it := Item{SKU: "A", Location: "main", Available: 7, OnHand: 9, Reserved: 2, Version: "eu:12,us:4", UpdatedAt: 1000}
	res := &Reservation{ID: "eu.1", State: Held, ExpiresAt: 1000, Lines: []Line{{"A", "main", 2}}}
	const item = `{"sku":"A","location":"main","available":7,"on_hand":9,"reserved":2,"version":"eu:12,us:4","updated_at":"1970-01-01T00:00:01.000Z"}`
	const reservation = `{"id":"eu.1","state":"held","expires_at":"1970-01-01T00:00:01.000Z","lines":[{"sku":"A","location":"main","quantity":2}]}`
	for want, call := range map[string]Call{
		`{"id":7,"ok":{}}`:                                                        {},
		`{"id":7,"ok":{"item":` + item + `}}`:                                     {Result: Result{Kind: KindItem, Items: []Item{it}}},
		`{"id":7,"ok":{"items":[]}}`:                                              {Result: Result{Kind: KindItems}},
		`{"id":7,"ok":{"items":[` + item + `],"behind":true}}`:                    {Result: Result{Kind: KindItems, Items: []Item{it}, Behind: true}},
		`{"id":7,"ok":{"reservation":` + reservation + `},"replayed":true}`:       {Result: Result{Kind: KindReservation, Reservation: res}, Replayed: true},
		`{"id":7,"ok":{"movements":[],"next":"n"}}`:                               {Result: Result{Kind: KindMovements, Next: "n"}},
		`{"id":7,"ok":{"known":false}}`:                                           {Result: Result{Kind: KindOutcome}},
		`{"id":7,"ok":{"known":true,"reply":{"ok":{"item":` + item + `}}}}`:       {Result: Result{Kind: KindOutcome, Known: true, Outcome: &Result{Kind: KindItem, Items: []Item{it}}}},
		`{"id":7,"ok":{"items":3,"cursor":"eu:88120"}}`:                           {Result: Result{Kind: KindSubscribed, Count: 3, Cursor: "eu:88120"}},
		`{"id":7,"ok":{"subject":"ada","expires_at":"1970-01-01T00:00:01.000Z"}}`: {Result: Result{Kind: KindAuth, Subject: "ada", ExpiresAt: 1000}},
		`{"id":7,"error":{"code":"missing_key","message":"m","retryable":false,"retry_after_ms":0}}`: {
			Err: NewError(CodeMissingKey, "m"), Replayed: true},
		`{"id":7,"error":{"code":"unavailable","message":"m","retryable":true,"retry_after_ms":50,"details":{"outcome":"unknown"}}}`: {
			Err: &Error{Code: CodeUnavailable, Message: "m", Retryable: true, RetryAfterMS: 50, Details: &Details{Outcome: "unknown"}}},
	} {
		call.Command.ID = []byte("7")
		if got := string(AppendReply(nil, &call)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAppendPushes(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"op":"stock","items":[]}`:                      AppendStock(nil, false),
		`{"op":"stock","snapshot":true,"items":[{},{}]}`: AppendStock(nil, true, []byte("{}"), []byte("{}")),
		`{"op":"cursor","cursor":"eu:88120,us:7712"}`:    AppendCursor(nil, "eu:88120,us:7712"),
		`{"op":"reservation","reservation":{"id":"eu.1","state":"expired","expires_at":"1970-01-01T00:00:00.000Z","lines":[]}}`: AppendReservationPush(nil, &Reservation{ID: "eu.1", State: Expired}),
	} {
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestTimeReadsAnyRFC3339(t *testing.T) {
	for in, want := range map[string]Time{
		"2026-01-02T03:04:05.678Z": 1767323045678, "2026-01-02T03:04:05Z": 1767323045000,
		"2026-01-02T04:04:05.678999+01:00": 1767323045678, "1970-01-01T00:00:00.000Z": 0,
	} {
		var got Time
		if err := got.UnmarshalText([]byte(in)); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", in, got, err, want)
		}
	}
	var bad Time
	if err := bad.UnmarshalText([]byte("yesterday")); err == nil {
		t.Error("yesterday was taken")
	}
}

// writes draws write commands from few values, so that near misses such as
// ("ab","c") and ("a","bc") come up often.
func writes() *rapid.Generator[Command] {
	return rapid.Custom(func(t *rapid.T) Command {
		s := func(name string) string {
			return rapid.SampledFrom([]string{"", "a", "b", "ab", "ba", "\x00", "\x01a"}).Draw(t, name)
		}
		n := func(name string) int64 { return rapid.Int64Range(-2, 2).Draw(t, name) }
		opt := func(name string) *int64 {
			return rapid.SampledFrom([]*int64{nil, Ptr[int64](0), Ptr[int64](1)}).Draw(t, name)
		}
		c := Command{Op: rapid.SampledFrom([]Op{OpAdjust, OpCount, OpSell}).Draw(t, "op"), Reason: s("reason"), Reference: s("reference"),
			SKU: s("sku"), Location: s("location"), Delta: n("delta"), OnHand: opt("on_hand"), TTLMS: opt("ttl"), User: s("user"),
			Reservation: s("reservation"), From: s("from"), To: s("to"), Quantity: n("quantity"),
			SafetyStock: opt("safety"), BackorderLimit: opt("backorder"), LowStock: opt("low")}
		c.IfVersion = rapid.SampledFrom([]*string{nil, Ptr(""), Ptr("eu:1")}).Draw(t, "if_version")
		for range rapid.IntRange(0, 2).Draw(t, "lines") {
			c.Lines = append(c.Lines, Line{s("line"), s("at"), n("units")})
		}
		return c
	})
}

func TestAppendBodyTellsCommandsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := writes().Draw(t, "a"), writes().Draw(t, "b")
		if rapid.Bool().Draw(t, "near") { // a copy but for one or two fields
			near := a
			near.SKU, near.Reason, near.From, near.Lines = b.SKU, b.Reason, b.From, b.Lines
			b = near
		}
		if same := cmp.Equal(a, b); same != bytes.Equal(a.AppendBody(nil), b.AppendBody(nil)) {
			t.Fatalf("%+v and %+v: equal %v", a, b, same)
		}
		again := a
		again.ID, again.Home, again.Key = []byte("9"), "us", "other"
		if !bytes.Equal(a.AppendBody(nil), again.AppendBody(nil)) {
			t.Fatal("id, home or key changed the body")
		}
	})
}
