package edge

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// accessTo is what grants in JSON allow in region eu.
func accessTo(t testing.TB, grants string) *protocol.Access {
	t.Helper()
	var list []protocol.Grant
	if err := json.Unmarshal([]byte(grants), &list); err != nil {
		t.Fatal(err)
	}
	return protocol.NewAccess("eu", list)
}

// comesAs lets a connection speak for a caller with these grants.
func (l *loop) comesAs(t testing.TB, c *conn, grants string) {
	c.who = &client{caller: &protocol.Caller{Access: accessTo(t, grants)}}
	l.hub.regrant(c)
}

// subscribes has a connection subscribe, without what is sent to it.
func (l *loop) subscribes(t testing.TB, c *conn, command string) {
	t.Helper()
	call := l.newCall(c)
	if err := call.Command.Decode([]byte(command)); err != nil {
		t.Fatal(err)
	}
	l.hub.subscribe(c, call)
	if call.Err != nil {
		t.Fatal(call.Err)
	}
	c.sub.fills = nil
}

// stands lists where a subscriber's entries are.
func stands(c *conn) (list []string) {
	for _, e := range c.sub.entries {
		for ; e != nil; e = e.next {
			list = append(list, string(e.spot.kind)+":"+e.spot.value)
		}
	}
	slices.Sort(list)
	return list
}

// Wide selectors stand only where their subscriber may see something, so changes
// elsewhere don't come by them.
func TestWhereWideSelectorsStand(t *testing.T) {
	const watch = `{"do":["watch"]`
	for _, tc := range []struct {
		grants, command string
		want            []string
	}{
		{`[` + watch + `}]`, `"all":true`, []string{"w:"}},
		{`[` + watch + `}]`, `"locations":["b","a","b"]`, []string{"l:a", "l:b"}},
		{`[` + watch + `}]`, `"all":true,"locations":["a"]`, []string{"l:a"}},
		{`[` + watch + `,"locations":["a","b"]}]`, `"all":true`, []string{"l:a", "l:b"}},
		{`[` + watch + `,"locations":["a","b"]}]`, `"locations":["b"]`, []string{"l:b"}},
		{`[` + watch + `,"skus":["t*","x","x"]}]`, `"all":true`, []string{"p:t", "s:x"}},
		{`[` + watch + `,"skus":["t*"],"locations":["a"]}]`, `"all":true`, []string{"l:a"}},
		{`[` + watch + `,"skus":["t*"]},` + watch + `,"locations":["a"]}]`, `"all":true`, []string{"w:"}},
		{`[` + watch + `,"skus":["*"],"users":["u"]}]`, `"all":true`, []string{"p:"}},
		{`[` + watch + `,"skus":["` + strings.Repeat("x", 200) + `"]}]`, `"all":true`, []string{"l:"}},
		{`[` + watch + `,"regions":["us"]}]`, `"all":true`, []string{"l:"}},
		{`[` + watch + `,"locations":["a"]}]`, `"skus":["x"],"prefixes":["t"]`, []string{"p:t", "s:x"}},
	} {
		t.Run(tc.grants+tc.command, func(t *testing.T) {
			l := newBench(t)
			c := l.openConn()
			l.comesAs(t, c, tc.grants)
			l.subscribes(t, c, `{"op":"subscribe",`+tc.command+`}`)
			if d := cmp.Diff(tc.want, stands(c)); d != "" {
				t.Error(d)
			}
			l.hub.leave(c)
			if x := &l.hub.index; !x.nobody() || len(x.used) > 0 {
				t.Error("something is left in the index")
			}
		})
	}
}

