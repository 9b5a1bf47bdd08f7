package quota

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func someRecords(n int) (records []record) {
	for i := range n {
		records = append(records, record{keyOf(fmt.Sprint(i)), figures{uint32(i), uint32(i / 2), float64(i) / 16, int64(i), int64(2 * i)}})
	}
	return records
}

func messagesOf(records []record) [][]byte {
	w := &writer{header: header{incarnation: 7, node: "eu-1"}}
	for i := range records {
		w.add(&records[i], i)
	}
	w.end()
	return w.messages
}

func TestMessages(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 5000} {
		records, sequence := someRecords(n), uint64(0)
		var got []record
		for _, m := range messagesOf(records) {
			if len(m) > messageBytesMax {
				t.Errorf("a message of %d bytes", len(m))
			}
			h, some, err := decode(m)
			if err != nil {
				t.Fatal(err)
			}
			sequence++
			if want := (header{0, 7, sequence, "eu-1"}); h != want {
				t.Errorf("got %+v, want %+v", h, want)
			}
			got = append(got, some...)
		}
		if len(got) != n || n > 0 && !cmp.Equal(records, got, cmp.AllowUnexported(record{}, figures{})) {
			t.Errorf("%d records came back as %d, or other ones", n, len(got))
		}
	}
}

// What doesn't fit into one beat is the first in the next.
func TestMessagesAreBounded(t *testing.T) {
	now := int64(0)
	a, b := newTestTable("a", &now, Limits{Connections: 1}), newTestTable("b", &now, Limits{Connections: 1})
	const subjects = 60_000
	for i := range subjects {
		a.account(fmt.Sprint(i)).Connect()
	}
	for beat := range 2 {
		now += beatNS
		messages, _ := a.beat()
		if len(messages) > messagesMax {
			t.Fatalf("%d messages", len(messages))
		}
		for _, m := range messages {
			b.heard(m)
		}
		if n := b.subjects(); beat == 0 && (n < 30_000 || n >= subjects) || beat == 1 && n != subjects {
			t.Errorf("%d subjects known after beat %d", n, beat)
		}
	}
}

func newTestTable(node string, now *int64, limits Limits) *table {
	return newTable(node, 1, limits, func() int64 { return *now }, newRefusals(prometheus.NewRegistry()))
}

