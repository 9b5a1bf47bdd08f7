package edge_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// witness is an honest client beside the bad ones.
type witness struct {
	*peer
	f *fixture
	n int64
}

func newWitness(f *fixture) *witness {
	w := &witness{peer: f.dial(), f: f}
	w.subscribe(`"skus":["honest"]`)
	return w
}

// served holds the node to pushing a change and answering a command.
func (w *witness) served() {
	w.Helper()
	w.n++
	begin := time.Now()
	w.f.ledger.set(w.n, "honest")
	if d := cmp.Diff([]string{fmt.Sprintf("honest@main=%d", w.n)}, items(w.settle())); d != "" {
		w.Fatal(d)
	}
	if took := time.Since(begin); took > 5*time.Second {
		w.Fatalf("the honest client waited %v", took)
	}
}

// times10 gives bad ten times to connections, while an honest client is served,
// and holds the process to what it was before.
func times10(t *testing.T, f *fixture, bad func(i int)) {
	t.Helper()
	w := newWitness(f)
	bad(0) // what is made once has been made
	w.served()
	before := measure(t)
	for i := range 10 {
		bad(i)
		w.served()
	}
	before.backTo(t, 1<<20)
	eventually(t, "only the honest one is left", func() bool { return f.edge.Connections() == 1 })
}

// wantStatus reads an error answer to a handshake and the end.
func (p *peer) wantStatus(status int, code protocol.Code) {
	p.Helper()
	res := p.response()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.Fatal(err)
	}
	var problem struct {
		Status int
		Code   protocol.Code
	}
	if err := json.Unmarshal(body, &problem); err != nil || res.StatusCode != status ||
		problem.Status != status || problem.Code != code || res.Header.Get("Content-Type") != "application/problem+json" {
		p.Fatalf("got %s %v %s, want %d %s", res.Status, res.Header, body, status, code)
	}
	wait := res.Header.Get("Retry-After")
	if needs := status == 429 || status == 503; needs != (wait != "") {
		p.Fatalf("%d with Retry-After %q", status, wait)
	}
	p.wantEnd()
	p.conn.Close()
}

func TestBadHandshakes(t *testing.T) {
	f := start(t)
	without := func(header string) string {
		lines := strings.SplitAfter(handshake(f.addr), "\r\n")
		for i, l := range lines {
			if strings.HasPrefix(l, header+":") {
				lines[i] = ""
			}
		}
		return strings.Join(lines, "")
	}
	for name, tc := range map[string]struct {
		head   string
		status int
	}{
		"no host":             {without("Host"), 400},
		"no connection":       {without("Connection"), 400},
		"no version":          {without("Sec-WebSocket-Version"), 400},
		"no key":              {without("Sec-WebSocket-Key"), 400},
		"old version":         {strings.Replace(handshake(f.addr), "Version: 13", "Version: 8", 1), 400},
		"short key":           {strings.Replace(handshake(f.addr), "Key: dGhl", "Key: ", 1), 400},
		"HTTP/1.0":            {strings.Replace(handshake(f.addr), "HTTP/1.1", "HTTP/1.0", 1), 400},
		"not HTTP":            {strings.Replace(handshake(f.addr), "HTTP/1.1", "SPDY/1", 1), 400},
		"a broken header":     {handshake(f.addr, "no colon"), 400},
		"unknown protocols":   {handshake(f.addr, "Sec-WebSocket-Protocol: chat, stockmesh.v9.json"), 400},
		"a foreign origin":    {handshake(f.addr, "Origin: https://evil.example"), 403},
		"origin null":         {handshake(f.addr, "Origin: null"), 403},
		"a lying origin":      {handshake(f.addr, "Origin: http://evil.example/"+f.addr), 403},
		"a head over 8 KiB":   {handshake(f.addr, "X: "+strings.Repeat("x", 8<<10)), 400},
		"a head without end":  {"GET /v1/ws HTTP/1.1\r\nX: " + strings.Repeat("x", 8<<10), 400},
		"garbage without end": {strings.Repeat("\x00\xff\x16\x03", 2100), 400},
	} {
		t.Run(name, func(t *testing.T) {
			f.TB = t
			times10(t, f, func(int) {
				p := f.tcp()
				p.raw(tc.head)
				p.wantStatus(tc.status, map[int]protocol.Code{400: protocol.CodeBadRequest, 403: protocol.CodeForbidden}[tc.status])
			})
		})
	}
}

