package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

func revoke(t *testing.T, c *Cluster, rev Revocation) {
	t.Helper()
	if err := c.Revoke(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// namesRevoked lists what is revoked, short.
func namesRevoked(c *Cluster) (names []string) {
	for _, r := range c.Revocations() {
		names = append(names, r.TokenID+r.Subject)
	}
	slices.Sort(names)
	return names
}

func awaitRevoked(t *testing.T, c *Cluster, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q is revoked", want), func() bool { return slices.Equal(namesRevoked(c), want) })
}

// Joined in any order, or more than once, revocations say the same, and never less than
// one of them.
func TestRevocationsJoin(t *testing.T) {
	moments := rapid.SampledFrom([]time.Time{{}, time.UnixMilli(1000), time.UnixMilli(2000), time.UnixMilli(3000)})
	one := rapid.Custom(func(t *rapid.T) Revocation {
		return Revocation{Subject: "s", Before: moments.Draw(t, "before"), Until: moments.Draw(t, "until")}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := one.Draw(t, "a"), one.Draw(t, "b"), one.Draw(t, "c")
		if a.with(b) != b.with(a) || a.with(b).with(c) != a.with(b.with(c)) || a.with(a) != a {
			t.Fatalf("%v, %v and %v make no one thing", a, b, c)
		}
		both := a.with(b)
		if !both.covers(a) || !both.covers(b) {
			t.Fatalf("%v does not cover %v and %v", both, a, b)
		}
		now := moments.Draw(t, "now")
		if !a.over(now) && both.over(now) {
			t.Fatalf("%v is over before %v", both, a)
		}
	})
}

func TestRevocationsAreChecked(t *testing.T) {
	c := openAlone(t, t.TempDir(), nil)
	for name, rev := range map[string]Revocation{
		"of nothing": {}, "of both": {TokenID: "a", Subject: "b"}, "of a long name": {Subject: strings.Repeat("x", 257)}, "of no text": {TokenID: "\xff"},
		"until the epoch": {Subject: "a", Until: time.Unix(0, 0)}, "for ages": {Subject: "a", Before: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if err := c.Revoke(t.Context(), rev); !errors.Is(err, ErrRevocation) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := c.Revocations(); len(got) != 0 || c.revoked.table.Load() != nil {
		t.Errorf("got %v, and a bucket", got)
	}
	for _, name := range []string{"a b.*>/", "红色", strings.Repeat("é", 128), "\x00\x7f"} {
		revoke(t, c, Revocation{TokenID: name})
	}
	if got := c.Revocations(); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}

func openAlone(t *testing.T, dir string, clock func() time.Time) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), Config{Dir: dir, Region: "eu", Node: "eu-1", KeyWindow: time.Hour, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, c) })
	return c
}

func closeNow(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// lists keeps what OnRevoked tells.
type lists struct {
	mu  sync.Mutex
	all [][]Revocation
}

func (l *lists) take(list []Revocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, list)
}

func (l *lists) lengths() (n []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.all {
		n = append(n, len(list))
	}
	return n
}

func TestRevocationsLast(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir, nil)
	var told lists
	c.OnRevoked(told.take)
	before := time.Now().Add(-time.Hour)
	revoke(t, c, Revocation{Subject: "shop", Before: before})
	revoke(t, c, Revocation{TokenID: "t1", Until: time.Now().Add(time.Hour)})
	revoke(t, c, Revocation{Subject: "shop", Before: before.Add(-time.Hour)}) // is refused already
	if diff := cmp.Diff([]int{0, 1, 2}, told.lengths()); diff != "" {
		t.Error(diff)
	}
	want := c.Revocations()
	if want[0].Subject != "shop" || want[0].Before.Before(before) || want[1].TokenID != "t1" {
		t.Errorf("got %+v", want)
	}
	closeNow(t, c)
	c = openAlone(t, dir, nil)
	if diff := cmp.Diff(want, c.Revocations()); diff != "" {
		t.Error("after a restart:", diff)
	}
	var again lists
	c.OnRevoked(again.take)
	if diff := cmp.Diff([]int{2}, again.lengths()); diff != "" {
		t.Error(diff)
	}
	if err := c.Revoke(canceled(t), Revocation{TokenID: "t2"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a revocation that was given up: %v", err)
	}
}

