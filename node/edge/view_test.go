package edge_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// stockedFor has 3 SKUs at 2 locations, for the callers of a guarded fixture.
func stockedFor(t *testing.T) *guarded {
	f := startGuarded(t)
	for i, sku := range []string{"tee-red", "tee-blue", "mug"} {
		f.count(sku, "main", i+1)
		f.count(sku, "shop", 10*(i+1))
	}
	return f
}

func (f *guarded) count(sku, location string, onHand int) {
	f.Helper()
	run(f.fixture, `{"op":"count","key":"k","sku":"%s","location":"%s","on_hand":%d}`, sku, location, onHand)
}

// mixed sees some SKUs at one location, and others at another one.
const mixed = `[{"do":["watch"],"skus":["tee-*"],"locations":["shop"]},{"do":["watch"],"skus":["mug","cup"],"locations":["main"]}]`

// A subscriber is told of what it may see: in its snapshot and by what changes later.
func TestSubscribersSeeWhatTheyMay(t *testing.T) {
	changes := []string{"mug@main=7", "mug@shop=8", "tee-red@main=9", "tee-red@shop=6", "tee-new@shop=5", "cup@back=4"}
	for _, tc := range []struct {
		grants, selectors string
		snapshot, changes []string
	}{
		{onlyTees, `"all":true`, []string{"tee-blue@shop=20", "tee-red@shop=10"}, []string{"tee-new@shop=5", "tee-red@shop=6"}},
		{onlyTees, `"prefixes":["t"]`, []string{"tee-blue@shop=20", "tee-red@shop=10"}, []string{"tee-new@shop=5", "tee-red@shop=6"}},
		{onlyTees, `"prefixes":["m","x"]`, []string{}, nil},
		{onlyTees, `"locations":["shop"]`, []string{"tee-blue@shop=20", "tee-red@shop=10"}, []string{"tee-new@shop=5", "tee-red@shop=6"}},
		{onlyTees, `"skus":["tee-red"]`, []string{"tee-red@shop=10"}, []string{"tee-red@shop=6"}},
		{onlyTees, `"skus":["tee-none"],"locations":["shop"]`, []string{"tee-none@shop=0"}, nil},
		{onlyTees, `"skus":["tee-none"]`, []string{}, nil}, // it would be at main
		{mixed, `"all":true`, []string{"mug@main=3", "tee-blue@shop=20", "tee-red@shop=10"}, []string{"mug@main=7", "tee-new@shop=5", "tee-red@shop=6"}},
		{mixed, `"locations":["main"]`, []string{"mug@main=3"}, []string{"mug@main=7"}},
		{mixed, `"skus":["mug","tee-red"],"prefixes":["c"]`, []string{"mug@main=3", "tee-red@shop=10"}, []string{"mug@main=7", "tee-red@shop=6"}},
		{mixed, `"skus":["mug"],"all":true`, []string{"mug@main=3", "tee-blue@shop=20", "tee-red@shop=10"}, []string{"mug@main=7", "tee-new@shop=5", "tee-red@shop=6"}},
		{`[{"do":["watch"],"skus":["mug"]}]`, `"all":true`, []string{"mug@main=3", "mug@shop=30"}, []string{"mug@main=7", "mug@shop=8"}},
		{`[{"do":["watch"],"skus":["*"],"locations":["back","main"]}]`, `"all":true`, []string{"mug@main=3", "tee-blue@main=2", "tee-red@main=1"}, []string{"cup@back=4", "mug@main=7", "tee-red@main=9"}},
		{`[{"do":["watch"],"skus":[]}]`, `"all":true`, []string{}, nil},
		{`[{"do":["watch"],"locations":["shop"]},{"do":["watch"]}]`, `"prefixes":["mug"]`, []string{"mug@main=3", "mug@shop=30"}, []string{"mug@main=7", "mug@shop=8"}},
	} {
		t.Run(tc.grants+" "+tc.selectors, func(t *testing.T) {
			f := stockedFor(t)
			f.guard.knows(t, "some", "someone", tc.grants)
			p := f.as("some")
			snapshot, ok := p.subscribe(tc.selectors)
			if d := cmp.Diff(tc.snapshot, snapshot); d != "" {
				t.Error("snapshot", d)
			}
			if ok.Cursor != "eu:6" {
				t.Errorf("cursor %s", ok.Cursor)
			}
			f.count("mug", "main", 7)
			f.count("mug", "shop", 8)
			f.count("tee-red", "main", 9)
			f.count("tee-red", "shop", 6)
			f.count("tee-new", "shop", 5)
			f.count("cup", "back", 4)
			if d := cmp.Diff(append([]string{}, tc.changes...), sorted(p.settle())); d != "" {
				t.Error("of", changes, d)
			}
		})
	}
}

