package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// attackKind is a way to be a bad client. Its run returns what the node should not have
// done; that a connection ends is never that, unless something else was due.
type attackKind struct {
	name   string
	weight int  // how often it is chosen
	secure bool // it is one against TLS
	run    func(*thug) error
}

var attackKinds = []attackKind{
	{"random frames", 8, false, randomFrames},
	{"changed bytes", 8, false, changedBytes},
	{"broken rules", 8, false, brokenRules},
	{"nonsense", 6, false, nonsense},
	{"bad heads", 6, false, badHeads},
	{"byte by byte", 3, false, byteByByte},
	{"fragment bomb", 1, false, fragmentBomb},
	{"compressed bomb", 2, false, compressedBomb},
	{"ping flood", 1, false, pingFlood},
	{"slow head", 2, false, slowHead},
	{"half open", 4, false, halfOpen},
	{"gone at once", 4, false, goneAtOnce},
	{"bad TLS", 8, true, badTLS},
}

func attackNames() (names []string) {
	for _, k := range attackKinds {
		names = append(names, k.name)
	}
	return names
}

const aCommand = `{"op":"get","id":1,"skus":["attacked"]}`

// greeted opens a WebSocket, with what else its request says.
func (t *thug) greeted(more string) error {
	if err := t.reach(); err != nil {
		return err
	}
	if _, err := io.WriteString(t.nc, upgrade(&url.URL{Host: t.Node, Path: "/v1/ws"}, more)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(t.r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	_, err = t.frame()
	return err
}

// frame waits for a frame of the node's.
func (t *thug) frame() (frame, error) { return readFrame(t.r) }

// closing reads to the close frame or the end and returns the code, 0 where there was
// none. An open connection is the node's fault once the attack's time is over.
func (t *thug) closing() (code int, err error) {
	for {
		f, err := t.frame()
		if t.ctx.Err() != nil {
			return 0, errors.New("the connection is still open")
		}
		if err != nil {
			return 0, nil
		}
		if f.op == opClose && len(f.payload) >= 2 {
			return int(binary.BigEndian.Uint16(f.payload)), nil
		}
	}
}

// wantClosed says that the connection should have been closed with one of these codes.
// A reset on top of what was not read may have swallowed the code.
func (t *thug) wantClosed(codes ...int) error {
	code, err := t.closing()
	if err == nil && code != 0 && !slices.Contains(codes, code) {
		err = fmt.Errorf("closed with %d, want one of %d", code, codes)
	}
	return err
}

// linger looks for a moment at what the node has to say.
func (t *thug) linger(most time.Duration) {
	_ = t.nc.SetReadDeadline(time.Now().Add(time.Duration(t.random.Int64N(int64(most)))))
	for {
		if _, err := t.frame(); err != nil {
			return
		}
	}
}

func randomFrames(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	for range 1 + t.random.IntN(8) {
		b := t.bytes(300)
		if t.random.IntN(2) == 0 { // a frame by its head, at least
			b = appendClientFrame(nil, byte(t.random.Uint32()), t.mask(), b)
		}
		if t.send(b) {
			return nil
		}
	}
	t.linger(time.Second)
	return nil
}

func changedBytes(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	commands := []string{
		aCommand, `[` + aCommand + `,{"op":"ping","id":"x"}]`,
		`{"op":"subscribe","id":2,"prefixes":["a"],"interval_ms":5}`, `{"op":"subscribe","id":3,"all":true,"since":"local:1"}`,
		`{"op":"unsubscribe","id":4}`, `{"op":"reserve","id":5,"key":"k","ttl_ms":1000,"lines":[{"sku":"nothing","quantity":1}]}`,
	}
	for range 1 + t.random.IntN(20) {
		payload := []byte(commands[t.random.IntN(len(commands))])
		for range t.random.IntN(4) {
			payload[t.random.IntN(len(payload))] = byte(t.random.Uint32())
		}
		b := appendClientFrame(nil, opText, t.mask(), payload)
		if t.random.IntN(4) == 0 {
			b[t.random.IntN(len(b))] ^= 1 << t.random.IntN(8)
		}
		if t.send(b) {
			return nil
		}
	}
	t.linger(time.Second)
	return nil
}

const opBinary, opContinued = 2, 0

// rules are frames that must be answered with a close.
var rules = []struct {
	name  string
	make  func(*thug) []byte
	codes []int
}{
	{"unmasked", func(*thug) []byte { return appendServerFrame(nil, opText, []byte(aCommand)) }, []int{protocol.CloseProtocolError}},
	{"reserved opcode", func(t *thug) []byte { return appendClientFrame(nil, 3+byte(t.random.IntN(5)), t.mask(), nil) }, []int{protocol.CloseProtocolError}},
	{"reserved bit", func(t *thug) []byte {
		return appendClientFrame(nil, 0x10<<t.random.IntN(3)|opText, t.mask(), []byte(aCommand))
	}, []int{protocol.CloseProtocolError}},
	{"ping in fragments", func(t *thug) []byte {
		b := appendClientFrame(nil, opPing, t.mask(), nil)
		b[0] &^= finalBit
		return b
	}, []int{protocol.CloseProtocolError}},
	{"long ping", func(t *thug) []byte { return appendClientFrame(nil, opPing, t.mask(), make([]byte, 126)) }, []int{protocol.CloseProtocolError}},
	{"continuation of nothing", func(t *thug) []byte { return appendClientFrame(nil, opContinued, t.mask(), []byte("x")) }, []int{protocol.CloseProtocolError}},
	{"binary on JSON", func(t *thug) []byte { return appendClientFrame(nil, opBinary, t.mask(), []byte(aCommand)) }, []int{protocol.CloseUnsupportedData}},
	{"bad UTF-8", func(t *thug) []byte { return appendClientFrame(nil, opText, t.mask(), []byte("{\"op\":\"\xff\xfe\"}")) }, []int{protocol.CloseInvalidPayload}},
	{"endless length", func(*thug) []byte {
		return binary.BigEndian.AppendUint64([]byte{finalBit | opText, maskBit | 127}, 1<<62)
	}, []int{protocol.CloseTooLarge, protocol.CloseProtocolError}},
	{"negative length", func(*thug) []byte {
		return binary.BigEndian.AppendUint64([]byte{finalBit | opText, maskBit | 127}, 1<<63|5)
	}, []int{protocol.CloseTooLarge, protocol.CloseProtocolError}},
	{"too large", func(t *thug) []byte { return appendClientFrame(nil, opText, t.mask(), make([]byte, 1<<20)) }, []int{protocol.CloseTooLarge}},
	{"close of one byte", func(t *thug) []byte { return appendClientFrame(nil, opClose, t.mask(), []byte{3}) }, []int{protocol.CloseProtocolError}},
	{"forbidden close code", func(t *thug) []byte { return appendClientFrame(nil, opClose, t.mask(), []byte{1005 >> 8, 1005 & 0xff}) }, []int{protocol.CloseProtocolError}},
}

func brokenRules(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	rule := rules[t.random.IntN(len(rules))]
	t.send(rule.make(t))
	if err := t.wantClosed(rule.codes...); err != nil {
		return fmt.Errorf("%s: %w", rule.name, err)
	}
	return nil
}

// nonsense is well framed, and no command. It must be answered.
func nonsense(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	texts := []string{
		"", "null", "{", "[]", "7", `"op"`, `{"op":7}`, `{"op":"fly","id":1}`, `{"op":"get","id":1,"skus":7}`,
		strings.Repeat("[", 20000), strings.Repeat(`{"a":`, 10000), "[" + strings.Repeat(aCommand+",", 256) + aCommand + "]",
		`{"op":"adjust","id":1,"key":"k","sku":"x","delta":` + strings.Repeat("9", 4000) + `}`,
		`{"op":"get","id":"` + strings.Repeat("i", 60000) + `","skus":["x"]}`,
		`{"op":"subscribe","id":1,"skus":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 15000), ",") + `]}`,
	}
	text := texts[t.random.IntN(len(texts))]
	if t.send(appendClientFrame(nil, opText, t.mask(), []byte(text))) {
		return nil
	}
	_, err := t.frame()
	if t.ctx.Err() != nil {
		return fmt.Errorf("no answer to %.60q", text)
	}
	_ = err // closed is an answer, too
	return nil
}

func badHeads(t *thug) error {
	if err := t.reach(); err != nil {
		return err
	}
	const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
	heads := []string{
		"GET /v1/ws HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 16<<10) + "\r\n\r\n",
		"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 4000) + "\r\n",
		"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + upgrade + "Sec-WebSocket-Version: 13\r\n\r\n",
		"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + upgrade + "Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + upgrade + "Sec-WebSocket-Key: " + handshakeKey + "\r\nSec-WebSocket-Version: 7\r\n\r\n",
		"POST /v1/ws HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n", "GET /v1/ws HTTP/0.9\r\n" + upgrade + "\r\n",
		"GET " + strings.Repeat("/..", 2000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\x00\x00\x00\r\n\r\n", "\r\n\r\n\r\n\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET\r\n\r\n", string(t.bytes(9 << 10)),
		"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n[", "GET /v1/stock?sku=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
	}
	head := heads[t.random.IntN(len(heads))]
	if t.send([]byte(head)) {
		return nil
	}
	_, _ = t.r.ReadByte() // an answer or the end
	if t.ctx.Err() != nil {
		return fmt.Errorf("no answer to %.60q", head)
	}
	return nil
}

// byteByByte is slow, and nothing else is wrong with it: it must be served.
func byteByByte(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	for _, b := range appendClientFrame(nil, opText, t.mask(), []byte(aCommand)) {
		if _, err := t.nc.Write([]byte{b}); err != nil {
			return err
		}
	}
	for {
		f, err := t.frame()
		if err != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		if f.op == opText && bytes.Contains(f.payload, []byte(`"id":1,"ok"`)) {
			return nil
		}
	}
}

// fragmentBomb never ends its message.
func fragmentBomb(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	part := make([]byte, t.random.IntN(48)) // perhaps none at all
	piece := func(op byte) []byte {
		b := appendClientFrame(nil, op, t.mask(), part)
		b[0] &^= finalBit
		return b
	}
	if t.send(piece(opText)) {
		return nil
	}
	many := bytes.Repeat(piece(opContinued), 200)
	for range 2000 {
		if t.send(many) {
			return nil
		}
	}
	return t.wantClosed(protocol.CloseTooLarge, protocol.CloseProtocolError, protocol.CloseAbuse)
}

// Sizes of a compressed bomb.
const (
	bombPart  = 1 << 20  // of zeros
	bombBytes = 60 << 10 // on the wire, within the limit
)

// makeBomb compresses zeros. Each part but the first looks the same, as what is before
// it does.
func makeBomb() ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, bombPart)
	var parts [2][]byte
	for i := range parts {
		b.Reset()
		if _, err := w.Write(zeros); err != nil {
			return nil, err
		}
		if err := w.Flush(); err != nil {
			return nil, err
		}
		parts[i] = bytes.Clone(b.Bytes())
	}
	more := (bombBytes - len(parts[0])) / len(parts[1])
	bomb := append(parts[0], bytes.Repeat(parts[1], more)...)
	return bytes.TrimSuffix(bomb, []byte{0, 0, 0xff, 0xff}), nil
}

func compressedBomb(t *thug) error {
	if err := t.greeted("Sec-WebSocket-Extensions: permessage-deflate\r\n"); err != nil {
		return err
	}
	const compressed = 0x40
	t.send(appendClientFrame(nil, compressed|opText, t.mask(), t.bomb))
	return t.wantClosed(protocol.CloseTooLarge)
}

// pingFlood pings and doesn't read, for a while.
func pingFlood(t *thug) error {
	if err := t.greeted(""); err != nil {
		return err
	}
	many := bytes.Repeat(appendClientFrame(nil, opPing, t.mask(), make([]byte, 125)), 100)
	_ = t.nc.SetWriteDeadline(time.Now().Add(2 * time.Second)) // it needn't take them all
	for range 100 {
		if t.send(many) {
			break
		}
	}
	t.linger(time.Second)
	return nil
}

const slowHeadPause = 200 * time.Millisecond

// slowHead never ends its request.
func slowHead(t *thug) error {
	if err := t.reach(); err != nil {
		return err
	}
	go func() {
		for _, b := range []byte("GET /v1/ws HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1000)) {
			if t.send([]byte{b}) || pause(t.ctx, slowHeadPause) != nil {
				return
			}
		}
	}()
	_, _ = t.r.ReadByte() // 408 or the end
	if t.ctx.Err() != nil {
		return errors.New("a head that never ends is waited for")
	}
	return nil
}

// halfOpen stops in the middle, somewhere.
func halfOpen(t *thug) error {
	if err := t.connect(); err != nil {
		return err
	}
	switch t.random.IntN(4) {
	case 0:
	case 1:
		t.send(t.bytes(40))
	case 2:
		if err := t.secure(); err != nil {
			return err
		}
		t.send([]byte("GET /v1/ws HTTP/1.1\r\nHost:"))
	case 3:
		t.close()
		if err := t.greeted(""); err != nil {
			return err
		}
		t.send([]byte{finalBit | opText, maskBit | 100, 1, 2, 3})
	}
	_ = pause(t.ctx, time.Duration(t.random.Int64N(int64(8*time.Second)))) // and is gone without a word
	return nil
}

// goneAtOnce resets connections as soon as they stand.
func goneAtOnce(t *thug) error {
	for range 10 {
		if err := t.connect(); err != nil {
			return err
		}
		if t.random.IntN(2) == 0 {
			t.send([]byte("GET /v1/ws HT"))
		}
		t.close()
	}
	t.raw = nil
	return nil
}

// badTLS breaks off or garbles the handshake.
func badTLS(t *thug) error {
	if err := t.connect(); err != nil {
		return err
	}
	switch t.random.IntN(4) {
	case 0:
		t.send(t.bytes(2000))
	case 1:
		t.send([]byte("GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n"))
	case 2: // a record that promises more than it holds
		t.send(append([]byte{0x16, 3, 1, 0x3f, 0xff}, t.bytes(200)...))
	case 3:
		t.send([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3})
		return nil // gone
	}
	_, err := io.Copy(io.Discard, t.raw)
	if t.ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("a handshake that can't succeed is waited for")
	}
	return nil
}
