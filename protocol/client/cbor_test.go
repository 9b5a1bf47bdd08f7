package client

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stockmesh/stockmesh/protocol"
)

// overCBOR has fake nodes and quick clients speak CBOR.
var overCBOR bool

func TestTheSameOverCBOR(t *testing.T) {
	overCBOR = true
	defer func() { overCBOR = false }()
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"commands", TestCommandsCarryTheirFields},
		{"answers", TestAnswersAreRead},
		{"many callers", TestManyCallersShareMessages},
		{"in-flight limit", TestInFlightLimitIsKept},
		{"too large command", TestTooLargeCommandIsRefusedHere},
		{"unanswered write", TestUnansweredWriteIsSentAgainWithKeyAndHome},
		{"retries", TestRetryableErrorsAreRetried},
		{"unknown outcome", TestUnknownOutcomeIsRetriedAtItsHome},
		{"refusal", TestRefusalIsReturnedAsItIs},
		{"error without id", TestErrorWithoutIDEndsCallsInFlight},
		{"canceled call", TestCanceledCallLeavesTheOthersAlone},
		{"goaway", TestGoawayConnectsElsewhereFirst},
		{"snapshot and changes", TestSubscriptionDeliversSnapshotAndChanges},
		{"resume", TestSubscriptionResumesFromItsCursor},
		{"items never go back", TestItemsNeverGoBack},
		{"reservation pushes", TestReservationPushes},
		{"many selectors", TestManySelectorsAreSplit},
		{"flaky links", TestCallsAndSubscriptionsOverFlakyLinks},
	} {
		t.Run(test.name, test.run)
	}
}

func TestCodecIsWhatTheNodePicks(t *testing.T) {
	for _, c := range []struct {
		client, node bool
		want         protocol.Codec
	}{{true, true, protocol.CBOR}, {true, false, protocol.JSON}, {false, true, protocol.JSON}} {
		n := newFakeNode(t, "a")
		n.cbor = c.node
		cfg := quick(n.addr)
		cfg.CBOR = c.client
		client := dial(t, cfg)
		if err := client.Submit(within(t), protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: 1}); err != nil {
			t.Fatal(err)
		}
		if got := n.connected(); len(got) != 1 || got[0] != c.want {
			t.Errorf("client %v, node %v: %v", c.client, c.node, got)
		}
	}
}

// A write that a CBOR node never answered goes to a JSON node in JSON.
func TestUnansweredWriteChangesItsCodec(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	a.cbor = true
	a.answer = func(c *fakeConn, _ protocol.Command) string {
		c.ws.CloseNow()
		return "-"
	}
	cfg := quick(a.addr)
	cfg.CBOR = true
	a.hello.Endpoints = []string{"ws://" + b.addr}
	it, err := dial(t, cfg).Adjust(within(t), "A", "", 5, Key("k"))
	if err != nil || it.OnHand != 5 {
		t.Fatalf("%+v, %v", it, err)
	}
	if sent := b.seenOf(protocol.OpAdjust); len(sent) != 1 || sent[0].Key != "k" || sent[0].Home != "eu" {
		t.Errorf("%+v", sent)
	}
}

// A push leaves nothing behind in the memory that the next one is read into.
func TestCBORPushIsReadAfresh(t *testing.T) {
	l := &link{client: &Client{}}
	full := protocol.Item{SKU: "A", UpdatedAt: 1, Low: true}
	bare := protocol.Item{SKU: "B"}
	for _, items := range [][]protocol.Item{{full, full}, {bare}, {bare, bare}} {
		var parts [][]byte
		for i := range items {
			parts = append(parts, protocol.CBOR.AppendItem(nil, &items[i]))
		}
		if err := l.handle(message{protocol.CBOR, protocol.CBOR.AppendStock(nil, false, parts...)}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(items, l.stock.Items); d != "" {
			t.Error(d)
		}
	}
}

func TestAppendCommandCBOR(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := commands().Draw(t, "command")
		id := rapid.Uint64().Draw(t, "id")
		b := appendCommandCBOR(nil, &want, id)
		var got protocol.Command
		if err := protocol.CBOR.Unmarshal(b, &got); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
		var again protocol.Command
		protocol.CBOR.Decode(&again, b)
		if !bytes.Equal(again.ID, protocol.CBOR.AppendMessage(nil, id)) {
			t.Fatalf("id %d is %x", id, []byte(again.ID))
		}
	})
}

