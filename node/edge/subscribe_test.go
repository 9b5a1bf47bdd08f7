package edge_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// stocked has 3 SKUs at 2 locations.
func stocked(t *testing.T, options ...func(*edge.Config)) *fixture {
	f := start(t, options...)
	for i, sku := range []string{"tee-red", "tee-blue", "mug"} {
		run(f, `{"op":"count","key":"k","sku":"%s","on_hand":%d}`, sku, i+1)
		run(f, `{"op":"count","key":"k","sku":"%s","location":"shop","on_hand":%d}`, sku, 10*(i+1))
	}
	return f
}

// run has a command done by nobody in particular.
func run(f *fixture, format string, args ...any) *protocol.Call {
	f.Helper()
	call := &protocol.Call{Done: func(*protocol.Call) {}}
	if err := call.Command.Decode([]byte(fmt.Sprintf(format, args...))); err != nil {
		f.Fatal(err)
	}
	f.ledger.run(call)
	if call.Err != nil {
		f.Fatal(call.Err)
	}
	return call
}

// subscribed is the ok object of a subscribe.
type subscribed struct {
	Items  int    `json:"items"`
	Cursor string `json:"cursor"`
}

// subscribe sends the command and returns the snapshot, sorted.
func (p *peer) subscribe(selectors string) (snapshot []string, ok subscribed) {
	p.Helper()
	p.pushes = nil
	m := p.ok(`{"op":"subscribe",` + selectors + `}`)
	for _, push := range p.pushes {
		if push.Op == "stock" && !push.Snapshot {
			p.Fatalf("not marked as snapshot: %s", push.raw)
		}
	}
	snapshot = items(p.pushes)
	slices.Sort(snapshot)
	p.pushes = nil
	if err := json.Unmarshal(m.OK, &ok); err != nil {
		p.Fatal(err)
	}
	if ok.Items != len(snapshot) {
		p.Fatalf("%d items sent, %s", len(snapshot), m.raw)
	}
	return snapshot, ok
}

func TestSubscribe(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := stocked(t)
		for _, tc := range []struct {
			selectors string
			snapshot  []string
			changes   []string // of those made below
		}{
			{`"skus":["mug"]`, []string{"mug@main=3", "mug@shop=30"}, []string{"mug@main=7", "mug@new=8"}},
			{`"skus":["mug","mug"]`, []string{"mug@main=3", "mug@shop=30"}, []string{"mug@main=7", "mug@new=8"}},
			{`"skus":["none"]`, []string{"none@main=0"}, nil},
			{`"skus":["none"],"locations":["x","y"]`, []string{"none@x=0", "none@y=0"}, nil},
			{`"skus":["mug"],"locations":["shop","x"]`, []string{"mug@shop=30", "mug@x=0"}, nil},
			{`"prefixes":["tee-"]`, []string{"tee-blue@main=2", "tee-blue@shop=20", "tee-red@main=1", "tee-red@shop=10"}, []string{"tee-red@main=9"}},
			{`"prefixes":["tee-r","tee-","t"],"locations":["main"]`, []string{"tee-blue@main=2", "tee-red@main=1"}, []string{"tee-red@main=9"}},
			{`"prefixes":["none"]`, []string{}, nil},
			{`"locations":["shop"]`, []string{"mug@shop=30", "tee-blue@shop=20", "tee-red@shop=10"}, nil},
			{`"locations":["main"]`, []string{"mug@main=3", "tee-blue@main=2", "tee-red@main=1"}, []string{"mug@main=7", "tee-red@main=9"}},
			{`"all":true,"locations":["new"]`, []string{}, []string{"mug@new=8"}},
			{`"all":true,"skus":["mug","none"]`, []string{"mug@main=3", "mug@shop=30", "none@main=0", "tee-blue@main=2", "tee-blue@shop=20", "tee-red@main=1", "tee-red@shop=10"},
				[]string{"mug@main=7", "mug@new=8", "tee-red@main=9"}},
			{`"users":["ann"]`, []string{}, nil},
			{`"skus":["mug"],"have":[{"sku":"mug","version":"eu:1"},{"sku":"mug","location":"shop","version":""}]`, []string{"mug@shop=30"}, []string{"mug@main=7", "mug@new=8"}},
			{`"all":true,"have":[{"sku":"mug","version":"eu:2"},{"sku":"tee-red","version":"us:9"}]`, []string{"mug@shop=30", "tee-blue@main=2", "tee-blue@shop=20", "tee-red@main=1", "tee-red@shop=10"},
				[]string{"mug@main=7", "mug@new=8", "tee-red@main=9"}},
			{`"all":true,"since":"eu:4"`, []string{"mug@main=3", "mug@shop=30"}, []string{"mug@main=7", "mug@new=8", "tee-red@main=9"}},
			{`"skus":["mug","none"],"since":"eu:6"`, []string{}, []string{"mug@main=7", "mug@new=8"}},
		} {
			t.Run(tc.selectors, func(t *testing.T) {
				f = stocked(t)
				p := f.dialAs(form)
				snapshot, ok := p.subscribe(tc.selectors)
				if d := cmp.Diff(tc.snapshot, snapshot); d != "" {
					t.Error("snapshot", d)
				}
				if ok.Cursor != "eu:6" {
					t.Errorf("cursor %s", ok.Cursor)
				}
				run(f, `{"op":"count","key":"k","sku":"mug","on_hand":7}`)
				run(f, `{"op":"count","key":"k","sku":"tee-red","on_hand":9}`)
				run(f, `{"op":"count","key":"k","sku":"mug","location":"new","on_hand":8}`)
				got := items(p.settle())
				slices.Sort(got)
				if d := cmp.Diff(append([]string{}, tc.changes...), got); d != "" {
					t.Error("changes", d)
				}
			})
		}
	})
}

