package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// TestMain looks for goroutines left behind. memberlist's end by themselves, a
// probe under way up to a second after its Shutdown.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for range 5 {
		if leak = goleak.Find(); leak == nil {
			break
		}
	}
	if code == 0 && leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

func testTiming() timing {
	t := normalTiming()
	t.keyLook = 20 * time.Millisecond
	return t
}

// node opens a node on loopback; the test closes it at its end, if not before.
func node(t testing.TB, name string, change ...func(*Config)) *Gossip {
	t.Helper()
	c := Config{Name: name, Listen: "127.0.0.1:0", Meta: Meta{Region: "eu", State: "starting"}}
	for _, f := range change {
		f(&c)
	}
	g, err := open(c, testTiming())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, g) })
	return g
}

func closeNode(t testing.TB, g *Gossip) {
	t.Helper()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

func joining(addrs ...string) func(*Config) { return func(c *Config) { c.Join = addrs } }
func keyed(path string) func(*Config)       { return func(c *Config) { c.KeyFile = path } }

// three nodes which have seen each other.
func three(t testing.TB, change ...func(*Config)) (a, b, c *Gossip) {
	t.Helper()
	a = node(t, "a", change...)
	join := append(slices.Clone(change), joining(a.Addr()))
	b, c = node(t, "b", join...), node(t, "c", join...)
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, g.name+" sees a, b, c", func() bool { return view(g) == "a b c" })
	}
	return a, b, c
}

// view is the members' names, the failed ones in brackets.
func view(g *Gossip) string {
	var names []string
	for _, m := range g.Members() {
		if m.Alive {
			names = append(names, m.Name)
		} else {
			names = append(names, "("+m.Name+")")
		}
	}
	return strings.Join(names, " ")
}

