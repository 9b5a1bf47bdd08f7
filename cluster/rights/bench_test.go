package rights

import (
	"fmt"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func benchKeys(n int) (keys []protocol.ItemKey) {
	for i := range n {
		keys = append(keys, protocol.ItemKey{SKU: fmt.Sprintf("sku-%06d", i), Location: "warehouse"})
	}
	return keys
}

func BenchmarkDemand(b *testing.B) {
	for _, items := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("items=%d", items), func(b *testing.B) {
			keys, book, now := benchKeys(items), NewBook("me", Options{}), int64(0)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now += int64(10 * time.Microsecond) // 100,000 a second
				book.Demand(keys[i%items], 1, now)
			}
		})
	}
}

func BenchmarkWant(b *testing.B) {
	peers := []Peer{up("a", 0), up("b", 0)}
	for name, own := range map[string]Own{"plenty": {Free: 1 << 40}, "short": {Missing: 1}} {
		b.Run(name, func(b *testing.B) {
			book, now := NewBook("me", Options{}), int64(0)
			book.Demand(tea, 1, 0)
			b.ReportAllocs()
			for b.Loop() {
				now += int64(10 * time.Microsecond)
				for _, o := range book.Want(tea, own, peers, now) {
					book.Answered(tea, o.Peer, 0, 0, now)
				}
			}
		})
	}
}

func BenchmarkHopeless(b *testing.B) {
	peers, own := []Peer{up("a", 0), up("b", 0)}, Own{Missing: 1}
	book := NewBook("me", Options{})
	for _, o := range book.Want(tea, own, peers, 0) {
		book.Answered(tea, o.Peer, 0, 0, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !book.Hopeless(tea, own, peers, ms) {
			b.Fatal("not hopeless")
		}
	}
}

func BenchmarkGive(b *testing.B) {
	book, now := NewBook("me", Options{}), int64(0)
	book.Demand(tea, 100, 0)
	ask, own := Ask{Key: tea, Need: 2, Extra: 50, Demand: 3}, Own{Free: 1000}
	b.ReportAllocs()
	for b.Loop() {
		now += int64(10 * time.Microsecond)
		book.Give("a", ask, own, now)
	}
}

// An item in conflict is the slow case: the tie-break hashes names.
func BenchmarkGiveTie(b *testing.B) {
	book := NewBook("me", Options{})
	ask, own := Ask{Key: tea, Need: 1, Free: 1}, Own{Free: 1, Missing: 1}
	b.ReportAllocs()
	for b.Loop() {
		book.Give("a", ask, own, 0)
	}
}
