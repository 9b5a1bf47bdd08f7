package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// region is a cluster of Buses in one process.
type region struct {
	t       testing.TB
	servers []*member
	change  func(*Config)
}

// member is one server, which can be closed and opened again.
type member struct {
	config Config
	bus    *Bus // nil while closed
}

// newRegion opens n servers and waits until they have a leader.
func newRegion(t testing.TB, n int, change ...func(*Config)) *region {
	t.Helper()
	r := &region{t: t, change: func(c *Config) {
		for _, f := range change {
			f(c)
		}
	}}
	t.Cleanup(r.close)
	addrs := loopback.Addresses(t, n)
	for i, addr := range addrs {
		r.servers = append(r.servers, r.member(fmt.Sprintf("n%d", i), addr, others(addrs, addr)))
	}
	r.openAll()
	return r
}

func (r *region) member(name, listen string, routes []string) *member {
	c := Config{Dir: dataDir(r.t), Name: name, Region: &Region{
		Name: "eu", Listen: listen, Routes: routes, Replicas: 3,
	}}
	r.change(&c)
	return &member{config: c}
}

// join adds a server which was not there from the beginning.
func (r *region) join(name string) *member {
	r.t.Helper()
	var routes []string
	for _, m := range r.servers {
		routes = append(routes, m.config.Region.Listen)
	}
	m := r.member(name, loopback.Addresses(r.t, 1)[0], routes)
	r.servers = append(r.servers, m)
	r.openAll()
	return m
}

