package bus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// behind puts a relay between the regions a and b, of which a dials. It must be called
// before they are linked.
func behind(t *testing.T, a, b *site) *relay {
	t.Helper()
	r := newRelay(t, b.configs[0].Mesh.Listen)
	a.via[b.name] = r
	return r
}

func TestCutAndHealed(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a", 1), newSite(t, "b", 1)
	r := behind(t, a, b)
	meshOf(t, a, b)
	ta, tb := a.table("a1"), b.table("b1")
	fromB, fromA := follow(t, a.buses[0], "b"), follow(t, b.buses[0], "a")
	put(t, ta, 0, 50, "one")
	put(t, tb, 0, 50, "one")
	awaitPictures(t, []*picture{fromA, fromB}, 50, "one")

	start := time.Now()
	r.cut()
	put(t, ta, 0, 50, "two")
	put(t, tb, 0, 50, "two")
	within(t, 25*time.Second, "the hole is found", func() bool { return !a.connected(b) && !b.connected(a) })
	t.Log("cut found after", time.Since(start))
	r.heal()
	start = time.Now()
	awaitPictures(t, []*picture{fromA, fromB}, 50, "two")
	t.Log("healed: caught up after", time.Since(start))
}

var long = flag.Bool("mesh.long", false, "run the tests of links that take minutes")

func TestRestartedWhileCut(t *testing.T) {
	t.Parallel()
	testRestartedWhileCut(t, 1)
}

func TestThreeRestartedWhileCut(t *testing.T) {
	if !*long {
		t.Skip("-mesh.long runs it")
	}
	testRestartedWhileCut(t, 3)
}

func testRestartedWhileCut(t *testing.T, n int) {
	a, b := newSite(t, "a", n), newSite(t, "b", n)
	r := behind(t, a, b)
	meshOf(t, a, b)
	ta, tb := a.table("a1"), b.table("b1")
	put(t, ta, 0, 50, "one")
	put(t, tb, 0, 50, "one")
	awaitPictures(t, []*picture{follow(t, a.buses[0], "b"), follow(t, b.buses[0], "a")}, 50, "one")
	r.cut()
	b.close()
	b.open()
	tb = must[*Table](t)(b.buses[0].Table(t.Context(), "stock", false))
	put(t, ta, 0, 50, "two")
	put(t, tb, 0, 50, "two")
	fromA := follow(t, b.buses[0], "a")
	within(t, 10*time.Second, "the rows held here are shown without a link", func() bool { return fromA.shows(50, "one") })
	r.heal()
	start := time.Now()
	fromB := follow(t, a.buses[0], "b")
	pictures := []*picture{fromA, fromB}
	for i := 1; i < n; i++ { // a guard on each node: the mirror's leader is the one that mends
		pictures = append(pictures, follow(t, a.buses[i], "b"), follow(t, b.buses[i], "a"))
	}
	awaitPictures(t, pictures, 50, "two")
	t.Log("healed: caught up after", time.Since(start), fromA.mirror.State(), fromB.mirror.State())
	if took := time.Since(start); took > 15*time.Second*slow {
		t.Errorf("took %v", took)
	}
}

func TestOriginMadeAnew(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"with fewer rows": 5, "with more rows": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newSite(t, "a", 1), newSite(t, "b", 1)
			meshOf(t, a, b)
			put(t, a.table("a1"), 0, 50, "one")
			fromA := follow(t, b.buses[0], "a")
			awaitPictures(t, []*picture{fromA}, 50, "one")
			if err := a.buses[0].deleteStream(t.Context(), "KV_stock"); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			put(t, a.table("a2"), 0, rows, "two")
			awaitPictures(t, []*picture{fromA}, rows, "two")
			within(t, 20*time.Second, "the new life is shown", func() bool {
				fromA.mu.Lock()
				defer fromA.mu.Unlock()
				return fromA.rows[lifeKey] == "a2"
			})
			t.Log("after", time.Since(start), fromA.mirror.State())
		})
	}
}

func TestPeersComeAndGo(t *testing.T) {
	t.Parallel()
	a, b, c := newSite(t, "a", 1), newSite(t, "b", 1), newSite(t, "c", 1)
	meshOf(t, a, b)
	in := receiveAll(t, b, "x")[0]
	before := a.buses[0].mesh.look()
	a.link(c)
	c.link(a)
	awaitLinks(t, a, c)
	a.link(c) // nothing new
	for id := range before {
		if _, ok := a.buses[0].mesh.look()[id]; !ok {
			t.Error("another link was closed")
		}
	}
	for _, s := range []*site{a, b} {
		other := map[*site]string{a: "b", b: "a"}[s]
		if err := s.buses[0].Unlink(other); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, "the link is gone", func() bool {
		return !a.connected(b) && len(b.buses[0].mesh.liveWires()) == 0 && a.connected(c)
	})
	wantErr(t, a.buses[0].Send("b", "x", nil), ErrMissing)
	a.link(b)
	b.link(a)
	awaitLinks(t, a, b)
	within(t, 10*time.Second, "a message", func() bool {
		return a.buses[0].Send("b", "x", nil) == nil && len(in.all()) == 1
	})
	// One side alone: the dialler is turned away.
	if err := b.buses[0].Unlink("a"); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the link is gone", func() bool { return !a.connected(b) })
}