func TestFrame(t *testing.T) {
	for _, count := range []int{1, 2, 23, 24, 255, 256} {
		for _, codec := range []protocol.Codec{protocol.JSON, protocol.CBOR} {
			buf := make([]byte, headRoom)
			for i := range count {
				buf = appendNext(codec, buf, codec.AppendMessage(nil, protocol.Command{Op: protocol.OpPing}), i)
			}
			_, msg := frame(codec, buf, count)
			if values, err := codec.Split(msg, protocol.CommandsMax); err != nil || len(values) != count {
				t.Errorf("%s, %d: %d, %v", codec.Subprotocol(), count, len(values), err)
			}
		}
	}
	if _, msg := frame(protocol.CBOR, make([]byte, headRoom), 0); len(msg) != 0 {
		t.Errorf("a message of nothing: %x", msg)
	}
}

func TestPeekCBOR(t *testing.T) {
	for text, want := range map[string]head{
		`{"id":7,"ok":{}}`:                           {isReply: true, hasID: true, id: 7},
		`{"ok":{},"id":7}`:                           {isReply: true, hasID: true, id: 7},
		`{"id":null,"error":{"code":"bad_request"}}`: {isReply: true},
		`{"op":"stock","items":[]}`:                  {op: "stock"},
		`{"items":[],"op":"stock","snapshot":true}`:  {op: "stock"},
		`{"op":"cursor","cursor":"eu:1"}`:            {op: "cursor"},
		`{"op":"something-new","id":null,"more":{}}`: {op: "something-new"},
	} {
		if got, err := (message{protocol.CBOR, toCBOR([]byte(text))}).peek(); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, msg := range []string{"", "\x07", "\xa2", "\xa1\x62id", "\xa1\x62id\x19\x01", "\xa1\x62id\x20", "\xa1\x62id\x61x"} {
		if got, err := (message{protocol.CBOR, []byte(msg)}).peek(); err == nil {
			t.Errorf("%x: %+v", msg, got)
		}
	}
}

func TestRepliesInCBORAreReadQuickly(t *testing.T) {
	for _, id := range []uint64{0, 23, 24, 255, 256, 1<<16 - 1, 1 << 16, 1<<32 - 1, 1 << 32, math.MaxUint64} {
		call := protocol.Call{Command: protocol.Command{ID: protocol.CBOR.AppendMessage(nil, id)}}
		got, rest, ok := cborReply(protocol.CBOR.AppendReply(nil, &call))
		if !ok || got != id || !bytes.HasPrefix(rest, cborOK) {
			t.Errorf("%d: %d, %x, %v", id, got, rest, ok)
		}
		call.Err = protocol.NewError(protocol.CodeForbidden, "no")
		wantCode(t, message{protocol.CBOR, protocol.CBOR.AppendReply(nil, &call)}.acknowledged(), protocol.CodeForbidden)
	}
}

func (n *fakeNode) connected() (codecs []protocol.Codec) {
	n.each(func(c *fakeConn) { codecs = append(codecs, c.codec) })
	return codecs
}

// toCBOR says a JSON message in CBOR, its fields in the same order.
func toCBOR(text []byte) []byte {
	var b []byte
	d := jsontext.NewDecoder(bytes.NewReader(text))
	var value func()
	// list reads up to the closing token; its length is known only then.
	list := func(head byte, perEntry int, end jsontext.Kind) {
		before, n := b, 0
		b = nil
		for ; d.PeekKind() != end; n++ {
			value()
		}
		d.ReadToken()
		b = slices.Concat(before, cborStart(head, n/perEntry), b)
	}
	value = func() {
		token, err := d.ReadToken()
		if err != nil {
			panic(err)
		}
		switch token.Kind() {
		case '{':
			list(cborMap, 2, '}')
		case '[':
			list(cborArray, 1, ']')
		case '"':
			b = protocol.CBOR.AppendMessage(b, token.String())
		case '0':
			n, err := strconv.ParseInt(token.String(), 10, 64)
			if err != nil {
				panic(err)
			}
			b = protocol.CBOR.AppendMessage(b, n)
		case 'n':
			b = protocol.CBOR.AppendMessage(b, nil)
		default:
			b = protocol.CBOR.AppendMessage(b, token.Bool())
		}
	}
	value()
	return b
}

// cborStart is the head of a map or an array.
func cborStart(head byte, n int) []byte {
	if n <= cborShortMax {
		return []byte{head | byte(n)}
	}
	return binary.BigEndian.AppendUint16([]byte{head | cborTwoBytes}, uint16(n))
}

// idText is a command's id as JSON.
func (c *fakeConn) idText(id protocol.Raw) protocol.Raw {
	if c.codec == protocol.JSON || len(id) == 0 {
		return id
	}
	var n uint64
	if err := c.codec.Unmarshal(id, &n); err != nil {
		panic(err)
	}
	return strconv.AppendUint(nil, n, 10)
}
