package edge

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	opText   = byte(ws.OpText)
	opBinary = byte(ws.OpBinary)
	opClose  = byte(ws.OpClose)
	opPing   = byte(ws.OpPing)
	opPong   = byte(ws.OpPong)

	// rsv1, in a frame's first byte, marks a compressed message.
	rsv1 = 0x40

	// fragmentsMax bounds what a message of one-byte fragments can cost.
	fragmentsMax = 1024
)

// fault is why a connection must be closed.
type fault struct {
	code   int
	reason string
}

// parseHeader reads a frame's header from the front of b, and how many bytes it
// takes; not ok while some of them are missing. Only the mask may be: what is wrong with
// a frame is known without it.
func parseHeader(b []byte) (h ws.Header, n int, ok bool) {
	if len(b) < 2 {
		return h, 0, false
	}
	h = ws.Header{Fin: b[0]&0x80 != 0, Rsv: b[0] >> 4 & 7, OpCode: ws.OpCode(b[0] & 15), Masked: b[1]&0x80 != 0}
	short := b[1] & 0x7f
	if n = headerBytes(short); len(b) < n {
		return h, 0, false
	}
	switch short {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		// With the top bit set, which it may not be, the length is negative.
		h.Length = int64(binary.BigEndian.Uint64(b[2:]))
	default:
		h.Length = int64(short)
	}
	if h.Masked {
		copy(h.Mask[:], b[n:])
		n += len(h.Mask)
	}
	return h, n, true
}

