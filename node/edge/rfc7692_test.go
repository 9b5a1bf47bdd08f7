package edge_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// deflateSizes are the message sizes of Autobahn's cases 12 and 13, in order of
// their last number, and of the fragments they are sent in; 0: one frame.
var deflateSizes = []struct{ message, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {1024, 0}, {4096, 0}, {8192, 0}, {16384, 0}, {32768, 0}, {65536, 0}, {131072, 0},
	{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
}

// deflateCase is one of Autobahn's groups of cases about permessage-deflate. 12.2
// to 12.4 send pictures and books as binary messages, which no command is.
type deflateCase struct {
	number string
	offer  string
	answer string // empty: declined, as the client may have it
}

const (
	pmd        = "permessage-deflate"
	acceptable = pmd + "; client_no_context_takeover; client_max_window_bits"
	agreed     = pmd + ";server_no_context_takeover;client_no_context_takeover"
)

var deflateCases = []deflateCase{
	{"12.1", acceptable, agreed},
	{"13.1", acceptable, agreed},
	{"13.2", acceptable + "; server_no_context_takeover", agreed},
	{"13.3", acceptable + "; server_max_window_bits=8", ""},
	{"13.4", acceptable + "; server_max_window_bits=15", agreed + ";server_max_window_bits=15"},
	{"13.5", acceptable + "; server_no_context_takeover; server_max_window_bits=8", ""},
	{"13.6", acceptable + "; server_no_context_takeover; server_max_window_bits=15", agreed + ";server_max_window_bits=15"},
	{"13.7", acceptable + "; server_no_context_takeover; server_max_window_bits=8, " + acceptable + "; server_no_context_takeover, " + acceptable, agreed},
}

func TestDeflateConformance(t *testing.T) {
	f := start(t)
	for _, tc := range deflateCases {
		for i, size := range deflateSizes {
			t.Run(fmt.Sprintf("%s.%d", tc.number, i+1), func(t *testing.T) {
				f.TB = t
				p := f.offering(t, tc.offer, tc.answer)
				if size.message > protocol.MessageBytesMax {
					p.rawMessage(padded(size.message), size.fragment)
					p.wantClose(protocol.CloseTooLarge)
					return
				}
				for range 10 {
					p.rawMessage(padded(size.message), size.fragment)
					if m := p.next(); m.raw != `{"id":null,"ok":{}}` {
						t.Fatalf("got %s", m.raw)
					}
				}
			})
		}
	}
}

// offering dials with an offer of extensions and wants this answer.
func (f *fixture) offering(t *testing.T, offer, answer string) *peer {
	t.Helper()
	p := f.tcp()
	p.raw(handshake(f.addr, "Sec-WebSocket-Extensions: "+offer))
	if got := p.upgraded().Header.Get("Sec-WebSocket-Extensions"); got != answer {
		t.Fatalf("%s: answered %q, want %q", offer, got, answer)
	}
	p.form.deflate = answer != ""
	p.next()
	return p
}

// padded is a ping of so many bytes, which compress like items do.
func padded(n int) string {
	const begin, end = `{"op":"ping","pad":"`, `"}`
	if n < len(begin)+len(end) {
		return `{"op":"ping"}` + strings.Repeat(" ", n-len(`{"op":"ping"}`))
	}
	var pad strings.Builder
	for i := 0; pad.Len() < n; i++ {
		fmt.Fprintf(&pad, "sku %d at %x, ", i, i*i*7919)
	}
	return begin + pad.String()[:n-len(begin)-len(end)] + end
}

// rawMessage sends a message in fragments of so many payload bytes.
func (p *peer) rawMessage(message string, fragment int) {
	first, payload := p.form.encode(p, message)
	if fragment == 0 {
		fragment = len(payload)
	}
	var frames strings.Builder
	for first &^= fin; len(payload) > fragment; first = continued {
		frames.WriteString(frameBytes(first, payload[:fragment]))
		payload = payload[fragment:]
	}
	frames.WriteString(frameBytes(fin|first, payload))
	_, _ = p.conn.Write([]byte(frames.String())) // may be more than the node takes
}

func TestDeflateOffers(t *testing.T) {
	f := start(t)
	for offer, answer := range map[string]string{
		pmd:                                    agreed,
		"x-webkit-deflate-frame":               "",
		"x-webkit-deflate-frame, " + pmd:       agreed,
		pmd + ", " + pmd:                       agreed,
		pmd + "; client_max_window_bits":       agreed,
		pmd + "; client_max_window_bits=8":     agreed,
		pmd + "; client_max_window_bits=7":     "",
		pmd + "; server_max_window_bits":       "",
		pmd + "; server_max_window_bits=16":    "",
		pmd + "; server_max_window_bits=14":    "",
		pmd + "; server_no_context_takeover=1": "",
		pmd + "; unheard_of":                   "",
		pmd + "; unheard_of, " + pmd:           agreed,
		pmd + "; server_no_context_takeover; server_no_context_takeover": "",
	} {
		f.offering(t, offer, answer).ok(`{"op":"ping"}`)
	}
}

func TestCompressedFrames(t *testing.T) {
	ping := deflated(t, `{"op":"ping","id":1}`)
	half := len(ping) / 2
	z := func(s string) string { return frameBytes(fin|rsv1|text, s) }
	f := start(t)
	for name, tc := range map[string]struct {
		send string
		want []string
	}{
		"one frame":                     {z(ping), []string{ok1}},
		"plain is fine too":             {text1 + z(ping) + text1, []string{ok1, ok1, ok1}},
		"fragments":                     {frameBytes(rsv1|text, ping[:half]) + frameBytes(fin|continued, ping[half:]), []string{ok1}},
		"single bytes":                  {strings.Join(fragments(ping), ""), []string{ok1}},
		"empty fragments":               {frameBytes(rsv1|text, "") + frameBytes(continued, ping) + frameBytes(fin|continued, ""), []string{ok1}},
		"a ping in between":             {frameBytes(rsv1|text, ping[:half]) + frameBytes(fin|pingFrame, "x") + frameBytes(fin|continued, ping[half:]), []string{pong("x"), ok1}},
		"an empty message":              {z("\x00"), []string{bad}},
		"with final blocks":             {z("\x03\x00" + ping), []string{ok1}},
		"a plain fragmented message":    {frameBytes(text, `{"op":"ping",`) + frameBytes(fin|continued, `"id":1}`), []string{ok1}},
		"RSV1 on a continuation":        {frameBytes(rsv1|text, ping[:half]) + frameBytes(fin|rsv1|continued, ping[half:]), []string{closes(1002)}},
		"RSV1 on a continuation only":   {frameBytes(text, "{") + frameBytes(fin|rsv1|continued, "}"), []string{closes(1002)}},
		"RSV1 on a ping":                {frameBytes(fin|rsv1|pingFrame, ""), []string{closes(1002)}},
		"RSV1 on a pong":                {frameBytes(fin|rsv1|pongFrame, ""), []string{closes(1002)}},
		"RSV1 on a close":               {frameBytes(fin|rsv1|closeFrame, ""), []string{closes(1002)}},
		"RSV1 and RSV2":                 {frameBytes(fin|rsv1|0x20|text, ping), []string{closes(1002)}},
		"RSV3":                          {frameBytes(fin|0x10|text, ping), []string{closes(1002)}},
		"compressed, of the other type": {frameBytes(fin|rsv1|binaryFrame, ping), []string{closes(1003)}},
		"no data":                       {z(""), []string{closes(1007)}},
		"corrupt":                       {z("\x07corrupt"), []string{closes(1007)}},
		"cut off":                       {z(ping[:half]), []string{closes(1007)}},
		"a window from the one before":  {z(ping) + z("\x02\x13\x00\x00"), []string{ok1, closes(1007)}},
		"bad UTF-8":                     {z(deflated(t, "\"\xff\"")), []string{closes(1007)}},
		"exactly the limit":             {z(deflated(t, strings.Repeat("*", 65536))), []string{bad}},
		"one byte over the limit":       {z(deflated(t, strings.Repeat("*", 65537))), []string{closes(1009)}},
		"final blocks without end":      {z(strings.Repeat("\x03\x00", 30000)), []string{closes(1009)}},
		"fragments of no end":           {frameBytes(rsv1|text, "") + strings.Repeat(frameBytes(continued, "\x00"), 1100), []string{closes(1009)}},
	} {
		t.Run(name, func(t *testing.T) {
			f.TB = t
			p := f.dialAs(wireForms[2])
			_, _ = p.conn.Write([]byte(tc.send)) // may be more than the node takes
			for _, want := range tc.want {
				if got := p.answer(); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
		})
	}
	p := f.dial()
	p.raw(z(ping))
	p.wantClose(protocol.CloseProtocolError) // nothing was agreed on
}

func fragments(s string) []string {
	list := inFragments(s)
	list[0] = frameBytes(rsv1|text, s[:1])
	return list
}

// A frame of 64 KiB that stands for 64 MiB costs the node no more than any other.
func TestBomb(t *testing.T) {
	bomb := deflated(t, strings.Repeat("\x00", 64<<20))
	frame := frameBytes(fin|rsv1|text, bomb)
	f := start(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const times = 10
	times10(t, f, func(int) {
		p := f.dialAs(wireForms[2])
		p.raw(frame)
		p.wantClose(protocol.CloseTooLarge)
		p.conn.Close()
	})
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > 4<<20 {
		t.Errorf("%d bytes allocated for each", each)
	}
}
