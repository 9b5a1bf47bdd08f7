package gossip

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// failWaitMax is far above the time in which a failure between regions is seen: machines
// that run tests are slow.
const failWaitMax = 2 * time.Minute

// abroad opens a node of a pool of regions; name is REGION.NODE.
func abroad(t testing.TB, name string, change ...func(*Config)) *Gossip {
	t.Helper()
	region, _, _ := strings.Cut(name, ".")
	set := func(c *Config) { c.WAN, c.Meta = true, Meta{Region: region, State: "serving", Route: name + ":7422"} }
	return node(t, name, append([]func(*Config){set}, change...)...)
}

func logging(to *safeBuffer) func(*Config) {
	return func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(to, nil)) }
}

func wantViews(t testing.TB, want string, nodes ...*Gossip) {
	t.Helper()
	for _, g := range nodes {
		eventually(t, g.name+" sees "+want, func() bool { return view(g) == want })
	}
}

func TestRegionsFindEachOther(t *testing.T) {
	t.Parallel()
	for name, same := range map[string][]func(*Config){"plain": nil, "encrypted": {keyed(newKeyFile(t, "w"))}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged safeBuffer
			same := append(same[:len(same):len(same)], logging(&logged))
			eu := abroad(t, "eu.n1", same...)
			// Each by one address only, and not all by the same.
			us := abroad(t, "us.n1", append(same, joining(eu.Addr()))...)
			asia := abroad(t, "asia.n1", append(same, joining(us.Addr()))...)
			eu2 := abroad(t, "eu.n2", append(same, joining(asia.Addr()))...)
			wantViews(t, "asia.n1 eu.n1 eu.n2 us.n1", eu, us, asia, eu2)
			meta := Meta{Region: "eu", State: "serving", Route: "all:1", Links: "us=only:2"}
			if err := eu.Update(meta); err != nil {
				t.Fatal(err)
			}
			for _, g := range []*Gossip{us, asia, eu2} {
				eventually(t, "eu.n1's links at "+g.name, func() bool { return cmp.Equal(member(g, "eu.n1").Meta, meta) })
			}
			if ours, err := eu.Await(t.Context(), 2, nil); err != nil || len(ours) != 2 || ours[1].Name != "eu.n2" {
				t.Fatal(ours, err)
			}
			if strings.Contains(logged.String(), "another region") {
				t.Fatal(logged.String())
			}
		})
	}
}

// A region that is gone is told of, and looked for at the addresses it had.
func TestFailedRegionIsSeenAndComesBack(t *testing.T) {
	t.Parallel()
	us := abroad(t, "us.n1")
	asia := abroad(t, "asia.n1", joining(us.Addr()))
	eu := abroad(t, "eu.n1", joining(us.Addr()))
	eu2 := abroad(t, "eu.n2", joining(us.Addr()))
	wantViews(t, "asia.n1 eu.n1 eu.n2 us.n1", us, asia, eu, eu2)
	started := time.Now()
	closeNode(t, eu)
	closeNode(t, eu2)
	for _, g := range []*Gossip{us, asia} {
		within(t, failWaitMax, g.name+" sees eu down", func() bool { return view(g) == "asia.n1 (eu.n1) (eu.n2) us.n1" })
	}
	t.Logf("down after %v", time.Since(started))
	started = time.Now()
	again := abroad(t, "eu.n1", func(c *Config) { c.Listen = eu.Addr() })
	for _, g := range []*Gossip{us, asia, again} {
		within(t, failWaitMax, g.name+" sees eu again", func() bool { return member(g, "eu.n1").Alive && member(g, "us.n1").Alive })
	}
	t.Logf("back after %v", time.Since(started))
}

// At the same address a restart is known at once, before it would count as a failure.
func TestRestartIsKnownInOtherRegions(t *testing.T) {
	t.Parallel()
	us := abroad(t, "us.n1")
	eu := abroad(t, "eu.n1", joining(us.Addr()))
	wantViews(t, "eu.n1 us.n1", us, eu)
	closeNode(t, eu)
	again := abroad(t, "eu.n1", joining(us.Addr()), func(c *Config) { c.Listen, c.Meta.Founded = eu.Addr(), "later" })
	wantViews(t, "eu.n1 us.n1", us, again)
	eventually(t, "the later one", func() bool { return member(us, "eu.n1").Founded == "later" })
	if err := us.Conflict(); err != nil {
		t.Fatal(err)
	}
}

func TestRegionLeaves(t *testing.T) {
	t.Parallel()
	us := abroad(t, "us.n1")
	eu := abroad(t, "eu.n1", joining(us.Addr()))
	wantViews(t, "eu.n1 us.n1", us, eu)
	started := time.Now()
	if err := eu.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("left after %v", time.Since(started))
	wantViews(t, "us.n1", us)
}

func TestJoinWhileRunning(t *testing.T) {
	t.Parallel()
	eu, us, asia := abroad(t, "eu.n1"), abroad(t, "us.n1"), abroad(t, "asia.n1")
	eu.Join([]string{eu.Addr(), "", "no port", us.Addr()})
	wantViews(t, "eu.n1 us.n1", eu, us)
	// One that isn't alone takes in others too.
	us.Join([]string{asia.Addr()})
	wantViews(t, "asia.n1 eu.n1 us.n1", eu, us, asia)
	closeNode(t, asia)
	asia.Join([]string{eu.Addr()}) // does nothing
}

func TestJoinForgetsTheOldest(t *testing.T) {
	t.Parallel()
	g := abroad(t, "eu.n1", joining("192.0.2.1:1"))
	closeNode(t, g) // nobody is dialled
	var addrs []string
	for port := range learnedMax + 3 {
		addrs = append(addrs, fmt.Sprintf("192.0.2.2:%d", port+1))
	}
	g.Join(append(addrs, "192.0.2.1:1", addrs[len(addrs)-1]))
	if diff := cmp.Diff(append([]string{"192.0.2.1:1"}, addrs[3:]...), g.joinList()); diff != "" {
		t.Fatal(diff)
	}
}

// A wrong address in a configuration must not make one pool of two.
func TestPoolsNeverMix(t *testing.T) {
	t.Parallel()
	var refused safeBuffer
	key := keyed(newKeyFile(t, "k"))
	for name, change := range map[string][]func(*Config){"plain": nil, "encrypted": {key}} {
		lan := node(t, name, change...)
		wan := abroad(t, "eu."+name, change...)
		change = append(change, logging(&refused))
		lost := node(t, name+"-lost", append(change, joining(wan.Addr()))...)
		abroadLost := abroad(t, "us."+name, append(change, joining(lan.Addr()))...)
		for _, g := range []*Gossip{lost, abroadLost} {
			eventually(t, g.name+" is refused", func() bool { return strings.Contains(refused.String(), "["+g.joinList()[0]+"]") })
			if view(g) != g.name {
				t.Fatal(view(g))
			}
		}
		if view(lan) != lan.name || view(wan) != wan.name {
			t.Fatal(view(lan), view(wan))
		}
	}
}
