package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The engine of a region's node leaves it behind; bus/DESIGN.md says why.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).StartRouting"),
		// A probe of memberlist's that was under way at the end runs into its own time limit.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).triggerFunc"),
		// What makes or deletes a mirror's consumer gives up after a while.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*stream).setupMirrorConsumer.func3"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*stream).tryDeleteSourcingConsumer.func1"))
}

func config(dir string) cluster.Config {
	return cluster.Config{Dir: dir, Region: "eu", Node: "eu-1", KeyWindow: 24 * time.Hour}
}

func open(t *testing.T, c cluster.Config) *cluster.Cluster {
	t.Helper()
	n, err := cluster.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, n) })
	return n
}

func shut(t *testing.T, n *cluster.Cluster) {
	t.Helper()
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, n *cluster.Cluster, cmd protocol.Command) *protocol.Call {
	t.Helper()
	call := do(n, cmd)
	if call.Err != nil {
		t.Fatalf("%s: %v", cmd.Op, call.Err)
	}
	return call
}

func refused(t *testing.T, n *cluster.Cluster, cmd protocol.Command, code protocol.Code) *protocol.Error {
	t.Helper()
	call := do(n, cmd)
	if call.Err == nil || call.Err.Code != code {
		t.Fatalf("%s: got %v, want %s", cmd.Op, call.Err, code)
	}
	return call.Err
}

func count(key, sku string, n int64) protocol.Command {
	return protocol.Command{Op: protocol.OpCount, Key: key, SKU: sku, OnHand: &n}
}

func sell(key, sku string, n int64) protocol.Command {
	return protocol.Command{Op: protocol.OpSell, Key: key, Lines: []protocol.Line{{SKU: sku, Quantity: n}}}
}

func get(skus ...string) protocol.Command { return protocol.Command{Op: protocol.OpGet, SKUs: skus} }

func everything(n *cluster.Cluster) (items []protocol.Item) {
	q := protocol.Query{Limit: 1 << 20}
	for more := true; more; {
		var page []protocol.Item
		page, q.After, more = n.Scan(&q)
		items = append(items, page...)
	}
	return items
}

func TestRestartKeepsRowsKeysAndReservations(t *testing.T) {
	dir := t.TempDir()
	n := open(t, config(dir))
	must(t, n, count("k1", "A/1 *>", 10))
	sold := must(t, n, sell("k2", "A/1 *>", 3))
	held := must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "k3", Lines: []protocol.Line{{SKU: "A/1 *>", Quantity: 2}}})
	before := everything(n)
	shut(t, n)

	n = open(t, config(dir))
	if diff := cmp.Diff(before, everything(n)); diff != "" {
		t.Fatal(diff)
	}
	again := must(t, n, sell("k2", "A/1 *>", 3))
	if !again.Replayed || !cmp.Equal(again.Result, sold.Result) {
		t.Fatalf("got %+v, replayed %v", again.Result, again.Replayed)
	}
	refused(t, n, sell("k2", "A/1 *>", 4), protocol.CodeKeyReused)
	id := held.Result.Reservation.ID
	must(t, n, protocol.Command{Op: protocol.OpConfirm, Key: "k4", Reservation: id})
	it := must(t, n, get("A/1 *>")).Result.Items[0]
	if it.OnHand != 5 || it.Reserved != 0 || it.Version != "eu:4" {
		t.Fatalf("got %+v", it)
	}
}

// A snapshot is written while commands run, the log is trimmed behind it, and the
// next start needs both.
func TestRestartFromSnapshotAndTail(t *testing.T) {
	dir := t.TempDir()
	c := config(dir)
	c.SnapshotRounds, c.KeyWindow, c.History = 20, time.Second, 2*time.Second
	clock := fakeClock{still: time.Now()}
	c.Clock = clock.now
	n := open(t, c)
	for i := range 200 {
		must(t, n, count(fmt.Sprint("k", i), fmt.Sprint("S", i%17), int64(i)))
		clock.add(100 * time.Millisecond)
	}
	before := everything(n)
	shut(t, n)
	// Two are kept; one whose writing the end of the node cut short may just stand.
	if names := snapshots(t, dir); len(names) == 0 || len(names) > 3 {
		t.Fatalf("snapshots: %v", names)
	}

	n = open(t, c)
	if diff := cmp.Diff(before, everything(n)); diff != "" {
		t.Fatal(diff)
	}
	if got := must(t, n, protocol.Command{Op: protocol.OpOutcome, Key: "k0"}).Result; got.Known {
		t.Fatal("a key older than two windows is still remembered")
	}
	if got := must(t, n, protocol.Command{Op: protocol.OpOutcome, Key: "k199"}).Result; !got.Known {
		t.Fatal("a key within its window is forgotten")
	}
	h := must(t, n, protocol.Command{Op: protocol.OpHistory, SKU: "S3", Limit: 500}).Result
	if len(h.Movements) == 0 || len(h.Movements) >= 200/17 {
		t.Fatalf("%d movements: want the newest, without those that were trimmed", len(h.Movements))
	}
}

