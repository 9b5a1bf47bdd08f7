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

// decodeReply reads the ok object of a reply into ok, or returns its error.
func decodeReply[T any](msg []byte, ok *T) (replayed bool, err error) {
	r := struct {
		OK       *T              `json:"ok"`
		Error    *protocol.Error `json:"error"`
		Replayed bool            `json:"replayed"`
	}{OK: ok}
	if err := protocol.UnmarshalJSON(msg, &r); err != nil {
		return false, fmt.Errorf("client: unreadable reply: %w", err)
	}
	if r.Error != nil {
		return false, r.Error
	}
	return r.Replayed, nil
}

// acknowledged reports whether a reply is a success, without reading the answer
// where the node puts ok right behind the id.
func acknowledged(msg []byte) error {
	rest := msg
	if i := bytes.IndexByte(msg, ','); bytes.HasPrefix(msg, replyPrefix) && i > 0 {
		rest = msg[i:]
	}
	if bytes.HasPrefix(rest, okPrefix) {
		return nil
	}
	_, err := decodeReply(msg, &struct{}{})
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

var (
	replyPrefix = []byte(`{"id":`)
	okPrefix    = []byte(`,"ok":{`)
	stockPrefix = []byte(`{"op":"stock",`)
)

// peek reads a message's head. Nodes put id or op first; what does not look
// that way is read in full.
func peek(msg []byte) (head, error) {
	if bytes.HasPrefix(msg, stockPrefix) {
		return head{op: "stock"}, nil
	}
	if rest, ok := bytes.CutPrefix(msg, replyPrefix); ok {
		if n := bytes.IndexByte(rest, ','); n > 0 && n < 20 {
			if id, err := strconv.ParseUint(string(rest[:n]), 10, 64); err == nil {
				return head{isReply: true, hasID: true, id: id}, nil
			}
		}
	}
	var m struct {
		Op string  `json:"op"`
		ID *uint64 `json:"id"`
	}
	if err := protocol.UnmarshalJSON(msg, &m); err != nil {
		return head{}, fmt.Errorf("unreadable message: %w", err)
	}
	h := head{op: m.Op, isReply: m.Op == "", hasID: m.ID != nil}
	if h.hasID {
		h.id = *m.ID
	}
	return h, nil
}