// Whatever has an end but is no handshake is for net/http to judge.
func TestGarbageInsteadOfAHandshake(t *testing.T) {
	f := start(t)
	garbage := []string{"\r\n\r\n", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x00\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n", "get /v1/ws HTTP/1.1\r\n\r\n", "GET /v1/ws\r\nUpgrade: websocket\r\n\r\n", "é\r\n\r\n", "{\"op\":\"ping\"}\r\n\r\n"}
	times10(t, f, func(i int) {
		p := f.tcp()
		p.raw(garbage[i])
		p.setDeadline()
		answer, err := io.ReadAll(p.in)
		if err != nil || len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.") {
			t.Fatalf("%q: got %q, %v", garbage[i], answer, err)
		}
		p.conn.Close()
	})
}

func TestOriginsThatAreAllowed(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.Origins = []string{"https://shop.example"} })
	for _, origin := range []string{"https://shop.example", "https://SHOP.example", "http://" + f.addr, "https://" + f.addr} {
		p := f.tcp()
		p.raw(handshake(f.addr, "Origin: "+origin))
		p.upgraded()
	}
}

// slow is an edge that loses patience soon.
func slow(c *edge.Config) { c.HandshakeTimeout = 150 * time.Millisecond }

func TestSlowHandshakes(t *testing.T) {
	f := start(t, slow)
	times10(t, f, func(i int) {
		silent, dripping := f.tcp(), f.tcp()
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte(handshake(f.addr)) {
				if _, err := dripping.conn.Write([]byte{b}); err != nil {
					return
				}
				<-tick.C
			}
		}()
		silent.wantStatus(408, protocol.CodeBadRequest)
		dripping.wantStatus(408, protocol.CodeBadRequest)
	})
}

func TestBytesRightAfterTheHead(t *testing.T) {
	f := start(t)
	for _, cut := range []int{1, 20, 1 << 20} {
		p := f.tcp()
		var rest strings.Builder
		for i := range 300 {
			rest.WriteString(frameBytes(fin|text, fmt.Sprintf(`{"op":"ping","id":%d}`, i)))
		}
		all := handshake(f.addr) + rest.String()
		cut = min(cut+strings.Index(all, "\r\n\r\n"), len(all))
		p.raw(all[:cut])
		p.raw(all[cut:])
		p.upgraded()
		p.next() // the hello
		for i := range 300 {
			if m := p.next(); string(m.ID) != fmt.Sprint(i) {
				t.Fatalf("ping %d: %s", i, m.raw)
			}
		}
	}
}

