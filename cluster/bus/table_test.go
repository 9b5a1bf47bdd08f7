package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func newTable(t testing.TB, b *Bus) *Table {
	t.Helper()
	return must[*Table](t)(b.Table(t.Context(), "stock", true))
}

func rowsOf(t testing.TB, table *Table) (rows []Row) {
	t.Helper()
	err := table.Each(t.Context(), func(r Row) error {
		r.Value = slices.Clone(r.Value)
		rows = append(rows, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func rowsNamed(n int, value string) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{Key: EscapeKey("row", fmt.Sprint(i)), Value: []byte(value)}
	}
	return rows
}

func TestPutAndGet(t *testing.T) {
	table := newTable(t, openBus(t))
	if rows := rowsOf(t, table); rows != nil {
		t.Fatalf("rows %v", rows)
	}
	_, rev, err := table.Get(t.Context(), "a")
	wantErr(t, err, ErrMissing)
	if rev != 0 {
		t.Fatalf("revision %d", rev)
	}
	got := must[[]Result](t)(table.Put(t.Context(), []Row{{Key: "a", Value: []byte("1")}}))
	got = append(got, must[[]Result](t)(table.Put(t.Context(), []Row{{Key: "a", Value: []byte("2"), Revision: 1}}))...)
	if diff := cmp.Diff([]Result{{Revision: 1}, {Revision: 2}}, got); diff != "" {
		t.Fatal(diff)
	}
	value, rev, err := table.Get(t.Context(), "a")
	if string(value) != "2" || rev != 2 || err != nil {
		t.Fatal(string(value), rev, err)
	}
	if diff := cmp.Diff([]Row{{Key: "a", Value: []byte("2"), Revision: 2}}, rowsOf(t, table)); diff != "" {
		t.Fatal(diff)
	}
	if results, err := table.Put(t.Context(), nil); len(results) != 0 || err != nil {
		t.Fatal(results, err)
	}
}

func TestPutManyRows(t *testing.T) {
	table := newTable(t, openBus(t))
	rows := rowsNamed(2*batchRows+1, "1")
	results := must[[]Result](t)(table.Put(t.Context(), rows))
	for i, r := range results {
		rows[i].Revision = r.Revision
	}
	if diff := cmp.Diff(rows, rowsOf(t, table)); diff != "" {
		t.Fatal(diff)
	}
	results = must[[]Result](t)(table.Put(t.Context(), rows))
	if results[0].Revision != uint64(len(rows)+1) {
		t.Fatal(results[0])
	}
}

func TestPutLargeRows(t *testing.T) {
	table := newTable(t, openBus(t))
	rows := rowsNamed(4, strings.Repeat("x", batchBytes/2))
	must[[]Result](t)(table.Put(t.Context(), rows))
	if diff := cmp.Diff([]int{0, 1, 2, 3}, []int{0, batchEnd(rows, 0), batchEnd(rows, 1), batchEnd(rows, 2)}); diff != "" {
		t.Fatal(diff)
	}
	if got := len(rowsOf(t, table)); got != 4 {
		t.Fatalf("%d rows", got)
	}
}

func TestPutConflictsStandAlone(t *testing.T) {
	table := newTable(t, openBus(t))
	rows := rowsNamed(100, "1")
	must[[]Result](t)(table.Put(t.Context(), []Row{rows[0], rows[57], rows[99]}))

	results, err := table.Put(t.Context(), rows)
	wantErr(t, err, ErrConflict)
	var conflicts []int
	for i, r := range results {
		if r.Err != nil {
			wantErr(t, r.Err, ErrConflict)
			conflicts = append(conflicts, i)
		}
	}
	if diff := cmp.Diff([]int{0, 57, 99}, conflicts); diff != "" {
		t.Fatal(diff)
	}
	stored := rowsOf(t, table)
	if len(stored) != 100 {
		t.Fatalf("%d rows", len(stored))
	}
	for _, r := range stored {
		i := slices.IndexFunc(rows, func(q Row) bool { return q.Key == r.Key })
		if results[i].Err == nil && results[i].Revision != r.Revision {
			t.Fatalf("%s: revision %d, told %d", r.Key, r.Revision, results[i].Revision)
		}
	}
}

func TestPutSameKeyTwice(t *testing.T) {
	table := newTable(t, openBus(t))
	results, err := table.Put(t.Context(), []Row{{Key: "a"}, {Key: "b"}, {Key: "a"}})
	wantErr(t, err, ErrConflict)
	if results[0].Err != nil || results[1].Err != nil {
		t.Fatal(results)
	}
	wantErr(t, results[2].Err, ErrConflict)
}

func TestPutRefusesBadRows(t *testing.T) {
	table := newTable(t, openBus(t))
	rows := rowsNamed(5, "1")
	rows[1].Key = "not a key"
	rows[3].Value = make([]byte, MessageBytesMax)
	results, err := table.Put(t.Context(), rows)
	wantErr(t, err, ErrName)
	wantErr(t, results[1].Err, ErrName)
	wantErr(t, results[3].Err, ErrTooBig)
	if n := len(rowsOf(t, table)); n != 3 {
		t.Fatalf("%d rows", n)
	}
	_, _, err = table.Get(t.Context(), `"`)
	wantErr(t, err, ErrName)
}

func TestPutWithoutAnAnswerIsUnknown(t *testing.T) {
	b := openBus(t, func(c *Config) { c.AnswerWait = 100 * time.Millisecond })
	mute := tableConfig("stock")
	mute.AllowAtomicPublish, mute.NoAck = false, true
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), mute))
	for _, n := range []int{1, 3} {
		results, err := newTable(t, b).Put(t.Context(), rowsNamed(n, "1"))
		wantErr(t, err, ErrUnknown)
		for _, r := range results {
			wantErr(t, r.Err, ErrUnknown)
		}
	}
}

