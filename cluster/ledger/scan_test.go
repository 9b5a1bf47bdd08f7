package ledger

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// TestScan turns pages and compares them with a filter over everything.
func TestScan(t *testing.T) {
	names := []string{"a", "a ", "aa", "ab", "ab/c", "b", "ba", "ÿ", "红", "红色", "\xff", "\xff\xff"}
	places := []string{"main", "shop", "z"}
	rapid.Check(t, func(t *rapid.T) {
		s := NewState("eu", 0)
		d := NewDraft(s)
		for range rapid.IntRange(0, 25).Draw(t, "items") {
			key := protocol.ItemKey{SKU: rapid.SampledFrom(names).Draw(t, "sku"), Location: rapid.SampledFrom(places).Draw(t, "location")}
			d.Reset(0, 0)
			d.Accept(key, "us", rowOf(s, key).Accepted["us"]+1)
			must(t, apply(s, d.Round(), s.Seq()+1))
		}
		q := protocol.Query{Limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		q.SKUs = rapid.SliceOfN(rapid.SampledFrom(append(names, "none")), 0, 3).Draw(t, "skus")
		q.Prefixes = rapid.SliceOfN(rapid.SampledFrom(append(names, "", "x")), 0, 2).Draw(t, "prefixes")
		q.Locations = rapid.SliceOfN(rapid.SampledFrom(append(places, "none")), 0, 2).Draw(t, "locations")
		q.All = rapid.IntRange(0, 9).Draw(t, "all") == 0
		if rapid.Bool().Draw(t, "since") {
			q.Since = protocol.Vector{{Region: "eu", N: rapid.Uint64Range(0, s.Seq()).Draw(t, "eu")}, {Region: "us", N: 99}}
		}
		if rapid.Bool().Draw(t, "after") {
			q.After = protocol.ItemKey{SKU: rapid.SampledFrom(names).Draw(t, "sku"), Location: rapid.SampledFrom(places).Draw(t, "location")}
		}
		if diff := cmp.Diff(filtered(s, q), pages(t, s, q)); diff != "" {
			t.Fatalf("%+v: -want +got\n%s", q, diff)
		}
	})
}

// pages reads page after page.
func pages(t *rapid.T, s *State, q protocol.Query) (keys []protocol.ItemKey) {
	for {
		ids, more := s.Scan(&q)
		for _, id := range ids {
			keys = append(keys, s.Key(id))
		}
		if !more {
			return keys
		}
		if len(ids) != q.Limit {
			t.Fatalf("a page of %d of %d, and more", len(ids), q.Limit)
		}
		q.After = keys[len(keys)-1]
	}
}

func filtered(s *State, q protocol.Query) (keys []protocol.ItemKey) {
	for i := range s.items {
		it := &s.items[i]
		if q.Match(it.key) && it.row.Last.Seq > q.Since.Get("eu") && it.key.Compare(q.After) > 0 {
			keys = append(keys, it.key)
		}
	}
	slices.SortFunc(keys, protocol.ItemKey.Compare)
	return keys
}

func TestScanOfNothing(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	for _, q := range []protocol.Query{
		{Limit: 9, Since: protocol.Vector{{Region: "eu", N: 1}}},
		{Limit: 9, After: keyA},
		{Limit: 9, Selector: protocol.Selector{SKUs: []string{"B"}}},
	} {
		if ids, more := k.state.Scan(&q); len(ids) > 0 || more {
			t.Errorf("%+v: %v %v", q, ids, more)
		}
	}
	if ids, more := k.state.Scan(&protocol.Query{}); len(ids) > 0 || !more {
		t.Errorf("a page of no items: %v %v", ids, more)
	}
}
