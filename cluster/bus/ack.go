package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// ack is the server's answer to a publish.
type ack struct {
	Seq   uint64    `json:"seq"`
	Count uint64    `json:"count"` // messages of an atomic batch; 0 otherwise
	Error *apiError `json:"error"`
}

var (
	ackPrefix = []byte(`{"stream":`)
	ackSeq    = []byte(`"seq":`)
)

// parseAck reads the answer to one message. The usual answer, which is what a
// commit waits for, is read by hand: decoding JSON costs more than parsing,
// sending and delivering it together.
func parseAck(data []byte) (ack, error) {
	if seq, ok := plainAck(data); ok {
		return ack{Seq: seq}, nil
	}
	var a ack
	if err := json.Unmarshal(data, &a); err != nil {
		return ack{}, fmt.Errorf("%w: answer %.80q: %w", ErrUnknown, data, err)
	}
	if a.Error == nil && a.Seq == 0 {
		return ack{}, fmt.Errorf("%w: answer %.80q", ErrUnknown, data)
	}
	return a, nil
}

// plainAck reads {"stream":"x", ... "seq":N} where the number ends the object.
func plainAck(data []byte) (seq uint64, ok bool) {
	if !bytes.HasPrefix(data, ackPrefix) {
		return 0, false
	}
	i := bytes.Index(data, ackSeq)
	if i < 0 {
		return 0, false
	}
	digits := data[i+len(ackSeq):]
	for n, c := range digits {
		switch {
		case c == '}' && n > 0 && n == len(digits)-1:
			return seq, seq > 0
		case c < '0' || c > '9' || n > 18:
			return 0, false
		}
		seq = seq*10 + uint64(c-'0')
	}
	return 0, false
}
