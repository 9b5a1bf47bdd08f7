package edge

import "github.com/stockmesh/stockmesh/protocol"

// form is how a connection's messages look on the wire.
type form struct {
	codec   protocol.Codec
	deflate bool // permessage-deflate was agreed on
}

const (
	codecs = 2
	forms  = 2 * codecs
)

// index is below forms.
func (f form) index() int {
	i := int(f.codec)
	if f.deflate {
		i += codecs
	}
	return i
}

// op is the opcode of messages, both ways.
func (f form) op() byte {
	if f.codec == protocol.CBOR {
		return opBinary
	}
	return opText
}

// appendMessage appends a message whose payload write appends.
func (l *loop) appendMessage(b []byte, f form, write func([]byte) []byte) []byte {
	if f.deflate {
		return l.deflater.appendMessage(b, f.op(), write)
	}
	return appendPlain(b, f.op(), write)
}

// say puts a message into a connection's outbox.
func (l *loop) say(c *conn, write func([]byte) []byte) {
	c.out = l.appendMessage(l.outs.get(c.out), c.form, write)
}
