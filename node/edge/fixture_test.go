package edge_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/node/edge"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

// fixture is a listening edge with an HTTP server behind it.
type fixture struct {
	testing.TB
	edge     *edge.Edge
	ledger   *ledger // nil where a real one serves
	addr     string
	registry *prometheus.Registry
	tls      *tls.Config // of the clients; nil: plain
	dialer   net.Dialer
}

// overTLS runs every test over TLS: go test ./node/edge -over-tls
var overTLS = flag.Bool("over-tls", false, "run the tests over TLS")

func start(t testing.TB, tune ...func(*edge.Config)) *fixture {
	t.Helper()
	l := newLedger()
	f := startOn(t, l, tune...)
	f.ledger = l
	return f
}

// startReal starts an edge on a real ledger.
func startReal(t testing.TB, tune ...func(*edge.Config)) *fixture {
	t.Helper()
	c, err := cluster.Open(t.Context(), cluster.Config{Dir: t.TempDir(), Region: "eu", Node: "eu-1", KeyWindow: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return startOn(t, c, tune...)
}

func startOn(t testing.TB, l edge.Ledger, tune ...func(*edge.Config)) *fixture {
	t.Helper()
	f := &fixture{TB: t, registry: prometheus.NewRegistry()}
	config := edge.Config{
		Listen: "127.0.0.1:0", Node: "eu-1", Region: "eu", Endpoints: []string{"ws://eu-1/v1/ws"},
		Ledger: l, Registerer: f.registry, Loops: 2,
	}
	if *overTLS {
		config.TLS = testCertificate(t)
	}
	for _, fn := range tune {
		fn(&config)
	}
	if config.TLS != nil {
		f.tls = &tls.Config{InsecureSkipVerify: true}
	}
	var err error
	if f.edge, err = edge.Listen(config); err != nil {
		t.Fatal(err)
	}
	f.addr = f.edge.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-From", r.RemoteAddr)
		if chain, _ := r.Context().Value(certificates{}).([]*x509.Certificate); len(chain) > 0 {
			w.Header().Set("X-Certificate", chain[0].Subject.CommonName)
		}
		fmt.Fprint(w, "http ", r.URL.Path)
	}), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, certificates{}, edge.PeerCertificates(c))
	}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(f.edge.HTTP())
	}()
	t.Cleanup(func() {
		if err := f.edge.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
		<-ended
	})
	return f
}

// certificates is the key of those that an HTTP client has shown.
type certificates struct{}

// plainOnly skips a test that reaches below TLS.
func plainOnly(t *testing.T) {
	t.Helper()
	if *overTLS {
		t.Skip("looks at the bare connection")
	}
}

// tcp connects without a handshake.
func (f *fixture) tcp() *peer {
	f.Helper()
	c, err := f.dialer.Dial("tcp", f.addr)
	if err != nil {
		f.Fatal(err)
	}
	if f.tls != nil {
		c = tls.Client(c, f.tls)
	}
	return newPeer(f, c)
}

// dial connects and takes the hello.
func (f *fixture) dial() *peer {
	f.Helper()
	p := f.tcp()
	p.raw(handshake(f.addr))
	p.upgraded()
	if m := p.next(); m.Op != "hello" {
		f.Fatalf("got %s, want hello", m.raw)
	}
	return p
}

// metric is the sum of a counter's or gauge's samples.
func (f *fixture) metric(name string) (sum float64) {
	f.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// metrics are a metric's samples by their only label.
func (f *fixture) metrics(name string) map[string]float64 {
	f.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.Fatal(err)
	}
	samples := map[string]float64{}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				samples[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return samples
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// footprint is what the process holds: goroutines, bytes of heap, descriptors.
type footprint struct {
	goroutines, files int
	heap              uint64
}

func measure(t testing.TB) footprint {
	t.Helper()
	runtime.GC()
	runtime.GC() // a second one empties sync.Pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), openFiles(), m.HeapAlloc}
}

// openFiles is 0 where the system doesn't tell.
func openFiles() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// backTo waits until nothing is left of what has happened since.
func (before footprint) backTo(t testing.TB, heapMax uint64) {
	t.Helper()
	eventually(t, "goroutines and files back", func() bool {
		return runtime.NumGoroutine() <= before.goroutines && openFiles() <= before.files
	})
	eventually(t, "heap back", func() bool { return measure(t).heap <= before.heap+heapMax })
}
