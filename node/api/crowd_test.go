package api

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// crowdSize is how many streams TestCrowd opens. 10,000 need 20,000 file
// descriptors, as both ends are here.
var crowdSize = flag.Int("streams", 2000, "how many streams TestCrowd opens")

// countedListener counts the writes to its connections.
type countedListener struct {
	net.Listener
	tune    func(*net.TCPConn) // of accepted connections; may be nil
	writes  atomic.Int64
	awaited atomic.Int64
	reached chan struct{} // told when writes has got to awaited
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.tune != nil {
		l.tune(c.(*net.TCPConn))
	}
	return &countedConn{c, l}, nil
}

type countedConn struct {
	net.Conn
	listener *countedListener
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.listener.writes.Add(1) == c.listener.awaited.Load() {
		c.listener.reached <- struct{}{}
	}
	return n, err
}

// crowd is many streams whose readers have no goroutine: they read when they are told.
type crowd struct {
	testing.TB
	ledger   *fakeLedger
	api      *API
	listener *countedListener
	conns    []net.Conn
}

func newCrowd(t testing.TB, tune func(*net.TCPConn), cfg Config) *crowd {
	c := &crowd{TB: t, ledger: newFakeLedger(), listener: &countedListener{tune: tune, reached: make(chan struct{}, 1)}}
	cfg.Ledger = c.ledger
	c.api = New(cfg)
	srv := httptest.NewUnstartedServer(c.api)
	c.listener.Listener = srv.Listener
	srv.Listener = c.listener
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(c.api.Drain) // first, or Close would wait for streams
	return c
}

func (c *crowd) dial(target string) net.Conn {
	conn, err := net.Dial("tcp", c.listener.Addr().String())
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("GET " + target + " HTTP/1.1\r\nHost: node\r\n\r\n")); err != nil {
		c.Fatal(err)
	}
	return conn
}

// open opens n streams and reads their heads and first states.
func (c *crowd) open(n int, target string) {
	for range n {
		c.conns = append(c.conns, c.dial(target))
	}
	for _, conn := range c.conns[len(c.conns)-n:] {
		c.readUntil(conn, "data: ", "\n\n")
	}
}

// readUntil reads until the texts have come, one after the other, and no further than
// what came with them.
func (c *crowd) readUntil(conn net.Conn, texts ...string) {
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		c.Fatal(err)
	}
	var got string
	b := make([]byte, 64<<10)
	for {
		n, err := conn.Read(b)
		got += string(b[:n])
		rest, all := got, true
		for _, text := range texts {
			_, after, found := strings.Cut(rest, text)
			rest, all = after, all && found
		}
		if all {
			return
		}
		if err != nil {
			c.Fatalf("%v after %.300q", err, got)
		}
	}
}

// used is memory in use after a collection.
func used() (heap, stack uint64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse, m.StackInuse
}

// A stream costs no goroutine and a push leaves nothing behind.
func TestCrowd(t *testing.T) {
	n := *crowdSize
	c := newCrowd(t, nil, Config{Heartbeat: time.Hour})
	c.ledger.write(adjust("A", 1))
	// The crew is all there, and so is what net/http keeps for the next requests.
	c.open(100, "/v1/stream?sku=A")
	heap0, stack0 := used()
	c.open(n, "/v1/stream?sku=A")
	c.settle()
	// Handlers may be on their way out still.
	c.wait(func() bool { return runtime.NumGoroutine() <= 30+c.api.hub.crew.size })
	heap1, stack1 := used()
	t.Logf("a stream with both ends of its connection: %d bytes of heap, %d of stacks",
		(int64(heap1)-int64(heap0))/int64(n), (int64(stack1)-int64(stack0))/int64(n))
	c.change(20) // as stacks grow to what a change takes once
	heap1, stack1 = used()
	c.change(100)
	heap2, stack2 := used()
	t.Logf("in use before 100 changes: heap %d, stacks %d; after: heap %d, stacks %d", heap1, stack1, heap2, stack2)
	// The runtime itself keeps stacks for goroutines to come, about half a MiB now and
	// again; one more stack per stream were 4 MiB.
	if heap2 > heap1+heap1/10 || stack2 > stack1+max(stack1/10, 1<<20) {
		t.Error("they have left something behind")
	}
}

// change changes the item that all watch, and reads its final state from all streams.
func (c *crowd) change(times int) {
	for range times {
		before := c.listener.writes.Load()
		c.ledger.write(adjust("A", 1))
		c.wait(func() bool { return c.listener.writes.Load() > before })
	}
	final := fmt.Sprintf(`"on_hand":%d,`, c.ledger.present("A").OnHand)
	for _, conn := range c.conns {
		c.readUntil(conn, final, "\n\n")
	}
	c.settle()
}

// settle waits until no stream has anything to write.
func (c *crowd) settle() {
	crew := c.api.hub.crew
	c.wait(func() bool {
		crew.mu.Lock()
		defer crew.mu.Unlock()
		return crew.changes.first == nil && crew.fills.first == nil && crew.filling == 0 && crew.idle == crew.free && crew.stuck == 0
	})
}

func (c *crowd) wait(cond func() bool) {
	timeout := time.After(time.Minute)
	for !cond() {
		select {
		case <-timeout:
			c.Fatal("waited for too long")
		default:
			runtime.Gosched()
		}
	}
}

// narrow leaves a connection little room for what its reader doesn't take.
func narrow(c *net.TCPConn) { _ = c.SetWriteBuffer(4 << 10) }

