package client

import (
	"encoding/binary"

	"github.com/stockmesh/stockmesh/protocol"
)

// headRoom is kept free in front of a message's commands, for the head of the
// array that they become when there are several.
const headRoom = 3

// appendNext appends a command to the count that a message has already.
func appendNext(c protocol.Codec, buf, body []byte, count int) []byte {
	if c == protocol.JSON && count > 0 {
		buf = append(buf, ',')
	}
	return append(buf, body...)
}

// frame makes a message of the count commands behind the head room.
func frame(c protocol.Codec, buf []byte, count int) (grown, msg []byte) {
	switch {
	case count < 2:
		return buf, buf[headRoom:]
	case c == protocol.JSON:
		buf[headRoom-1] = '['
		buf = append(buf, ']')
		return buf, buf[headRoom-1:]
	case count <= cborShortMax:
		buf[headRoom-1] = cborArray | byte(count)
		return buf, buf[headRoom-1:]
	}
	buf[0] = cborArray | cborTwoBytes
	binary.BigEndian.PutUint16(buf[1:], uint16(count))
	return buf, buf
}