// New grants move wide selectors, and only those.
func TestNewGrantsMoveWideSelectors(t *testing.T) {
	l := newBench(t)
	c := l.openConn()
	l.comesAs(t, c, `[{"do":["watch"]}]`)
	l.subscribes(t, c, `{"op":"subscribe","all":true,"skus":["x"],"locations":["a","b"],"interval_ms":70}`)
	l.subscribes(t, c, `{"op":"subscribe","all":true,"interval_ms":50}`)
	for _, step := range []struct {
		grants string
		want   []string
	}{
		{`[{"do":["watch"],"locations":["b","c"]}]`, []string{"l:a", "l:b", "l:b", "l:c", "s:x"}},
		{`[]`, []string{"l:", "l:", "s:x"}},
		{`[{"do":["watch"]}]`, []string{"l:a", "l:b", "s:x", "w:"}},
	} {
		l.comesAs(t, c, step.grants)
		if d := cmp.Diff(step.want, stands(c)); d != "" {
			t.Error(step.grants, d)
		}
	}
	for id, e := range c.sub.entries {
		for ; e != nil; e = e.next {
			if want := map[bool]int64{true: 50, false: 70}[id.locations == ""]; e.interval != want {
				t.Errorf("%q has interval %d", id, e.interval)
			}
		}
	}
	if c.sub.selectors != 4 {
		t.Errorf("the selectors weigh %d", c.sub.selectors)
	}
}

// shelf is a ledger of the items listed, in order.
type shelf struct {
	silent
	items []protocol.Item
}

func shelfOf(n int) *shelf {
	s := &shelf{}
	for i := range n {
		s.items = append(s.items, protocol.Item{SKU: fmt.Sprintf("n-%04d", i), Location: string('a' + rune(i%3)), OnHand: int64(i)})
	}
	return s
}

func (s *shelf) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	for _, id := range ids {
		dst = append(dst, s.items[id])
	}
	return dst
}

func (s *shelf) Scan(q *protocol.Query) (page []protocol.Item, next protocol.ItemKey, more bool) {
	next = q.After
	for _, it := range s.items {
		if k := it.Key(); q.Match(k) && k.Compare(q.After) > 0 {
			if len(page) == q.Limit {
				return page, next, true
			}
			next = k
			page = append(page, it)
		}
	}
	return page, next, false
}

// A snapshot goes by the grants of the moment, and each item that these let through is
// in it once.
func TestFillGoesByTheGrantsOfTheMoment(t *testing.T) {
	ledger := shelfOf(3000)
	cmd := protocol.Command{Op: protocol.OpSubscribe, All: true}
	views := []*protocol.Access{
		nil,
		accessTo(t, `[{"do":["watch"],"locations":["a"]}]`),
		accessTo(t, `[{"do":["watch"],"skus":["n-1*"],"locations":["b"]},{"do":["watch"],"skus":["n-2*"],"locations":["c"]}]`),
		accessTo(t, `[{"do":["watch"],"skus":["n-29*"]}]`),
	}
	f := newFill(&protocol.Call{Command: cmd}, nil)
	seen, read := map[string]bool{}, 0
	for page, last := 0, false; !last; page++ {
		view := views[page%len(views)]
		if page >= 12 {
			view = nil // the rest of it
		}
		begin := f.after
		var got []protocol.Item
		got, last = f.next(ledger, view)
		for _, it := range got {
			if seen[it.SKU] || view != nil && !view.Sees(it.SKU, it.Location) {
				t.Fatalf("page %d holds %s at %s", page, it.SKU, it.Location)
			}
			seen[it.SKU] = true
		}
		for _, it := range ledger.items { // all between where it began and where it stopped
			k := protocol.ItemKey{SKU: it.SKU, Location: it.Location}
			within := k.Compare(begin) > 0 && (last || k.Compare(f.after) <= 0)
			if within && (view == nil || view.Sees(it.SKU, it.Location)) != seen[it.SKU] {
				t.Fatalf("page %d: %s is sent: %v", page, it.SKU, seen[it.SKU])
			}
			if within {
				read++
			}
		}
	}
	if read != len(ledger.items) {
		t.Errorf("%d items were passed by", read)
	}
}

