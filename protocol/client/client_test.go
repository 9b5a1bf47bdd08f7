package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestCommandsCarryTheirFields(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	ctx := within(t)
	lines := []protocol.Line{{SKU: "A", Quantity: 2}}
	main := []protocol.Line{{SKU: "A", Location: "main", Quantity: 2}}
	for _, step := range []struct {
		do   func() error
		want protocol.Command
	}{
		{func() error { _, err := c.Get(ctx, []string{"A"}, Locations("x")); return err },
			protocol.Command{Op: protocol.OpGet, SKUs: []string{"A"}, Locations: []string{"x"}}},
		{func() error { _, err := c.Adjust(ctx, "A", "", -3, Key("k1"), Reason("r"), Reference("f")); return err },
			protocol.Command{Op: protocol.OpAdjust, SKU: "A", Location: "main", Delta: -3, Key: "k1", Reason: "r", Reference: "f"}},
		{func() error { _, err := c.Count(ctx, "A", "x", 0, Key("k2"), IfVersion("")); return err },
			protocol.Command{Op: protocol.OpCount, SKU: "A", Location: "x", OnHand: protocol.Ptr[int64](0), Key: "k2", IfVersion: protocol.Ptr("")}},
		{func() error { _, err := c.Reserve(ctx, lines, Key("k3"), TTL(time.Second), User("u")); return err },
			protocol.Command{Op: protocol.OpReserve, Lines: main, Key: "k3", TTLMS: protocol.Ptr[int64](1000), User: "u"}},
		{func() error { _, err := c.Confirm(ctx, "eu.1", Key("k4")); return err },
			protocol.Command{Op: protocol.OpConfirm, Reservation: "eu.1", Key: "k4"}},
		{func() error { _, err := c.Release(ctx, "eu.1", Key("k5"), Home("us")); return err },
			protocol.Command{Op: protocol.OpRelease, Reservation: "eu.1", Key: "k5", Home: "us"}},
		{func() error { _, err := c.Extend(ctx, "eu.1", 2*time.Second, Key("k6")); return err },
			protocol.Command{Op: protocol.OpExtend, Reservation: "eu.1", Key: "k6", TTLMS: protocol.Ptr[int64](2000)}},
		{func() error { _, err := c.Reservation(ctx, "eu.1"); return err },
			protocol.Command{Op: protocol.OpReservation, Reservation: "eu.1"}},
		{func() error { _, err := c.Sell(ctx, lines, Key("k7")); return err },
			protocol.Command{Op: protocol.OpSell, Lines: main, Key: "k7"}},
		{func() error { _, err := c.Move(ctx, "A", "x", "y", 4, Key("k8")); return err },
			protocol.Command{Op: protocol.OpMove, SKU: "A", From: "x", To: "y", Quantity: 4, Key: "k8"}},
		{func() error {
			_, err := c.Configure(ctx, "A", "", Settings{LowStock: protocol.Ptr[int64](5)}, Key("k9"))
			return err
		},
			protocol.Command{Op: protocol.OpConfigure, SKU: "A", Location: "main", LowStock: protocol.Ptr[int64](5), Key: "k9"}},
		{func() error { _, _, err := c.History(ctx, "A", "", Limit(7), Before("b"), Region("us")); return err },
			protocol.Command{Op: protocol.OpHistory, SKU: "A", Location: "main", Limit: 7, Before: "b", Region: "us"}},
		{func() error { _, err := c.Outcome(ctx, "k1", "eu"); return err },
			protocol.Command{Op: protocol.OpOutcome, Key: "k1", Home: "eu"}},
		{func() error { return c.Ping(ctx) }, protocol.Command{Op: protocol.OpPing}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.want.Op, err)
		}
		all := n.seen()
		got := all[len(all)-1]
		got.ID = nil
		if d := cmp.Diff(step.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.want.Op, d)
		}
	}
	if lines[0].Location != "" {
		t.Error("the caller's lines were changed")
	}
}

func TestAnswersAreRead(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	ctx := within(t)
	it, err := c.Adjust(ctx, "A", "", 5, Key("k"))
	if err != nil || it.OnHand != 5 || it.Version != "eu:1" {
		t.Fatalf("adjust: %+v, %v", it, err)
	}
	again, err := c.Do(ctx, protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: 5, Key: "k"})
	if err != nil || !again.Replayed || again.Item.OnHand != 5 {
		t.Fatalf("the same key: %+v, %v", again, err)
	}
	earlier, err := c.Outcome(ctx, "k", "")
	if err != nil || earlier == nil || earlier.Item.OnHand != 5 {
		t.Fatalf("outcome: %+v, %v", earlier, err)
	}
	if unknown, err := c.Outcome(ctx, "other", ""); err != nil || unknown != nil {
		t.Fatalf("outcome of an unknown key: %+v, %v", unknown, err)
	}
	items, err := c.Get(ctx, []string{"A"}, AtLeast("eu:9"))
	if !errors.Is(err, ErrBehind) || len(items) != 1 {
		t.Fatalf("behind: %v, %v", items, err)
	}
	if m, next, err := c.History(ctx, "A", ""); err != nil || len(m) != 1 || next != "n" {
		t.Fatalf("history: %v %q %v", m, next, err)
	}
}