// stall opens streams that take a head and then nothing more.
func (c *crowd) stall(n int, target string) (stalled []net.Conn) {
	dialer := net.Dialer{Timeout: time.Minute}
	for range n {
		conn, err := dialer.Dial("tcp", c.listener.Addr().String())
		if err != nil {
			c.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		c.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte("GET " + target + " HTTP/1.1\r\nHost: node\r\n\r\n")); err != nil {
			c.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	return stalled
}

// Readers that take nothing are left after their time, and cost the others nothing they
// would notice.
func TestStalledTenth(t *testing.T) {
	const n, rounds = 500, 40
	c := newCrowd(t, narrow, Config{Heartbeat: time.Hour, WriteTimeout: 8 * time.Second})
	// A snapshot that no buffer between here and a stalled reader holds.
	for i := range 3000 {
		c.ledger.write(adjust(fmt.Sprintf("fat%d-%s", i, strings.Repeat("x", 100)), 1))
	}
	c.ledger.write(adjust("A", 1))
	c.open(n, "/v1/stream?sku=A")
	quiet := c.ages(rounds)
	stalled := c.stall(n/10, "/v1/stream?all")
	crew := c.api.hub.crew
	stuck := func() int {
		crew.mu.Lock()
		defer crew.mu.Unlock()
		return crew.stuck
	}
	c.wait(func() bool { return stuck() == len(stalled) })
	busy := c.ages(rounds)
	if got := stuck(); got != len(stalled) {
		t.Logf("only %d were stalled to the end of it", got)
	}
	t.Logf("p99 age over %d streams: %v, with %d stalled ones %v", n, quiet, len(stalled), busy)
	if most := 4*quiet + 500*time.Millisecond; busy > most {
		t.Errorf("p99 age is %v with stalled readers and %v without, want %v at most", busy, quiet, most)
	}
	c.wait(func() bool { return c.api.hub.count.Load() == n && stuck() == 0 })
	c.settle()
	if crew.free > crew.size {
		t.Errorf("%d workers are left of %d", crew.free, crew.size)
	}
	for _, conn := range c.conns {
		// All the others are there still.
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

// ages changes an item and reads it from all streams, again and again, and returns the
// 99th percentile of how long the reading took.
func (c *crowd) ages(rounds int) time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	for range rounds {
		begun := time.Now()
		c.ledger.write(adjust("A", 1))
		version := fmt.Sprintf(`"on_hand":%d,`, c.ledger.present("A").OnHand)
		var readers sync.WaitGroup
		for part := range slices.Chunk(c.conns, 50) {
			readers.Go(func() {
				for _, conn := range part {
					c.readUntil(conn, version, "\n\n")
					mu.Lock()
					all = append(all, time.Since(begun))
					mu.Unlock()
				}
			})
		}
		readers.Wait()
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

func (l *fakeLedger) present(sku string) protocol.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state(protocol.ItemKey{SKU: sku, Location: protocol.DefaultLocation})
}

// Where too many are stuck at once, the last are left without waiting.
func TestTooManyStuck(t *testing.T) {
	c := newCrowd(t, narrow, Config{Heartbeat: time.Hour, WriteTimeout: time.Hour})
	c.api.hub.crew.stuckMax = 5
	for i := range 3000 {
		c.ledger.write(adjust(fmt.Sprintf("fat%d-%s", i, strings.Repeat("x", 100)), 1))
	}
	c.stall(12, "/v1/stream?all")
	c.wait(func() bool { return c.api.hub.crew.count() == 12 })
	c.wait(func() bool { return c.api.hub.count.Load() == 5 })
}

func (c *crew) count() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

// A TLS reader that pauses for longer than a worker's patience goes on where it was.
func TestPausedReaderOverTLS(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Heartbeat = time.Hour })
	const n = 5000
	for i := range n {
		f.ledger.write(adjust(fmt.Sprintf("%05d-%s", i, strings.Repeat("x", 100)), 1))
	}
	srv := httptest.NewUnstartedServer(f.api)
	l := &countedListener{Listener: srv.Listener, tune: narrow}
	srv.Listener = l
	srv.StartTLS()
	t.Cleanup(srv.Close)
	t.Cleanup(f.api.Drain)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v1/stream?all HTTP/1.1\r\nHost: node\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	c := &crowd{TB: t, api: f.api}
	crew := f.api.hub.crew
	c.wait(func() bool {
		crew.mu.Lock()
		defer crew.mu.Unlock()
		return crew.stuck == 1
	})
	c.readUntil(conn, fmt.Sprintf("%05d-", n-1), "\n\n")
	f.ledger.write(adjust("last", 1))
	c.readUntil(conn, `"last"`, "\n\n")
	f.api.Drain()
	if k, err := conn.Read(make([]byte, 100)); k != 0 || err != io.EOF {
		t.Errorf("no goodbye: %d %v", k, err)
	}
}

// One change of an item that 1,000 streams watch, until the last of them has it.
func BenchmarkPushToStreams(b *testing.B) {
	const n = 1000
	c := newCrowd(b, nil, Config{Heartbeat: time.Hour})
	c.ledger.write(adjust("A", 1))
	c.open(n, "/v1/stream?sku=A")
	buf := make([]byte, 64<<10)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c.listener.awaited.Store(c.listener.writes.Load() + n)
		c.ledger.write(adjust("A", 1))
		<-c.listener.reached
		b.StopTimer()
		for _, conn := range c.conns {
			if _, err := conn.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/stream")
}