func member(g *Gossip, name string) Member {
	for _, m := range g.Members() {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// eventuallyMax bounds what takes some seconds at most on a machine that is idle.
const eventuallyMax = 60 * time.Second

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, eventuallyMax, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func TestThreeNodesFindEachOther(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	a, b, c := three(t, func(c *Config) { c.OnChange = func() { calls.Add(1) } })
	want := Meta{Region: "eu", State: "serving", Route: "10.0.0.1:6222", Endpoint: "ws://x", Connections: 5, Owns: []int{1, 7}, Shards: 8, Founded: "f", Peers: "a,b"}
	before := calls.Load()
	for n := range 50 { // the last one wins
		m := want
		m.Connections = n
		if err := b.Update(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Update(want); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, "b's meta at "+g.name, func() bool { return cmp.Equal(member(g, "b").Meta, want) })
		if m := member(g, "b"); !m.Alive || m.Addr != b.Addr() || time.Since(m.Since) > time.Minute {
			t.Fatalf("%+v", m)
		}
	}
	eventually(t, "OnChange", func() bool { return calls.Load() > before })
	if err := b.Update(Meta{Endpoint: strings.Repeat("x", 600)}); !errors.Is(err, ErrMeta) {
		t.Fatal(err)
	}
}

func TestKilledNodeIsDownAndComesBackElsewhere(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	started := time.Now()
	closeNode(t, c)
	for _, g := range []*Gossip{a, b} {
		eventually(t, g.name+" sees c down", func() bool { return view(g) == "a b (c)" })
	}
	t.Logf("down after %v", time.Since(started))
	again := node(t, "c", joining(a.Addr(), b.Addr()))
	for _, g := range []*Gossip{a, b, again} {
		eventually(t, g.name+" sees c again", func() bool {
			return view(g) == "a b c" && member(g, "c").Addr == again.Addr()
		})
	}
}

// The others still think that the old process is alive.
func TestQuickRestartAtAnotherPort(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	closeNode(t, c)
	started := time.Now()
	again := node(t, "c", joining(a.Addr()))
	for _, g := range []*Gossip{a, b, again} {
		eventually(t, g.name+" sees c at its new address", func() bool {
			return view(g) == "a b c" && member(g, "c").Addr == again.Addr()
		})
		if err := g.Conflict(); err != nil {
			t.Fatalf("a restart is no conflict: %v", err)
		}
	}
	t.Logf("after %v", time.Since(started))
}

func TestLeaveDrops(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	var downs atomic.Int64
	for range 2 { // and again, with the same name
		if err := c.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, g := range []*Gossip{a, b} {
			eventually(t, g.name+" does not see c", func() bool {
				if strings.Contains(view(g), "(c)") {
					downs.Add(1)
				}
				return view(g) == "a b"
			})
		}
		c = node(t, "c", joining(a.Addr()))
		for _, g := range []*Gossip{a, b} {
			eventually(t, g.name+" sees c", func() bool { return view(g) == "a b c" })
		}
	}
	if downs.Load() > 0 {
		t.Fatal("it was shown as failed")
	}
}

func TestLeaveHonoursContext(t *testing.T) {
	t.Parallel()
	_, b, c := three(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Leave(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := b.Leave(ctx); err == nil {
		t.Fatal("told the others in no time")
	}
	if err := b.Update(Meta{}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestJoinersWaitForTheFirst(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	early := node(t, "early", joining(addr, "127.0.0.1:1"))
	late := node(t, "late", func(c *Config) { c.Listen, c.Join = addr, []string{addr} })
	if late.Addr() != addr {
		t.Fatalf("listens at %s", late.Addr())
	}
	eventually(t, "both", func() bool { return view(early) == "early late" && view(late) == "early late" })
}

// A node whose Join leads nowhere comes back: whoever is left looks for it, by the
// addresses to join, or where it was last.
func TestWhoIsAloneJoinsAgain(t *testing.T) {
	t.Parallel()
	a := node(t, "a")
	b := node(t, "b", joining(a.Addr()))
	both := func(x, y *Gossip) {
		t.Helper()
		eventually(t, "both", func() bool { return view(x) == "a b" && view(y) == "a b" })
	}
	at := func(g *Gossip) func(*Config) { return func(c *Config) { c.Listen = g.Addr() } }
	both(a, b)
	closeNode(t, a)
	eventually(t, "a down", func() bool { return view(b) == "(a) b" })
	a = node(t, "a", at(a))
	both(a, b)
	closeNode(t, b)
	eventually(t, "b down", func() bool { return view(a) == "a (b)" })
	b = node(t, "b", at(b))
	both(a, b)
}

func TestAwait(t *testing.T) {
	t.Parallel()
	a := node(t, "a")
	var seen []int
	done := make(chan error, 1)
	go func() {
		members, err := a.Await(t.Context(), 3, func(have int) { seen = append(seen, have) })
		if err == nil && len(members) != 3 {
			err = fmt.Errorf("%d members", len(members))
		}
		done <- err
	}()
	var logged safeBuffer
	abroad := node(t, "abroad", joining(a.Addr()), func(c *Config) {
		c.Meta.Region, c.Logger = "us", slog.New(slog.NewTextHandler(&logged, nil))
	})
	eventually(t, "abroad", func() bool { return view(a) == "a abroad" && view(abroad) == "a abroad" })
	if n := strings.Count(logged.String(), "another region"); n != 1 {
		t.Fatalf("%d warnings:\n%s", n, logged.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Await(ctx, 2, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	b := node(t, "b", joining(a.Addr()))
	eventually(t, "b", func() bool { return view(b) == "a abroad b" })
	node(t, "c", joining(a.Addr()))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(seen) || seen[0] != 1 || seen[len(seen)-1] != 3 {
		t.Fatalf("progress %v", seen)
	}
}

func TestCloseEndsAwait(t *testing.T) {
	t.Parallel()
	a := node(t, "a")
	done := make(chan error, 1)
	go func() {
		_, err := a.Await(t.Context(), 2, nil)
		done <- err
	}()
	closeNode(t, a)
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestOtherKeysStayOutside(t *testing.T) {
	t.Parallel()
	a := node(t, "a", keyed(newKeyFile(t, "a")))
	b := node(t, "b", keyed(newKeyFile(t, "a")), joining(a.Addr()))
	var refused safeBuffer
	debug := &slog.HandlerOptions{Level: slog.LevelDebug}
	logged := func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&refused, debug)) }
	other := node(t, "other", keyed(newKeyFile(t, "x")), joining(a.Addr()), logged)
	plain := node(t, "plain", joining(a.Addr()), logged)
	eventually(t, "a and b", func() bool { return view(a) == "a b" && view(b) == "a b" })
	eventually(t, "both are refused", func() bool {
		return strings.Count(refused.String(), "no other member is reached") == 2
	})
	if view(other) != "other" || view(plain) != "plain" || view(a) != "a b" {
		t.Fatal(view(other), view(plain), view(a))
	}
}

// Keys are rotated one file after the other, and nobody is ever lost.
func TestRotation(t *testing.T) {
	t.Parallel()
	var lost atomic.Int64
	var nodes []*Gossip
	var files []string
	for i, name := range []string{"a", "b", "c"} {
		files = append(files, newKeyFile(t, "o"))
		var g atomic.Pointer[Gossip]
		watch := func(c *Config) {
			c.OnChange = func() {
				if g.Load() != nil && strings.Contains(view(g.Load()), "(") {
					lost.Add(1)
				}
			}
		}
		change := []func(*Config){keyed(files[i]), watch}
		if i > 0 {
			change = append(change, joining(nodes[0].Addr()))
		}
		nodes = append(nodes, node(t, name, change...))
		g.Store(nodes[i])
	}
	everybody := func(what string) {
		t.Helper()
		for _, g := range nodes {
			eventually(t, what+": "+g.name+" sees all", func() bool { return view(g) == "a b c" })
		}
	}
	everybody("start")
	for _, stage := range []string{"on", "no", "n"} {
		for i, g := range nodes {
			writeKeys(t, files[i], keyLines(stage))
			eventually(t, "keys "+stage, func() bool { return fills(g.keys.ring) == stage })
			// A Meta which reaches the others proves that they understand each other.
			state := stage + g.name
			if err := g.Update(Meta{Region: "eu", State: state}); err != nil {
				t.Fatal(err)
			}
			for _, o := range nodes {
				eventually(t, state+" at "+o.name, func() bool { return member(o, g.name).State == state })
			}
		}
	}
	everybody("end")
	writeKeys(t, files[0], "broken")
	late := node(t, "d", keyed(newKeyFile(t, "n")), joining(nodes[0].Addr()))
	eventually(t, "the new key lets in", func() bool { return view(late) == "a b c d" })
	if n := lost.Load(); n > 0 {
		t.Fatalf("a member was lost %d times", n)
	}
}

func TestNameConflict(t *testing.T) {
	t.Parallel()
	var logged safeBuffer
	a, b, c := three(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	twin := node(t, "b", joining(a.Addr()))
	for _, g := range []*Gossip{a, b, twin} {
		eventually(t, g.name+" reports the conflict", func() bool { return errors.Is(g.Conflict(), ErrConflict) })
		msg := g.Conflict().Error()
		if !strings.Contains(msg, b.Addr()) || !strings.Contains(msg, twin.Addr()) {
			t.Fatal(msg)
		}
	}
	if !strings.Contains(logged.String(), "level=ERROR") {
		t.Fatal(logged.String())
	}
	if view(a) != "a b c" || member(a, "b").Addr != b.Addr() || view(c) != "a b c" {
		t.Fatal("the first one keeps its name")
	}
	closeNode(t, twin)
	eventually(t, "the conflict is over", func() bool { return a.Conflict() == nil && b.Conflict() == nil })
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	taken := node(t, "taken")
	for name, change := range map[string]func(*Config){
		"no name":        func(c *Config) { c.Name = "" },
		"long name":      func(c *Config) { c.Name = strings.Repeat("x", nameBytesMax+1) },
		"no port":        func(c *Config) { c.Listen = "127.0.0.1" },
		"port in use":    func(c *Config) { c.Listen = taken.Addr() },
		"bad advertise":  func(c *Config) { c.Advertise = "x" },
		"bad join":       func(c *Config) { c.Join = []string{"x"} },
		"no such host":   func(c *Config) { c.Listen = "no.such.host.invalid:0" },
		"no key file":    func(c *Config) { c.KeyFile = "/no/such/file" },
		"empty key file": func(c *Config) { c.KeyFile = writeKeys(t, t.TempDir()+"/keys", "# none") },
		"long meta":      func(c *Config) { c.Meta.Endpoint = strings.Repeat("x", 600) },
	} {
		c := Config{Name: "x", Listen: "127.0.0.1:0"}
		change(&c)
		g, err := Open(c)
		if err == nil {
			closeNode(t, g)
			t.Errorf("%s: no error", name)
		}
		if name == "long meta" && !errors.Is(err, ErrMeta) {
			t.Error(err)
		}
	}
}

func TestAdvertise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ listen, advertise, want string }{
		"loopback":      {"127.0.0.1:0", "", "127.0.0.1:port"},
		"by name":       {"localhost:0", "", "127.0.0.1:port"},
		"given":         {"127.0.0.1:0", "192.0.2.7:99", "192.0.2.7:99"},
		"given, port 0": {":0", "192.0.2.7:0", "192.0.2.7:port"},
		"all":           {":0", "", "own:port"},
		"all, IPv4":     {"0.0.0.0:0", "", "own:port"},
	} {
		g := node(t, "x", func(cf *Config) { cf.Listen, cf.Advertise = c.listen, c.advertise })
		own, err := ownAddr()
		if err != nil {
			t.Fatal(err)
		}
		port := g.Addr()[strings.LastIndexByte(g.Addr(), ':')+1:]
		want := strings.NewReplacer("port", port, "own", own.String()).Replace(c.want)
		if g.Addr() != want || port == "0" {
			t.Errorf("%s: %s, want %s", name, g.Addr(), want)
		}
	}
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
