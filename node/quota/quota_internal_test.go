package quota

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region is quotas that reach each other, with a beat on demand.
type region struct {
	quotas []*Quota
	ticks  []chan time.Time
}

func newRegion(t testing.TB, nodes int, change func(node int, c *Config)) *region {
	r := &region{quotas: make([]*Quota, nodes)}
	var mu sync.Mutex // until all are there
	mu.Lock()
	for i := range nodes {
		config := Config{Node: fmt.Sprint("eu-", i+1), Registerer: prometheus.NewRegistry(), Send: func(m []byte) {
			mu.Lock()
			quotas := r.quotas
			mu.Unlock()
			for j, q := range quotas {
				if j != i {
					q.Heard(m)
				}
			}
		}}
		change(i, &config)
		ticks := make(chan time.Time)
		r.ticks = append(r.ticks, ticks)
		r.quotas[i] = start(config, ticks, func() {})
	}
	mu.Unlock()
	t.Cleanup(func() {
		for _, q := range r.quotas {
			q.Close()
		}
	})
	return r
}

// beat has each node tell the others. A tick is taken only when the one before it was
// dealt with, so after two of them one beat is over.
func (r *region) beat() {
	for range 2 {
		for _, c := range r.ticks {
			c <- time.Time{}
		}
	}
}

func TestNodesTellEachOther(t *testing.T) {
	evicted := make(chan string, 100)
	r := newRegion(t, 3, func(node int, c *Config) {
		c.Limits = Limits{Commands: 10, Connections: 2, Subscriptions: 10}
		c.Evict = func(subject string, n int) { evicted <- fmt.Sprint(c.Node, subject, n) }
	})
	a, b, c := r.quotas[0].Account("ada"), r.quotas[1].Account("ada"), r.quotas[2].Account("ada")
	if connects(a, 2) != 2 || !a.Subscribe(8) {
		t.Fatal("refused")
	}
	r.beat()
	if b.Connect() || c.Subscribe(3) || !c.Subscribe(2) || !r.quotas[1].Account("bob").Connect() {
		t.Error("the others don't count with it")
	}
	a.Disconnect()
	r.beat()
	if !b.Connect() || len(r.quotas[2].table.over()) != 0 {
		t.Error("the others don't know that there is room")
	}
	c.connections.own.Add(1) // as if it had been let in at the same time
	r.beat()
	if got := <-evicted; got != "eu-3ada1" {
		t.Errorf("evicted %s", got)
	}
	for i, q := range r.quotas {
		if got := q.table.over(); !slices.Equal(got, []string{"ada"}) {
			t.Errorf("node %d: over are %v", i, got)
		}
	}
}

func TestFiguresOfARegion(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := newRegion(t, 1, func(_ int, c *Config) {
		c.Registerer, c.Limits = registry, Limits{Commands: 1, Burst: 5, Connections: 1, Subscriptions: 3}
		now := time.Now()
		c.Now = func() time.Time { return now }
	})
	q := r.quotas[0]
	a := q.Account("ada")
	if ok, wait := a.Spend(8); ok != 5 || wait != 1000 {
		t.Errorf("%d went through, wait %d ms", ok, wait)
	}
	a.Connect()
	a.Connect()
	a.Subscribe(4)
	q.Heard(hostileMessage("b", 1, "eve", 1))
	want := map[string]float64{"commands": 3, "connections": 1, "subscriptions": 1, "": 2}
	if got := metricsOf(t, registry); len(got) != len(want) {
		t.Errorf("got %v", got)
	} else {
		for what, n := range want {
			if got[what] != n {
				t.Errorf("%q: %v, want %v", what, got[what], n)
			}
		}
	}
}

func metricsOf(t *testing.T, r *prometheus.Registry) map[string]float64 {
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "stockmesh_quota_subjects" {
				got[""] = m.GetGauge().GetValue()
				continue
			}
			got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return got
}

func TestNoLimits(t *testing.T) {
	r := newRegion(t, 1, func(_ int, c *Config) { c.Send = nil })
	limited := newRegion(t, 1, func(_ int, c *Config) { c.Limits = Limits{Commands: 1, Connections: 1, Subscriptions: 1} })
	for _, a := range []*Account{r.quotas[0].Account("ada"), limited.quotas[0].Account("")} {
		for range 10 {
			if ok, wait := a.Spend(100); ok != 100 || wait != 0 || !a.Connect() || !a.Subscribe(100) {
				t.Fatal("refused")
			}
		}
		if ok, _ := a.Spend(-1); ok != 0 {
			t.Errorf("%d of -1", ok)
		}
		a.Release()
	}
}

// With the clock of the machine: it tells at once, then at each beat, and at its end.
func TestQuotaRuns(t *testing.T) {
	sent := make(chan []byte, 100)
	q := New(Config{Node: "eu-1", Limits: Limits{Connections: 1}, Send: func(m []byte) { sent <- m }})
	q.Account("ada").Connect()
	for found := false; !found; {
		h, records, err := decode(<-sent)
		if err != nil || h.node != "eu-1" {
			t.Fatalf("sent by %q, %v", h.node, err)
		}
		found = slices.ContainsFunc(records, func(r record) bool { return r.key == keyOf("ada") && r.connections == 1 })
	}
	q.Close()
	q.Close()
	close(sent)
	last := header{}
	for m := range sent {
		last, _, _ = decode(m)
	}
	if last.kind != kindEnd {
		t.Errorf("the last word was %+v", last)
	}
}

// Everybody at once: nothing is lost or won, and the race detector has something to see.
func TestManyAtOnce(t *testing.T) {
	r := newRegion(t, 3, func(_ int, c *Config) {
		c.Limits = Limits{Commands: 1_000_000, Connections: 50, Subscriptions: 500}
	})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for n := range 300 {
				use(r.quotas[i%3], fmt.Sprint("subject ", n%7))
			}
		})
	}
	for range 20 {
		r.beat()
		for _, q := range r.quotas {
			q.table.over()
		}
	}
	wg.Wait()
	for _, q := range r.quotas {
		for n := range 7 {
			a := q.Account(fmt.Sprint("subject ", n))
			if c, s := a.connections.own.Load(), a.subscriptions.own.Load(); c != 0 || s != 0 || a.holders != 1 {
				t.Errorf("%d connections, %d selectors, %d holders are left", c, s, a.holders)
			}
		}
	}
}

func use(q *Quota, subject string) {
	a := q.Account(subject)
	defer a.Release()
	a.Spend(3)
	if a.Connect() {
		defer a.Disconnect()
	}
	if a.Subscribe(10) {
		defer a.Unsubscribe(10)
	}
}

// over lists the subjects with an account here that have more connections or subscriptions
// in the region than their limit, as far as is known here.
func (t *table) over() (subjects []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.list {
		if a.connections.over() || a.subscriptions.over() {
			subjects = append(subjects, a.subject)
		}
	}
	slices.Sort(subjects)
	return subjects
}
