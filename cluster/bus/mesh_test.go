package bus

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// lifeKey is the row that names a bucket's life.
var lifeKey = EscapeKey("meta", "incarnation", "id")

// site is one region of a mesh in one process: one standalone server, or three.
type site struct {
	t       testing.TB
	name    string
	configs []Config
	buses   []*Bus // nil while closed
	secrets atomic.Pointer[[]string]
	peers   map[string]*site
	via     map[string]*relay // by the name of the region that is dialled
}

// newSite opens a region of n nodes, whose names are the same in all regions.
func newSite(t testing.TB, name string, n int, change ...func(*Config)) *site {
	t.Helper()
	s := &site{t: t, name: name, peers: make(map[string]*site), via: make(map[string]*relay), buses: make([]*Bus, n)}
	s.secrets.Store(&[]string{"secret"})
	addrs := loopback.Addresses(t, 2*n)
	for i := range n {
		c := Config{Dir: dataDir(t), Name: fmt.Sprintf("n%d", i), Mesh: &Mesh{
			Region: name, Listen: addrs[n+i], Secrets: func() []string { return *s.secrets.Load() },
		}}
		if n > 1 {
			c.Region = &Region{Name: name, Listen: addrs[i], Routes: others(addrs[:n], addrs[i]), Replicas: 3}
		}
		if os.Getenv("BUS_LOG") != "" {
			c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name+"."+c.Name)
		}
		for _, f := range change {
			f(&c)
		}
		s.configs = append(s.configs, c)
	}
	t.Cleanup(s.close)
	s.open()
	return s
}

// open opens the nodes that are closed, and links them.
func (s *site) open() {
	s.t.Helper()
	var wg sync.WaitGroup
	for i := range s.buses {
		if s.buses[i] != nil {
			continue
		}
		wg.Go(func() {
			b, err := Open(context.Background(), s.configs[i])
			if err == nil {
				err = b.AwaitQuorum(s.t.Context())
			}
			if err != nil {
				s.t.Error(err)
			}
			s.buses[i] = b
		})
	}
	wg.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	for _, p := range s.peers {
		s.link(p)
	}
}

func (s *site) close() {
	var wg sync.WaitGroup
	for i, b := range s.buses {
		if b != nil {
			wg.Go(func() {
				if err := b.Close(); err != nil {
					s.t.Error(err)
				}
			})
		}
		s.buses[i] = nil
	}
	wg.Wait()
}

// link tells all nodes of s of p.
func (s *site) link(p *site) {
	s.t.Helper()
	s.peers[p.name] = p
	peer := Peer{Region: p.name, Dial: s.name < p.name}
	if v := s.via[p.name]; v != nil {
		peer.Addrs = []string{v.addr()}
	} else {
		for _, b := range p.buses {
			if b != nil {
				peer.Addrs = append(peer.Addrs, b.LinkAddr())
			}
		}
	}
	for _, b := range s.buses {
		if err := b.Link(peer); err != nil {
			s.t.Fatal(err)
		}
	}
}

// connected tells whether each node of s that must has a live link with p.
func (s *site) connected(p *site) bool {
	some := false
	for _, b := range s.buses {
		n := b.Links()[p.name].Connected
		if n == 0 && s.name < p.name {
			return false
		}
		some = some || n > 0
	}
	return some
}

// mesh links all regions with each other and waits for it.
func meshOf(t testing.TB, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		for _, p := range sites {
			if s != p {
				s.link(p)
			}
		}
	}
	awaitLinks(t, sites...)
}

func awaitLinks(t testing.TB, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		for _, p := range s.peers {
			within(t, 30*time.Second, s.name+" is linked with "+p.name, func() bool { return s.connected(p) })
		}
	}
}

