package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

func subscribe(t *testing.T, c *Client, sel protocol.Selector, opts SubscribeOptions) *Subscription {
	t.Helper()
	s, err := c.Subscribe(within(t), sel, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// follow reads updates into a map until ok says that it has seen enough.
func follow(t *testing.T, s *Subscription, seen map[string]protocol.Item, ok func(Update) bool) {
	t.Helper()
	for {
		u, err := s.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range u.Items {
			seen[it.SKU] = it
		}
		if ok(u) {
			return
		}
	}
}

func TestSubscriptionDeliversSnapshotAndChanges(t *testing.T) {
	n := newFakeNode(t, "a")
	n.set("A", 1)
	n.set("B", 2)
	s := subscribe(t, dial(t, quick(n.addr)), protocol.Selector{All: true}, SubscribeOptions{})
	u, err := s.Next(within(t))
	if err != nil || len(u.Items) != 2 || !u.Current || u.Cursor != "eu:100" {
		t.Fatalf("first update %+v, %v", u, err)
	}
	n.set("A", 10)
	u, err = s.Next(within(t))
	if err != nil || len(u.Items) != 1 || u.Items[0].OnHand != 11 || !u.Current {
		t.Fatalf("second update %+v, %v", u, err)
	}
}

func TestSubscriptionResumesFromItsCursor(t *testing.T) {
	n := newFakeNode(t, "a")
	n.set("A", 1)
	c := dial(t, quick(n.addr))
	s := subscribe(t, c, protocol.Selector{SKUs: []string{"A"}}, SubscribeOptions{})
	seen := map[string]protocol.Item{}
	follow(t, s, seen, func(u Update) bool { return u.Current })
	n.say(`{"op":"cursor","cursor":"eu:107,us:3"}`)
	follow(t, s, seen, func(u Update) bool { return u.Cursor == "eu:107,us:3" })
	n.drop()
	follow(t, s, seen, func(u Update) bool { return !u.Current })
	n.set("A", 4)
	follow(t, s, seen, func(u Update) bool { return u.Current && seen["A"].OnHand == 5 })
	subs := n.seenOf(protocol.OpSubscribe)
	if len(subs) != 2 || subs[0].Since != nil || subs[1].Since == nil || *subs[1].Since != "eu:107,us:3" {
		t.Errorf("subscribed as %+v", subs)
	}
}

func TestSubscriptionStaysCurrentWhenThereIsNoOtherNode(t *testing.T) {
	n := newFakeNode(t, "a")
	s := subscribe(t, dial(t, quick(n.addr)), protocol.Selector{All: true}, SubscribeOptions{})
	n.say(`{"op":"goaway","reason":"drain","deadline_ms":60000,"endpoints":["ws://%s"]}`, n.addr)
	n.set("A", 1)
	seen := map[string]protocol.Item{}
	follow(t, s, seen, func(u Update) bool {
		if !u.Current {
			t.Error("not current while the link stands")
		}
		return seen["A"].OnHand == 1
	})
}

func TestSubscriptionMovesWithGoaway(t *testing.T) {
	a, b := newFakeNode(t, "a"), newFakeNode(t, "b")
	s := subscribe(t, dial(t, quick(a.addr)), protocol.Selector{All: true}, SubscribeOptions{})
	a.say(`{"op":"goaway","reason":"drain","deadline_ms":60000,"endpoints":["ws://%s"]}`, b.addr)
	eventually(t, "subscribed at b", func() bool { return len(b.seenOf(protocol.OpSubscribe)) == 1 })
	b.set("A", 1)
	seen := map[string]protocol.Item{}
	follow(t, s, seen, func(u Update) bool { return u.Current && seen["A"].OnHand == 1 })
	if cmd := b.seenOf(protocol.OpSubscribe)[0]; cmd.Since == nil || *cmd.Since != "eu:100" {
		t.Errorf("subscribed as %+v", cmd)
	}
}

func TestItemsNeverGoBack(t *testing.T) {
	n := newFakeNode(t, "a")
	s := subscribe(t, dial(t, quick(n.addr)), protocol.Selector{All: true}, SubscribeOptions{})
	for i, version := range []string{"eu:5,us:2", "eu:4,us:2", "eu:5,us:2", "eu:6,us:1", "eu:6,us:2", "bad"} {
		n.say(`{"op":"stock","items":[{"sku":"A","location":"main","available":0,"on_hand":%d,"reserved":0,"version":"%s"}]}`, i, version)
	}
	n.say(`{"op":"stock","items":[{"sku":"end","location":"main","version":"eu:1"}]}`)
	seen := map[string]protocol.Item{}
	last := protocol.Vector(nil)
	follow(t, s, seen, func(u Update) bool {
		for _, it := range u.Items {
			if v, err := protocol.ParseVector(it.Version); it.SKU == "A" {
				if err != nil || !v.AtLeast(last) {
					t.Errorf("%s after %s", it.Version, last)
				}
				last = v
			}
		}
		return seen["end"].SKU != ""
	})
	if it := seen["A"]; it.OnHand != 4 || it.Version != "eu:6,us:2" {
		t.Errorf("ends at %+v", it)
	}
}

func TestSlowConsumerGetsTheNewestState(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	s := subscribe(t, c, protocol.Selector{All: true}, SubscribeOptions{})
	for range 1000 {
		n.set("A", 1)
		n.set("B", 1)
	}
	if err := c.Ping(within(t)); err != nil { // the pushes are before its answer
		t.Fatal(err)
	}
	u, err := s.Next(within(t))
	if err != nil || len(u.Items) != 2 || u.Items[0].OnHand != 1000 || u.Items[1].OnHand != 1000 {
		t.Fatalf("%+v, %v", u, err)
	}
}

func TestOnlySelectedItemsAreDelivered(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	one := subscribe(t, c, protocol.Selector{SKUs: []string{"A"}}, SubscribeOptions{})
	two := subscribe(t, c, protocol.Selector{Prefixes: []string{"B"}}, SubscribeOptions{})
	n.set("A", 1)
	n.set("B1", 1)
	got := map[string]protocol.Item{}
	follow(t, one, got, func(Update) bool { return len(got) > 0 })
	if _, ok := got["A"]; !ok || len(got) != 1 {
		t.Errorf("one got %v", got)
	}
	got = map[string]protocol.Item{}
	follow(t, two, got, func(Update) bool { return len(got) > 0 })
	if _, ok := got["B1"]; !ok || len(got) != 1 {
		t.Errorf("two got %v", got)
	}
}

func TestReservationPushes(t *testing.T) {
	n := newFakeNode(t, "a")
	s := subscribe(t, dial(t, quick(n.addr)), protocol.Selector{}, SubscribeOptions{Users: []string{"u"}})
	r := protocol.Reservation{ID: "eu.1", State: protocol.Expired, ExpiresAt: 1000, User: "u", Lines: []protocol.Line{{SKU: "A", Location: "main", Quantity: 1}}}
	n.say("%s", protocol.AppendReservationPush(nil, &r))
	for {
		u, err := s.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Reservations) == 0 {
			continue
		}
		if d := cmp.Diff([]protocol.Reservation{r}, u.Reservations); d != "" {
			t.Error(d)
		}
		return
	}
}

func TestReservationsLeftBehindAreBounded(t *testing.T) {
	s := &Subscription{wake: make(chan struct{}, 1)}
	for i := range reservationsMax + 5 {
		s.reservation(protocol.Reservation{ID: fmt.Sprint("eu.", i)})
	}
	s.reservation(protocol.Reservation{ID: "eu.3", State: protocol.Expired})
	u, _, _ := s.poll()
	if len(u.Reservations) != reservationsMax || u.Lost != 5 || u.Reservations[3].State != protocol.Expired {
		t.Errorf("%d kept, %d lost", len(u.Reservations), u.Lost)
	}
}

func TestRefusedSubscribe(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	_, err := c.Subscribe(within(t), protocol.Selector{}, SubscribeOptions{})
	wantCode(t, err, protocol.CodeBadRequest)
	n.answer = func(_ *fakeConn, cmd protocol.Command) string {
		return `"error":{"code":"forbidden","message":"no","retryable":false,"retry_after_ms":0}`
	}
	_, err = c.Subscribe(within(t), protocol.Selector{All: true}, SubscribeOptions{})
	wantCode(t, err, protocol.CodeForbidden)
	if len(c.subs) > 0 {
		t.Error("the subscription stays behind")
	}
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	n := newFakeNode(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	n.answer = func(*fakeConn, protocol.Command) string { cancel(); return "-" }
	c := dial(t, quick(n.addr))
	if _, err := c.Subscribe(ctx, protocol.Selector{All: true}, SubscribeOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}

func TestClosedSubscriptionKeepsTheOthers(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	one := subscribe(t, c, protocol.Selector{SKUs: []string{"A", "B"}}, SubscribeOptions{})
	two := subscribe(t, c, protocol.Selector{SKUs: []string{"B"}}, SubscribeOptions{})
	one.Close()
	if _, err := one.Next(within(t)); !errors.Is(err, ErrClosed) {
		t.Fatalf("error is %v", err)
	}
	eventually(t, "two is made again", func() bool { return len(n.seenOf(protocol.OpSubscribe)) == 3 })
	if again := n.seenOf(protocol.OpSubscribe)[2]; again.SKUs[0] != "B" || again.Since == nil {
		t.Errorf("made again as %+v", again)
	}
	n.set("B", 1)
	got := map[string]protocol.Item{}
	follow(t, two, got, func(Update) bool { return got["B"].OnHand == 1 })
}

func TestEndOfTheClientEndsNext(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	s := subscribe(t, c, protocol.Selector{All: true}, SubscribeOptions{})
	n.closeAll(protocol.CloseForbidden, "revoked")
	for {
		if _, err := s.Next(within(t)); err != nil {
			wantCode(t, err, protocol.CodeForbidden)
			return
		}
	}
}

func TestManySelectorsAreSplit(t *testing.T) {
	n := newFakeNode(t, "a")
	n.hello.Limits.MessageBytes = 4000
	var skus []string
	for i := range 2000 {
		skus = append(skus, fmt.Sprint("sku-", i))
	}
	n.set("sku-1999", 3)
	s := subscribe(t, dial(t, quick(n.addr)), protocol.Selector{SKUs: skus, Locations: []string{"main"}}, SubscribeOptions{Users: []string{"u"}})
	got := map[string]protocol.Item{}
	follow(t, s, got, func(u Update) bool { return u.Current })
	named := map[string]bool{}
	for _, cmd := range n.seenOf(protocol.OpSubscribe) {
		for _, sku := range cmd.SKUs {
			named[sku] = true
		}
	}
	if len(named) != 2000 || got["sku-1999"].OnHand != 3 {
		t.Errorf("%d SKUs named, got %v", len(named), got)
	}
}

func TestSplitKeepsLocationsWithSKUs(t *testing.T) {
	cmd := protocol.Command{SKUs: []string{strings.Repeat("a", 90)}, Users: []string{strings.Repeat("u", 90)}, Locations: []string{"x"}}
	parts := split(cmd, 100)
	if len(parts) != 2 || parts[0].Locations == nil || parts[1].Locations != nil || parts[1].Users == nil {
		t.Errorf("parts %+v", parts)
	}
	if whole := split(cmd, 1000); len(whole) != 1 || whole[0].Users == nil || whole[0].SKUs == nil {
		t.Errorf("whole %+v", whole)
	}
	if wide := split(protocol.Command{All: true}, 100); len(wide) != 1 || !wide[0].All {
		t.Errorf("wide %+v", wide)
	}
}

func TestJoin(t *testing.T) {
	for _, c := range [][3]string{
		{"", "eu:1", "eu:1"}, {"eu:1", "", "eu:1"}, {"eu:2,us:1", "eu:1,us:4", "eu:2,us:4"}, {"eu:2", "us:1", "eu:2,us:1"},
	} {
		v, _ := protocol.ParseVector(c[0])
		w, _ := protocol.ParseVector(c[1])
		if got := join(v, w).String(); got != c[2] {
			t.Errorf("%s + %s = %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

// TestCallsAndSubscriptionsOverFlakyLinks drops connections all the time while
// many callers write: each write takes effect once and the last state is seen.
func TestCallsAndSubscriptionsOverFlakyLinks(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	s := subscribe(t, c, protocol.Selector{All: true}, SubscribeOptions{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		before := c.Reconnects()
		n.drop()
		eventually(t, "connected again", func() bool { return c.Reconnects() > before })
	}
	wg.Wait()
	got := map[string]protocol.Item{}
	follow(t, s, got, func(u Update) bool { return u.Current && got["A"].OnHand == 400 })
}