// What is there but hidden looks like what isn't there.
func TestHiddenLooksLikeMissing(t *testing.T) {
	f := startGuarded(t)
	f.guard.knows(t, "main", "m", `[{"do":["watch"],"locations":["main"]}]`)
	f.count("hidden", "vault", 5)
	p := f.as("main")
	snapshot, _ := p.subscribe(`"skus":["hidden","missing"]`)
	if d := cmp.Diff([]string{"hidden@main=0", "missing@main=0"}, snapshot); d != "" {
		t.Error(d)
	}
}

// Cursors go on although nothing is seen of what changed.
func TestCursorsPassHiddenChanges(t *testing.T) {
	f := stockedFor(t)
	p := f.as("tees")
	p.subscribe(`"all":true`)
	f.count("mug", "main", 9)
	for {
		m := p.next()
		if m.Op == "stock" {
			t.Fatal(m.raw)
		}
		if m.Op == "cursor" && m.Cursor == "eu:7" {
			return
		}
	}
}

// Pages of a long snapshot are bounded by what was read, whatever of it may be seen.
func TestLongSnapshotOfAFew(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := startGuarded(t)
		f.guard.knows(t, "few", "f", `[{"do":["watch"],"skus":["n-1*"],"locations":["a"]},{"do":["watch"],"skus":["n-2","x"],"locations":["b"]}]`)
		want := []string{"n-2@b=2"}
		for i := range 3000 {
			sku := fmt.Sprintf("n-%d", i)
			f.count(sku, "a", i)
			if sku[2] == '1' {
				want = append(want, fmt.Sprintf("%s@a=%d", sku, i))
			}
			if i%10 == 2 {
				f.count(sku, "b", i)
			}
		}
		slices.Sort(want)
		for _, selectors := range []string{`"all":true`, `"prefixes":["n-"]`, `"locations":["a","b"]`} {
			p := f.dialAs(form)
			p.authAs("few")
			snapshot, _ := p.subscribe(selectors)
			if d := cmp.Diff(want, snapshot); d != "" {
				t.Error(selectors, d)
			}
		}
	})
}

func TestReservationsOfOthers(t *testing.T) {
	f := startGuarded(t)
	f.guard.knows(t, "ann", "ann", `[{"do":["watch"],"users":["ann"]},{"do":["reserve"]}]`)
	f.guard.knows(t, "shop", "clerk", `[{"do":["watch"],"locations":["shop"]}]`)
	ann, clerk, boss := f.as("ann"), f.as("shop"), f.as("all")
	ann.subscribe(`"users":["ann"]`)
	ann.refused(`{"op":"subscribe","users":["bob"]}`, protocol.CodeForbidden)
	clerk.subscribe(`"users":["ann","bob"]`)
	boss.subscribe(`"users":["ann","bob"]`)
	reserve := func(user, lines string) {
		t.Helper()
		run(f.fixture, `{"op":"reserve","key":"k","user":"%s","lines":[%s]}`, user, lines)
	}
	reserve("ann", `{"sku":"A","location":"shop","quantity":1}`)
	reserve("ann", `{"sku":"A","location":"shop","quantity":2},{"sku":"A","quantity":1}`)
	reserve("bob", `{"sku":"A","location":"shop","quantity":3}`)
	pushed := func(p *peer) (ids []string) {
		for _, m := range p.settle() {
			if m.Op == "reservation" {
				ids = append(ids, m.Reservation.ID)
			}
		}
		return ids
	}
	for _, tc := range []struct {
		name string
		peer *peer
		want []string
	}{{"ann", ann, []string{"eu.1", "eu.2"}}, {"clerk", clerk, []string{"eu.1", "eu.3"}}, {"boss", boss, []string{"eu.1", "eu.2", "eu.3"}}} {
		if d := cmp.Diff(tc.want, pushed(tc.peer)); d != "" {
			t.Error(tc.name, d)
		}
	}
	// Whoever made one is told of its end, even without the right to watch.
	f.guard.knows(t, "maker", "maker", `[{"do":["reserve"]}]`)
	maker := f.as("maker")
	maker.ok(`{"op":"reserve","key":"k","user":"carl","lines":[{"sku":"A","quantity":1}]}`)
	f.ledger.expire("eu.4")
	if d := cmp.Diff([]string{"eu.4"}, pushed(maker)); d != "" {
		t.Error(d)
	}
}