// within is eventually with another bound, which the race detector stretches.
func within(t testing.TB, most time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(most * slow); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// table opens the bucket that peers mirror, and gives it a life.
func (s *site) table(life string) *Table {
	s.t.Helper()
	tab := must[*Table](s.t)(s.buses[0].Table(s.t.Context(), "stock", true))
	_, rev, _ := tab.Get(s.t.Context(), lifeKey)
	if _, err := tab.Put(s.t.Context(), []Row{{Key: lifeKey, Value: []byte(life), Revision: rev}}); err != nil {
		s.t.Fatal(err)
	}
	return tab
}

// put writes rows r.<from> to r.<to-1>, with the value of their name.
func put(t testing.TB, tab *Table, from, to int, value string) {
	t.Helper()
	var rows []Row
	for i := from; i < to; i++ {
		key := fmt.Sprintf("r.%d", i)
		_, rev, _ := tab.Get(t.Context(), key)
		rows = append(rows, Row{Key: key, Value: []byte(value), Revision: rev})
	}
	if _, err := tab.Put(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
}

// picture is what a follower shows.
type picture struct {
	mirror *Mirror

	mu     sync.Mutex
	rows   map[string]string
	caught int
}

// follow shows what a node mirrors of a region, until the test ends.
func follow(t testing.TB, b *Bus, region string) *picture {
	t.Helper()
	p := &picture{rows: make(map[string]string)}
	p.mirror = must[*Mirror](t)(b.Mirror(t.Context(), region, "stock", lifeKey))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.mirror.Follow(ctx, p.take, p.caughtUp)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

func (p *picture) take(rows []Row) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rows {
		p.rows[r.Key] = string(r.Value)
	}
	return nil
}

func (p *picture) caughtUp() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caught++
	return nil
}

// shows tells whether the rows r.0 to r.<n-1> are shown with this value.
func (p *picture) shows(n int, value string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range n {
		if p.rows[fmt.Sprintf("r.%d", i)] != value {
			return false
		}
	}
	return p.caught > 0
}

// inbox counts messages by what they say.
type inbox struct {
	mu  sync.Mutex
	got map[string]int
}

func (in *inbox) take(from, subject string, data []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.got == nil {
		in.got = make(map[string]int)
	}
	in.got[from+" "+subject+" "+string(data)]++
}

func (in *inbox) all() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return maps.Clone(in.got)
}

func receiveAll(t testing.TB, s *site, subject string) (all []*inbox) {
	t.Helper()
	for _, b := range s.buses {
		in := &inbox{}
		stop, err := b.Receive(subject, in.take)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		all = append(all, in)
	}
	return all
}

func TestMeshIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"no region":            {Mesh: &Mesh{Listen: "127.0.0.1:0"}},
		"region of two tokens": {Mesh: &Mesh{Region: "a.b", Listen: "127.0.0.1:0"}},
		"no listen":            {Mesh: &Mesh{Region: "a"}},
		"bucket":               {Mesh: &Mesh{Region: "a", Listen: "127.0.0.1:0", Buckets: []string{">"}}},
		"cluster of another name": {Mesh: &Mesh{Region: "a", Listen: "127.0.0.1:0"},
			Region: &Region{Name: "b", Listen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}, Replicas: 3}},
	} {
		c.Dir, c.Name = "x", "x"
		if err := c.validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	alone := openBus(t)
	wantErr(t, alone.Link(Peer{Region: "a"}), errNoMesh)
	wantErr(t, alone.Send("a", "x", nil), errNoMesh)
	if alone.Links() != nil || alone.LinkAddr() != "" {
		t.Error("links without a mesh")
	}
	b := newSite(t, "a", 1).buses[0]
	for _, p := range []Peer{{Region: "a"}, {Region: ""}, {Region: "b.c"}, {Region: "b", Addrs: []string{"x"}}, {Region: "b", Addrs: []string{"x:0"}}} {
		wantErr(t, b.Link(p), ErrName)
	}
	wantErr(t, b.Link(Peer{Region: "b"}), nil)
	for _, s := range []string{"", "*", "a.>", "a b"} {
		wantErr(t, b.Send("b", s, nil), ErrName)
	}
}