func TestOverlappingSubscriptionsPushOnce(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := stocked(t)
		p := f.dialAs(form)
		for _, s := range []string{`"skus":["mug"]`, `"skus":["mug"],"locations":["main"]`, `"prefixes":["m"]`, `"prefixes":["mu"]`, `"all":true`, `"locations":["main"]`, `"skus":["mug"]`} {
			p.subscribe(s)
		}
		f.ledger.set(5, "mug")
		if d := cmp.Diff([]string{"mug@main=5"}, items(p.settle())); d != "" {
			t.Fatal(d)
		}
	})
}

func TestUnsubscribe(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := stocked(t)
		p := f.dialAs(form)
		p.subscribe(`"skus":["mug","tee-red"]`)
		p.subscribe(`"prefixes":["tee-"],"locations":["shop","main"]`)
		p.subscribe(`"users":["ann"]`)
		next := int64(100)
		check := func(want ...string) {
			t.Helper()
			next++
			f.ledger.set(next, "mug", "tee-red", "tee-blue")
			got := items(p.settle())
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], "@")
			}
			slices.Sort(got)
			if d := cmp.Diff(append([]string{}, want...), got); d != "" {
				t.Fatal(d)
			}
		}
		check("mug", "tee-blue", "tee-red")
		p.ok(`{"op":"unsubscribe","skus":["tee-red","never"]}`)
		check("mug", "tee-blue", "tee-red") // by its prefix
		p.ok(`{"op":"unsubscribe","prefixes":["tee-"]}`)
		check("mug", "tee-blue", "tee-red") // that was another selector
		p.ok(`{"op":"unsubscribe","prefixes":["tee-"],"locations":["main","shop","main"]}`)
		check("mug")
		p.ok(`{"op":"unsubscribe"}`)
		check()
		p.ok(`{"op":"unsubscribe"}`)
		p.subscribe(`"skus":["mug"]`)
		check("mug")
	})
}