type fakeClock struct {
	mu    sync.Mutex
	still time.Time // set: it moves by add alone
	ahead time.Duration
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.still.IsZero() {
		return c.still.Add(c.ahead)
	}
	return time.Now().Add(c.ahead)
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// withEngine opens a closed node's engine as any NATS tool would.
func withEngine(t *testing.T, dir string, fn func(js jetstream.JetStream)) {
	t.Helper()
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: filepath.Join(dir, "nats"), DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("engine not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	fn(js)
}

func snapshots(t *testing.T, dir string) (names []string) {
	withEngine(t, dir, func(js jetstream.JetStream) {
		o, err := js.ObjectStore(t.Context(), "snapshots")
		if err != nil {
			t.Fatal(err)
		}
		list, err := o.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			names = append(names, i.Name)
		}
	})
	return names
}

func TestRowsAreReadableInTheBucket(t *testing.T) {
	dir := t.TempDir()
	n := open(t, config(dir))
	must(t, n, count("k1", "BANK CHARGES", 10))
	must(t, n, sell("k2", "BANK CHARGES", 4))
	shut(t, n)
	withEngine(t, dir, func(js jetstream.JetStream) {
		kv, err := js.KeyValue(t.Context(), "stock")
		if err != nil {
			t.Fatal(err)
		}
		e, err := kv.Get(t.Context(), "BANK=20CHARGES.main")
		if err != nil {
			t.Fatal(err)
		}
		var row struct {
			SKU            string `json:"sku"`
			Version        uint64 `json:"version"`
			Received, Sold int64
			Position       string `json:"position"`
		}
		if err := json.Unmarshal(e.Value(), &row); err != nil {
			t.Fatal(err)
		}
		if row.SKU != "BANK CHARGES" || row.Version != 2 || row.Received != 10 || row.Sold != 4 || row.Position != "eu.0.3.0" {
			t.Fatalf("got %s", e.Value())
		}
		w, err := kv.Get(t.Context(), "meta.watermark.0")
		if err != nil || !strings.Contains(string(w.Value()), `"seq":3`) {
			t.Fatalf("watermark %s: %v", w.Value(), err)
		}
	})
}

// TestDirectoryRefusals: a data directory is opened as what it was made for, or
// not at all, and what is missing from it is never replaced by nothing.
func TestDirectoryRefusals(t *testing.T) {
	dir := t.TempDir()
	n := open(t, config(dir))
	must(t, n, count("k1", "A", 10))
	refuse := func(c cluster.Config, want string) {
		t.Helper()
		n, err := cluster.Open(t.Context(), c)
		if err == nil {
			shut(t, n)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("got %v, want %q", err, want)
		}
	}
	refuse(config(dir), "in use by another process")
	shut(t, n)

	other := config(dir)
	other.Region = "us"
	refuse(other, "created with region eu")
	other = config(dir)
	other.Node = "eu-2"
	refuse(other, "created with name eu-1")

	stranger := t.TempDir()
	if err := os.WriteFile(filepath.Join(stranger, "thesis.doc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(config(stranger), "thesis.doc")

	// A log that ends before what the bucket was told is committed.
	withEngine(t, dir, func(js jetstream.JetStream) {
		kv, err := js.KeyValue(t.Context(), "stock")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.PutString(t.Context(), "meta.watermark.0", `{"region":"eu","seq":1000}`); err != nil {
			t.Fatal(err)
		}
	})
	refuse(config(dir), "rounds are missing")
	if err := os.RemoveAll(filepath.Join(dir, "nats", "jetstream", "$G", "streams", "LOG_0")); err != nil {
		t.Fatal(err)
	}
	refuse(config(dir), "log is missing")
	if err := os.WriteFile(filepath.Join(dir, "stockmesh.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(config(dir), "damaged")
}

func TestReservationExpiresLateNeverEarly(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k1", "A", 1))
	expired := make(chan protocol.ReservationChange, 1)
	stop := n.Watch(func(ch *protocol.Changes) {
		for _, r := range ch.Reservations {
			if r.State == protocol.Expired {
				expired <- r
			}
		}
	})
	defer stop()
	r := must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "k2", TTLMS: protocol.Ptr[int64](1000), Lines: []protocol.Line{{SKU: "A", Quantity: 1}}}).Result.Reservation
	refused(t, n, sell("k3", "A", 1), protocol.CodeInsufficientStock)
	select {
	case got := <-expired:
		late := time.Since(r.ExpiresAt.Std())
		if got.ID != r.ID || got.By != 0 || late < 0 || late > time.Second {
			t.Fatalf("%+v, late by %v", got, late)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not expired")
	}
	must(t, n, sell("k4", "A", 1))
	err := refused(t, n, protocol.Command{Op: protocol.OpConfirm, Key: "k5", Reservation: r.ID}, protocol.CodeReservationEnded)
	if err.Details.State != protocol.Expired {
		t.Fatalf("got %+v", err.Details)
	}
}

func TestGetWaitsForAVersion(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k1", "A", 5))
	answered := make(chan *protocol.Call, 1)
	call := &protocol.Call{Command: get("A"), Done: func(c *protocol.Call) { answered <- c }}
	call.Command.AtLeast = "eu:2"
	n.Submit([]*protocol.Call{call})
	select {
	case <-answered:
		t.Fatal("answered before the version existed")
	default:
	}
	must(t, n, sell("k2", "A", 1))
	if c := <-answered; c.Result.Behind || c.Result.Items[0].OnHand != 4 {
		t.Fatalf("got %+v", c.Result)
	}
	late := must(t, n, protocol.Command{Op: protocol.OpGet, SKUs: []string{"A"}, AtLeast: "eu:99"})
	if !late.Result.Behind || late.Result.Items[0].Version != "eu:2" {
		t.Fatalf("got %+v", late.Result)
	}
}

func TestOtherRegionsAreNotFound(t *testing.T) {
	n := open(t, config(t.TempDir()))
	cmd := sell("k1", "A", 1)
	cmd.Home = "us"
	refused(t, n, cmd, protocol.CodeNotFound)
	refused(t, n, protocol.Command{Op: protocol.OpHistory, SKU: "A", Region: "us"}, protocol.CodeNotFound)
	refused(t, n, protocol.Command{Op: protocol.OpReservation, Reservation: "us.1"}, protocol.CodeNotFound)
}

func TestHistoryPages(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k0", "A", 100))
	for i := range 25 {
		cmd := sell(fmt.Sprint("s", i), "A", 1)
		cmd.Reason, cmd.Reference = "order", fmt.Sprint("invoice ", i)
		must(t, n, cmd)
		must(t, n, count(fmt.Sprint("o", i), "B", int64(i)))
	}
	var all []protocol.Movement
	before := ""
	for {
		page := must(t, n, protocol.Command{Op: protocol.OpHistory, SKU: "A", Limit: 10, Before: before}).Result
		all = append(all, page.Movements...)
		if before = page.Next; before == "" {
			break
		}
	}
	if len(all) != 26 {
		t.Fatalf("%d movements", len(all))
	}
	for i, m := range all {
		want := int64(75 + i)
		if m.OnHand != want || m.SKU != "A" {
			t.Fatalf("movement %d: %+v", i, m)
		}
	}
	if m := all[0]; m.Type != "sell" || m.Key != "s24" || m.Reference != "invoice 24" || m.OnHandDelta != -1 {
		t.Fatalf("got %+v", m)
	}
	refused(t, n, protocol.Command{Op: protocol.OpHistory, SKU: "A", Before: "us.0.1.0"}, protocol.CodeBadRequest)
	refused(t, n, protocol.Command{Op: protocol.OpHistory, SKU: "B", Before: all[0].Sequence}, protocol.CodeBadRequest)
}

// Every call is answered exactly once, whatever happens to the node meanwhile, and
// what was acknowledged is there after the restart.
func TestCloseUnderLoad(t *testing.T) {
	dir := t.TempDir()
	n := open(t, config(dir))
	must(t, n, count("k", "A", 1<<40))
	const callers = 64
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := 0
	started := make(chan struct{}, callers)
	for i := range callers {
		wg.Go(func() {
			for j := 0; ; j++ {
				call := do(n, sell(fmt.Sprintf("%d-%d", i, j), "A", 1))
				if call.Err != nil {
					if call.Err.Code != protocol.CodeUnavailable {
						t.Errorf("got %v", call.Err)
					}
					return
				}
				mu.Lock()
				acked++
				mu.Unlock()
				if j == 3 {
					started <- struct{}{}
				}
			}
		})
	}
	for range callers {
		<-started
	}
	shut(t, n)
	wg.Wait()
	n = open(t, config(dir))
	if it := must(t, n, get("A")).Result.Items[0]; it.OnHand != 1<<40-int64(acked) {
		t.Fatalf("on hand %d after %d acknowledged sales", it.OnHand, acked)
	}
}

func TestWatchersHearBeforeCallers(t *testing.T) {
	n := open(t, config(t.TempDir()))
	var mu sync.Mutex
	heard := map[string]string{}
	stop := n.Watch(func(ch *protocol.Changes) {
		for _, it := range n.Items(nil, ch.Items) {
			mu.Lock()
			if before := heard[it.SKU]; before != "" && vector(t, before).AtLeast(vector(t, it.Version)) {
				t.Errorf("%s: %s after %s", it.SKU, it.Version, before)
			}
			heard[it.SKU] = it.Version
			mu.Unlock()
		}
	})
	for i := range 100 {
		it := must(t, n, count(fmt.Sprint(i), "A", int64(i))).Result.Items[0]
		mu.Lock()
		if !vector(t, heard["A"]).AtLeast(vector(t, it.Version)) {
			t.Fatalf("answered %s, heard %s", it.Version, heard["A"])
		}
		mu.Unlock()
	}
	stop()
	last := heard["A"]
	must(t, n, count("after", "A", 1))
	if heard["A"] != last {
		t.Fatal("heard after stop")
	}
}

func vector(t *testing.T, s string) protocol.Vector {
	t.Helper()
	v, err := protocol.ParseVector(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A key is forgotten within twice its window, on a node that had nothing to do in
// between too.
func TestQuietNodeForgetsKeys(t *testing.T) {
	c := config(t.TempDir())
	c.KeyWindow = time.Hour
	var clock fakeClock
	c.Clock = clock.now
	n := open(t, c)
	adjust := protocol.Command{Op: protocol.OpAdjust, Key: "k", SKU: "A", Delta: 1}
	must(t, n, adjust)
	clock.add(59 * time.Minute)
	if again := must(t, n, adjust); !again.Replayed {
		t.Fatal("forgotten within the window")
	}
	clock.add(62 * time.Minute)
	if again := must(t, n, adjust); again.Replayed {
		t.Fatal("remembered for more than two windows")
	}
}

// A read behind a write of the same sender sees what the write did, whatever the
// read is.
func TestOrderedReadsSeeWritesBefore(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k", "A", 1000))
	for i := range 50 {
		answered := make(chan *protocol.Call, 4)
		call := func(cmd protocol.Command) *protocol.Call {
			if err := cmd.Check(); err != nil {
				t.Fatal(err)
			}
			return &protocol.Call{Command: cmd, Ordered: true, Done: func(c *protocol.Call) { answered <- c }}
		}
		sale, read, history := call(sell(fmt.Sprint(i), "A", 1)), call(get("A")), call(protocol.Command{Op: protocol.OpHistory, SKU: "A", Limit: 1})
		n.Submit([]*protocol.Call{sale, read, history})
		for range 3 {
			<-answered
		}
		version := sale.Result.Items[0].Version
		if got := read.Result.Items[0].Version; got != version {
			t.Fatalf("sold at %s, read %s", version, got)
		}
		if got := history.Result.Movements[0].Key; got != fmt.Sprint(i) {
			t.Fatalf("newest movement is of key %s, want %d", got, i)
		}
	}
}

// Gets that wait cost a commit of other items nothing, and large ones don't wait.
func TestWaitingGetsAreBounded(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k", "A", 5))
	large := get("A")
	for i := range 200 {
		large.SKUs = append(large.SKUs, fmt.Sprint("x", i))
	}
	large.AtLeast = "eu:99"
	start := time.Now()
	if got := must(t, n, large).Result; !got.Behind || time.Since(start) > 900*time.Millisecond {
		t.Fatalf("behind %v after %v", got.Behind, time.Since(start))
	}
	answered := make(chan *protocol.Call, 500)
	for range 500 {
		c := &protocol.Call{Command: get("A", "B"), Done: func(c *protocol.Call) { answered <- c }}
		c.Command.AtLeast = "eu:2"
		n.Submit([]*protocol.Call{c})
	}
	must(t, n, sell("s", "A", 1))
	for range 500 {
		if c := <-answered; c.Result.Behind {
			t.Fatal("behind although the version came")
		}
	}
}
