package edge

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

// silent is a ledger that holds nothing and answers at once.
type silent struct{}

func (silent) Submit(calls []*protocol.Call) {
	for _, c := range calls {
		c.Fail(protocol.BadRequest("nothing is here"))
	}
}
func (silent) Scan(*protocol.Query) ([]protocol.Item, protocol.ItemKey, bool) {
	return nil, protocol.ItemKey{}, false
}
func (silent) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	return append(dst, make([]protocol.Item, len(ids))...)
}
func (silent) Watch(func(*protocol.Changes)) func() { return func() {} }
func (silent) Cursor() protocol.Vector              { return nil }

// bench is a loop that doesn't run, for a connection without a socket.
func newBench(t testing.TB) *loop {
	config := Config{Ledger: silent{}, Node: "eu-1", Region: "eu", SinceWait: 1}.withDefaults()
	e := &Edge{config: config, logger: config.Logger, metrics: newMetrics(config.Registerer), limit: 1000}
	e.http = newHandover(nil)
	l, err := newLoop(e, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.http.Close()
		if err := l.poller.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// feed is feedAs for plain JSON.
func (l *loop) feed(s state, pieces ...[]byte) (*conn, string) {
	return l.feedAs(form{}, s, pieces...)
}

// feedAs gives a new connection the input in pieces and returns it with what it
// would have written. The loop's other half, the socket, is left out.
func (l *loop) feedAs(f form, s state, pieces ...[]byte) (*conn, string) {
	l.edge.sessions.Store(0) // so that two runs say the same
	c := &conn{sock: poll.Socket{}, state: s, form: f}
	l.place(c)
	if s == stateOpen {
		c.session = 1
	}
	for _, b := range pieces {
		l.input(c, append([]byte(nil), b...))
	}
	l.submit()
	l.answerAll()
	if c.state == stateOpen {
		l.hub.pushDue(c)
		l.hub.fill(c)
	}
	out := string(c.out)
	l.hub.leave(c)
	l.dirty = l.dirty[:0]
	l.slots[c.slot] = nil
	l.free = append(l.free, c.slot)
	return c, out
}

func (l *loop) answerAll() {
	m := l.inbox.take(mail{})
	l.deliver(&m)
}

// bytewise is the same input in pieces of one byte.
func bytewise(b []byte) [][]byte {
	pieces := make([][]byte, len(b))
	for i := range b {
		pieces[i] = b[i : i+1]
	}
	return pieces
}

func masked(first byte, payload string) string {
	b := []byte{first}
	if n := len(payload); n < 126 {
		b = append(b, 0x80|byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	}
	return string(append(b, 0, 0, 0, 0)) + payload // a mask of zeroes changes nothing
}

const head = "GET /v1/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func FuzzHandshake(f *testing.F) {
	for _, extra := range []string{"", "Origin: http://a\r\n", "Origin: http://b\r\n", "Origin: %zz\r\n", "Sec-WebSocket-Protocol: x\r\n",
		"Sec-WebSocket-Protocol: stockmesh.v1.json\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n", ": \r\n", "Host: b\r\n", "X:" + strings.Repeat("x", headBytesMax) + "\r\n"} {
		f.Add([]byte(head + extra + "\r\n"))
		f.Add([]byte(head + extra + "\r\n" + masked(0x81, `{"op":"ping"}`)))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\r\n\r\n\r\n\r\n"))
	f.Add(bytes.Repeat([]byte{0}, headBytesMax+1))
	l := newBench(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if i := bytes.Index(data, headEnd); i >= 0 && !isUpgrade(data[:i+len(headEnd)]) {
			return // net/http's, and without a socket there is nothing to hand over
		}
		if len(data) > headBytesMax && longQuery.Match(data) {
			return // the same
		}
		c, out := l.feed(stateHead, data)
		switch c.state {
		case stateHead:
			if len(c.kept()) > headBytesMax || out != "" {
				t.Fatalf("holds %d bytes, said %q", len(c.kept()), out)
			}
		case stateOpen:
			if !strings.HasPrefix(out, "HTTP/1.1 101 ") {
				t.Fatalf("open after %q", out)
			}
		case stateClosing:
			if !strings.HasPrefix(out, "HTTP/1.1 ") {
				t.Fatalf("refused with %q", out)
			}
		}
		if len(data) > headBytesMax {
			return // a piece more or less decides whether it is too large
		}
		if _, again := l.feed(stateHead, bytewise(data)...); again != out {
			t.Fatal(cmp.Diff(out, again))
		}
	})
}

func FuzzFrames(f *testing.F) {
	ping := masked(0x81, `{"op":"ping","id":1}`)
	for _, s := range []string{
		ping, ping + ping, masked(0x89, "x"), masked(0x8a, ""), masked(0x88, ""), masked(0x88, "\x03\xe8bye"), masked(0x88, "x"),
		masked(0x01, `{"op":`) + masked(0x89, "") + masked(0x80, `"ping"}`), masked(0x00, "x"), masked(0x82, "x"), masked(0xc1, "x"),
		masked(0x81, "\xff"), masked(0x81, strings.Repeat(" ", 60000)), "\x81\x02{}", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x81\xfe",
		masked(0x01, "{") + strings.Repeat(masked(0x00, ""), fragmentsMax+1), masked(0x81, `{"op":"subscribe","all":true}`),
		masked(0x81, `[{"op":"get","skus":["a"],"id":1},{"op":"x"}]`) + masked(0x88, "\x0f\xa0"),
	} {
		f.Add([]byte(s), byte(0))
	}
	zipped := packed(f, `{"op":"ping","id":1}`)
	for _, s := range []string{
		ping, masked(0xc1, zipped), masked(0x41, zipped[:5]) + masked(0x89, "x") + masked(0x80, zipped[5:]), masked(0xc1, ""), masked(0xc1, "\x00"),
		masked(0x41, zipped[:5]) + masked(0xc0, zipped[5:]), masked(0xc9, ""), masked(0xc1, zipped[:5]), masked(0xc1, packed(f, strings.Repeat(" ", 70000))),
		masked(0xc1, packed(f, "\xff")), masked(0xc1, strings.Repeat("\x03\x00", 20)), masked(0xc1, packed(f, "["+strings.Repeat(`{"op":"x"},`, 99)+`{"op":"get","skus":["a"]}]`)),
	} {
		f.Add([]byte(s), byte(2))
	}
	for _, s := range []string{"\xa2\x62op\x64ping\x62id\x01", "\x81\xa1\x62op\x64ping", "\xa0", "\xbf\xff", "\x9f\xff", ""} {
		f.Add([]byte(masked(0x82, s)), byte(1))
		f.Add([]byte(masked(0xc2, packed(f, s))), byte(3))
	}
	l := newBench(f)
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		form := form{codec: protocol.Codec(kind & 1), deflate: kind&2 != 0}
		c, out := l.feedAs(form, stateOpen, data)
		held := len(c.kept())
		if frag := c.frag(); frag != nil {
			held += len(frag.payload)
		}
		if held > 2*protocol.MessageBytesMax {
			t.Fatalf("holds %d bytes", held)
		}
		checkFrames(t, out, form)
		if len(data) > 4<<10 {
			return // byte by byte takes long, and shows no more
		}
		if d, again := l.feedAs(form, stateOpen, bytewise(data)...); again != out || d.state != c.state {
			t.Fatalf("in one piece state %d, byte by byte %d: %s", c.state, d.state, cmp.Diff(out, again))
		}
	})
}

