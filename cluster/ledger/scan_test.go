package ledger

import (
	"fmt"
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
		ids, next, more := s.Scan(&q)
		for _, id := range ids {
			keys = append(keys, s.Key(id))
		}
		if !more {
			return keys
		}
		if len(ids) > q.Limit || next.Compare(q.After) <= 0 {
			t.Fatalf("a page of %d of %d, and more after %v", len(ids), q.Limit, next)
		}
		q.After = next
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
		if ids, _, more := k.state.Scan(&q); len(ids) > 0 || more {
			t.Errorf("%+v: %v %v", q, ids, more)
		}
	}
	if ids, next, more := k.state.Scan(&protocol.Query{}); len(ids) > 0 || next != (protocol.ItemKey{}) || !more {
		t.Errorf("a page of no items: %v %v %v", ids, next, more)
	}
}

// Whatever a query picks of many items, one Scan looks at a bounded number of them, and
// the pages together hold all that is picked.
func TestScanLooksAtABoundedNumber(t *testing.T) {
	s := NewState("eu", 0)
	d := NewDraft(s)
	const count = 3*visitsMax + 7
	for i := range count {
		d.Reset(0, 0)
		d.Accept(protocol.ItemKey{SKU: fmt.Sprintf("%06d", i), Location: "main"}, "us", 1)
		must(t, apply(s, d.Round(), s.Seq()+1))
	}
	last := protocol.ItemKey{SKU: fmt.Sprintf("%06d", count-1), Location: "main"}
	for _, q := range []protocol.Query{
		{Limit: 10, Since: protocol.Vector{{Region: "eu", N: count - 1}, {Region: "us", N: 1}}},
		{Limit: 10, Selector: protocol.Selector{SKUs: []string{last.SKU}, Prefixes: []string{""}, Locations: []string{"main"}}, After: protocol.ItemKey{SKU: "000000", Location: "main"}},
	} {
		var found []protocol.ItemKey
		pages := 0
		for more := true; more; pages++ {
			ids, next, left := s.Scan(&q)
			for _, id := range ids {
				found = append(found, s.Key(id))
			}
			q.After, more = next, left
		}
		if found[len(found)-1] != last || pages < 4 {
			t.Errorf("%d items in %d pages, the last %v", len(found), pages, found[len(found)-1])
		}
	}
}
