package ledger

import (
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// News is rows of a region's shard as its owner tells them to other regions, beside the
// bucket that they are mirrored from: sooner, but a message may be lost.
//
// Messages of one term are numbered. Whoever has all of them from some number on, and has
// seen everything up to the Prev of that one, has seen everything up to the To of the last.
type News struct {
	Shard int
	Epoch uint64 // of the owner: its messages are numbered from 1
	N     uint64
	Part  uint64 // of the messages that together go up to the same To, from 0
	Prev  uint64 // what the message before went up to
	To    uint64 // every change up to here has been told with this one; Prev where more follows
	Rows  []PeerRow
}

const (
	newsFormat  = 1
	newsRowsMin = 16 // bytes of the shortest row
)

// AppendHead appends the stored form of all but the rows, of which there will be n.
func (n *News) AppendHead(b []byte, rows int) []byte {
	w := writer{b}
	w.byte(newsFormat)
	w.uint(uint64(n.Shard))
	w.uint(n.Epoch)
	w.uint(n.N)
	w.uint(n.Part)
	w.uint(n.Prev)
	w.uint(n.To)
	w.uint(uint64(rows))
	return w.b
}

// AppendRow appends the stored form of an existing item's row.
func (s *State) AppendRow(b []byte, id protocol.ItemID) []byte {
	w := writer{b}
	w.storedItem(&s.items[id])
	return w.b
}

// DecodeNews reads what a region told. Names share one copy of b.
func DecodeNews(region string, b []byte) (News, error) {
	r := reader{b: b, text: string(b)}
	if f := r.byte(); f != newsFormat && r.err == nil {
		return News{}, fmt.Errorf("news of format %d, this version reads %d", f, newsFormat)
	}
	n := News{Shard: int(r.index(shardsMax)), Epoch: r.uint(), N: r.uint(), Part: r.uint(), Prev: r.uint(), To: r.uint()}
	n.Rows = make([]PeerRow, r.count(newsRowsMin))
	for i := range n.Rows {
		it := r.storedItem()
		n.Rows[i] = PeerRow{Region: region, Shard: n.Shard, Key: it.key, Row: it.row}
	}
	if err := r.end(); err != nil {
		return News{}, fmt.Errorf("news: %w", err)
	}
	return n, nil
}
