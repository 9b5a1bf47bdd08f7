package quota

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
)

// A message is a version, a kind, who sends it, and a record for each subject:
//
//	byte     version, 1
//	byte     kind: 0 figures, 1 the node's end
//	uvarint  incarnation: the node's start, greater at each one
//	uvarint  sequence: rises with each message of an incarnation
//	uvarint  length of the name, then the node's name
//	...      records, to the end
//
// and a record:
//
//	16 bytes key of the subject
//	uvarint  commands used so far, modulo 2^32
//	uvarint  commands used since the last beat
//	uvarint  demand, in sixteenths of a command a second
//	uvarint  connections
//	uvarint  subscriptions
const (
	messageVersion  = 1
	messageBytesMax = 32 << 10
	nameBytesMax    = 64
	recordBytesMin  = keyBytes + 5
	recordBytesMax  = keyBytes + 5*binary.MaxVarintLen64
)

const (
	kindFigures = 0
	kindEnd     = 1
)

const keyBytes = 16

// key stands for a subject between nodes: always of one length, and it tells nobody who
// the subject is.
type key [keyBytes]byte

func keyOf(subject string) key {
	sum := sha256.Sum256([]byte(subject))
	return key(sum[:keyBytes])
}

// header is what a message begins with.
type header struct {
	kind        byte
	incarnation uint64
	sequence    uint64
	node        string
}

func (h *header) append(b []byte) []byte {
	b = append(b, messageVersion, h.kind)
	b = binary.AppendUvarint(b, h.incarnation)
	b = binary.AppendUvarint(b, h.sequence)
	b = binary.AppendUvarint(b, uint64(len(h.node)))
	return append(b, h.node...)
}

// record is what a node uses of one subject's limits.
type record struct {
	key key
	figures
}

func (r *record) append(b []byte) []byte {
	b = append(b, r.key[:]...)
	b = binary.AppendUvarint(b, uint64(r.used))
	b = binary.AppendUvarint(b, uint64(r.recent))
	b = binary.AppendUvarint(b, wireDemand(r.demand))
	b = binary.AppendUvarint(b, uint64(r.connections))
	return binary.AppendUvarint(b, uint64(r.subscriptions))
}

// wireDemand is never 0 for what isn't.
func wireDemand(d float64) uint64 { return uint64(math.Ceil(min(d, countMax) * 16)) }

var (
	errVersion = errors.New("quota: message of another version")
	errMessage = errors.New("quota: damaged message")
)

// decode reads a message. Counts that nobody can have are cut to what can be added up.
func decode(b []byte) (h header, records []record, err error) {
	if len(b) > 0 && b[0] != messageVersion {
		return h, nil, errVersion
	}
	if len(b) < 2 || len(b) > messageBytesMax || b[1] > kindEnd {
		return h, nil, errMessage
	}
	d := decoder{rest: b[2:]}
	h = header{kind: b[1], incarnation: d.number(), sequence: d.number()}
	h.node = string(d.bytes(d.number(), nameBytesMax))
	if d.bad || h.node == "" {
		return h, nil, errMessage
	}
	records = make([]record, 0, len(d.rest)/recordBytesMin)
	for len(d.rest) > 0 {
		records = append(records, d.record())
	}
	if d.bad {
		return h, nil, errMessage
	}
	return h, records, nil
}

// decoder reads from rest; once something was bad there is nothing left.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() { d.rest, d.bad = nil, true }

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n uint64, limit int) []byte {
	if n > uint64(limit) || n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) record() (r record) {
	copy(r.key[:], d.bytes(keyBytes, keyBytes))
	r.used = uint32(d.number()) // modulo 2^32, whatever was sent
	r.recent = uint32(min(d.number(), countMax))
	r.demand = float64(min(d.number(), countMax*16)) / 16
	r.connections = int64(min(d.number(), countMax))
	r.subscriptions = int64(min(d.number(), countMax))
	return r
}

// writer makes messages of records.
type writer struct {
	header   header
	messages [][]byte
	open     []byte
	left     int // whose record found no room, the first one
}

// messagesMax bounds what a node sends in one beat: 1 MiB. What doesn't fit waits.
const messagesMax = 32

// add adds a record, that of the account at a place of the list, if there is room.
func (w *writer) add(r *record, at int) bool {
	if len(w.open)+recordBytesMax > messageBytesMax {
		w.end()
	}
	if len(w.messages) == messagesMax {
		w.left = cmp.Or(w.left, at)
		return false
	}
	if w.open == nil {
		w.begin()
	}
	w.open = r.append(w.open)
	return true
}

func (w *writer) begin() {
	w.header.sequence++
	w.open = w.header.append(make([]byte, 0, 256))
}

// end ends the open message. A node with nothing to tell says that it lives.
func (w *writer) end() {
	if w.open == nil && len(w.messages) == 0 {
		w.begin()
	}
	if w.open != nil {
		w.messages, w.open = append(w.messages, w.open), nil
	}
}
