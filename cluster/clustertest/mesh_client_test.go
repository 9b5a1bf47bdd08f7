package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// TestMeshClients: a client that goes to another region is led back to the home of its
// reservation and of its key, or told that this home can't be reached.
func TestMeshClients(t *testing.T) {
	m := clustertest.StartMesh(t, clustertest.MeshProxies())
	eu, us := m.Region("eu").Dial(), m.Region("us").Dial()
	if _, err := eu.Adjust(tell(t), "A", "", 100); err != nil {
		t.Fatal(err)
	}
	t.Run("reservation", func(t *testing.T) { reservedElsewhere(t, m, eu, us) })
	t.Run("retried write", func(t *testing.T) { retriedElsewhere(t, eu, us) })
	t.Run("home cut off", func(t *testing.T) { homeCutOff(t, m, eu, us) })
	m.AwaitConverged()
}

func reservedElsewhere(t *testing.T, m *clustertest.Mesh, eu, us *client.Client) {
	ctx := tell(t)
	held, err := eu.Reserve(ctx, unit("A"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(held.ID, "eu.") {
		t.Errorf("a reservation made in eu is %s", held.ID)
	}
	if seen, err := us.Reservation(ctx, held.ID); err != nil || seen.State != protocol.Held {
		t.Errorf("read in us: %+v %v", seen, err)
	}
	done, err := us.Confirm(ctx, held.ID, client.Key("confirm-elsewhere"))
	if err != nil || done.State != protocol.Confirmed {
		t.Errorf("confirmed in us: %+v %v", done, err)
	}
	again, err := m.Region("asia").Dial().Do(ctx, protocol.Command{Op: protocol.OpConfirm, Reservation: held.ID, Key: "confirm-elsewhere"})
	if err != nil || !again.Replayed {
		t.Errorf("confirmed again in asia: %+v %v", again, err)
	}
	if seen, err := eu.Reservation(ctx, held.ID); err != nil || seen.State != protocol.Confirmed {
		t.Errorf("read in eu: %+v %v", seen, err)
	}
}

func retriedElsewhere(t *testing.T, eu, us *client.Client) {
	ctx := tell(t)
	cmd := protocol.Command{Op: protocol.OpSell, Key: "sale-that-moves", Lines: unit("A")}
	first, err := eu.Do(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Home = "eu"
	again, err := us.Do(ctx, cmd)
	if err != nil || !again.Replayed || again.Items[0].OnHand != first.Items[0].OnHand {
		t.Errorf("again in us: %+v %v, the first was %+v", again, err, first)
	}
	known, err := us.Outcome(ctx, cmd.Key, "eu")
	if err != nil || known == nil || known.Items[0].OnHand != first.Items[0].OnHand {
		t.Errorf("outcome in us: %+v %v", known, err)
	}
	cmd.Key = "sale-that-never-was"
	if known, err := us.Outcome(ctx, cmd.Key, "eu"); err != nil || known != nil {
		t.Errorf("outcome of an unknown key: %+v %v", known, err)
	}
	// A write may name a home that it was never decided in: it is decided there.
	sold, err := us.Do(ctx, cmd)
	if err != nil || sold.Replayed {
		t.Errorf("the first try with a home: %+v %v", sold, err)
	}
	if known, err := eu.Outcome(ctx, cmd.Key, ""); err != nil || known == nil {
		t.Errorf("its outcome at its home: %+v %v", known, err)
	}
}

// homeCutOff: the answer is region_unreachable, at once after the cut and once it is
// known, and the same key works after it.
func homeCutOff(t *testing.T, m *clustertest.Mesh, eu, us *client.Client) {
	ctx := tell(t)
	held, err := eu.Reserve(ctx, unit("A"), client.Key("hold-of-eu"))
	if err != nil {
		t.Fatal(err)
	}
	confirm := protocol.Command{Op: protocol.OpConfirm, Reservation: held.ID, Key: "confirm-after-the-cut"}
	sell := protocol.Command{Op: protocol.OpSell, Lines: unit("A"), Key: "sell-after-the-cut", Home: "eu"}
	m.Isolate("eu")
	unreachable(t, us, confirm)
	m.AwaitCutOff("us", "eu")
	unreachable(t, us, confirm)
	unreachable(t, us, sell)
	overHTTP(t, m.Region("us"), held.ID)
	if _, err := us.Outcome(ctx, sell.Key, "eu"); !errors.Is(err, errUnreachable) {
		t.Errorf("outcome at a home that is cut off: %v", err)
	}
	if _, err := eu.Reserve(ctx, unit("A")); err != nil {
		t.Errorf("the home itself: %v", err)
	}
	m.Heal()
	m.AwaitLinked()
	for _, cmd := range []protocol.Command{confirm, sell} {
		reply, err := us.Do(ctx, cmd)
		if err != nil {
			t.Errorf("%s after the cut: %v", cmd.Op, err)
		}
		// A try that was given up on may still have arrived.
		t.Logf("%s after the cut, replayed: %v", cmd.Op, reply.Replayed)
	}
}

var errUnreachable = &protocol.Error{Code: protocol.CodeRegionUnreachable}

func unreachable(t *testing.T, c *client.Client, cmd protocol.Command) {
	t.Helper()
	const limit = 5 * time.Second
	begun := time.Now()
	_, err := c.Do(tell(t), cmd)
	took := time.Since(begun)
	var wire *protocol.Error
	if !errors.As(err, &wire) || wire.Code != protocol.CodeRegionUnreachable || !wire.Retryable {
		t.Errorf("%s with its home cut off: %v", cmd.Op, err)
	}
	if took > limit*clustertest.Slow {
		t.Errorf("the refusal took %v", took)
	}
	t.Logf("%s refused after %v", cmd.Op, took.Round(time.Millisecond))
}

// overHTTP looks at the status of the same refusal.
func overHTTP(t *testing.T, r *clustertest.Region, reservation string) {
	t.Helper()
	req, err := http.NewRequestWithContext(tell(t), http.MethodPost, r.Nodes()[0].HTTP+"/v1/reservations/"+reservation+"/release", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", "release-over-http")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close() // its status is all that is asked for
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("over HTTP: %s", res.Status)
	}
}

// TestMeshMovingClient: a client that knows two regions loses the one it is at again and
// again. Every sale that it was told of happened once, and what it is shown of an item
// never steps back.
func TestMeshMovingClient(t *testing.T) {
	m := clustertest.StartMesh(t)
	const units = 10_000
	eu, us := m.Region("eu"), m.Region("us")
	for _, r := range []*clustertest.Region{eu, us} {
		if _, err := r.Dial().Adjust(tell(t), "A", "", units); err != nil {
			t.Fatal(err)
		}
	}
	m.AwaitConverged()
	c, err := client.Dial(tell(t), client.Config{
		Endpoints: []string{eu.Nodes()[0].Endpoint, us.Nodes()[0].Endpoint}, Wait: true, BackoffMax: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(tell(t), protocol.Selector{All: true}, client.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var moving sync.WaitGroup
	steps := &steps{seen: make(map[string]protocol.Vector)}
	moving.Go(func() { steps.follow(t, ctx, sub) })
	sold := 0
	sell := func(n int) {
		for range n {
			if _, err := c.Sell(tell(t), unit("A")); err != nil {
				t.Fatalf("sale %d: %v", sold+1, err)
			}
			sold++
		}
	}
	sell(50)
	for range long(5, 1) {
		for _, name := range []string{"eu", "us"} {
			var pending sync.WaitGroup
			var errs []error
			pending.Go(func() {
				for range 30 {
					if _, err := c.Sell(tell(t), unit("A")); err != nil {
						errs = append(errs, err)
					}
				}
			})
			m.KillRegion(name)
			m.StartRegion(name)
			pending.Wait()
			if len(errs) > 0 {
				t.Fatalf("%d sales failed: %v", len(errs), errs[0])
			}
			sold += 30
		}
	}
	m.AwaitLinked()
	m.AwaitConverged()
	items, err := us.Nodes()[0].Stock(tell(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(items) != 1 || items[0].OnHand != int64(2*units-sold) {
		t.Errorf("%d sales were acknowledged, left is %+v", sold, items)
	}
	await(t, "the final state at the subscriber", func() bool { return steps.has(items[0]) })
	stop()
	moving.Wait()
	t.Logf("%d sales, %d reconnects, %d updates", sold, c.Reconnects(), steps.updates)
	if c.Reconnects() == 0 {
		t.Error("the client never moved")
	}
}

// steps watches that no item that a subscriber is shown goes back.
type steps struct {
	mu      sync.Mutex
	seen    map[string]protocol.Vector
	last    map[string]protocol.Item
	updates int
}

func (s *steps) follow(t *testing.T, ctx context.Context, sub *client.Subscription) {
	for {
		u, err := sub.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("subscription: %v", err)
			}
			return
		}
		for _, it := range u.Items {
			if err := s.see(it); err != nil {
				t.Error(err)
			}
		}
	}
}

// see notes an item, or says how it steps back.
func (s *steps) see(it protocol.Item) error {
	v, err := protocol.ParseVector(it.Version)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates++
	before := s.seen[it.SKU]
	s.seen[it.SKU] = v
	if s.last == nil {
		s.last = make(map[string]protocol.Item)
	}
	s.last[it.SKU] = it
	if !v.AtLeast(before) {
		return fmt.Errorf("%s steps back from %s to %s", it.SKU, before, v)
	}
	return nil
}

func (s *steps) has(it protocol.Item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[it.SKU]
	return last.Version == it.Version && last.OnHand == it.OnHand && last.Reserved == it.Reserved
}
