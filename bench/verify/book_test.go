package verify

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestNamesAreNumberedOnce(t *testing.T) {
	n := newNames()
	const count = 20_000
	for range 2 {
		for i := range uint32(count) {
			if got := n.number(fmt.Sprint("sku-", i/4), fmt.Sprint("store-", i%4)); got != i {
				t.Fatalf("item %d has number %d", i, got)
			}
		}
	}
	if k := n.key(4711); n.len() != count || k != (protocol.ItemKey{SKU: "sku-1177", Location: "store-3"}) {
		t.Errorf("%d items, 4711 is %v", n.len(), k)
	}
}

// TestMeetingHashes takes a table apart in which all hashes are the same.
func TestMeetingHashes(t *testing.T) {
	n := newNames()
	a := n.number("a", "main")
	for i, slot := range n.slots {
		if slot != 0 { // as if "b" had the hash of "a"
			n.slots[i] = 0
			hash := slot >> 32
			n.places[a].length = 0
			n.pages[0] = append(n.pages[0], "b"...)
			n.places = append(n.places, place{0, 1, 1, 0})
			n.slots[hash&uint64(len(n.slots)-1)] = hash<<32 | 2
		}
	}
	if b := n.number("a", "main"); b != 2 {
		t.Errorf("an item whose hash is another one's has number %d, want one of its own", b)
	}
}

func TestRelation(t *testing.T) {
	p := &picture{}
	p.set(3*chunkRows, row{onHand: 1}, []uint64{2, 0, 1})
	for _, c := range []struct {
		v    []uint64
		want int
	}{
		{[]uint64{2, 0, 1}, shownSame}, {[]uint64{2, 0, 1, 0}, shownSame}, {[]uint64{2, 0, 2}, shownOlder}, {[]uint64{2, 1, 1}, shownOlder},
		{[]uint64{2, 0, 1, 1}, shownOlder}, {[]uint64{2}, shownAhead}, {[]uint64{3}, shownAhead}, {nil, shownAhead},
	} {
		if got := p.relation(3*chunkRows, c.v); got != c.want {
			t.Errorf("at 2,0,1 an item is %d to %v, want %d", got, c.v, c.want)
		}
	}
	for _, item := range []uint32{0, 3*chunkRows + 1, 9 * chunkRows} {
		if got := p.relation(item, []uint64{1}); got != shownNot {
			t.Errorf("item %d, which was never shown, is %d", item, got)
		}
	}
	p.set(3*chunkRows, row{onHand: 2}, []uint64{3})
	if v := p.vector(3*chunkRows, nil); !slices.Equal(v, []uint64{3, 0, 0}) {
		t.Errorf("a region that is gone stays in the version: %v", v)
	}
}

func TestPick(t *testing.T) {
	b := newBook(&findings{}, []string{"eu-1"})
	var items []protocol.Item
	for i := range 1000 {
		it := shop(fmt.Sprintf("sku-%03d", i), 5, 0, "eu:1")
		switch i {
		case 333, 444:
			it.OnHand, it.Available = -1, 0
		case 555:
			it.Available = 4
		}
		items = append(items, it)
	}
	b.take(0, items)
	for count, want := range map[int]int{0: 0, 1: 1, 5: 5, 500: 500, 2000: 1000} {
		picked := b.pick(count)
		if len(picked) != want {
			t.Errorf("picked %d of %d", len(picked), count)
		}
		for _, special := range []uint32{333, 444, 555} {
			if _, found := slices.BinarySearch(picked, special); !found && count >= 5 {
				t.Errorf("of %d, %d is not among them", count, special)
			}
		}
	}
}

func TestFaultsAreCountedBeyondThoseShown(t *testing.T) {
	f := &findings{}
	for i := range 50 {
		f.fault(checkBody, "fault %d", i)
	}
	if len(f.faults) != faultsShown || f.wrong[checkBody] != 50 || f.faults[19].String() != "one-body: fault 19" {
		t.Errorf("%d faults, %d counted", len(f.faults), f.wrong[checkBody])
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	book := newBook(&findings{}, []string{"eu-1", "us-1"})
	var pages [][]protocol.Item
	for i := range 1000 {
		var page []protocol.Item
		for j := range 128 {
			page = append(page, shop(fmt.Sprintf("sku-%07d", 128*i+j), 5, 0, "eu:1,us:2"))
		}
		pages = append(pages, page)
	}
	n := 0
	for b.Loop() {
		book.take(n/len(pages)%2, pages[n%len(pages)])
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*128), "ns/item")
}