func TestKeysRoll(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a", 1), newSite(t, "b", 1)
	r := behind(t, a, b)
	meshOf(t, a, b)
	before := a.buses[0].mesh.look()
	b.secrets.Store(&[]string{"new", "secret"})
	a.secrets.Store(&[]string{"new", "secret"})
	b.secrets.Store(&[]string{"new"})
	in := receiveAll(t, b, "x")[0]
	within(t, 10*time.Second, "some looks after the links", func() bool {
		_ = a.buses[0].Send("b", "x", nil)
		return in.all()["a x "] > 150
	})
	for id := range before {
		if _, ok := a.buses[0].mesh.look()[id]; !ok {
			t.Error("the link that stood was closed")
		}
	}
	r.drop()
	within(t, 10*time.Second, "another link", func() bool {
		for id := range a.buses[0].mesh.look() {
			_, old := before[id]
			return !old && a.connected(b)
		}
		return false
	})
}

// certificate is one of a node of a region, good for both directions.
func (a *authority) certificate(t *testing.T, region string) *tls.Config {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs:        []*url.URL{{Scheme: meshIdentity, Host: region, Path: "/n0"}},
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key))
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      a.pool, MinVersion: tls.VersionTLS13,
	}
}

func TestLinksAreCertified(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	with := func(c *tls.Config) func(*Config) { return func(o *Config) { o.Mesh.TLS = c } }
	b := newSite(t, "b", 1, with(ca.certificate(t, "b")))
	good := newSite(t, "a", 1, with(ca.certificate(t, "a")))
	meshOf(t, good, b)
	good.close()
	foreign := newAuthority(t).certificate(t, "a")
	foreign.RootCAs = ca.pool
	for name, c := range map[string]*tls.Config{
		"none": nil, "foreign": foreign, "another region's": ca.certificate(t, "c"),
	} {
		t.Run(name, func(t *testing.T) {
			a := newSite(t, "a", 1, with(c))
			r := behind(t, a, b)
			a.link(b)
			within(t, 20*time.Second, "two tries", func() bool { return r.tries() >= 2 })
			if a.connected(b) {
				t.Fatal("linked")
			}
		})
	}
	t.Run("the listener is another region", func(t *testing.T) {
		a := newSite(t, "a", 1, with(ca.certificate(t, "a")))
		z := newSite(t, "b", 1, with(ca.certificate(t, "z")))
		z.link(a)
		r := behind(t, a, z)
		a.link(z)
		within(t, 20*time.Second, "two tries", func() bool { return r.tries() >= 2 })
		if a.connected(z) {
			t.Fatal("linked")
		}
	})
}

// TestNothingCircles publishes once what all regions listen to, in each way there is.
func TestNothingCircles(t *testing.T) {
	t.Parallel()
	a, b, c := newSite(t, "a", 1), newSite(t, "b", 1), newSite(t, "c", 1)
	sites := []*site{a, b, c}
	subjects := []string{"plain", "shard.1", "site.a.b.x", "site.a.c.x", "site.b.a.x", "site.c.b.x", "mirror.b.a.M.x", "$JSC.R.a.x", "$JS.FC.KV_stock.x.y", "$JS.FC.b.x.KV_stock.y.z", "mirror.b.a.API.CONSUMER.DELETE.KV_stock.JS_MIRROR_x", "_INBOX.x"}
	counts := make(map[string][]func() int)
	for _, s := range sites {
		for _, subject := range subjects {
			counts[subject] = append(counts[subject], watchAll(t, s.buses[0], subject))
		}
	}
	meshOf(t, sites...)
	for _, subject := range subjects {
		if err := a.buses[0].wire.nc.Publish(subject, []byte("once")); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, sites)
	for subject, all := range counts {
		for i, count := range all {
			if n := count(); n > 1 {
				t.Errorf("%s: %d times in %s", subject, n, sites[i].name)
			}
		}
	}
	for subject, want := range map[string]string{"plain": "[1 0 0]", "shard.1": "[1 0 0]", "site.b.a.x": "[1 1 0]", "site.c.b.x": "[1 0 0]"} {
		var got []int
		for _, count := range counts[subject] {
			got = append(got, count())
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", subject, got, want)
		}
	}
}

// TestMeshIsOptional opens one directory without a mesh, with it, and without again.
func TestMeshIsOptional(t *testing.T) {
	dir := t.TempDir()
	for i, mesh := range []*Mesh{nil, {Region: "a", Listen: "127.0.0.1:0"}, nil} {
		b := openAt(t, dir, func(c *Config) { c.Mesh = mesh })
		l := must[*Log](t)(b.Log(t.Context(), "l", i == 0))
		if seq := must[uint64](t)(l.Append(t.Context(), []byte("x"), uint64(i))); seq != uint64(i+1) {
			t.Fatal(seq)
		}
		put(t, must[*Table](t)(b.Table(t.Context(), "stock", i == 0)), 0, 5, fmt.Sprint(i))
		if (mesh != nil) != (b.LinkAddr() != "") {
			t.Error(b.LinkAddr())
		}
		closeBus(t, b)
	}
}

// TestIdleLinksStand looks at links without mirrors and messages for longer than a
// silent one may stand.
func TestIdleLinksStand(t *testing.T) {
	if !*long {
		t.Skip("-mesh.long runs it")
	}
	a, b := newSite(t, "a", 1), newSite(t, "b", 1)
	meshOf(t, a, b)
	before, start := a.buses[0].mesh.look(), time.Now()
	within(t, 30*time.Second, "long enough", func() bool { return time.Since(start) > linkSilence+3*linkWatch })
	for id := range before {
		if _, ok := a.buses[0].mesh.look()[id]; !ok {
			t.Error("the link was closed")
		}
	}
}