func TestKeyIsMadeWhereNoneIsGiven(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	for range 2 {
		if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
			t.Fatal(err)
		}
	}
	cmds := n.seen()
	if cmds[0].Key == "" || cmds[0].Key == cmds[1].Key {
		t.Errorf("keys %q and %q", cmds[0].Key, cmds[1].Key)
	}
}

func TestBadCommandsDoNotReachTheNode(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	_, err := c.Adjust(within(t), "bad\xff", "", 1)
	wantCode(t, err, protocol.CodeBadRequest)
	_, err = c.Adjust(within(t), "A", "", 1, Key("bad\xff"))
	wantCode(t, err, protocol.CodeBadRequest)
	_, err = c.Sell(within(t), make([]protocol.Line, 101))
	wantCode(t, err, protocol.CodeTooLarge)
	if len(n.seen()) > 0 {
		t.Errorf("sent: %v", n.seen())
	}
}

func TestManyCallersShareMessages(t *testing.T) {
	n := newFakeNode(t, "a")
	n.hello.Limits = protocol.Limits{MessageBytes: 2000, InFlight: 64}
	c := dial(t, quick(n.addr))
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			it, err := c.Adjust(within(t), fmt.Sprint("sku-", i), "", int64(i+1))
			if err != nil || it.OnHand != int64(i+1) {
				t.Errorf("%d: %+v, %v", i, it, err)
			}
		})
	}
	wg.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.messages {
		if len(m) > 2000 {
			t.Errorf("a message of %d bytes", len(m))
		}
	}
	if len(n.messages) >= 500 {
		t.Errorf("%d messages for 500 commands", len(n.messages))
	}
}

func TestInFlightLimitIsKept(t *testing.T) {
	n := newFakeNode(t, "a")
	n.hello.Limits.InFlight = 4
	ids := make(chan []byte, 10)
	n.answer = func(_ *fakeConn, cmd protocol.Command) string { ids <- cmd.ID; return "-" }
	c := dial(t, quick(n.addr))
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := c.Ping(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all are queued or sent", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.link != nil && len(c.queue) == 6 && len(c.link.pending) == 4
	})
	for range 10 {
		id := <-ids
		if len(ids) > 3 {
			t.Errorf("%d unanswered", len(ids)+1)
		}
		n.say(`{"id":%s,"ok":{}}`, id)
	}
	wg.Wait()
}

func TestTooLargeCommandIsRefusedHere(t *testing.T) {
	n := newFakeNode(t, "a")
	n.hello.Limits.MessageBytes = 200
	c := dial(t, quick(n.addr))
	lines := make([]protocol.Line, 50)
	for i := range lines {
		lines[i] = protocol.Line{SKU: "A", Quantity: 1}
	}
	_, err := c.Sell(within(t), lines)
	wantCode(t, err, protocol.CodeTooLarge)
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestUnansweredWriteIsSentAgainWithKeyAndHome(t *testing.T) {
	n := newFakeNode(t, "a")
	first := true
	n.answer = func(c *fakeConn, cmd protocol.Command) string {
		if first {
			first = false
			c.usual(cmd) // applied, but the answer is lost
			c.ws.CloseNow()
			return "-"
		}
		return ""
	}
	c := dial(t, quick(n.addr))
	r, err := c.Do(within(t), protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: 5})
	if err != nil || !r.Replayed || r.Item.OnHand != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	cmds := n.seenOf(protocol.OpAdjust)
	if len(cmds) != 2 || cmds[0].Key != cmds[1].Key || cmds[0].Home != "" || cmds[1].Home != "eu" {
		t.Errorf("sent %+v", cmds)
	}
	if c.Reconnects() != 1 {
		t.Errorf("%d reconnects", c.Reconnects())
	}
}

func TestRestartedNodeIsFoundAgain(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	n.stop()
	done := make(chan error)
	go func() { done <- c.Ping(within(t)) }()
	eventually(t, "the loss is noticed", func() bool { return c.Endpoint() == "" })
	n.start(n.addr)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRetryableErrorsAreRetried(t *testing.T) {
	n := newFakeNode(t, "a")
	left := 3
	n.answer = func(*fakeConn, protocol.Command) string {
		if left--; left >= 0 {
			return `"error":{"code":"overloaded","message":"full","retryable":true,"retry_after_ms":2}`
		}
		return ""
	}
	c := dial(t, quick(n.addr))
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
		t.Fatal(err)
	}
	cmds := n.seen()
	for _, cmd := range cmds {
		if cmd.Key != cmds[0].Key || cmd.Home != "" {
			t.Errorf("retried as %+v", cmd)
		}
	}
	if len(cmds) != 4 {
		t.Errorf("%d tries", len(cmds))
	}
}