// checkFrames holds the output to whole frames, and frameEnd to their ends.
func checkFrames(t *testing.T, out string, f form) {
	ends := []int{0}
	for b := []byte(out); len(b) > 0; {
		h, n, ok := parseHeader(b)
		if !ok || h.Masked || !h.Fin || int64(len(b)-n) < h.Length {
			t.Fatalf("not a frame: %q", b)
		}
		zipped := f.deflate && h.Rsv == rsv1>>4 && byte(h.OpCode) == f.op()
		if h.Rsv != 0 && !zipped || !h.OpCode.IsControl() && byte(h.OpCode) != f.op() {
			t.Fatalf("not a frame of this connection: %q", b)
		}
		if _, err := unpacked(b[n : n+int(h.Length)]); zipped && err != nil {
			t.Fatal(err)
		}
		b = b[n+int(h.Length):]
		ends = append(ends, len(out)-len(b))
	}
	for i, end := range ends[1:] {
		for _, sent := range []int{ends[i] + 1, end} {
			if got := frameEnd([]byte(out), sent); got != end {
				t.Fatalf("sent %d of a frame that ends at %d: got %d", sent, end, got)
			}
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		`{"op":"ping","id":1}`, `[{"op":"ping"},{"op":"auth","token":"x"}]`, `{"op":"subscribe","skus":["a"],"have":[{"sku":"a","version":"eu:1"}]}`,
		`{"op":"subscribe","all":true,"since":"eu:1","interval_ms":5}`, `{"op":"unsubscribe"}`, `{"op":"get","skus":["a"]}`, `{`, `[]`, `[1]`,
		`{"op":"sell","key":"k","lines":[{"sku":"a","quantity":1}]}`, `{"op":"history","sku":"a","limit":501}`, `{"op":"ping","id":{}}`,
	} {
		f.Add(s)
	}
	l := newBench(f)
	f.Fuzz(func(t *testing.T, message string) {
		if len(message) >= 1<<16 || !utf8.ValidString(message) {
			return
		}
		c, out := l.feed(stateOpen, []byte(masked(0x81, message)))
		if c.state != stateOpen || out == "" {
			t.Fatalf("state %d, said %q", c.state, out)
		}
		checkFrames(t, out, form{})
		for b := []byte(out); len(b) > 0; {
			h, n, _ := parseHeader(b)
			var reply struct {
				Error *protocol.Error `json:"error"`
			}
			if err := protocol.UnmarshalJSON(b[n:n+int(h.Length)], &reply); err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if reply.Error != nil && reply.Error.Code.Status() == http.StatusInternalServerError {
				t.Fatalf("unknown code %q", reply.Error.Code)
			}
			b = b[n+int(h.Length):]
		}
	})
}