func TestHTTPSharesThePort(t *testing.T) {
	plainOnly(t)
	f := start(t)
	for _, url := range []string{"/", "/v1/stock", "/v1/ws"} {
		res, err := http.Get("http://" + f.addr + url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "http "+url || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	}
	// Two requests at once, and one with a body, reach it whole.
	p := f.tcp()
	p.raw("GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
	for _, want := range []string{"http /a", "http /b"} {
		res := p.response()
		if body, err := io.ReadAll(res.Body); string(body) != want || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	p.conn.Close()
	eventually(t, "HTTP's connections counted off", func() bool { return f.edge.Connections() == 0 })
}

func TestHalfFramesThenClose(t *testing.T) {
	plainOnly(t)
	f := start(t)
	whole := frameBytes(fin|text, `{"op":"ping","id":1,"x":"`+strings.Repeat("x", 200)+`"}`)
	times10(t, f, func(i int) {
		p := f.dial()
		p.raw(whole[:1+i*len(whole)/10])
		p.conn.Close()
		reset := f.dial()
		reset.frame(text, `{"op":`)
		_ = reset.conn.(*net.TCPConn).SetLinger(0)
		reset.conn.Close()
	})
}

func TestOneByteAtATime(t *testing.T) {
	f := start(t)
	times10(t, f, func(i int) {
		p := f.tcp()
		command := fmt.Sprintf(`{"op":"ping","id":"%s"}`, strings.Repeat("é", i+1))
		for _, b := range []byte(handshake(f.addr)) {
			p.raw(string([]byte{b}))
		}
		p.upgraded()
		p.next()
		for _, b := range []byte(frameBytes(fin|text, command)) { // each byte its own segment
			p.raw(string([]byte{b}))
		}
		p.frame(text, command[:1]) // each byte its own fragment
		for j := 1; j < len(command)-1; j++ {
			p.frame(continued, command[j:j+1])
		}
		p.frame(fin|continued, command[len(command)-1:])
		first, second := p.next(), p.next()
		if first.raw != second.raw || first.Error != nil {
			t.Fatalf("got %s and %s", first.raw, second.raw)
		}
		p.conn.Close()
	})
}

func TestBadFrames(t *testing.T) {
	f := start(t)
	long := strings.Repeat("x", 126)
	header := func(b ...byte) string { return string(b) }
	endless := func() string {
		b := frameBytes(text, "x")
		for range 1100 {
			b += frameBytes(continued, "")
		}
		return b
	}()
	size := func(n uint64) string {
		return header(fin|text, 0xff) + string(binary.BigEndian.AppendUint64(nil, n)) + "mask"
	}
	for name, tc := range map[string]struct {
		bytes string
		code  int
	}{
		"unmasked text":                   {header(fin|text, 2, '{', '}'), 1002},
		"unmasked ping":                   {header(fin|pingFrame, 0), 1002},
		"reserved bit 1":                  {frameBytes(fin|0x40|text, "{}"), 1002},
		"reserved bit 2":                  {frameBytes(fin|0x20|text, "{}"), 1002},
		"reserved bit 3 of a ping":        {frameBytes(fin|0x10|pingFrame, ""), 1002},
		"reserved data opcode":            {frameBytes(fin|0x3, ""), 1002},
		"reserved data opcode, long":      {frameBytes(fin|0x7, strings.Repeat("x", 70000)), 1002},
		"reserved control opcode":         {frameBytes(fin|0xf, ""), 1002},
		"ping of 126 bytes":               {frameBytes(fin|pingFrame, long), 1002},
		"close of 126 bytes":              {frameBytes(fin|closeFrame, "\x03\xe8"+long), 1002},
		"ping in fragments":               {frameBytes(pingFrame, "x"), 1002},
		"close in fragments":              {frameBytes(closeFrame, ""), 1002},
		"continuation of nothing":         {frameBytes(fin|continued, "{}"), 1002},
		"first fragment of nothing":       {frameBytes(continued, "{}"), 1002},
		"text within fragments":           {frameBytes(text, "{") + frameBytes(fin|text, "{}"), 1002},
		"text within fragments, unfinal":  {frameBytes(text, "{") + frameBytes(text, "{}"), 1002},
		"length with the top bit":         {size(1 << 63), 1002},
		"binary":                          {frameBytes(fin|binaryFrame, "{}"), 1003},
		"binary in fragments":             {frameBytes(binaryFrame, "{"), 1003},
		"bad UTF-8":                       {frameBytes(fin|text, "{\"\xff\":1}"), 1007},
		"bad UTF-8 split over fragments":  {frameBytes(text, "{\"\xe2\x82") + frameBytes(fin|continued, "\":1}"), 1007},
		"surrogates":                      {frameBytes(fin|text, "{\"\xed\xa0\x80\":1}"), 1007},
		"larger than a message":           {frameBytes(fin|text, strings.Repeat(" ", 64<<10+1)), 1009},
		"declared larger than a message":  {size(64<<10 + 1), 1009},
		"declared far larger":             {size(1<<63 - 1), 1009},
		"declared so, and no mask yet":    {size(1<<63 - 1)[:10], 1009},
		"reserved opcode, and no mask":    {frameBytes(fin|0x3, "")[:2], 1002},
		"fragments larger than a message": {frameBytes(text, strings.Repeat(" ", 40<<10)) + frameBytes(fin|continued, strings.Repeat(" ", 40<<10)), 1009},
		"fragments without end":           {endless, 1009},
		"close of one byte":               {frameBytes(fin|closeFrame, "\x03"), 1002},
		"close code 1005":                 {frameBytes(fin|closeFrame, "\x03\xed"), 1002},
		"close with bad UTF-8":            {frameBytes(fin|closeFrame, "\x03\xe8\xff"), 1002},
	} {
		t.Run(name, func(t *testing.T) {
			f.TB = t
			times10(t, f, func(int) {
				p := f.dial()
				go func() { // may be more than the node takes
					_, _ = io.WriteString(p.conn, tc.bytes)
				}()
				p.wantClose(tc.code)
				p.conn.Close()
			})
		})
	}
}

// Half a UTF-8 sequence at the end of a fragment is none of a message's faults.
func TestUTF8SplitOverFragments(t *testing.T) {
	p := start(t).dial()
	p.frame(text, "{\"op\":\"ping\",\"id\":\"\xe2\x82")
	p.frame(fin|pingFrame, "in between")
	p.frame(fin|continued, "\xac\"}")
	if m := p.next(); string(m.ID) != `"€"` {
		t.Fatalf("got %s", m.raw)
	}
}
