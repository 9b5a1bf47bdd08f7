package gossip

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func encoded(t testing.TB, m Meta) []byte {
	t.Helper()
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTable(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	tb := table{keep: 10 * time.Second, records: make(map[string]*record)}
	meta := Meta{Region: "eu", Owns: []int{1, 2}}
	tb.put("b", "b:1", encoded(t, meta), at(1))
	tb.put("a", "a:1", encoded(t, meta), at(2))
	want := func(now int, members ...Member) {
		t.Helper()
		if diff := cmp.Diff(append([]Member{}, members...), tb.list(at(now))); diff != "" {
			t.Fatal(diff)
		}
	}
	a := Member{Name: "a", Addr: "a:1", Meta: meta, Alive: true, Since: at(2)}
	b := Member{Name: "b", Addr: "b:1", Meta: meta, Alive: true, Since: at(1)}
	want(2, a, b)

	tb.list(at(2))[0].Owns[0] = 99 // the caller's copy
	want(2, a, b)

	a.State = "serving" // an update is no new life
	tb.put("a", "a:1", encoded(t, a.Meta), at(3))
	want(3, a, b)

	if tb.gone("b", at(4)) {
		t.Fatal("b left without saying so")
	}
	b.Alive, b.Since = false, at(4)
	want(14, a, b)
	want(15, a)
	if n := tb.prune(at(14)); n != 0 {
		t.Fatalf("pruned %d too early", n)
	}

	b = Member{Name: "b", Addr: "b:2", Meta: meta, Alive: true, Since: at(5)}
	tb.put("b", "b:2", encoded(t, meta), at(5))
	want(5, a, b)

	tb.put("b", "b:2", asLeaving(encoded(t, meta)), at(6))
	if !tb.gone("b", at(7)) {
		t.Fatal("b did not leave")
	}
	want(7, a)

	tb.gone("a", at(8))
	if n := tb.prune(at(19)); n != 1 || len(tb.records) != 0 {
		t.Fatalf("pruned %d, %d left", n, len(tb.records))
	}
	tb.gone("nobody", at(20))
}

func TestGarbledMetaIsEmpty(t *testing.T) {
	tb := table{keep: time.Second, records: make(map[string]*record)}
	r := tb.put("a", "a:1", []byte{77}, time.Unix(1, 0))
	if r.garbled == nil || !cmp.Equal(r.Meta, Meta{}) || !r.Alive {
		t.Fatalf("%+v", r)
	}
}
