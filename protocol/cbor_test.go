package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCodecNames(t *testing.T) {
	for _, c := range []Codec{JSON, CBOR} {
		if got, ok := CodecOf(c.Subprotocol()); !ok || got != c {
			t.Errorf("%s is %d, %v", c.Subprotocol(), got, ok)
		}
	}
	for _, name := range []string{"", "stockmesh.v2.cbor", "STOCKMESH.V1.JSON"} {
		if c, ok := CodecOf(name); ok || c != JSON {
			t.Errorf("%q is %d, %v", name, c, ok)
		}
	}
}

// ofJSON and ofCBOR read a message as maps, lists, texts and integers.
func ofJSON(t require, msg []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(msg))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", msg, err)
	}
	return integers(t, v)
}

func integers(t require, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = integers(t, v[name])
		}
	case []any:
		for i := range v {
			v[i] = integers(t, v[i])
		}
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		return n
	}
	return v
}

var generic, _ = cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, IntDec: cbor.IntDecConvertSignedOrFail,
	DefaultMapType: reflect.TypeFor[map[string]any](), TagsMd: cbor.TagsForbidden,
}.DecMode()

func ofCBOR(t require, msg []byte) any {
	t.Helper()
	var v any
	if err := generic.Unmarshal(msg, &v); err != nil {
		t.Fatalf("%x: %v", msg, err)
	}
	return v
}

// require is what *testing.T and *rapid.T share.
type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sameMessage has both codecs write a message and compares what others read.
func sameMessage(t require, what string, write func(Codec) []byte) {
	t.Helper()
	j, c := write(JSON), write(CBOR)
	if d := cmp.Diff(ofJSON(t, j), ofCBOR(t, c)); d != "" {
		t.Fatalf("%s (-JSON +CBOR):\n%s", what, d)
	}
}

// results draws ok objects of every kind.
func results() *rapid.Generator[Result] {
	return rapid.Custom(func(t *rapid.T) Result {
		r := Result{Kind: Kind(rapid.IntRange(int(KindEmpty), int(KindAuth)).Draw(t, "kind"))}
		switch r.Kind {
		case KindItem:
			r.Items = []Item{items().Draw(t, "item")}
		case KindItems:
			r.Items = rapid.SliceOfN(items(), 0, 30).Draw(t, "items")
			r.Behind = rapid.Bool().Draw(t, "behind")
		case KindReservation:
			res := reservations().Draw(t, "reservation")
			r.Reservation = &res
		case KindMovements:
			r.Movements, r.Next = rapid.SliceOfN(movements(), 0, 3).Draw(t, "movements"), text().Draw(t, "next")
		case KindOutcome:
			it := items().Draw(t, "item")
			r.Known, r.Outcome = rapid.Bool().Draw(t, "known"), &Result{Kind: KindItem, Items: []Item{it}}
		case KindSubscribed:
			r.Count, r.Cursor = rapid.IntRange(0, 1<<40).Draw(t, "count"), versions().Draw(t, "cursor")
		case KindAuth:
			r.Subject, r.ExpiresAt = text().Draw(t, "subject"), times().Draw(t, "expires_at")
		}
		return r
	})
}

func TestRepliesAreTheSameInBothCodecs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		call := Call{Result: results().Draw(t, "result"), Replayed: rapid.Bool().Draw(t, "replayed")}
		if rapid.Bool().Draw(t, "refused") {
			e := errorObjects().Draw(t, "error")
			call.Err = &e
		}
		var id any = rapid.OneOf(rapid.Just[any](nil), numbers().AsAny(), text().AsAny()).Draw(t, "id")
		sameMessage(t, "reply", func(c Codec) []byte {
			call.Command.ID = c.AppendMessage(nil, id)
			return c.AppendReply(nil, &call)
		})
	})
}

func TestPushesAreTheSameInBothCodecs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it, r := items().Draw(t, "item"), reservations().Draw(t, "reservation")
		sameMessage(t, "item", func(c Codec) []byte { return c.AppendItem(nil, &it) })
		sameMessage(t, "reservation", func(c Codec) []byte { return c.AppendReservationPush(nil, &r) })
		cursor := versions().Draw(t, "cursor")
		sameMessage(t, "cursor", func(c Codec) []byte { return c.AppendCursor(nil, cursor) })
		list, snapshot := rapid.SliceOfN(items(), 0, 300).Draw(t, "items"), rapid.Bool().Draw(t, "snapshot")
		sameMessage(t, "stock", func(c Codec) []byte {
			var parts [][]byte
			for i := range list {
				parts = append(parts, c.AppendItem(nil, &list[i]))
			}
			return c.AppendStock(nil, snapshot, parts...)
		})
	})
}

