package client

import (
	"bytes"

	"github.com/stockmesh/stockmesh/protocol"
)

// appendCommandCBOR appends the command's CBOR.
func appendCommandCBOR(b []byte, c *protocol.Command, id uint64) []byte {
	return protocol.CBOR.AppendMessage(b, struct {
		ID uint64 `json:"id"`
		*protocol.Command
	}{id, c})
}

// Names and values as they stand in a node's CBOR; see RFC 8949, section 3.
var (
	cborID    = []byte("\x62id")
	cborOK    = []byte("\x62ok")
	cborStock = []byte("\x62op\x65stock")
)

const (
	cborArray      = 0x80
	cborMap        = 0xa0
	cborShortMax   = 23 // the largest number that stands in a head's first byte
	cborOneByte    = 24 // a number in the byte that follows, in two, four or eight
	cborTwoBytes   = 25
	cborEightBytes = 27
)

// cborFields is what follows the head of a small map.
func cborFields(b []byte) []byte {
	if len(b) == 0 || b[0] < cborMap || b[0] > cborMap+cborShortMax {
		return nil
	}
	return b[1:]
}

func cborHead(b []byte) (head, bool) {
	if bytes.HasPrefix(cborFields(b), cborStock) {
		return head{op: "stock"}, true
	}
	id, _, ok := cborReply(b)
	return head{isReply: true, hasID: true, id: id}, ok
}

// cborReply cuts a reply behind its id.
func cborReply(b []byte) (id uint64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(cborFields(b), cborID)
	if !ok || len(rest) == 0 {
		return 0, nil, false
	}
	first := rest[0]
	rest = rest[1:]
	switch {
	case first <= cborShortMax:
		return uint64(first), rest, true
	case first > cborEightBytes:
		return 0, nil, false // not a number, or below zero
	}
	size := 1 << (first - cborOneByte)
	if len(rest) < size {
		return 0, nil, false
	}
	for _, digit := range rest[:size] {
		id = id<<8 | uint64(digit)
	}
	return id, rest[size:], true
}