func TestDamagedMessages(t *testing.T) {
	good := messagesOf(someRecords(3))[0]
	for i := range good {
		if _, records, err := decode(good[:i]); err == nil && len(records) == 3 {
			t.Errorf("%d bytes of %d are taken for a whole", i, len(good))
		}
	}
	for name, m := range map[string][]byte{
		"nothing": nil, "a kind to come": {1, 2, 0, 0, 1, 'a'}, "no name": {1, 0, 0, 0, 0},
		"a long name": append([]byte{1, 0, 0, 0, 65}, make([]byte, 65)...),
		"too long":    make([]byte, messageBytesMax+1), "half a record": append(good, 1, 2, 3),
		"a number of 11 bytes": append([]byte{1, 0}, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"...),
	} {
		if _, _, err := decode(m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := decode([]byte{2, 0}); err != errVersion {
		t.Errorf("another version: %v", err)
	}
}

func hostileMessage(node string, sequence uint64, subject string, v uint64) []byte {
	h := header{incarnation: 1, sequence: sequence, node: node}
	k := keyOf(subject)
	b := append(h.append(nil), k[:]...)
	for range 5 {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// A node that says anything can keep subjects out while it is believed, but breaks
// nothing, and what it said is forgotten.
func TestHostileCounts(t *testing.T) {
	now := int64(0)
	limits := Limits{Commands: 100, Burst: 100, Connections: 10, Subscriptions: 10}
	table := newTestTable("a", &now, limits)
	a := table.account("ada")
	for i := range uint64(40) {
		now += beatNS / 4
		table.heard(hostileMessage(fmt.Sprint("x", i%20), i+1, "ada", []uint64{math.MaxUint64, 0, math.MaxUint32}[i%3]))
		table.beat()
		if n := a.connections.others.Load(); n < 0 || n > peersMax*countMax || len(table.peers) > peersMax {
			t.Fatalf("%d connections of %d nodes", n, len(table.peers))
		}
		if ok, wait := a.Spend(1); ok == 0 && (wait <= 0 || wait > 1000) {
			t.Fatalf("to wait %d ms", wait)
		}
	}
	for range 80 {
		now += beatNS
		table.beat()
	}
	if ok, _ := a.Spend(100); ok != 100 || !a.Connect() || !a.Subscribe(10) {
		t.Error("still kept out")
	}
}

// Old messages, and those of an earlier process, are passed over.
func TestOrderOfMessages(t *testing.T) {
	now := int64(0)
	table := newTestTable("a", &now, Limits{Connections: 10})
	a := table.account("ada")
	say := func(incarnation, sequence uint64, connections int64) int64 {
		h := header{incarnation: incarnation, sequence: sequence, node: "b"}
		table.heard((&record{keyOf("ada"), figures{connections: connections}}).append(h.append(nil)))
		return a.connections.others.Load()
	}
	for i, c := range []struct {
		incarnation, sequence uint64
		connections, want     int64
	}{{5, 1, 3, 3}, {5, 3, 4, 4}, {5, 2, 9, 4}, {5, 3, 9, 4}, {4, 9, 9, 4}, {6, 1, 1, 1}, {5, 9, 9, 1}} {
		if got := say(c.incarnation, c.sequence, c.connections); got != c.want {
			t.Errorf("message %d: %d connections, want %d", i, got, c.want)
		}
	}
	h := header{incarnation: 9, sequence: 1, node: "a"}
	table.heard((&record{keyOf("ada"), figures{connections: 9}}).append(h.append(nil)))
	if got := a.connections.others.Load(); got != 1 {
		t.Errorf("its own message counts: %d", got)
	}
}

// The memory of other nodes' subjects is bounded, and what isn't told again goes.
func TestElsewhereIsBounded(t *testing.T) {
	now := int64(0)
	table := newTestTable("a", &now, Limits{Connections: 1})
	table.elsewhere.max = 1000
	for i := range 3000 {
		table.heard(hostileMessage("b", uint64(i+1), fmt.Sprint(i), 1))
	}
	if n := table.subjects(); n != 1000 {
		t.Fatalf("%d subjects", n)
	}
	if table.account("999").Connect() || !table.account("1001").Connect() {
		t.Error("not the first ones were kept")
	}
	for range 80 {
		now += beatNS
		table.beat()
	}
	if n := table.subjects(); n != 2 {
		t.Errorf("%d subjects", n)
	}
}

// Accounts that nobody holds go when nothing is lost with them.
func TestAccountsGo(t *testing.T) {
	now := int64(0)
	table := newTestTable("a", &now, Limits{Commands: 10, Burst: 10, Connections: 1})
	a := table.account("ada")
	if same := table.account("ada"); same != a {
		t.Fatal("two accounts")
	}
	a.Connect()
	a.Spend(10)
	a.Release()
	beats := func(n int) {
		for range n {
			now += beatNS
			table.beat()
		}
	}
	beats(100)
	if a.Disconnect(); table.account("ada") != a {
		t.Error("gone while it was held")
	}
	a.Release()
	a.Spend(10)
	a.Release()
	if table.account("ada") != a {
		t.Error("gone with commands that count")
	}
	a.Release()
	a.Release() // once too often
	if beats(100); table.subjects() != 0 || len(table.keys) != 0 || len(table.list) != 0 {
		t.Errorf("%d subjects are left", table.subjects())
	}
	for i := range subjectsMax + 10 {
		table.account(fmt.Sprint(i)).Release()
	}
	if n := table.subjects(); n > subjectsMax {
		t.Errorf("%d subjects that nobody holds", n)
	}
}

func FuzzHeard(f *testing.F) {
	for _, m := range messagesOf(someRecords(3)) {
		f.Add(m, m)
	}
	f.Add(hostileMessage("b", 1, "ada", math.MaxUint64), hostileMessage("b", 2, "ada", 0))
	f.Add(hostileMessage("b", 2, "ada", 1), []byte{1, 1, 1, 9, 1, 'b'})
	f.Add([]byte{}, []byte{2, 0, 0})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		now := int64(0)
		table := newTestTable("a", &now, Limits{Commands: 10, Burst: 10, Connections: 5, Subscriptions: 5})
		a := table.account("ada")
		for _, m := range [][]byte{one, two, one} {
			table.heard(m)
			now += beatNS
			table.beat()
			if ok, wait := a.Spend(20); ok < 0 || ok > 10 || wait <= 0 || wait > 1000 {
				t.Fatalf("%d go through, the others in %d ms", ok, wait)
			}
			if a.connections.others.Load() < 0 || a.subscriptions.others.Load() < 0 || len(table.peers) > 2 {
				t.Fatal("counts that can't be")
			}
		}
		for range 400 {
			now += beatNS
			table.beat()
		}
		if ok, _ := a.Spend(10); ok != 10 || !a.Connect() || table.subjects() != 1 {
			t.Fatal("what was heard is not forgotten")
		}
	})
}