// commands draws commands with any fields; most would not pass Check.
func commands() *rapid.Generator[Command] {
	return rapid.Custom(func(t *rapid.T) Command {
		c := writes().Draw(t, "write")
		list := rapid.SampledFrom([][]string{nil, {}, {"a"}, {"a", "é"}})
		c.Op, c.Key, c.Home = rapid.SampledFrom(Ops()).Draw(t, "op"), text().Draw(t, "key"), text().Draw(t, "home")
		c.SKUs, c.Prefixes, c.Locations, c.Users = list.Draw(t, "skus"), list.Draw(t, "prefixes"), list.Draw(t, "locations"), list.Draw(t, "users")
		c.All, c.Since = rapid.Bool().Draw(t, "all"), rapid.SampledFrom([]*string{nil, Ptr(""), Ptr("eu:1")}).Draw(t, "since")
		c.Have = rapid.SampledFrom([][]Have{nil, {}, {{"a", "b", "eu:1"}}}).Draw(t, "have")
		c.IntervalMS, c.Limit, c.AtLeast = numbers().Draw(t, "interval"), rapid.Int().Draw(t, "limit"), versions().Draw(t, "at_least")
		c.Region, c.Before, c.Token = text().Draw(t, "region"), text().Draw(t, "before"), text().Draw(t, "token")
		return c
	})
}

func TestRareMessagesAreTheSameInBothCodecs(t *testing.T) {
	mesh := Mesh{Region: "eu", Regions: []MeshRegion{{Name: "eu", LagMS: 3, HeardAt: 1, Nodes: []MeshNode{{OwnerOf: []int{0}}, {}}}, {}}}
	for what, v := range map[string]any{
		"hello": Hello{Op: "hello", Session: "s", Node: "eu-1", Region: "eu", Protocol: 1, HeartbeatMS: 25000,
			Endpoints: []string{"ws://a"}, Limits: Limits{65536, 10000, 256}},
		"empty hello": Hello{}, "goaway": Goaway{Op: "goaway", Reason: "drain", DeadlineMS: 30000, Endpoints: []string{"ws://a"}},
		"empty goaway": &Goaway{}, "mesh": mesh, "page": Page{}, "settings": Command{Op: OpConfigure, LowStock: Ptr[int64](0)},
	} {
		sameMessage(t, what, func(c Codec) []byte { return c.AppendMessage(nil, v) })
	}
	rapid.Check(t, func(t *rapid.T) {
		c := commands().Draw(t, "command")
		sameMessage(t, "command", func(codec Codec) []byte { return codec.AppendMessage(nil, &c) })
		p := Page{Items: rapid.SliceOfN(items(), 0, 3).Draw(t, "items"), Next: text().Draw(t, "next")}
		sameMessage(t, "page", func(c Codec) []byte { return c.AppendMessage(nil, &p) })
		var again Page
		if err := CBOR.Unmarshal(CBOR.AppendMessage(nil, &p), &again); err != nil || len(again.Items) != len(p.Items) {
			t.Fatalf("%+v reads as %+v, %v", p, again, err)
		}
		for i := range p.Items {
			if again.Items[i] != p.Items[i] {
				t.Fatalf("%+v reads as %+v", p.Items[i], again.Items[i])
			}
		}
	})
}

// TestCBORBytes holds a few messages to their bytes, so that a change of form
// can't pass by being made on both sides.
func TestCBORBytes(t *testing.T) {
	it := Item{SKU: "A1", Location: "main", Available: 7, OnHand: -500, Version: "eu:12", Low: true}
	item := "a7" + "63736b75" + "624131" + "686c6f636174696f6e" + "646d61696e" + "69617661696c61626c65" + "07" +
		"676f6e5f68616e64" + "3901f3" + "687265736572766564" + "00" + "6776657273696f6e" + "6565753a3132" + "636c6f77" + "f5"
	for want, got := range map[string][]byte{
		item: CBOR.AppendItem(nil, &it),
		"a2" + "626f70" + "6573746f636b" + "656974656d73" + "81" + item:             CBOR.AppendStock(nil, false, CBOR.AppendItem(nil, &it)),
		"a2" + "626964" + "190100" + "626f6b" + "a0":                                CBOR.AppendReply(nil, &Call{Command: Command{ID: []byte{0x19, 1, 0}}}),
		"a2" + "626964" + "f6" + "626f6b" + "a0":                                    CBOR.AppendReply(nil, &Call{}),
		"00" + "a2" + "626f70" + "66637572736f72" + "66637572736f72" + "6465753a31": CBOR.AppendCursor([]byte{0}, "eu:1"),
		"00" + "18ff": CBOR.AppendMessage([]byte{0}, 255),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("got  %x\nwant %s", got, want)
		}
	}
}

func TestCBORTextIsAlwaysUTF8(t *testing.T) {
	long := strings.Repeat("\xff", 300)
	it := Item{SKU: "a\xffb", Location: long}
	var back Item
	if err := CBOR.Unmarshal(CBOR.AppendItem([]byte{}, &it), &back); err != nil || back.SKU != "a\uFFFDb" {
		t.Errorf("%+v, %v", back, err)
	}
}
