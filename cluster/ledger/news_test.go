package ledger

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// told is what a region's owner would send of all its rows.
func told(s *State, n News) []byte {
	b := n.AppendHead(nil, len(s.items))
	for i := range s.items {
		b = s.AppendRow(b, protocol.ItemID(i))
	}
	return b
}

func TestNewsAndBucketSayTheSame(t *testing.T) {
	us := NewState("us", 0)
	low := int64(4)
	rows := map[protocol.ItemKey]Row{
		{SKU: "A", Location: "main"}: {Version: 7, Received: 90, Removed: 2, Sold: 8, Held: 5, Granted: map[string]int64{"eu": 30},
			Accepted: map[string]int64{"asia": 6}, Safety: 1, Backorder: 2, Low: low, UpdatedAt: 99, Last: Position{Seq: 12, Index: 3}},
		{SKU: "红色", Location: "a b"}: {Version: 1, Low: -1, Sold: 3, UpdatedAt: 5, Last: Position{Seq: 2}},
	}
	for key, row := range rows {
		us.items[us.add(key)].row = row
	}
	sent := News{Shard: 3, Epoch: 2, N: 9, Prev: 11, To: 12}
	got, err := DecodeNews("us", told(us, sent))
	if err != nil {
		t.Fatal(err)
	}
	byNews, byBucket := NewState("eu", 0), NewState("eu", 0)
	for i := range got.Rows {
		r := &got.Rows[i]
		stored := r.Row.Stored("us", 3, r.Key)
		peer, err := stored.Peer()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(peer.Row, r.Row); d != "" {
			t.Error(d)
		}
		for s, row := range map[*State]*PeerRow{byNews: r, byBucket: &peer} {
			if _, changed, err := s.Learn(row); err != nil || !changed {
				t.Fatal(changed, err)
			}
			if _, again, err := s.Learn(row); err != nil || again {
				t.Fatal("learnt twice", err)
			}
		}
	}
	got.Rows = nil
	if d := cmp.Diff(sent, got); d != "" {
		t.Error(d)
	}
	for key := range rows {
		if d := cmp.Diff(byBucket.ItemAt(key), byNews.ItemAt(key)); d != "" {
			t.Error(d)
		}
	}
	it := byNews.ItemAt(protocol.ItemKey{SKU: "A", Location: "main"})
	want := protocol.Item{SKU: "A", Location: "main", OnHand: 80, Reserved: 5, Available: 76, Version: "us:7", UpdatedAt: 99}
	if d := cmp.Diff(want, it); d != "" {
		t.Error(d)
	}
	if !byNews.Owed() {
		t.Error("rights that were given are not owed")
	}
}

func FuzzNews(f *testing.F) {
	s := NewState("us", 0)
	s.items[s.add(protocol.ItemKey{SKU: "A", Location: "main"})].row = Row{Version: 1, Received: 3, Granted: map[string]int64{"eu": 2}}
	f.Add(told(s, News{Shard: 1, Epoch: 1, N: 1, To: 4}))
	f.Add([]byte{newsFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNews("us", b)
		if err != nil {
			return
		}
		eu := NewState("eu", 0)
		again := NewState("us", 0)
		unique := true
		for i := range n.Rows {
			_, _, _ = eu.Learn(&n.Rows[i]) // says what it can't use
			_, seen := again.ID(n.Rows[i].Key)
			unique = unique && !seen
			again.items[again.add(n.Rows[i].Key)].row = n.Rows[i].Row
		}
		if unique && !bytes.Equal(told(again, n), b) {
			t.Fatalf("%x is written as %x", b, told(again, n))
		}
		NewDraft(eu).AcceptOwed(10)
	})
}