// What was due, or held back for its interval, before new grants hide it is forgotten.
func TestNewGrantsHideWhatIsDue(t *testing.T) {
	l := newBench(t)
	l.config.Ledger = shelfOf(6)
	c := l.openConn()
	l.comesAs(t, c, `[{"do":["watch"]}]`)
	l.subscribes(t, c, `{"op":"subscribe","all":true,"interval_ms":1000}`)
	change := func() {
		l.hub.changed([]*protocol.Changes{{Items: []protocol.ItemID{0, 1, 2, 3, 4, 5}}}, 1)
	}
	change() // is due at once
	change() // is held back
	l.comesAs(t, c, `[{"do":["watch"],"locations":["b"]}]`)
	const hidden, shown = `"location":"a"`, `"sku":"n-0004"`
	if out := l.said(c); strings.Contains(out, hidden) || !strings.Contains(out, shown) {
		t.Errorf("due: %s", out)
	}
	if c.sub.held != 2 {
		t.Errorf("%d are held back", c.sub.held)
	}
	for id := range l.config.Ledger.(*shelf).items {
		l.hub.paceDue(c, protocol.ItemID(id))
	}
	if out := l.said(c); strings.Contains(out, hidden) || !strings.Contains(out, shown) {
		t.Errorf("held back: %s", out)
	}
	if c.sub.held != 0 {
		t.Errorf("%d are held back", c.sub.held)
	}
}

// The same after the socket took no more.
func TestNewGrantsHideWhatWaitsForTheSocket(t *testing.T) {
	l := newBench(t)
	l.config.Ledger = shelfOf(6)
	c := l.openConn()
	l.comesAs(t, c, `[{"do":["watch"]}]`)
	l.subscribes(t, c, `{"op":"subscribe","all":true}`)
	c.blocked = true
	l.hub.changed([]*protocol.Changes{{Items: []protocol.ItemID{0, 1, 2, 3}}}, 1)
	l.comesAs(t, c, `[{"do":["watch"],"skus":["n-0001"]}]`)
	if len(c.sub.due) != 1 || len(c.sub.dueSet) != 1 {
		t.Errorf("due: %v, %v", c.sub.due, c.sub.dueSet)
	}
}

// A caller that has no access at all, as a guard might say by mistake, sees nothing.
func TestNoAccessSeesNothing(t *testing.T) {
	l := newBench(t)
	for _, who := range []*client{nil, {}, {caller: &protocol.Caller{}}} {
		c := l.openConn()
		c.who = who
		if v := c.view(); v == nil || v.Sees("A", "main") {
			t.Errorf("%+v sees something", who)
		}
		if err := c.access().Check(&protocol.Command{Op: protocol.OpGet, SKUs: []string{"A"}}); err == nil {
			t.Errorf("%+v may ask", who)
		}
	}
}

// BenchmarkChange is what a changed item with one subscriber costs while there are
// others that want something else.
func BenchmarkChange(b *testing.B) {
	const others = 10000
	list := func(format string) string {
		names := []string{}
		for i := range others {
			names = append(names, fmt.Sprintf(format, i))
		}
		return string(protocol.AppendJSON(nil, names))
	}
	for _, tc := range []struct{ name, grants, command string }{
		{"none", "", ""},
		{"skus", "", `"skus":` + list("other-%d")},
		{"prefixes", "", `"prefixes":` + list("o-%d")},
		{"locations", "", `"locations":` + list("store-%d")},
		{"all-of-a-store", `[{"do":["watch"],"locations":["store-1"]}]`, `"all":true`},
		{"all-of-a-prefix", `[{"do":["watch"],"skus":["o-*"]}]`, `"all":true`},
		{"all-but-hidden", `[{"do":["watch"],"skus":["o-*"]},{"do":["watch"],"locations":["store-1"]}]`, `"all":true`},
	} {
		b.Run(tc.name, func(b *testing.B) {
			l := newBench(b)
			l.config.Ledger = &shelf{items: []protocol.Item{{SKU: "hot-item", Location: "main", Version: "eu:7"}}}
			c := l.openConn()
			l.subscribes(b, c, `{"op":"subscribe","skus":["hot-item"]}`)
			switch {
			case tc.grants != "": // one each
				access := accessTo(b, tc.grants)
				for range others {
					other := l.openConn()
					other.who = &client{caller: &protocol.Caller{Access: access}}
					l.subscribes(b, other, `{"op":"subscribe",`+tc.command+`}`)
				}
			case tc.command != "":
				l.subscribes(b, l.openConn(), `{"op":"subscribe",`+tc.command+`}`)
			}
			changes := []*protocol.Changes{{Items: []protocol.ItemID{0}}}
			b.ReportAllocs()
			for b.Loop() {
				l.hub.changed(changes, 1)
				c.sub.due = c.sub.due[:0]
				l.hub.forgetPass()
			}
		})
	}
}
