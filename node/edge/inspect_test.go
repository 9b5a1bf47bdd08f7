package edge_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stockmesh/stockmesh/node/edge"
)

// histogram returns how many values there were, and their sum.
func (f *fixture) histogram(name string) (count uint64, sum float64) {
	f.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			h := family.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), h.GetSampleSum()
		}
	}
	f.Fatalf("no %s", name)
	return 0, 0
}

func (f *fixture) counted(name string) uint64 {
	f.Helper()
	n, _ := f.histogram(name)
	return n
}

func TestHistogramsOfPushes(t *testing.T) {
	eachWire(t, func(t *testing.T, wire func(*edge.Config)) {
		f := start(t, wire)
		p := f.dial()
		p.subscribe(`"skus":["A"]`)
		for i := range int64(10) {
			f.ledger.set(i, "A")
			p.settle()
		}
		eventually(t, "ten pushes measured", func() bool { return f.counted("stockmesh_push_age_seconds") == 10 })
		if _, sum := f.histogram("stockmesh_push_age_seconds"); sum <= 0 || sum > 10*patience.Seconds() {
			t.Errorf("ages add up to %v s", sum)
		}
		if n := f.counted("stockmesh_handshake_seconds"); n != 1 {
			t.Errorf("%d handshakes", n)
		}
		if n, sum := f.histogram("stockmesh_loop_lag_seconds"); n == 0 || sum > 10*patience.Seconds() {
			t.Errorf("%d turns of %v s together", n, sum)
		}
		eventually(t, "outbox looked at", func() bool { return f.counted("stockmesh_outbox_bytes") > 0 })
	})
}

// What a client asked to wait for is not the push's age.
func TestIntervalIsNoAge(t *testing.T) {
	f := start(t)
	p := f.dial()
	p.subscribe(`"skus":["A"],"interval_ms":3600000`)
	f.ledger.set(1, "A")
	p.settle()
	f.ledger.set(2, "A") // held back
	p.settle()
	if n := f.counted("stockmesh_push_age_seconds"); n > 1 {
		t.Errorf("%d pushes measured", n)
	}
}

func TestSlowestReaders(t *testing.T) {
	f := start(t)
	skus := names(500)
	f.ledger.set(0, skus...)
	quick, busy := f.dial(), f.narrow(wireForms[0])
	quick.subscribe(`"skus":["A","B"]`)
	busy.subscribe(`"all":true`)
	stop := churn(f, skus)
	defer stop()
	var slow edge.Reader
	eventually(t, "the one that doesn't read is first", func() bool {
		list, err := f.edge.Slowest(t.Context(), 1)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		slow = list[0]
		return slow.QueuedBytes > 0 && slow.DueItems == len(skus) && slow.Conflated > 0 && slow.BlockedMS > 0
	})
	stop()
	if slow.Address != "127.0.0.1" || slow.Form != "stockmesh.v1.json" || slow.Subscriptions != 1 || slow.AgeMS <= 0 {
		t.Errorf("got %+v", slow)
	}
	all, err := f.edge.Slowest(t.Context(), 100)
	if err != nil || len(all) != 2 || all[0].Session != slow.Session || all[1].Subscriptions != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	eventually(t, "its outbox seen", func() bool {
		_, sum := f.histogram("stockmesh_outbox_bytes")
		return sum > 0
	})
}

func TestSlowestKeepsTheTop(t *testing.T) {
	f := start(t)
	for n := range 30 {
		p := f.dial()
		for range n {
			p.send(`{"op":"ping","id":1}`)
		}
	}
	for _, top := range []int{1, 7, 30, 1000} {
		list, err := f.edge.Slowest(t.Context(), top)
		if err != nil || len(list) != min(top, 30) {
			t.Errorf("%d of %d, %v", len(list), top, err)
		}
		seen := make(map[string]bool)
		for _, r := range list {
			seen[r.Session] = true
		}
		if len(seen) != len(list) {
			t.Errorf("%d sessions in %d rows", len(seen), len(list))
		}
	}
}

func TestSlowestOfAClosedEdge(t *testing.T) {
	f := start(t)
	if err := f.edge.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.edge.Slowest(t.Context(), 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.edge.Slowest(ctx, 1); err == nil {
		t.Error("nobody was there to answer")
	}
}
