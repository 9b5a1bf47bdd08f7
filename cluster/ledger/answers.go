package ledger

import (
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// answers carves what callers are given out of larger pieces. It belongs to them
// from then on: nothing in a piece is written twice.
type answers struct {
	free []protocol.Item
	text strings.Builder
	buf  []byte
}

const (
	answerItems = 64
	answerText  = 2 << 10
)

func (a *answers) items(n int) []protocol.Item {
	if len(a.free) < n {
		a.free = make([]protocol.Item, max(n, answerItems))
	}
	items := a.free[:n:n]
	a.free = a.free[n:]
	return items
}

func (a *answers) version(region string, n uint64) string {
	a.buf = appendVersion(a.buf[:0], region, n)
	if a.text.Cap()-a.text.Len() < len(a.buf) {
		a.text.Reset()
		a.text.Grow(answerText)
	}
	start := a.text.Len()
	a.text.Write(a.buf)
	return a.text.String()[start:]
}