func TestSelectorLimit(t *testing.T) {
	f := start(t)
	p := f.dial()
	names := func(from, n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"%d"`, from+i)
		}
		return `"skus":[` + strings.Join(list, ",") + `]`
	}
	for from := 0; from < protocol.SelectorsMax; from += 2500 {
		p.subscribe(names(from, 2500))
	}
	p.subscribe(names(0, 2500)) // these it has
	p.refused(`{"op":"subscribe","skus":["one more"]}`, protocol.CodeTooLarge)
	p.refused(`{"op":"subscribe","all":true}`, protocol.CodeTooLarge)
	f.ledger.set(3, "one more", "9999")
	if d := cmp.Diff([]string{"9999@main=3"}, items(p.settle())); d != "" {
		t.Fatal(d)
	}
	p.ok(`{"op":"unsubscribe","skus":["17"]}`)
	p.subscribe(`"skus":["one more"]`)
}

func TestIntervalConflates(t *testing.T) {
	f := stocked(t)
	p := f.dial()
	const interval = 300 * time.Millisecond
	p.subscribe(fmt.Sprintf(`"skus":["mug"],"interval_ms":%d`, interval.Milliseconds()))
	p.subscribe(`"prefixes":["mu"],"interval_ms":3600000`)
	f.ledger.set(100, "mug")
	begin := time.Now()
	if d := cmp.Diff([]string{"mug@main=100"}, items(p.settle())); d != "" {
		t.Fatal("the first comes at once", d)
	}
	for n := range int64(50) {
		f.ledger.set(101+n, "mug")
		if got := items(p.settle()); len(got) > 0 {
			t.Fatalf("not held back: %v", got)
		}
	}
	m := p.next()
	if took := time.Since(begin); took < interval-10*time.Millisecond {
		t.Errorf("came after %v", took)
	}
	if d := cmp.Diff([]string{"mug@main=150"}, items([]message{m})); d != "" {
		t.Fatal("only the newest comes", d)
	}
	if got := f.metric("stockmesh_items_conflated_total"); got != 49 {
		t.Errorf("%v conflated", got)
	}
	p.subscribe(`"all":true,"interval_ms":0`)
	f.ledger.set(200, "mug")
	if d := cmp.Diff([]string{"mug@main=200"}, items(p.settle())); d != "" {
		t.Fatal("the smallest interval counts", d)
	}
}

func TestCursorIsToldOnceASecondAndCoversWhatCameBefore(t *testing.T) {
	t.Parallel()
	f := stocked(t)
	p := f.dial()
	idle := f.dial()
	p.subscribe(`"skus":["mug"]`)
	idle.subscribe(`"skus":["none"]`)
	begin, last := time.Now(), int64(0)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
				f.ledger.set(n, "mug") // and each is one step of the cursor
			}
		}
	}()
	var cursors []string
	for len(cursors) < 2 {
		m := p.next()
		if m.Op == "stock" {
			last = m.Items[0].OnHand
		} else if m.Op == "cursor" {
			cursors = append(cursors, m.Cursor)
			if covers := int64(version(m.Cursor)) - 6; covers > last {
				t.Fatalf("cursor says %d, pushed up to %d", covers, last)
			}
		}
	}
	close(stop)
	<-done
	if took := time.Since(begin); took < 1900*time.Millisecond || took > 5*time.Second {
		t.Errorf("two cursors within %v", took)
	}
	if m := idle.next(); m.Op != "cursor" {
		t.Errorf("got %s", m.raw)
	}
}

// What an interval holds back is not yet delivered, so the cursor waits for it.
func TestCursorWaitsForIntervals(t *testing.T) {
	t.Parallel()
	f := stocked(t)
	p := f.dial()
	p.subscribe(`"skus":["mug","tee-red"],"interval_ms":2500`)
	f.ledger.set(1, "mug")     // eu:7, at once
	f.ledger.set(2, "tee-red") // eu:8, at once
	p.settle()
	f.ledger.set(3, "mug") // eu:9, held back
	f.ledger.set(4, "tee-red")
	if m := p.next(); m.Op != "cursor" || m.Cursor != "eu:8" {
		t.Fatalf("got %s", m.raw)
	}
	var got []message
	for len(items(got)) < 2 {
		got = append(got, p.next())
	}
	if m := p.next(); m.Op != "cursor" || m.Cursor != "eu:10" {
		t.Fatalf("got %s", m.raw)
	}
}

// A node that is behind what its client has seen elsewhere tells nothing older.
func TestResumedSubscriptionWaitsForWhatItsClientHasSeen(t *testing.T) {
	t.Parallel()
	f := stocked(t) // up to eu:6
	p := f.dial()
	p.send(`{"op":"subscribe","id":9,"skus":["mug"],"since":"eu:8"}`)
	p.settleSilent()
	f.ledger.set(1, "mug") // eu:7: what its client had before
	p.settleSilent()
	f.ledger.set(2, "mug")
	f.ledger.set(3, "mug") // eu:9
	var first message
	for first.Op != "stock" {
		first = p.next()
	}
	if first.Items[0].OnHand < 2 {
		t.Fatalf("got %s", first.raw)
	}
}

// settleSilent holds the node to answering, and to pushing nothing before.
func (p *peer) settleSilent() {
	p.Helper()
	p.send(`{"op":"ping","id":"silent"}`)
	if m := p.next(); string(m.ID) != `"silent"` {
		p.Fatalf("got %s", m.raw)
	}
}

// Where what its client has seen does not come, it is told what there is; a region that
// nobody knows is not waited for.
func TestResumedSubscriptionWaitsNotForEver(t *testing.T) {
	t.Parallel()
	f := stocked(t, func(c *edge.Config) { c.SinceWait = 200 * time.Millisecond })
	p := f.dial()
	_, ok := p.subscribe(`"skus":["mug"],"since":"eu:77"`)
	if ok.Cursor != "eu:6" {
		t.Fatalf("got %+v", ok)
	}
	f = stocked(t, func(c *edge.Config) { c.SinceWait = time.Hour })
	if _, ok := f.dial().subscribe(`"skus":["mug"],"since":"asia:77,eu:5"`); ok.Items != 1 {
		t.Fatalf("got %+v", ok)
	}
}

func TestSnapshotLargerThanAnOutbox(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := start(t)
		skus := make([]string, 5000)
		for i := range skus {
			skus[i] = fmt.Sprintf("%0100d", i)
		}
		f.ledger.set(1, skus...)
		p := f.dialAs(form)
		if snapshot, _ := p.subscribe(`"all":true`); len(snapshot) != len(skus) {
			t.Fatalf("%d items", len(snapshot))
		}
	})
}

func TestReservationPushes(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := start(t)
		maker, other, watcher, stranger := f.dialAs(form), f.dialAs(form), f.dialAs(form), f.dialAs(form)
		watcher.subscribe(`"users":["ann","bob"]`)
		watcher.subscribe(`"users":["ann"],"skus":["A"]`)
		stranger.subscribe(`"users":["bob"]`)
		stranger.subscribe(`"all":true`)
		reserve := func() string {
			t.Helper()
			m := maker.ok(`{"op":"reserve","key":"k","lines":[{"sku":"A","quantity":1}],"user":"ann"}`)
			var ok struct{ Reservation protocol.Reservation }
			if err := json.Unmarshal(m.OK, &ok); err != nil {
				t.Fatal(err)
			}
			return ok.Reservation.ID
		}
		states := func(p *peer) []string {
			list := []string{}
			for _, m := range p.settle() {
				if m.Op == "reservation" {
					list = append(list, string(m.Reservation.State))
				}
			}
			return list
		}
		check := func(what string, p *peer, want ...string) {
			t.Helper()
			if d := cmp.Diff(append([]string{}, want...), states(p)); d != "" {
				t.Fatal(what, d)
			}
		}
		reserve()
		check("its own", maker)
		check("of its user", watcher, "held")
		maker.ok(`{"op":"confirm","key":"k","reservation":"eu.1"}`)
		check("its own", maker)
		check("of its user", watcher, "confirmed")

		id := reserve()
		other.ok(`{"op":"release","key":"k","reservation":"` + id + `"}`)
		check("by somebody else", maker, "confirmed") // the fake knows one end only
		check("who did it", other)
		check("of its user", watcher, "held", "confirmed")

		id = reserve()
		watcher.ok(`{"op":"confirm","key":"k","reservation":"` + id + `"}`)
		check("to whom it was done", maker, "confirmed")
		check("who did it", watcher, "held")

		f.ledger.expire(reserve())
		check("by time", maker, "expired")
		check("by time", watcher, "held", "expired")
		check("of another user", stranger)
		check("of nobody", other)
	})
}

// A reservation made again by a retry on a new connection is that connection's.
func TestReservationOfALostConnectionPassesOn(t *testing.T) {
	f := start(t)
	made := &protocol.Reservation{ID: "eu.1", State: protocol.Held}
	f.ledger.reservations["eu.1"] = made
	f.ledger.setHold(func(c *protocol.Call) bool { // a ledger that remembers the key
		c.Result = protocol.Result{Kind: protocol.KindReservation, Reservation: &protocol.Reservation{ID: "eu.1", State: protocol.Held}}
		c.Replayed = true
		c.Done(c)
		return true
	})
	const reserve = `{"op":"reserve","key":"k","lines":[{"sku":"A","quantity":1}]}`
	peers := make([]*peer, 4) // more than loops, so that two share one
	for i := range peers {
		peers[i] = f.dial()
		peers[i].ok(reserve)
	}
	peers[0].conn.Close()
	peers[1].conn.Close()
	eventually(t, "gone", func() bool { return f.edge.Connections() == 2 })
	f.ledger.expire("eu.1")
	for _, p := range peers[2:] {
		if got := p.settle(); len(got) != 1 || got[0].Op != "reservation" {
			t.Fatalf("got %v", got)
		}
	}
}