func TestRenewedGrantsHoldAtOnce(t *testing.T) {
	f := stockedFor(t)
	f.guard.knows(t, "mugs", "clerk", `[{"do":["watch"],"skus":["mug"]}]`)
	p := f.as("all")
	p.subscribe(`"all":true,"skus":["tee-red"],"prefixes":["mu"],"users":["ann"],"interval_ms":0`)
	change := func(n int) []string {
		for _, sku := range []string{"mug", "tee-red"} {
			f.count(sku, "main", n)
			f.count(sku, "shop", n)
		}
		run(f.fixture, `{"op":"reserve","key":"k","user":"ann","lines":[{"sku":"cup","quantity":%d}]}`, n)
		pushes := p.settle()
		list := sorted(pushes)
		for _, m := range pushes {
			if m.Op == "reservation" {
				list = append(list, "reservation")
			}
		}
		return list
	}
	for _, step := range []struct {
		token string
		want  []string
	}{
		{"", []string{"mug@main=9", "mug@shop=9", "tee-red@main=9", "tee-red@shop=9", "reservation"}},
		{"tees", []string{"tee-red@shop=9"}},
		{"nothing", []string{}},
		{"mugs", []string{"mug@main=9", "mug@shop=9"}},
		{"all", []string{"mug@main=9", "mug@shop=9", "tee-red@main=9", "tee-red@shop=9", "reservation"}},
	} {
		if step.token != "" {
			p.authAs(step.token)
		}
		if d := cmp.Diff(step.want, change(9)); d != "" {
			t.Errorf("as %q: %s", step.token, d)
		}
	}
	p.ok(`{"op":"unsubscribe"}`)
	if d := cmp.Diff([]string{}, change(10)); d != "" {
		t.Error(d)
	}
}

// Replies leave out what the ledger says too much, and say who asked.
func TestRepliesAndCallsOfACaller(t *testing.T) {
	f := stockedFor(t)
	subjects := make(chan string, 10)
	f.ledger.setHold(func(c *protocol.Call) bool {
		subjects <- fmt.Sprintf("%s from %s, within %d", c.Subject, c.Address, len(c.Command.Within))
		if c.Command.Op != protocol.OpGet {
			return false
		}
		c.Result = protocol.Result{Kind: protocol.KindItems, Items: []protocol.Item{
			{SKU: "tee-red", Location: "main", OnHand: 1}, {SKU: "tee-red", Location: "shop", OnHand: 2}}}
		c.Done(c)
		return true
	})
	p := f.as("tees")
	if got := items([]message{{Op: "stock", Items: get(t, p, "tee-red")}}); fmt.Sprint(got) != "[tee-red@shop=2]" {
		t.Error(got)
	}
	p.refused(`{"op":"release","key":"k","reservation":"eu.9"}`, protocol.CodeNotFound)
	for _, want := range []string{"clerk from 127.0.0.1, within 0", "clerk from 127.0.0.1, within 1"} {
		if got := <-subjects; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
