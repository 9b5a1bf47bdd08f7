package edge_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// Opcodes and bits of frames.
const (
	fin                              = 0x80
	continued, text, binaryFrame     = 0x0, 0x1, 0x2
	closeFrame, pingFrame, pongFrame = 0x8, 0x9, 0xa
)

// handshake is a correct request's head; lines are put in before its end.
func handshake(host string, lines ...string) string {
	head := "GET /v1/ws HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, l := range lines {
		head += l + "\r\n"
	}
	return head + "\r\n"
}

// peer is a client that can send anything.
type peer struct {
	testing.TB
	conn   net.Conn
	form   form // the zero value is plain JSON
	in     *bufio.Reader
	pings  int       // answered
	pongs  []string  // their payloads
	pushes []message // read while waiting for a reply
	calls  int
}

func newPeer(t testing.TB, c net.Conn) *peer {
	t.Cleanup(func() { c.Close() })
	return &peer{TB: t, conn: c, in: bufio.NewReader(c)}
}

// tcpConn is the connection below TLS, where there is TLS.
func (p *peer) tcpConn() *net.TCPConn {
	if c, ok := p.conn.(*tls.Conn); ok {
		return c.NetConn().(*net.TCPConn)
	}
	return p.conn.(*net.TCPConn)
}

func (p *peer) raw(s string) {
	p.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.Fatal(err)
	}
}

// frameBytes is a masked frame; first is the byte of FIN, RSV and opcode.
func frameBytes(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{}
	binary.BigEndian.PutUint32(mask[:], rand.Uint32())
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

func (p *peer) frame(first byte, payload string) {
	p.Helper()
	p.raw(frameBytes(first, payload))
}

func (p *peer) send(message string) {
	p.Helper()
	p.frame(p.form.encode(p, message))
}

func (p *peer) sendf(format string, args ...any) {
	p.Helper()
	p.send(fmt.Sprintf(format, args...))
}

// upgraded reads the answer to a handshake that succeeds.
func (p *peer) upgraded() *http.Response {
	p.Helper()
	res := p.response()
	if res.StatusCode != http.StatusSwitchingProtocols {
		p.Fatalf("handshake: %s", res.Status)
	}
	return res
}

func (p *peer) response() *http.Response {
	p.Helper()
	p.setDeadline()
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		p.Fatal(err)
	}
	return res
}

func (p *peer) setDeadline() {
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.Fatal(err)
	}
}

// readFrame reads one frame, which must be whole and unmasked, and decompresses it
// where it is marked so.
func (p *peer) readFrame() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return 0, nil, err
	}
	compressed := p.form.deflate && head[0] == fin|rsv1|p.form.op()
	if !compressed && head[0]&0xf0 != fin || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("a node's frame begins with % x", head)
	}
	n := int(head[1])
	if n >= 126 {
		size := make([]byte, map[int]int{126: 2, 127: 8}[n])
		if _, err := io.ReadFull(p.in, size); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint64(append(make([]byte, 8-len(size)), size...)))
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(p.in, payload)
	if compressed && err == nil {
		payload, err = inflated(payload)
	}
	return head[0] & 0xf, payload, err
}

// message is any message of a node.
type message struct {
	protocol.Goaway
	Op          string                `json:"op"`
	ID          json.RawMessage       `json:"id"`
	OK          json.RawMessage       `json:"ok"`
	Error       *protocol.Error       `json:"error"`
	Replayed    bool                  `json:"replayed"`
	Items       []protocol.Item       `json:"items"`
	Snapshot    bool                  `json:"snapshot"`
	Cursor      string                `json:"cursor"`
	Reservation *protocol.Reservation `json:"reservation"`
	raw         string
}

// closed is the end of a connection: the close code, 0 without a close frame.
type closed int

func (c closed) Error() string { return fmt.Sprintf("closed with %d", int(c)) }

// read returns the next message, answering pings.
func (p *peer) read() (m message, err error) {
	for {
		op, payload, err := p.readFrame()
		switch {
		case errors.Is(err, io.EOF):
			return m, closed(0)
		case err != nil:
			return m, err
		}
		switch op {
		case p.form.op():
			payload, err := p.form.decode(payload)
			if err != nil {
				return m, err
			}
			m.raw = string(payload)
			return m, json.Unmarshal(payload, &m)
		case pingFrame:
			p.pings++
			if _, err := io.WriteString(p.conn, frameBytes(fin|pongFrame, string(payload))); err != nil {
				return m, err
			}
		case pongFrame:
			p.pongs = append(p.pongs, string(payload))
		case closeFrame:
			if len(payload) < 2 {
				return m, fmt.Errorf("close frame of %d bytes", len(payload))
			}
			return m, closed(binary.BigEndian.Uint16(payload))
		default:
			return m, fmt.Errorf("opcode %d", op)
		}
	}
}

func (p *peer) next() message {
	p.Helper()
	p.setDeadline()
	m, err := p.read()
	if err != nil {
		p.Fatalf("next message: %v %s", err, m.raw)
	}
	return m
}

// reply reads up to the next reply and keeps the pushes before it.
func (p *peer) reply() message {
	p.Helper()
	for {
		m := p.next()
		if m.ID != nil {
			return m
		}
		p.pushes = append(p.pushes, m)
	}
}

// do sends a command, without its id, and returns the reply to it.
func (p *peer) do(command string) message {
	p.Helper()
	p.calls++
	p.sendf(`{"id":%d,%s`, p.calls, strings.TrimPrefix(command, "{"))
	m := p.reply()
	if string(m.ID) != fmt.Sprint(p.calls) {
		p.Fatalf("reply %s to command %d", m.raw, p.calls)
	}
	return m
}

func (p *peer) ok(command string) message {
	p.Helper()
	m := p.do(command)
	if m.Error != nil {
		p.Fatalf("%s: %v", command, m.Error)
	}
	return m
}

func (p *peer) refused(command string, code protocol.Code) *protocol.Error {
	p.Helper()
	m := p.do(command)
	if m.Error == nil || m.Error.Code != code {
		p.Fatalf("%.200s: got %s, want %s", command, m.raw, code)
	}
	return m.Error
}

// settle returns the pushes about all that was committed before: the first answer
// comes from a turn of the loop that has seen it, and the second after that.
func (p *peer) settle() []message {
	p.Helper()
	p.ok(`{"op":"ping"}`)
	p.ok(`{"op":"ping"}`)
	pushes := p.pushes
	p.pushes = nil
	return pushes
}

// items are those of stock pushes, as "sku@location=on_hand".
func items(pushes []message) []string {
	list := []string{}
	for _, m := range pushes {
		if m.Op == "stock" {
			for _, it := range m.Items {
				list = append(list, fmt.Sprintf("%s@%s=%d", it.SKU, it.Location, it.OnHand))
			}
		}
	}
	return list
}

// wantClose reads until the node closes, with this code.
func (p *peer) wantClose(code int) {
	p.Helper()
	p.setDeadline()
	for {
		_, err := p.read()
		if c := closed(0); errors.As(err, &c) {
			if int(c) != code {
				p.Fatalf("closed with %d, want %d", int(c), code)
			}
			p.wantEnd()
			return
		}
		if err != nil {
			p.Fatalf("%v, want a close with %d", err, code)
		}
	}
}

// wantEnd holds the node to sending nothing more.
func (p *peer) wantEnd() {
	p.Helper()
	p.setDeadline()
	if rest, err := io.ReadAll(p.in); len(rest) > 0 || err != nil {
		p.Fatalf("%d bytes after the end, %v", len(rest), err)
	}
}
