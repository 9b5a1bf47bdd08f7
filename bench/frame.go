package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// Opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

const finalBit, maskBit = 0x80, 0x80

// frame is one frame of a server.
type frame struct {
	op      byte
	payload []byte
}

var errFrame = errors.New("a frame that no server may send: masked, fragmented or too large")

const payloadMax = 16 << 20

// nextFrame reads the first frame of b and says how many bytes it takes; 0 if it
// is not complete.
func nextFrame(b []byte) (f frame, n int, err error) {
	if len(b) < 2 {
		return frame{}, 0, nil
	}
	if b[0]&finalBit == 0 || b[1]&maskBit != 0 {
		return frame{}, 0, errFrame
	}
	head, size := 2, uint64(b[1])
	switch {
	case size == 126 && len(b) >= 4:
		head, size = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case size == 127 && len(b) >= 10:
		head, size = 10, binary.BigEndian.Uint64(b[2:])
	case size >= 126:
		return frame{}, 0, nil
	}
	if size > payloadMax {
		return frame{}, 0, errFrame
	}
	n = head + int(size)
	if len(b) < n {
		return frame{}, 0, nil
	}
	return frame{op: b[0] & 0x0f, payload: b[head:n]}, n, nil
}

// appendServerFrame appends an unmasked frame.
func appendServerFrame(b []byte, op byte, payload []byte) []byte {
	return append(appendHead(b, op, 0, len(payload)), payload...)
}

// appendClientFrame appends a masked frame.
func appendClientFrame(b []byte, op byte, mask [4]byte, payload []byte) []byte {
	b = append(appendHead(b, op, maskBit, len(payload)), mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	return b
}

func appendHead(b []byte, op, masked byte, n int) []byte {
	b = append(b, finalBit|op)
	switch {
	case n < 126:
		return append(b, masked|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
}

// errDrained is how a connection ends that its node has sent elsewhere.
var errDrained = fmt.Errorf("closed by the node: %d", protocol.CloseDrain)

// closedBy is the error for a close frame.
func closedBy(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed by the node without a code")
	}
	if binary.BigEndian.Uint16(payload) == protocol.CloseDrain {
		return fmt.Errorf("%w %s", errDrained, payload[2:])
	}
	return fmt.Errorf("closed by the node: %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

// template is a masked client frame in which only numbers change. They have a
// fixed width, so the frame is laid out and masked once, and a command costs one
// copy and its digits.
type template struct {
	frame []byte
	mask  [4]byte
	head  int
	gaps  []gap
	items uint64  // how many there are to choose from
	pick  chooser // among them; nil: evenly
}

// chooser turns 64 mixed bits into the number of an item, for the line-th '~' of a
// command.
type chooser func(bits uint64, line int) uint64

// gap is where a number goes: add is its distance from the first command's.
type gap struct {
	at   int
	add  uint64
	item bool // it is the number of an item
	line int  // which of the command's items
}

// numberDigits is the width of a template's numbers, which begin at numberMin.
const (
	numberDigits = 10
	numberMin    = 1_000_000_000
	numberMax    = 9_999_999_999
)

// newTemplate lays out one command, or an array of them. Each '#' becomes the
// command's number: the one given to append, counting up through the array. Each '~'
// becomes the number of an item that is chosen by that.
func newTemplate(mask [4]byte, commands ...string) *template {
	payload := strings.Join(commands, ",")
	if len(commands) > 1 {
		payload = "[" + payload + "]"
	}
	parts := strings.Split(strings.ReplaceAll(payload, "~", "#"), "#")
	wide := strings.Join(parts, strconv.Itoa(numberMin))
	t := &template{mask: mask, frame: appendClientFrame(nil, opText, mask, []byte(wide)), items: 1}
	t.head = len(t.frame) - len(wide)
	at := t.head
	for i, c := range commands {
		line := 0
		for _, mark := range c {
			if mark != '#' && mark != '~' {
				continue
			}
			at += len(parts[len(t.gaps)])
			t.gaps = append(t.gaps, gap{at, uint64(i), mark == '~', line})
			at += numberDigits
			if mark == '~' {
				line++
			}
		}
	}
	return t
}

// append appends the frame with its first command numbered n, which must lie
// within numberMin and numberMax.
func (t *template) append(b []byte, n uint64) []byte {
	start := len(b)
	b = append(b, t.frame...)
	for _, g := range t.gaps {
		number := n + g.add
		if g.item {
			number = t.item(number, g.line)
		}
		t.fill(b[start+g.at:start+g.at+numberDigits], g.at-t.head, number)
	}
	return b
}

// golden is 2^64 divided by the golden ratio: Fibonacci hashing.
const golden = 0x9e3779b97f4a7c15

// item chooses the item of a command's line, from 0 on: differently on each connection,
// as their masks differ.
func (t *template) item(number uint64, line int) uint64 {
	mixed := (number + uint64(binary.BigEndian.Uint32(t.mask[:]))<<32) * golden
	if t.pick != nil {
		return t.pick(mixed, line)
	}
	return mixed >> 32 % t.items
}

// fill writes a number's digits, masked: at is their place in the payload.
func (t *template) fill(digits []byte, at int, n uint64) {
	for i := numberDigits - 1; i >= 0; i-- {
		digits[i] = byte('0'+n%10) ^ t.mask[(at+i)&3]
		n /= 10
	}
}