// openAll opens those which are closed, at once, and waits for the quorum.
func (r *region) openAll() {
	r.t.Helper()
	errs := make([]error, len(r.servers))
	var wg sync.WaitGroup
	for i, m := range r.servers {
		if m.bus != nil {
			continue
		}
		wg.Go(func() {
			if m.bus, errs[i] = Open(r.t.Context(), m.config); errs[i] == nil {
				errs[i] = m.bus.AwaitQuorum(r.t.Context())
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *region) close() {
	var wg sync.WaitGroup
	for _, m := range r.servers {
		wg.Go(func() { m.shut(r.t) })
	}
	wg.Wait()
}

func (m *member) shut(t testing.TB) {
	if m.bus == nil {
		return
	}
	if err := m.bus.Close(); err != nil {
		t.Error(err)
	}
	m.bus = nil
}

func (r *region) buses() (all []*Bus) {
	for _, m := range r.servers {
		if m.bus != nil {
			all = append(all, m.bus)
		}
	}
	return all
}

// logs opens the log called name on each server.
func (r *region) logs(name string) (all []*Log) {
	r.t.Helper()
	for _, b := range r.buses() {
		all = append(all, must[*Log](r.t)(b.Log(r.t.Context(), name, true)))
	}
	return all
}

// of returns the member a handle belongs to.
func (r *region) of(l *Log) *member {
	for _, m := range r.servers {
		if m.bus == l.bus {
			return m
		}
	}
	r.t.Fatal("no such server")
	return nil
}

// leading waits until one of the logs leads, and returns it and the others.
func leading(t testing.TB, logs []*Log) (leader *Log, rest []*Log) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		i := slices.IndexFunc(logs, (*Log).Leads)
		if i < 0 {
			return false
		}
		leader, rest = logs[i], slices.Delete(slices.Clone(logs), i, i+1)
		return true
	})
	return leader, rest
}

// appendNext appends body(last+1), again as long as that is known to be safe.
func appendNext(t testing.TB, l *Log, last uint64) uint64 {
	t.Helper()
	var seq uint64
	eventually(t, "an append", func() bool {
		var err error
		seq, err = l.Append(t.Context(), body(last+1), last)
		if errors.Is(err, ErrUnknown) {
			if _, end, err := l.Bounds(t.Context()); err == nil && end == last+1 {
				seq = end
				return true
			}
		} else if err != nil && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	return seq
}

func others(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

func TestRegionIsChecked(t *testing.T) {
	good := func() Region {
		return Region{Name: "eu", Listen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}, Replicas: 3}
	}
	for name, change := range map[string]func(*Region){
		"no name":         func(r *Region) { r.Name = "" },
		"space":           func(r *Region) { r.Name = "a b" },
		"no listen":       func(r *Region) { r.Listen = "" },
		"no routes":       func(r *Region) { r.Routes = nil },
		"route of port 0": func(r *Region) { r.Routes = []string{"127.0.0.1:0"} },
		"two replicas":    func(r *Region) { r.Replicas = 2 },
		"bad timers":      func(r *Region) { r.Timers.Heartbeat = -time.Second },
	} {
		r := good()
		change(&r)
		if err := (Config{Dir: "x", Name: "x", Region: &r}).validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	r := good()
	if err := (Config{Dir: "x", Name: "x", Region: &r}).validate(); err != nil {
		t.Error(err)
	}
}

func TestTimersAreChecked(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		timers Timers
		ok     bool
	}{
		{Timers{}, true},
		{Timers{Heartbeat: 200 * ms}, true},
		{Timers{Heartbeat: 300 * ms}, true},
		{Timers{Heartbeat: 201 * ms, ElectionMin: 600 * ms}, false},
		{Timers{Heartbeat: -1}, false},
		{Timers{ElectionMin: 1200 * ms}, true},
		{Timers{ElectionMin: 1200 * ms, ElectionMax: 1200 * ms}, false},
		{Timers{ElectionMin: 1200 * ms, ElectionMax: 1201 * ms}, true},
	} {
		if err := c.timers.withDefaults().validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.timers, err)
		}
	}
}

func TestTimersOfAProcessAreOne(t *testing.T) {
	defaults := Timers{}.withDefaults()
	for range 2 {
		if err := defaults.apply(); err != nil {
			t.Fatal(err)
		}
	}
	if minElectionTimeout != defaults.ElectionMin || lostQuorumCheck != defaults.lostQuorum() {
		t.Fatal("not set")
	}
	other := defaults
	other.ElectionMax *= 2
	if err := other.apply(); err == nil {
		t.Fatal("two sets of timers in one process")
	}
}

func TestStandaloneKnowsNoRegion(t *testing.T) {
	b := openBus(t)
	l := newLog(t, b)
	if b.Clustered() || b.RouteAddr() != "" || !l.Leads() {
		t.Fatal("not standalone")
	}
	if name := must[string](t)(l.Leader(t.Context())); name != "test" {
		t.Fatalf("leader %q", name)
	}
	err := errors.Join(b.AwaitQuorum(t.Context()), l.StepDown(t.Context(), ""), b.StepDownAll(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if peers := must[[]Member](t)(b.Peers(t.Context())); peers != nil {
		t.Fatal(peers)
	}
	health := must[map[string]StreamHealth](t)(b.Replicas(t.Context()))
	if h := health["LOG_l"]; h != (StreamHealth{Leader: "test", Replicas: 1, Current: 1}) {
		t.Fatal(health)
	}
	wantErr(t, b.RemovePeer(t.Context(), "x"), errStandalone)
	wantErr(t, b.SetReplicas(t.Context(), 3), errStandalone)
}

func TestQuorumIsAwaited(t *testing.T) {
	addrs := loopback.Addresses(t, 2)
	b := openBus(t, func(c *Config) {
		c.Region = &Region{Name: "eu", Listen: addrs[0], Routes: addrs[1:], Replicas: 3}
	})
	if got := b.RouteAddr(); got != addrs[0] {
		t.Fatalf("listens on %s, not %s", got, addrs[0])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	wantErr(t, b.AwaitQuorum(ctx), ErrNoLeader)
	_, err := b.Log(ctx, "l", false)
	wantErr(t, err, ErrNoLeader)
	if errors.Is(err, ErrMissing) {
		t.Fatal("one server alone has told that a stream does not exist")
	}
	wantErr(t, b.Err(), ErrNoLeader)
}

func TestThreeServersCreateOneStream(t *testing.T) {
	r := newRegion(t, 3)
	logs := make([]*Log, 3)
	var wg sync.WaitGroup
	for i, b := range r.buses() {
		wg.Go(func() {
			var err error
			if logs[i], err = b.Log(t.Context(), "l", true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	leader, rest := leading(t, logs)
	fill(t, leader, 5)
	_, err := leader.Append(t.Context(), nil, 3)
	wantErr(t, err, ErrWrongSequence)
	for i, l := range rest { // from a server which does not lead, too
		var err error
		eventually(t, "it has heard of the leader", func() bool {
			_, err = l.Append(t.Context(), nil, 4)
			return !errors.Is(err, ErrNoLeader)
		})
		wantErr(t, err, ErrWrongSequence)
		appendNext(t, l, uint64(5+i))
	}
	for _, l := range logs {
		wantBounds(t, l, 1, 7)
		if got := must[[]byte](t)(l.Get(t.Context(), 7)); string(got) != "7" {
			t.Fatalf("got %q", got)
		}
		_, err := l.Get(t.Context(), 8)
		wantErr(t, err, ErrMissing)
		if err := l.bus.Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.bus.Log(t.Context(), "other", false); !errors.Is(err, ErrMissing) {
			t.Fatalf("error %v", err)
		}
	}
}

// handOver asks until the server named leads: the one preferred may lose its election to
// another, on a machine that is busy.
func handOver(t *testing.T, l *Log, name string, leads func() bool) {
	t.Helper()
	eventually(t, name+" leads", func() bool {
		if leads() {
			return true
		}
		if err := l.StepDown(t.Context(), name); err != nil && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		return leads()
	})
}

func TestLeadershipIsHandedOver(t *testing.T) {
	r := newRegion(t, 3)
	logs := r.logs("l")
	leader, rest := leading(t, logs)
	fill(t, leader, 3)
	to := rest[1]
	start := time.Now()
	handOver(t, leader, to.bus.srv.Name(), to.Leads)
	last := appendNext(t, to, 3)
	if took := time.Since(start); took > 2*time.Second*slow {
		t.Errorf("took %v", took)
	}
	t.Log("step down to append:", time.Since(start))
	if err := to.StepDown(t.Context(), to.bus.srv.Name()); err != nil || !to.Leads() {
		t.Fatal("handed over to itself", err)
	}
	if err := leader.StepDown(t.Context(), ""); err != nil { // asked of one which does not lead
		t.Fatal(err)
	}
	now, _ := leading(t, logs)
	if now == to {
		t.Fatal("nothing was handed over")
	}
	appendNext(t, now, last)
}

func TestStepDownAll(t *testing.T) {
	r := newRegion(t, 3)
	logs := r.logs("l")
	r.logs("m")
	for _, m := range r.servers {
		if err := m.bus.StepDownAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if led := m.bus.led(); led != nil || m.bus.srv.JetStreamIsLeader() {
			t.Fatalf("still leads %v", led)
		}
	}
	leader, _ := leading(t, logs)
	appendNext(t, leader, 0)
}

func TestClosedLeaderIsReplaced(t *testing.T) {
	r := newRegion(t, 3)
	leader, rest := leading(t, r.logs("l"))
	fill(t, leader, 50)
	gone := r.of(leader)
	gone.shut(t)
	start := time.Now()
	leader, _ = leading(t, rest)
	last := appendNext(t, leader, 50)
	if took := time.Since(start); took > 4*time.Second*slow {
		t.Errorf("took %v", took)
	}
	t.Log("close to append:", time.Since(start))
	got, err := readAll(t, leader, 1, last)
	if err != nil || uint64(len(got)) != last {
		t.Fatal(err, len(got))
	}

	r.openAll() // it catches up, and can lead
	back := must[*Log](t)(gone.bus.Log(t.Context(), "l", false))
	eventually(t, "all replicas are current", func() bool {
		return must[map[string]StreamHealth](t)(leader.bus.Replicas(t.Context()))["LOG_l"].Current == 3
	})
	handOver(t, leader, gone.config.Name, back.Leads)
	appendNext(t, back, last)
}

func TestWithoutQuorumNothingIsAppended(t *testing.T) {
	r := newRegion(t, 3)
	leader, rest := leading(t, r.logs("l"))
	fill(t, leader, 3)
	for _, l := range rest {
		r.of(l).shut(t)
	}
	start := time.Now()
	_, err := leader.Append(t.Context(), body(4), 3)
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoLeader) {
		t.Fatalf("error %v", err)
	}
	if took := time.Since(start); took > 2*time.Second*slow {
		t.Errorf("the error took %v", took)
	}
	eventually(t, "the leader without followers gives up", func() bool { return !leader.Leads() })
	t.Log("close to lost leadership:", time.Since(start))
	eventually(t, "appends are refused", func() bool { // one may still stay without an answer
		_, err = leader.Append(t.Context(), body(4), 3)
		return !errors.Is(err, ErrUnknown)
	})
	wantErr(t, err, ErrNoLeader)
	eventually(t, "the server tells of it", func() bool { return errors.Is(leader.bus.Err(), ErrNoLeader) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = leader.bus.Log(ctx, "other", false)
	wantErr(t, err, ErrNoLeader)

	r.openAll()
	logs := r.logs("l")
	leader, _ = leading(t, logs)
	var last uint64
	eventually(t, "the log's end is known", func() (ok bool) {
		_, last, err = leader.Bounds(t.Context())
		return err == nil && last >= 3
	})
	appendNext(t, leader, last)
}

func TestPeers(t *testing.T) {
	r := newRegion(t, 3)
	for _, b := range r.buses() {
		eventually(t, "all peers are seen", func() bool {
			peers := must[[]Member](t)(b.Peers(t.Context()))
			leaders := 0
			for _, p := range peers {
				if p.Leader {
					leaders++
				}
			}
			return leaders == 1 && len(peers) == 3 && allOnline(peers)
		})
		if id := peerID(b.srv.Name()); id != b.srv.Node() {
			t.Fatalf("peer id %q, the engine says %q", id, b.srv.Node())
		}
	}
	r.servers[2].shut(t)
	eventually(t, "the closed one is seen as gone", func() bool {
		peers := must[[]Member](t)(r.servers[0].bus.Peers(t.Context()))
		return len(peers) == 3 && !peers[2].Online && peers[0].Online && peers[1].Online
	})
	r.servers[1].shut(t)
	eventually(t, "one alone still lists all", func() bool {
		peers := must[[]Member](t)(r.servers[0].bus.Peers(t.Context()))
		return len(peers) == 3 && peers[0].Online // what it knows of the others, only their leader would
	})
}

func allOnline(peers []Member) bool {
	return !slices.ContainsFunc(peers, func(p Member) bool { return !p.Online || !p.Current })
}

func TestLostServerIsReplacedByANewOne(t *testing.T) {
	r := newRegion(t, 3)
	logs := r.logs("l")
	leader, rest := leading(t, logs)
	fill(t, leader, 20)
	lost := r.of(rest[0])
	lost.shut(t)
	r.servers = slices.DeleteFunc(r.servers, func(m *member) bool { return m == lost })

	fresh := r.join("fresh")
	wantErr(t, fresh.bus.RemovePeer(t.Context(), "nobody"), ErrMissing)
	if err := fresh.bus.RemovePeer(t.Context(), lost.config.Name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one has the streams", func() bool {
		peers := must[[]Member](t)(fresh.bus.Peers(t.Context()))
		health, err := fresh.bus.Replicas(t.Context())
		return err == nil && len(peers) == 3 && allOnline(peers) && health["LOG_l"].Current == 3 &&
			fresh.bus.srv.JetStreamIsStreamCurrent(accountData, "LOG_l")
	})
	l := must[*Log](t)(fresh.bus.Log(t.Context(), "l", false))
	handOver(t, l, "fresh", l.Leads)
	got, err := readAll(t, l, 1, appendNext(t, l, 20))
	if err != nil || len(got) != 21 {
		t.Fatal(err, len(got))
	}
}

func TestReplicasGrowAndShrink(t *testing.T) {
	if testing.Short() {
		t.Skip("five servers")
	}
	r := newRegion(t, 5)
	logs := r.logs("l")
	leader, _ := leading(t, logs)
	fill(t, leader, 20)
	for _, n := range []int{5, 3} {
		if err := r.servers[0].bus.SetReplicas(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%d replicas", n), func() bool {
			health, err := r.servers[0].bus.Replicas(t.Context())
			h := health["LOG_l"]
			return err == nil && h.Leader != "" && h.Replicas == n && h.Current == n
		})
	}
	leader, _ = leading(t, logs)
	appendNext(t, leader, 20)
}
