package ledger

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/stockmesh/stockmesh/protocol"
)

// keyHash stands for an idempotency key: 128 bits of SHA-256, so that nobody can
// make two keys meet.
type keyHash [16]byte

func keyID(key string) keyHash { return hashKey([]byte(key)) }

func hashKey(key []byte) keyHash {
	sum := sha256.Sum256(key)
	return keyHash(sum[:16])
}

// fingerprint tells whether two commands with one key are the same command.
func fingerprint(c *protocol.Command, scratch []byte) (uint64, []byte) {
	scratch = c.AppendBody(scratch[:0])
	sum := sha256.Sum256(scratch)
	return binary.LittleEndian.Uint64(sum[:8]), scratch
}

// keyTable maps keys to outcomes. Neither the map nor the pages hold pointers
// into each other, so a hundred million keys cost the garbage collector nothing
// but the pages' headers.
type keyTable struct {
	index map[keyHash]keyPlace
	pages [][]byte
	size  int64
}

// keyPlace is where an entry begins: fingerprint (8 bytes), length, outcome.
type keyPlace struct{ page, offset uint32 }

// Pages grow with the table, for few tables stay small and few large ones are rare.
const (
	keyPageBytesMin = 4 << 10
	keyPageBytes    = 1 << 20
)

func newKeyTable() keyTable { return keyTable{index: make(map[keyHash]keyPlace)} }

func (t *keyTable) len() int { return len(t.index) }

// bytes is the memory taken, the map's part estimated.
func (t *keyTable) bytes() int64 { return t.size + int64(len(t.index))*40 }

func (t *keyTable) put(id keyHash, print uint64, outcome []byte) {
	need := 8 + binary.MaxVarintLen32 + len(outcome)
	last := len(t.pages) - 1
	if last < 0 || cap(t.pages[last])-len(t.pages[last]) < need {
		t.pages = append(t.pages, make([]byte, 0, max(min(keyPageBytes, max(keyPageBytesMin, int(t.size))), need)))
		last++
		t.size += int64(cap(t.pages[last]))
	}
	page := t.pages[last]
	t.index[id] = keyPlace{uint32(last), uint32(len(page))}
	page = binary.LittleEndian.AppendUint64(page, print)
	page = binary.AppendUvarint(page, uint64(len(outcome)))
	t.pages[last] = append(page, outcome...)
}

// get returns an entry; outcome aliases the table and must not be changed.
func (t *keyTable) get(id keyHash) (print uint64, outcome []byte, ok bool) {
	p, ok := t.index[id]
	if !ok {
		return 0, nil, false
	}
	b := t.pages[p.page][p.offset:]
	print = binary.LittleEndian.Uint64(b)
	n, w := binary.Uvarint(b[8:])
	b = b[8+w:]
	return print, b[:n:n], true
}
