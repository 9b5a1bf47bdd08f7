package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// frame is what a shard's owner tells the other nodes: who decides, how far the
// log goes, and the newest round itself. It is sent only after the round was
// committed, so whatever a frame says is true for ever, whoever sent it. Frames may
// get lost; whoever misses a round reads it in the log.
type frame struct {
	epoch uint64
	node  string
	seq   uint64 // of the round, or of the log's end where there is none
	round []byte // nil: a sign of life
}

const frameFormat = 1

var errFrame = errors.New("not a frame")

func (f *frame) appendTo(b []byte) []byte {
	b = append(b, frameFormat)
	b = binary.AppendUvarint(b, f.epoch)
	b = binary.AppendUvarint(b, f.seq)
	b = binary.AppendUvarint(b, uint64(len(f.node)))
	b = append(b, f.node...)
	return append(b, f.round...)
}

// decodeFrame reads a frame; its round is part of b.
func decodeFrame(b []byte) (f frame, err error) {
	if len(b) == 0 || b[0] != frameFormat {
		return f, fmt.Errorf("%w: unknown format", errFrame)
	}
	b = b[1:]
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return f, fmt.Errorf("%w: cut short", errFrame)
		}
		numbers[i], b = n, b[size:]
	}
	f.epoch, f.seq = numbers[0], numbers[1]
	if numbers[2] > uint64(len(b)) {
		return f, fmt.Errorf("%w: cut short", errFrame)
	}
	f.node, b = string(b[:numbers[2]]), b[numbers[2]:]
	if len(b) > 0 {
		f.round = b
	}
	return f, nil
}