func TestUnknownOutcomeIsRetriedAtItsHome(t *testing.T) {
	n := newFakeNode(t, "a")
	n.answer = func(_ *fakeConn, cmd protocol.Command) string {
		if cmd.Home == "" {
			return `"error":{"code":"unavailable","message":"","retryable":true,"retry_after_ms":0,"details":{"outcome":"unknown"}}`
		}
		return ""
	}
	c := dial(t, quick(n.addr))
	if _, err := c.Adjust(within(t), "A", "", 1); err != nil {
		t.Fatal(err)
	}
	if cmds := n.seen(); cmds[1].Home != "eu" {
		t.Errorf("retried as %+v", cmds[1])
	}
}

func TestRetriesEndWithTheContext(t *testing.T) {
	n := newFakeNode(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	n.answer = func(*fakeConn, protocol.Command) string {
		cancel()
		return `"error":{"code":"rate_limited","message":"slow down","retryable":true,"retry_after_ms":60000}`
	}
	c := dial(t, quick(n.addr))
	err := c.Ping(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}

func TestFailFastReturnsRetryableErrors(t *testing.T) {
	n := newFakeNode(t, "a")
	n.answer = func(*fakeConn, protocol.Command) string {
		return `"error":{"code":"overloaded","message":"full","retryable":true,"retry_after_ms":60000}`
	}
	cfg := quick(n.addr)
	cfg.FailFast = true
	wantCode(t, dial(t, cfg).Ping(within(t)), protocol.CodeOverloaded)
}

func TestRefusalIsReturnedAsItIs(t *testing.T) {
	n := newFakeNode(t, "a")
	n.answer = func(*fakeConn, protocol.Command) string {
		return `"error":{"code":"insufficient_stock","message":"no","retryable":false,"retry_after_ms":0,"details":{"lines":[{"sku":"A","location":"main","requested":2,"available":1,"elsewhere":0}]}}`
	}
	c := dial(t, quick(n.addr))
	_, err := c.Sell(within(t), []protocol.Line{{SKU: "A", Quantity: 2}})
	var refused *protocol.Error
	if !errors.As(err, &refused) || refused.Details.Lines[0].Available != 1 {
		t.Fatalf("error is %v", err)
	}
}

func TestSubmitReadsNoAnswerButErrors(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	if err := c.Submit(within(t), protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: 1}); err != nil {
		t.Fatal(err)
	}
	n.answer = func(*fakeConn, protocol.Command) string {
		return `"error":{"code":"forbidden","message":"no","retryable":false,"retry_after_ms":0}`
	}
	wantCode(t, c.Submit(within(t), protocol.Command{Op: protocol.OpPing}), protocol.CodeForbidden)
	if err := (message{body: []byte(`{"ok":{"a":1}, "id":7}`)}).acknowledged(); err != nil {
		t.Error(err)
	}
}

func TestErrorWithoutIDEndsCallsInFlight(t *testing.T) {
	n := newFakeNode(t, "a")
	n.answer = func(c *fakeConn, cmd protocol.Command) string {
		if cmd.Op != protocol.OpPing {
			return ""
		}
		c.say(`{"id":null,"error":{"code":"bad_request","message":"what?","retryable":false,"retry_after_ms":0}}`)
		return "-"
	}
	c := dial(t, quick(n.addr))
	wantCode(t, c.Ping(within(t)), protocol.CodeBadRequest)
	if _, err := c.Get(within(t), []string{"A"}); err != nil {
		t.Fatal(err)
	}
}

func TestCanceledCallLeavesTheOthersAlone(t *testing.T) {
	n := newFakeNode(t, "a")
	arrived := make(chan bool, 1)
	n.answer = func(_ *fakeConn, cmd protocol.Command) string {
		if cmd.Op == protocol.OpPing {
			arrived <- true
			return "-"
		}
		return ""
	}
	c := dial(t, quick(n.addr))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	if _, err := c.Get(within(t), []string{"A"}); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsCalls(t *testing.T) {
	n := newFakeNode(t, "a")
	c := dial(t, quick(n.addr))
	n.answer = func(*fakeConn, protocol.Command) string { go c.Close(); return "-" }
	if err := c.Ping(within(t)); !errors.Is(err, ErrClosed) {
		t.Fatalf("error is %v", err)
	}
	c.Close()
	if err := c.Ping(within(t)); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
	if _, err := c.Subscribe(within(t), protocol.Selector{All: true}, SubscribeOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("subscribe after Close: %v", err)
	}
}

func TestItemsReadsAllPages(t *testing.T) {
	n := newFakeNode(t, "a")
	for _, sku := range []string{"1", "2", "3", "4", "5"} {
		n.set(sku, 1)
	}
	busy := true
	n.handshake = func(w http.ResponseWriter) bool {
		if busy {
			busy = false
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"status":503,"title":"busy","code":"overloaded","retryable":true}`)
			return true
		}
		return false
	}
	cfg := quick(n.addr)
	cfg.Wait = true
	c := dial(t, cfg)
	busy = true
	var skus []string
	for it, err := range c.Items(within(t), protocol.Selector{}, 2) {
		if err != nil {
			t.Fatal(err)
		}
		skus = append(skus, it.SKU)
	}
	if d := cmp.Diff([]string{"1", "2", "3", "4", "5"}, skus); d != "" {
		t.Error(d)
	}
}
