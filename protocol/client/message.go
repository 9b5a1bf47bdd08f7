package client

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/stockmesh/stockmesh/protocol"
)

type stockPush struct {
	Items []protocol.Item `json:"items"`
}

type cursorPush struct {
	Cursor string `json:"cursor"`
}

type reservationPush struct {
	Reservation protocol.Reservation `json:"reservation"`
}

// Reply is the ok object of a reply. Each command fills its own fields.
type Reply struct {
	Item        *protocol.Item        `json:"item"`        // adjust, count, configure
	Items       []protocol.Item       `json:"items"`       // get, sell, move
	Behind      bool                  `json:"behind"`      // get with AtLeast
	Reservation *protocol.Reservation `json:"reservation"` // reserve, confirm, release, extend, reservation
	Movements   []protocol.Movement   `json:"movements"`   // history, newest first
	Next        string                `json:"next"`        // history: the next page's Before
	Known       bool                  `json:"known"`       // outcome
	Earlier     *struct {
		OK Reply `json:"ok"`
	} `json:"reply"` // outcome, where Known
	Replayed bool `json:"-"` // the key had been applied before
}

// subscribed is the ok object of a subscribe.
type subscribed struct {
	Items  int    `json:"items"`
	Cursor string `json:"cursor"`
}

// message is one message of a node.
type message struct {
	codec protocol.Codec
	body  []byte
}

func (m message) decode(v any) error { return m.codec.Unmarshal(m.body, v) }

// decodeReply reads the ok object of a reply into ok, or returns its error.
func decodeReply[T any](m message, ok *T) (replayed bool, err error) {
	r := struct {
		OK       *T              `json:"ok"`
		Error    *protocol.Error `json:"error"`
		Replayed bool            `json:"replayed"`
	}{OK: ok}
	if err := m.decode(&r); err != nil {
		return false, fmt.Errorf("client: unreadable reply: %w", err)
	}
	if r.Error != nil {
		return false, r.Error
	}
	return r.Replayed, nil
}

// acknowledged reports whether a reply is a success, without reading the answer
// where the node puts ok right behind the id.
func (m message) acknowledged() error {
	if m.codec == protocol.CBOR {
		if _, rest, ok := cborReply(m.body); ok && bytes.HasPrefix(rest, cborOK) {
			return nil
		}
	} else if _, rest, ok := jsonReply(m.body); ok && bytes.HasPrefix(rest, okPrefix) {
		return nil
	}
	_, err := decodeReply(m, &struct{}{})
	return err
}

// head is what the reader needs to know of a message; the rest is decoded by
// the goroutine that waits for it.
type head struct {
	op      string // of a push
	isReply bool
	hasID   bool
	id      uint64
}

// peek reads a message's head. Nodes put id or op first; what does not look
// that way is read in full.
func (m message) peek() (head, error) {
	quick := jsonHead
	if m.codec == protocol.CBOR {
		quick = cborHead
	}
	if h, ok := quick(m.body); ok {
		return h, nil
	}
	var v struct {
		Op string  `json:"op"`
		ID *uint64 `json:"id"`
	}
	if err := m.decode(&v); err != nil {
		return head{}, fmt.Errorf("unreadable message: %w", err)
	}
	h := head{op: v.Op, isReply: v.Op == "", hasID: v.ID != nil}
	if h.hasID {
		h.id = *v.ID
	}
	return h, nil
}

var (
	replyPrefix = []byte(`{"id":`)
	okPrefix    = []byte(`,"ok":{`)
	stockPrefix = []byte(`{"op":"stock",`)
)

func jsonHead(b []byte) (head, bool) {
	if bytes.HasPrefix(b, stockPrefix) {
		return head{op: "stock"}, true
	}
	id, _, ok := jsonReply(b)
	return head{isReply: true, hasID: true, id: id}, ok
}

// jsonReply cuts a reply behind its id.
func jsonReply(b []byte) (id uint64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(b, replyPrefix)
	n := bytes.IndexByte(rest, ',')
	if !ok || n <= 0 || n > 20 {
		return 0, nil, false
	}
	id, err := strconv.ParseUint(string(rest[:n]), 10, 64)
	return id, rest[n:], err == nil
}