func TestPutWorksOnABucketWithoutBatches(t *testing.T) {
	b := openBus(t)
	must[jetstream.KeyValue](t)(b.bulk.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "stock"}))
	table := newTable(t, b)
	must[[]Result](t)(table.Put(t.Context(), rowsNamed(5, "1")))
	if n := len(rowsOf(t, table)); n != 5 {
		t.Fatalf("%d rows", n)
	}
}

func TestPutHonoursContext(t *testing.T) {
	b := openBus(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, n := range []int{1, 3} {
		_, err := newTable(t, b).Put(ctx, rowsNamed(n, "1"))
		wantErr(t, err, context.Canceled)
		if errors.Is(err, ErrUnknown) {
			t.Fatal("nothing was sent")
		}
	}
}

func TestPutToAFullEngine(t *testing.T) {
	b := openBus(t, func(c *Config) { c.StoreBytesMax = 64 << 10 })
	table := newTable(t, b)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = table.Put(t.Context(), []Row{
			{Key: fmt.Sprint("a", i), Value: make([]byte, 4<<10)}, {Key: fmt.Sprint("b", i), Value: make([]byte, 4<<10)},
		})
	}
	wantErr(t, err, ErrFull)
}

// Other programs read the bucket with a plain client.
func TestRowsArePlainKeyValueRows(t *testing.T) {
	b := openBus(t)
	table := newTable(t, b)
	must[[]Result](t)(table.Put(t.Context(), rowsNamed(3, "1")))

	nc := must[*nats.Conn](t)(nats.Connect("", nats.InProcessServer(b.srv)))
	defer nc.Close()
	js := must[jetstream.JetStream](t)(jetstream.New(nc))
	kv := must[jetstream.KeyValue](t)(js.KeyValue(t.Context(), "stock"))
	entry := must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), "row.1"))
	if string(entry.Value()) != "1" || entry.Revision() != 2 {
		t.Fatal(string(entry.Value()), entry.Revision())
	}
	keys := must[[]string](t)(kv.Keys(t.Context()))
	if diff := cmp.Diff([]string{"row.0", "row.1", "row.2"}, keys); diff != "" {
		t.Fatal(diff)
	}

	// And what they delete is gone, with a revision to put over.
	if err := kv.Delete(t.Context(), "row.1"); err != nil {
		t.Fatal(err)
	}
	_, rev, err := table.Get(t.Context(), "row.1")
	wantErr(t, err, ErrMissing)
	if rev != 4 {
		t.Fatalf("revision %d", rev)
	}
	if n := len(rowsOf(t, table)); n != 2 {
		t.Fatalf("%d rows", n)
	}
	must[[]Result](t)(table.Put(t.Context(), []Row{{Key: "row.1", Value: []byte("2"), Revision: rev}}))
}

func TestExistingBucketKeepsItsConfiguration(t *testing.T) {
	b := openBus(t)
	c := tableConfig("stock")
	c.Description = "mine"
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), c))
	newTable(t, b)
	s := must[jetstream.Stream](t)(b.bulk.js.Stream(t.Context(), "KV_stock"))
	if got := s.CachedInfo().Config; got.Description != "mine" || !got.AllowAtomicPublish {
		t.Fatalf("%+v", got)
	}

	must[jetstream.KeyValue](t)(b.bulk.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "deep", History: 5}))
	if _, err := b.Table(t.Context(), "deep", true); err == nil {
		t.Fatal("a bucket with a history was taken")
	}
}

// A scan must not stop at a count: rows which are replaced move behind its end.
func TestEachSeesEveryRowWhileTheyAreWritten(t *testing.T) {
	table := newTable(t, openBus(t))
	const n = 600
	rows := rowsNamed(n, "1")
	put := func() {
		results, err := table.Put(t.Context(), rows)
		if err != nil {
			t.Error(err)
		}
		for i, r := range results {
			rows[i].Revision = r.Revision
		}
	}
	put()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				put()
			}
		}
	})
	for range 20 {
		seen := map[string]bool{}
		if err := table.Each(t.Context(), func(r Row) error { seen[r.Key] = true; return nil }); err != nil {
			t.Error(err)
		}
		if len(seen) != n {
			t.Errorf("saw %d rows of %d", len(seen), n)
		}
	}
	close(stop)
	wg.Wait()
}