// headerBytes is the size of an unmasked frame's header by its 7-bit length.
func headerBytes(short byte) int {
	switch short {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// checkHeader says what a frame may not be, before a byte of it is kept.
func (c *conn) checkHeader(h ws.Header, limit int) *fault {
	state := ws.StateServerSide
	kept, count := 0, 0
	if f := c.frag(); f != nil {
		kept, count = len(f.payload), f.count
		state = state.Set(ws.StateFragmented)
	}
	if c.deflate && (h.OpCode == ws.OpText || h.OpCode == ws.OpBinary) {
		h.Rsv &^= rsv1 >> 4 // it may be on the first frame of a message, and nowhere else
	}
	err := ws.CheckHeader(h, state)
	switch {
	case h.Length < 0:
		return &fault{protocol.CloseProtocolError, "frame length has its top bit set"}
	case err != nil:
		return &fault{protocol.CloseProtocolError, err.Error()}
	case h.OpCode.IsControl():
		return nil
	case h.OpCode != ws.OpContinuation && byte(h.OpCode) != c.op():
		return &fault{protocol.CloseUnsupportedData, c.codec.Subprotocol() + " has messages of the other type"}
	case h.Length > int64(limit-kept):
		reason := "message is larger than " + strconv.Itoa(limit) + " bytes"
		if limit == strangerBytesMax {
			reason += ", the limit before authentication"
		}
		return &fault{protocol.CloseTooLarge, reason}
	case count >= fragmentsMax:
		return &fault{protocol.CloseTooLarge, "message has too many fragments"}
	}
	return nil
}

// frames takes bytes off the wire. Whole frames are read where they lie; only the
// incomplete rest is kept.
func (l *loop) frames(c *conn, b []byte) {
	kept := len(c.kept())
	if kept > 0 {
		b = append(c.kept(), b...)
		c.keep(b)
	}
	all := len(b)
	rest := l.parse(c, b)
	switch {
	case c.state != stateOpen || len(rest) == 0:
		c.keep(nil)
	case kept > 0 && len(rest) == all: // nothing was complete
	default:
		c.keep(bytes.Clone(rest))
		if c.frag() == nil {
			c.since = l.moment()
		}
	}
}

// strangerBytesMax is for messages of clients that haven't said who they are: room for
// an auth command.
const strangerBytesMax = 4 << 10

func (l *loop) messageMax(c *conn) int {
	if l.config.Guard != nil && !c.known() {
		return strangerBytesMax
	}
	return protocol.MessageBytesMax
}

// parse handles the complete frames in b and returns the rest.
func (l *loop) parse(c *conn, b []byte) (rest []byte) {
	for c.state == stateOpen && !c.checking() {
		h, n, ok := parseHeader(b)
		if !ok {
			return b
		}
		if f := c.checkHeader(h, l.messageMax(c)); f != nil {
			l.close(c, f.code, f.reason)
			return nil
		}
		if len(b)-n < int(h.Length) {
			return b
		}
		payload := b[n : n+int(h.Length)]
		b = b[n+int(h.Length):]
		ws.Cipher(payload, h.Mask, 0)
		l.frame(c, h, payload)
	}
	if c.state == stateOpen {
		return b // for when its token is checked
	}
	return nil
}

func (l *loop) frame(c *conn, h ws.Header, payload []byte) {
	switch {
	case h.OpCode == ws.OpPing:
		c.out = appendFrame(l.outs.get(c.out), opPong, payload)
		l.mark(c)
	case h.OpCode == ws.OpPong:
	case h.OpCode == ws.OpClose:
		l.peerCloses(c, payload)
	case h.Fin && h.OpCode != ws.OpContinuation:
		l.whole(c, firstByte(h), payload)
	default:
		l.fragment(c, h, payload)
	}
}

func (l *loop) fragment(c *conn, h ws.Header, payload []byte) {
	own := c.own()
	if own.frag == nil {
		own.frag, c.since = &fragments{first: firstByte(h)}, l.moment()
	}
	f := own.frag
	f.payload = append(f.payload, payload...)
	f.count++
	if !h.Fin {
		return
	}
	own.frag = nil
	l.whole(c, f.first, f.payload)
}

// fragments are what has come of a message in several frames.
type fragments struct {
	first   byte // opcode, and rsv1 where it is compressed
	count   int
	payload []byte
}

// firstByte is a message's first byte but for the FIN bit.
func firstByte(h ws.Header) byte { return byte(h.OpCode) | h.Rsv<<4 }

// whole takes a complete message, which began with a frame of this first byte.
func (l *loop) whole(c *conn, first byte, payload []byte) {
	if first&rsv1 != 0 {
		var f *fault
		if payload, f = l.inflater.inflate(payload, l.messageMax(c)); f != nil {
			l.close(c, f.code, f.reason)
			return
		}
	}
	if c.op() == opText && !utf8.Valid(payload) {
		l.close(c, protocol.CloseInvalidPayload, "text is not valid UTF-8")
		return
	}
	l.tally.messages++
	l.message(c, payload)
}

// peerCloses answers a close frame with the same code.
func (l *loop) peerCloses(c *conn, payload []byte) {
	if len(payload) == 0 {
		l.close(c, protocol.CloseNormal, "")
		return
	}
	code, reason := ws.ParseCloseFrameData(payload)
	if len(payload) == 1 || ws.CheckCloseFrameData(code, reason) != nil {
		l.close(c, protocol.CloseProtocolError, "malformed close frame")
		return
	}
	l.close(c, int(code), "")
}

// appendFrame appends a server's frame: final and unmasked.
func appendFrame(b []byte, op byte, payload []byte) []byte {
	b = appendFrameHeader(b, op, len(payload))
	return append(b, payload...)
}

// appendFrameHeader takes an opcode, and rsv1 where the payload is compressed.
func appendFrameHeader(b []byte, op byte, n int) []byte {
	b = append(b, 0x80|op)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
}

// appendPlain appends a frame whose payload write appends. The header is made
// room for first and moved up where it turns out longer, so nothing is copied for
// the usual small payload.
func appendPlain(b []byte, op byte, write func([]byte) []byte) []byte {
	const room = 4
	start := len(b)
	b = append(b, make([]byte, room)...)
	b = write(b)
	n := len(b) - start - room
	var head [10]byte
	h := appendFrameHeader(head[:0], op, n)
	if len(h) > room {
		b = append(b, make([]byte, len(h)-room)...)
		copy(b[start+len(h):], b[start+room:start+room+n])
	} else if len(h) < room {
		copy(b[start+len(h):], b[start+room:])
		b = b[:len(b)-(room-len(h))]
	}
	copy(b[start:], h)
	return b
}

func appendClose(b []byte, code int, reason string) []byte {
	const reasonMax = 123
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	payload = append(payload, reason[:min(len(reason), reasonMax)]...)
	return appendFrame(b, opClose, payload)
}

// frameEnd returns the end of the frame that has been sent in part, so that what
// follows it can be dropped.
func frameEnd(b []byte, sent int) int {
	end := 0
	for end < sent {
		h, n, ok := parseHeader(b[end:])
		if !ok || h.Length < 0 || h.Length > int64(len(b)-end-n) {
			// Only under way is the answer to the handshake: all goes.
			return len(b)
		}
		end += n + int(h.Length)
	}
	return end
}
