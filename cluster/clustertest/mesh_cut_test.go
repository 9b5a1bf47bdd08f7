package clustertest_test

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
)

// cutLength is how long regions can't speak.
func cutLength() time.Duration {
	if *meshCut > 0 {
		return *meshCut
	}
	return long(60*time.Second, 1500*time.Millisecond)
}

// TestMeshCut: one region is cut off, then all from each other; each sells on from its
// share as fast as before, nothing is oversold or lost, and after healing all are equal.
func TestMeshCut(t *testing.T) {
	for _, c := range []struct {
		name    string
		heavy   bool
		options []clustertest.MeshOption
	}{
		{"3x1", false, nil},
		{"2x1", true, []clustertest.MeshOption{clustertest.Regions("eu", "us")}},
		{"3x3", true, []clustertest.MeshOption{clustertest.NodesEach(3)}},
		{"2x3", clustertest.Slow > 1, []clustertest.MeshOption{clustertest.Regions("eu", "us"), clustertest.NodesEach(3)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.heavy && !*meshLong {
				t.Skip("takes long: give -mesh-long")
			}
			m := clustertest.StartMesh(t, append(c.options, clustertest.MeshProxies())...)
			cutAndHeal(t, m)
		})
	}
}

// TestMeshNamespaces is the same over networks of their own, where membership is cut too
// and the system's own TCP finds out.
func TestMeshNamespaces(t *testing.T) {
	if !*meshLong {
		t.Skip("takes long: give -mesh-long")
	}
	if err := clustertest.CanSplit(); err != nil {
		t.Skip(err)
	}
	cutAndHeal(t, clustertest.StartMesh(t, clustertest.Namespaces()))
}

func cutAndHeal(t *testing.T, m *clustertest.Mesh) {
	t.Helper()
	shop := m.Shop(clustertest.Ample(4), shopSeed())
	shop.AwaitSuccesses(50) // until then connections, shares and caches are new
	quiet := shop.Now()
	shop.RunFor(min(cutLength(), 15*time.Second))
	off := m.Regions()[len(m.Regions())-1].Name
	shop.Mark("isolate %s", off)
	cut := shop.Now()
	m.Isolate(off)
	shop.RunFor(cutLength())
	apart := shop.Now()
	if len(m.Regions()) > 2 {
		shop.Mark("cut all")
		m.CutAll()
		shop.RunFor(cutLength())
	}
	shop.AwaitSuccesses(50)
	end := shop.Now()
	shop.Mark("heal")
	m.Heal()
	m.AwaitLinked()
	t.Logf("all hear each other %v after healing", (shop.Now() - end).Round(time.Millisecond))
	shop.AwaitSuccesses(50)
	report := shop.Stop()
	t.Log(report)
	for _, r := range m.Regions() {
		one := report.In(r.Name)
		before, _ := one.Local(0.99, quiet, cut)
		soldOn(t, r.Name+", one cut off", before, one, cut, apart)
		if len(m.Regions()) > 2 {
			soldOn(t, r.Name+", all cut off", before, one, apart, end)
		}
	}
	report.NothingFailed()
	report.Account()
}

// soldOn compares how long sales took during a cut with what they took before. Short
// samples on a busy machine say little: those only show that nothing waited for a peer.
func soldOn(t *testing.T, when string, before time.Duration, r *clustertest.Report, from, to time.Duration) {
	t.Helper()
	during, n := r.Local(0.99, from, to)
	t.Logf("%s: %d sales, p99 %v, before %v", when, n, during.Round(time.Microsecond), before.Round(time.Microsecond))
	if n == 0 {
		t.Errorf("%s: nothing was sold", when)
	}
	noise := long(20*time.Millisecond, 250*time.Millisecond) * clustertest.Slow
	if during > before+before/10+noise && r.Stall < noise {
		t.Errorf("%s: p99 %v, before %v", when, during, before)
	}
}

// TestMeshRegionsLost: a region is killed whole and returns; another one is restarted
// while it is cut off, and sells on alone.
func TestMeshRegionsLost(t *testing.T) {
	m := clustertest.StartMesh(t, clustertest.MeshProxies())
	shop := m.Shop(clustertest.Ample(2), shopSeed())
	shop.AwaitSuccesses(50)
	shop.Mark("kill us")
	m.KillRegion("us")
	shop.RunFor(long(20*time.Second, 500*time.Millisecond))
	shop.AwaitSuccesses(50)
	shop.Mark("start us")
	m.StartRegion("us")
	shop.AwaitSuccesses(50)
	m.AwaitLinked()

	shop.Mark("isolate asia")
	m.Isolate("asia")
	shop.AwaitSuccesses(20)
	shop.Mark("kill asia")
	m.KillRegion("asia")
	begun := time.Now()
	m.StartRegion("asia")
	t.Logf("asia was ready %v after a start while cut off", time.Since(begun).Round(time.Millisecond))
	shop.AwaitSuccesses(50)
	shop.RunFor(long(20*time.Second, 500*time.Millisecond))
	shop.Mark("heal")
	healed := time.Now()
	m.Heal()
	m.AwaitLinked()
	t.Logf("all hear each other %v after healing", time.Since(healed).Round(time.Millisecond))
	shop.AwaitSuccesses(50)
	report := shop.Stop()
	t.Log(report)
	report.In("eu").NothingFailed() // the others' nodes were started under way
	report.Account()
}

// TestMeshBadLinks: links that pass one way only, that come and go, that are slow, and
// that are refused at once.
func TestMeshBadLinks(t *testing.T) {
	m := clustertest.StartMesh(t, clustertest.MeshProxies())
	shop := m.Shop(clustertest.Ample(2), shopSeed())
	for _, fault := range []struct {
		name string
		make func()
	}{
		{"cut eu to us", func() { m.CutOneWay("eu", "us") }},
		{"cut us to eu", func() { m.CutOneWay("us", "eu") }},
		{"flapping", func() { m.Flap("asia", "eu", 700*time.Millisecond); m.Flap("eu", "us", 300*time.Millisecond) }},
		{"slow", func() { m.Slow("asia", "us", 250*time.Millisecond); m.Slow("eu", "us", 80*time.Millisecond) }},
		{"refused", func() { m.Sever("eu", "us"); m.Sever("asia", "us") }},
	} {
		shop.AwaitSuccesses(10)
		shop.Mark("%s", fault.name)
		fault.make()
		shop.RunFor(long(cutLength()/2, 500*time.Millisecond))
		shop.AwaitSuccesses(20)
		shop.Mark("heal")
		m.Heal()
	}
	m.AwaitLinked()
	report := shop.Stop()
	t.Log(report)
	report.NothingFailed()
	report.Account()
}