// A node whose revocations are gone lets nobody in whom it had turned away.
func TestLostRevocationsAreDamage(t *testing.T) {
	dir := t.TempDir()
	c := openAlone(t, dir, nil)
	revoke(t, c, Revocation{TokenID: "t1"})
	closeNow(t, c)
	buckets, err := filepath.Glob(filepath.Join(dir, "nats", "jetstream", "*", "streams", "KV_"+revokedBucket))
	if err != nil || len(buckets) != 1 {
		t.Fatalf("found %q, error %v", buckets, err)
	}
	if err := os.RemoveAll(buckets[0]); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Config{Dir: dir, Region: "eu", Node: "eu-1", KeyWindow: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "bucket revoked is missing") {
		t.Errorf("got %v", err)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// What is over counts no more, is forgotten and leaves the bucket; what was revoked again
// meanwhile stays.
func TestRevocationsEnd(t *testing.T) {
	now := new(atomic.Int64)
	now.Store(time.Now().UnixNano())
	c := openAlone(t, t.TempDir(), func() time.Time { return time.Unix(0, now.Load()) })
	until := time.Unix(0, now.Load()).Add(time.Minute)
	for i := range 5 {
		revoke(t, c, Revocation{TokenID: fmt.Sprint("t", i), Until: until})
	}
	revoke(t, c, Revocation{TokenID: "t0", Until: until.Add(time.Hour)})
	revoke(t, c, Revocation{TokenID: "for good"})
	now.Add(int64(2 * time.Minute))
	if diff := cmp.Diff([]string{"for good", "t0"}, namesRevoked(c)); diff != "" {
		t.Error(diff)
	}
	c.revoked.sweep(t.Context())
	rows := 0
	if err := c.revoked.table.Load().Each(t.Context(), func(bus.Row) error { rows++; return nil }); err != nil {
		t.Fatal(err)
	}
	if rows != 2 || len(c.revoked.rows) != 2 {
		t.Errorf("%d rows in the bucket, %d in memory", rows, len(c.revoked.rows))
	}
	revoke(t, c, Revocation{TokenID: "t1"})
	if got := namesRevoked(c); len(got) != 3 {
		t.Errorf("got %q", got)
	}
}

// A full list takes no more, but goes on with what it has.
func TestRevocationsAreBounded(t *testing.T) {
	c := openAlone(t, t.TempDir(), nil)
	revoke(t, c, Revocation{TokenID: "known"})
	c.revoked.mu.Lock()
	for i := range revokedMax {
		c.revoked.rows[fmt.Sprint(i)] = revokedRow{Revocation: Revocation{TokenID: fmt.Sprint(i)}}
	}
	c.revoked.mu.Unlock()
	if err := c.Revoke(t.Context(), Revocation{TokenID: "new"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one too many: %v", err)
	}
	revoke(t, c, Revocation{TokenID: "known"})
	c.revoked.adopt(t.Context(), []Revocation{{TokenID: "another"}})
	if _, known := c.revoked.lookUp(&Revocation{TokenID: "another"}); known {
		t.Error("another region's was taken")
	}
}

// What one region revokes all refuse, also those that hear of it later, and still after
// the region was removed and the others were started again.
func TestRegionsRevoke(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	revoke(t, aa, Revocation{Subject: "shop"})
	awaitRevoked(t, bb, "shop")
	revoke(t, bb, Revocation{TokenID: "t1"})
	awaitRevoked(t, aa, "shop", "t1")

	// One that was not heard of is told later.
	lost := Revocation{TokenID: "lost"}
	if err := aa.revoked.store(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	awaitRevoked(t, bb, "lost", "shop", "t1")

	// Many.
	var rows []bus.Row
	for i := range 3000 {
		rev := Revocation{Subject: fmt.Sprint("many ", i)}
		rows = append(rows, bus.Row{Key: rev.key(), Value: rev.value()})
	}
	if _, err := bb.revoked.write(t.Context(), bb.revoked.table.Load(), rows); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are told", func() bool { return len(aa.Revocations()) == 3003 && aa.revoked.sums() == bb.revoked.sums() })

	if err := aa.RemoveRegion(t.Context(), "bb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the region is gone", func() bool { return aa.mesh.peer("bb") == nil })
	if got := len(aa.Revocations()); got != 3003 {
		t.Errorf("%d are left", got)
	}
}

// A region that is new to the mesh is told what was revoked before.
func TestNewRegionLearnsRevocations(t *testing.T) {
	t.Parallel()
	wan := freeAddr(t)
	aa := meshRegion(t, "aa", wan, nil)
	revoke(t, aa, Revocation{TokenID: "t1", Until: time.Now().Add(time.Hour)})
	bb := meshRegion(t, "bb", freeAddr(t), nil, wan)
	awaitRevoked(t, bb, "t1")
	if diff := cmp.Diff(aa.Revocations(), bb.Revocations()); diff != "" {
		t.Error(diff)
	}
}

// What another region says is neither believed to be right nor to end.
func TestForeignRevocationsAreChecked(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	send := func(subject string, data []byte) {
		t.Helper()
		if err := aa.bus.Send("bb", subject, data); err != nil {
			t.Fatal(err)
		}
	}
	rows := func(n int, s storedRevocation) []byte {
		return protocol.AppendJSON(nil, &revokedMessage{Rows: slices.Repeat([]storedRevocation{s}, n)})
	}
	send(subjectRevoked, []byte("{"))
	send(subjectRevoked, rows(1, storedRevocation{}))
	send(subjectRevoked, rows(1, storedRevocation{TokenID: "a", Subject: "b"}))
	send(subjectRevoked, rows(1, storedRevocation{TokenID: strings.Repeat("x", 1000)}))
	send(subjectRevoked, rows(1, storedRevocation{TokenID: "negative", Until: -1}))
	send(subjectRevoked, rows(1, storedRevocation{TokenID: "over", Until: 1}))
	send(subjectRevoked, rows(revokedRowsMax+1, storedRevocation{TokenID: "too many"}))
	send(subjectRevokedSums, []byte("{"))
	send(subjectRevokedSums, []byte(`{"sums":[1,2,3]}`))
	revoke(t, aa, Revocation{TokenID: "good"})
	awaitRevoked(t, bb, "good")
}

// A removed region is not met again by a node that starts and hears of it.
func TestRemovedRegionStaysAway(t *testing.T) {
	t.Parallel()
	wan, dir := freeAddr(t), t.TempDir()
	aa := meshRegion(t, "aa", wan, nil)
	at := func(c *Config) { c.Dir = dir }
	bb := meshRegion(t, "bb", freeAddr(t), at, wan)
	mustSubmit(t, aa, counted("c", "A", 5))
	awaitAvailable(t, bb, "A", 5)
	if err := bb.RemoveRegion(t.Context(), "aa"); err != nil {
		t.Fatal(err)
	}
	closeNow(t, bb)
	bb = meshRegion(t, "bb", freeAddr(t), at, wan)
	eventually(t, "the region is heard of", func() bool {
		bb.mesh.mu.Lock()
		defer bb.mesh.mu.Unlock()
		if bb.mesh.peers["aa"] != nil {
			t.Fatal("the removed region was met")
		}
		return bb.mesh.removed["aa"]
	})
	if items := shownItems(bb); len(items) != 0 {
		t.Errorf("its stock is shown: %+v", items)
	}
}

// A node whose copy of the bucket stands still reads the bucket itself.
func TestRevocationsAreLookedAt(t *testing.T) {
	c := openAlone(t, t.TempDir(), nil)
	blind := newRevoked(c)
	blind.look(t.Context())
	revoke(t, c, Revocation{TokenID: "t1"})
	blind.look(t.Context()) // finds the bucket's end
	if got := blind.list(); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
	blind.look(t.Context()) // and that it has not come so far since
	if got := blind.list(); len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	if blind.seen != blind.end {
		t.Errorf("read to %d of %d", blind.seen, blind.end)
	}
}

// The scope of a command counts in the region that decides it, too, and the history of
// that region says where it came from.
func TestScopeBetweenRegions(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "A", 5))
	lines := []protocol.Line{{SKU: "A", Location: "main", Quantity: 2}}
	id := mustSubmit(t, bb, protocol.Command{Op: protocol.OpReserve, Key: "r", User: "u", Lines: lines}).Result.Reservation.ID
	unknown := id[:len(id)-1] + "Z"
	ask := func(op protocol.Op, key, id string, within protocol.Scope) *protocol.Call {
		t.Helper()
		call := protocol.Call{Command: protocol.Command{Op: op, Reservation: id, Within: within}, Subject: "till", Address: "192.0.2.9"}
		if op != protocol.OpReservation {
			call.Command.Key = key
		}
		if op == protocol.OpExtend {
			call.Command.TTLMS = new(int64(5000))
		}
		if err := call.Command.Check(); err != nil {
			t.Fatal(err)
		}
		answer := make(chan *protocol.Call, 1)
		call.Done = func(c *protocol.Call) { answer <- c }
		aa.Submit([]*protocol.Call{&call})
		return await(t, answer)
	}
	for _, op := range []protocol.Op{protocol.OpReservation, protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend} {
		for _, within := range []protocol.Scope{{}, {{SKUs: []string{"B"}}}, {{Users: []string{}}}} {
			got, want := ask(op, "k", id, within), ask(op, "k", unknown, within)
			if got.Err == nil || want.Err == nil || got.Err.Code != protocol.CodeNotFound ||
				got.Err.Message != strings.ReplaceAll(want.Err.Message, unknown, id) {
				t.Errorf("%s within %v: got %v, where there is none %v", op, within, got.Err, want.Err)
			}
		}
	}
	if got := ask(protocol.OpConfirm, "k", id, protocol.Scope{{SKUs: []string{"A"}, Users: []string{"u"}}}); got.Err != nil {
		t.Fatal(got.Err)
	}
	if got := ask(protocol.OpConfirm, "k", id, protocol.Scope{}); got.Err == nil || got.Err.Code != protocol.CodeNotFound {
		t.Errorf("a replay outside the scope: %v", got.Err)
	}
	m := mustSubmit(t, aa, protocol.Command{Op: protocol.OpHistory, SKU: "A", Region: "bb"}).Result.Movements[0]
	if m.Type != "confirm" || m.Address != "192.0.2.9" || m.Subject != "till" {
		t.Errorf("got %+v", m)
	}
}
