package edge_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// conformance is one case of the Autobahn suite, by its number, made for a server
// that answers commands instead of echoing: what is sent, and what comes back in
// order: a pong's payload, a reply, or at the end a close code.
type conformance struct {
	number string
	send   []string
	want   []string
}

func pong(s string) string { return "pong " + s }

func closes(code int) string { return fmt.Sprint("close ", code) }

const bad = "bad_request"

// text1 is a command in one frame and ok1 its reply.
const ok1 = `{"id":1,"ok":{}}`

var text1 = frameBytes(fin|text, `{"op":"ping","id":1}`)

func framed(first byte, payload string) string { return frameBytes(first, payload) }

func closing(code int, reason string) string {
	return framed(fin|closeFrame, string([]byte{byte(code >> 8), byte(code)})+reason)
}

var conformances = []conformance{
	{"1.1.1", []string{framed(fin|text, "")}, []string{bad}},
	{"1.1.2", []string{framed(fin|text, strings.Repeat("*", 125))}, []string{bad}},
	{"1.1.3", []string{framed(fin|text, strings.Repeat("*", 126))}, []string{bad}},
	{"1.1.4", []string{framed(fin|text, strings.Repeat("*", 127))}, []string{bad}},
	{"1.1.5", []string{framed(fin|text, strings.Repeat("*", 128))}, []string{bad}},
	{"1.1.6", []string{framed(fin|text, strings.Repeat("*", 65535))}, []string{bad}},
	{"1.1.7", []string{framed(fin|text, strings.Repeat("*", 65536))}, []string{bad}},
	{"1.2.1", []string{framed(fin|binaryFrame, "")}, []string{closes(1003)}},
	{"1.2.7", []string{framed(fin|binaryFrame, strings.Repeat("*", 65536))}, []string{closes(1003)}},

	{"2.1", []string{framed(fin|pingFrame, "")}, []string{pong("")}},
	{"2.2", []string{framed(fin|pingFrame, "Hello, world!")}, []string{pong("Hello, world!")}},
	{"2.3", []string{framed(fin|pingFrame, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}, []string{pong("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}},
	{"2.4", []string{framed(fin|pingFrame, strings.Repeat("\xfe", 125))}, []string{pong(strings.Repeat("\xfe", 125))}},
	{"2.5", []string{framed(fin|pingFrame, strings.Repeat("\xfe", 126))}, []string{closes(1002)}},
	{"2.6", strings.Split(framed(fin|pingFrame, "in octets"), ""), []string{pong("in octets")}},
	{"2.7", []string{framed(fin|pongFrame, ""), text1}, []string{ok1}},
	{"2.8", []string{framed(fin|pongFrame, "unsolicited"), text1}, []string{ok1}},
	{"2.9", []string{framed(fin|pongFrame, "unsolicited"), framed(fin|pingFrame, "ping")}, []string{pong("ping")}},
	{"2.10", []string{strings.Repeat(framed(fin|pingFrame, "x"), 10)}, strings.Split(strings.TrimSuffix(strings.Repeat("pong x,", 10), ","), ",")},
	{"2.11", strings.Split(strings.Repeat(framed(fin|pingFrame, "x"), 10), ""), strings.Split(strings.TrimSuffix(strings.Repeat("pong x,", 10), ","), ",")},

	{"3.1", []string{framed(fin|0x10|text, "{}")}, []string{closes(1002)}},
	{"3.2", []string{text1, framed(fin|0x20|text, "{}"), framed(fin|pingFrame, "")}, []string{ok1, closes(1002)}},
	{"3.3", []string{text1, framed(fin|0x30|text, "{}"), framed(fin|pingFrame, "")}, []string{ok1, closes(1002)}},
	{"3.4", strings.Split(text1+framed(fin|0x40|text, "{}"), ""), []string{ok1, closes(1002)}},
	{"3.5", []string{framed(fin|0x50|binaryFrame, "x")}, []string{closes(1002)}},
	{"3.6", []string{framed(fin|0x60|pingFrame, "x")}, []string{closes(1002)}},
	{"3.7", []string{framed(fin|0x70|closeFrame, "")}, []string{closes(1002)}},

	{"4.1.1", []string{framed(fin|3, "")}, []string{closes(1002)}},
	{"4.1.2", []string{framed(fin|4, "reserved")}, []string{closes(1002)}},
	{"4.1.3", []string{text1, framed(fin|5, ""), framed(fin|pingFrame, "")}, []string{ok1, closes(1002)}},
	{"4.1.4", []string{text1, framed(fin|6, "reserved"), framed(fin|pingFrame, "")}, []string{ok1, closes(1002)}},
	{"4.1.5", strings.Split(text1+framed(fin|7, "reserved"), ""), []string{ok1, closes(1002)}},
	{"4.2.1", []string{framed(fin|11, "")}, []string{closes(1002)}},
	{"4.2.2", []string{framed(fin|12, "reserved")}, []string{closes(1002)}},
	{"4.2.3", []string{text1, framed(fin|13, ""), framed(fin|pingFrame, "")}, []string{ok1, closes(1002)}},
	{"4.2.4", []string{text1, framed(fin|14, "reserved")}, []string{ok1, closes(1002)}},
	{"4.2.5", strings.Split(text1+framed(fin|15, "reserved"), ""), []string{ok1, closes(1002)}},

	{"5.1", []string{framed(pingFrame, "frag"), framed(fin|continued, "ment")}, []string{closes(1002)}},
	{"5.2", []string{framed(pongFrame, "frag"), framed(fin|continued, "ment")}, []string{closes(1002)}},
	{"5.3", []string{framed(text, `{"op":"pi`), framed(fin|continued, `ng","id":1}`)}, []string{ok1}},
	{"5.4", []string{framed(text, `{"op":"pi`) + framed(fin|continued, `ng","id":1}`)}, []string{ok1}},
	{"5.5", strings.Split(framed(text, `{"op":"pi`)+framed(fin|continued, `ng","id":1}`), ""), []string{ok1}},
	{"5.6", []string{framed(text, `{"op":"pi`), framed(fin|pingFrame, "in between"), framed(fin|continued, `ng","id":1}`)}, []string{pong("in between"), ok1}},
	{"5.7", []string{framed(text, `{"op":"pi`) + framed(fin|pingFrame, "in between") + framed(fin|continued, `ng","id":1}`)}, []string{pong("in between"), ok1}},
	{"5.8", strings.Split(framed(text, `{"op":"pi`)+framed(fin|pingFrame, "x")+framed(fin|continued, `ng","id":1}`), ""), []string{pong("x"), ok1}},
	{"5.9", []string{framed(fin|continued, "not begun"), text1}, []string{closes(1002)}},
	{"5.10", []string{framed(fin|continued, "not begun") + text1}, []string{closes(1002)}},
	{"5.11", strings.Split(framed(fin|continued, "x")+text1, ""), []string{closes(1002)}},
	{"5.12", []string{framed(continued, "not begun"), text1}, []string{closes(1002)}},
	{"5.15", []string{framed(text, `{"op":"ping"`), framed(fin|continued, `,"id":1}`), framed(continued, "x")}, []string{ok1, closes(1002)}},
	{"5.18", []string{framed(text, "{"), framed(fin|text, "}")}, []string{closes(1002)}},
	{"5.19", []string{framed(text, "{"), framed(continued, `"op"`), framed(fin|pingFrame, "1"), framed(continued, `:"ping"`), framed(fin|pingFrame, "2"), framed(fin|continued, `,"id":1}`)},
		[]string{pong("1"), pong("2"), ok1}},

	{"6.1.1", []string{framed(fin|text, "")}, []string{bad}},
	{"6.1.2", []string{framed(text, ""), framed(continued, ""), framed(fin|continued, "")}, []string{bad}},
	{"6.1.3", []string{framed(text, ""), framed(continued, `{"op":"ping","id":1}`), framed(fin|continued, "")}, []string{ok1}},
	{"6.2.1", []string{framed(fin|text, `{"op":"ping","id":"Hello-µ@ßöäüàá-UTF-8!!"}`)}, []string{`{"id":"Hello-µ@ßöäüàá-UTF-8!!","ok":{}}`}},
	{"6.2.3", inFragments(`{"op":"ping","id":"Hello-µ@ßöäüàá-UTF-8!!"}`), []string{`{"id":"Hello-µ@ßöäüàá-UTF-8!!","ok":{}}`}},
	{"6.2.4", inFragments(`{"op":"ping","id":"κόσμε"}`), []string{`{"id":"κόσμε","ok":{}}`}},
	{"6.3.1", []string{framed(fin|text, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")}, []string{closes(1007)}},
	{"6.3.2", inFragments("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), []string{closes(1007)}},
	{"6.6.2", []string{framed(fin|text, "\xce")}, []string{closes(1007)}},
	{"6.12.1", []string{framed(fin|text, "\xfe")}, []string{closes(1007)}},
	{"6.14.1", []string{framed(fin|text, "\x80")}, []string{closes(1007)}},
	{"6.18.1", []string{framed(fin|text, "\xc0\xaf")}, []string{closes(1007)}}, // an overlong form
	{"6.20.1", []string{framed(fin|text, "\xed\xa0\x80")}, []string{closes(1007)}},
	{"6.22.1", []string{framed(fin|text, "\"\xef\xbf\xbe\"")}, []string{bad}}, // no character, but valid UTF-8

	{"7.1.1", []string{text1, framed(fin|closeFrame, "")}, []string{ok1, closes(1000)}},
	{"7.1.2", []string{framed(fin|closeFrame, "") + framed(fin|closeFrame, "")}, []string{closes(1000)}},
	{"7.1.3", []string{framed(fin|closeFrame, "") + framed(fin|pingFrame, "")}, []string{closes(1000)}},
	{"7.1.4", []string{framed(fin|closeFrame, "") + text1}, []string{closes(1000)}},
	{"7.1.5", []string{framed(text, "{") + framed(fin|closeFrame, "") + framed(fin|continued, "}")}, []string{closes(1000)}},
	{"7.3.1", []string{framed(fin|closeFrame, "")}, []string{closes(1000)}},
	{"7.3.2", []string{framed(fin|closeFrame, "a")}, []string{closes(1002)}},
	{"7.3.3", []string{closing(1000, "")}, []string{closes(1000)}},
	{"7.3.4", []string{closing(1000, "Hello World!")}, []string{closes(1000)}},
	{"7.3.5", []string{closing(1000, strings.Repeat("*", 123))}, []string{closes(1000)}},
	{"7.3.6", []string{closing(1000, strings.Repeat("*", 124))}, []string{closes(1002)}},
	{"7.5.1", []string{closing(1000, "\xce\xba\xed\xa0\x80")}, []string{closes(1002)}},
}

func inFragments(s string) []string {
	list := []string{framed(text, s[:1])}
	for i := 1; i < len(s)-1; i++ {
		list = append(list, framed(continued, s[i:i+1]))
	}
	return append(list, framed(fin|continued, s[len(s)-1:]))
}

func init() {
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		conformances = append(conformances, conformance{fmt.Sprint("7.7.", i+1), []string{closing(code, "")}, []string{closes(code)}})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		conformances = append(conformances, conformance{fmt.Sprint("7.9.", i+1), []string{closing(code, "")}, []string{closes(1002)}})
	}
}

func TestConformance(t *testing.T) {
	f := start(t)
	for _, tc := range conformances {
		t.Run(tc.number, func(t *testing.T) {
			f.TB = t
			p := f.dial()
			go func() {
				for _, s := range tc.send {
					if _, err := io.WriteString(p.conn, s); err != nil {
						return // closed early, as some cases want
					}
				}
			}()
			var got []string
			for range tc.want {
				got = append(got, p.answer())
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Fatal(d)
			}
			if last := tc.want[len(tc.want)-1]; !strings.HasPrefix(last, "close") {
				p.frame(fin|closeFrame, "\x03\xe8")
				p.wantClose(protocol.CloseNormal)
				return
			}
			p.wantEnd()
		})
	}
}

// answer is the next frame in the words of the table.
func (p *peer) answer() string {
	p.Helper()
	p.setDeadline()
	op, payload, err := p.readFrame()
	if err != nil {
		return err.Error()
	}
	switch op {
	case pongFrame:
		return pong(string(payload))
	case closeFrame:
		return closes(int(payload[0])<<8 | int(payload[1]))
	}
	if strings.Contains(string(payload), `"code":"bad_request"`) {
		return bad
	}
	return string(payload)
}