func TestThreeRegions(t *testing.T) {
	a, b, c := newSite(t, "a", 1), newSite(t, "b", 1), newSite(t, "c", 1)
	testMesh(t, a, b, c)
}

func TestTwoRegionsOfThree(t *testing.T) {
	testMesh(t, newSite(t, "a", 3), newSite(t, "b", 3))
}

func testMesh(t *testing.T, sites ...*site) {
	inboxes := make(map[string][]*inbox)
	for _, s := range sites {
		inboxes[s.name] = receiveAll(t, s, "news.*") // before there is any link
	}
	start := time.Now()
	meshOf(t, sites...)
	t.Log("linked after", time.Since(start))
	var pictures []*picture
	for _, s := range sites {
		put(t, s.table("life of "+s.name), 0, 300, "one")
		for _, p := range sites {
			for _, b := range p.buses {
				if p != s {
					pictures = append(pictures, follow(t, b, s.name))
				}
			}
		}
	}
	start = time.Now()
	awaitPictures(t, pictures, 300, "one")
	t.Log("300 rows of each in all after", time.Since(start))
	for _, s := range sites {
		tab := must[*Table](t)(s.buses[0].Table(t.Context(), "stock", false))
		put(t, tab, 0, 300, "two")
	}
	awaitPictures(t, pictures, 300, "two")

	want := make(map[string]map[string]int) // by region
	for _, s := range sites {
		for i, b := range s.buses {
			for _, p := range sites {
				if p == s {
					continue
				}
				say := fmt.Sprintf("n%d", i)
				if err := b.Send(p.name, "news.x", []byte(say)); err != nil {
					t.Fatal(err)
				}
				if want[p.name] == nil {
					want[p.name] = make(map[string]int)
				}
				want[p.name][s.name+" news.x "+say] = 1
			}
		}
	}
	for name, all := range inboxes {
		for _, in := range all {
			within(t, 10*time.Second, "all messages", func() bool { return len(in.all()) == len(want[name]) })
		}
	}
	settle(t, sites)
	for name, all := range inboxes {
		for i, in := range all {
			if got := in.all(); !maps.Equal(got, want[name]) {
				t.Errorf("%s.%d got %v, want %v", name, i, got, want[name])
			}
		}
	}
	for _, p := range pictures {
		within(t, 10*time.Second, "the guards have heard the peers", func() bool {
			s := p.mirror.State()
			return !s.HeardAt.IsZero() && s.Behind == 0 && s.Err == nil
		})
		if s := p.mirror.State(); s.Mended > 0 {
			t.Errorf("mirror of %s: %+v", p.mirror.region, s)
		}
	}
	for _, s := range sites {
		for name, l := range s.buses[0].Links() {
			if s.name < name && (l.Connected != 1 || l.BytesIn == 0 || l.BytesOut == 0) {
				t.Errorf("link of %s with %s: %+v", s.name, name, l)
			}
		}
	}
}

func awaitPictures(t *testing.T, pictures []*picture, n int, value string) {
	t.Helper()
	for _, p := range pictures {
		within(t, 20*time.Second, fmt.Sprintf("%d rows of %s say %s", n, p.mirror.region, value), func() bool {
			return p.shows(n, value)
		})
	}
}

// settle waits until what circles between the regions, if anything, would have been
// seen: messages that were sent after it have arrived everywhere, several times.
func settle(t *testing.T, sites []*site) {
	t.Helper()
	for round := range 5 {
		subject := fmt.Sprintf("settle.%d", round)
		for _, s := range sites {
			for _, p := range sites {
				if s == p {
					continue
				}
				in := receiveAll(t, p, subject)
				within(t, 10*time.Second, "a last message", func() bool {
					if err := s.buses[0].Send(p.name, subject, nil); err != nil {
						t.Fatal(err)
					}
					return !slices.ContainsFunc(in, func(in *inbox) bool { return len(in.all()) == 0 })
				})
			}
		}
	}
}
