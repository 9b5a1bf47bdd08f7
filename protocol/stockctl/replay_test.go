package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stockmesh/stockmesh/protocol"
)

const sampleFile = "testdata/online-retail-2011-11-21.csv.gz"

func TestPlanOfTheSample(t *testing.T) {
	f, err := os.Open(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := readPlan(f, 0.8)
	if err != nil {
		t.Fatal(err)
	}
	fates := map[fate]int{}
	returns := 0
	for i, v := range p.invoices {
		if i > 0 && v.at.Before(p.invoices[i-1].at) {
			t.Errorf("invoice %s is out of order", v.id)
		}
		returns += len(v.returns)
		if len(v.sales) > 0 {
			fates[v.fate]++
		}
	}
	if len(p.invoices) != 2210 || len(p.skus) != 2816 || returns == 0 {
		t.Errorf("%d invoices, %d SKUs, %d returned lines", len(p.invoices), len(p.skus), returns)
	}
	if d := cmp.Diff(map[fate]int{toSell: 1748, toRelease: 75, toExpire: 37}, fates); d != "" {
		t.Error(d)
	}
	if p.opening["POST"] == 0 || p.skus[len(p.skus)-1] != "gift_0001_10" {
		t.Errorf("opening of POST %d, last SKU %s", p.opening["POST"], p.skus[len(p.skus)-1])
	}
}

func TestPlanSumsLinesAndRounds(t *testing.T) {
	p, err := readPlan(strings.NewReader(`invoice,invoiced_at,sku,quantity,customer
2,2011-11-21 09:00:00,A,1,x
1,2011-11-21 08:00:00,A,3,
1,2011-11-21 08:00:00,BANK CHARGES,2,
1,2011-11-21 08:00:00,A,4,
C3,2011-11-21 10:00:00,A,-2,
C3,2011-11-21 10:00:00,D,-1,
`), 0.8)
	if err != nil {
		t.Fatal(err)
	}
	main := func(sku string, n int64) protocol.Line {
		return protocol.Line{SKU: sku, Location: "main", Quantity: n}
	}
	at := func(hour int) time.Time { return time.Date(2011, 11, 21, hour, 0, 0, 0, time.UTC) }
	want := []invoice{
		{id: "1", at: at(8), sales: []protocol.Line{main("A", 7), main("BANK CHARGES", 2)}},
		{id: "2", at: at(9), sales: []protocol.Line{main("A", 1)}},
		{id: "C3", at: at(10), returns: []protocol.Line{main("A", 2), main("D", 1)}},
	}
	if d := cmp.Diff(want, p.invoices, cmp.AllowUnexported(invoice{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int64{"A": 6, "BANK CHARGES": 2, "D": 0}, p.opening); d != "" {
		t.Error(d)
	}
}

func TestPlanErrorsNameTheLine(t *testing.T) {
	head := "invoiced_at,invoice,sku,quantity\n2011-11-21 08:00:00,1,A,1\n"
	for in, want := range map[string]string{
		"":                                      "no header",
		"a,b\n":                                 "no column invoiced_at",
		head + "2011-11-21 08:00:00,1,A,0\n":    "line 3: quantity",
		head + "2011-11-21 08:00:00,1,A,many\n": "line 3: quantity",
		head + "yesterday,1,A,1\n":              "line 3",
		head + "2011-11-21 08:00:00,1,,1\n":     "line 3: bad_request: sku",
	} {
		if _, err := readPlan(strings.NewReader(in), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q in it", in, err, want)
		}
	}
}

func TestFates(t *testing.T) {
	for n, want := range map[int]fate{1: toSell, 19: toSell, 20: toRelease, 40: toRelease, 50: toExpire, 100: toExpire, 101: toSell} {
		if got := fateOf(n); got != want {
			t.Errorf("invoice %d: %d, want %d", n, got, want)
		}
	}
}

// honest is a node's side of a book: the item and history that its answers led to.
type honest struct {
	item    protocol.Item
	history []protocol.Movement
}

func (h *honest) move(kind, key, reservation string, onHand, reserved int64) {
	h.item.OnHand += onHand
	h.item.Reserved += reserved
	h.item.Available = max(0, h.item.OnHand-h.item.Reserved)
	m := protocol.Movement{Type: kind, Key: key, Reservation: reservation, OnHandDelta: onHand, ReservedDelta: reserved,
		OnHand: h.item.OnHand, Reserved: h.item.Reserved}
	h.history = append([]protocol.Movement{m}, h.history...)
}

// exampleBook has one SKU with every kind of end, and the node that goes with it.
func exampleBook() (*book, *honest) {
	b, h := newBook("replay:x:"), &honest{}
	line := func(n int64) []protocol.Line { return []protocol.Line{{SKU: "A", Location: "main", Quantity: n}} }
	h.move("adjust", "another run", "", 99, 0)
	b.opened("A", 10)
	h.move("count", "replay:x:open:0", "", -89, 0)
	for i, end := range []string{"confirm", "release", "expire"} {
		r := hold{id: fmt.Sprint("eu.", i), key: fmt.Sprint("replay:x:", i, ":reserve:0"), invoice: fmt.Sprint(i), lines: line(2)}
		key := fmt.Sprint("replay:x:", i, ":", end, ":0")
		b.held(r)
		h.move("reserve", r.key, r.id, 0, 2)
		switch end {
		case "confirm":
			b.confirmed(r, key)
			h.move(end, key, r.id, -2, -2)
		case "release":
			b.released(r, key)
			h.move(end, key, r.id, 0, -2)
		case "expire":
			b.expired(r)
			h.move(end, "", r.id, 0, -2)
		}
	}
	b.returned(line(1)[0], "replay:x:C1:return:0")
	h.move("adjust", "replay:x:C1:return:0", "", 1, 0)
	return b, h
}

func TestBookAgreesWithAnHonestNode(t *testing.T) {
	b, h := exampleBook()
	if diffs := b.check("A", h.item, h.history); len(diffs) > 0 {
		t.Errorf("%q", diffs)
	}
}

func TestBookFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*honest)
		want   string
	}{
		"a unit too few":           {func(h *honest) { h.item.OnHand-- }, "on_hand is 8, want opening 10 + returned 1 - sold 2 = 9"},
		"something stays reserved": {func(h *honest) { h.item.Reserved = 2 }, "reserved is 2, want 0"},
		"negative":                 {func(h *honest) { h.item.OnHand = -1 }, "negative: on_hand -1"},
		"a lost sale": {func(h *honest) {
			h.history = without(h.history, "confirm")
		}, "the history lacks confirm replay:x:0:confirm:0"},
		"a lost expiry": {func(h *honest) { h.history = without(h.history, "expire") }, "the history lacks expire eu.2"},
		"applied twice": {func(h *honest) {
			h.move("confirm", "replay:x:0:confirm:0", "eu.0", -2, -2)
		}, "holds confirm replay:x:0:confirm:0 2 times"},
		"a refused invoice left a trace": {func(h *honest) {
			h.move("reserve", "replay:x:9:reserve:0", "eu.9", 0, 1)
		}, "holds reserve replay:x:9:reserve:0 (), which was never acknowledged"},
		"expired and confirmed": {func(h *honest) { h.move("expire", "", "eu.0", 0, -2) }, "holds expire eu.0"},
		"another quantity":      {func(h *honest) { h.history[0].OnHandDelta = 3 }, "changed +3/+0, want +1/+0"},
	} {
		b, h := exampleBook()
		c.break_(h)
		if diffs := strings.Join(b.check("A", h.item, h.history), "\n"); !strings.Contains(diffs, c.want) {
			t.Errorf("%s: found %q, want %q in it", name, diffs, c.want)
		}
	}
}

func without(movements []protocol.Movement, kind string) (kept []protocol.Movement) {
	for _, m := range movements {
		if m.Type != kind {
			kept = append(kept, m)
		}
	}
	return kept
}

// TestBookNoticesAnyLostOrRepeatedMovement breaks the history at random.
func TestBookNoticesAnyLostOrRepeatedMovement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, h := exampleBook()
		ours := b.ours(h.history)
		i := rapid.IntRange(0, len(ours)-1).Draw(t, "movement")
		broken := append([]protocol.Movement{}, ours...)
		if rapid.Bool().Draw(t, "repeat") {
			broken = append(broken, ours[i])
		} else {
			broken = append(broken[:i], broken[i+1:]...)
		}
		if len(b.check("A", h.item, broken)) == 0 {
			t.Fatalf("nothing found in %v", broken)
		}
	})
}

func TestCompareWatcher(t *testing.T) {
	a := protocol.ItemKey{SKU: "A", Location: "main"}
	b := protocol.ItemKey{SKU: "B", Location: "main"}
	it := func(n int64, v string) protocol.Item { return protocol.Item{SKU: "A", OnHand: n, Version: v} }
	node := map[protocol.ItemKey]protocol.Item{a: it(1, "eu:1")}
	for name, c := range map[string]struct {
		seen map[protocol.ItemKey]protocol.Item
		want int
	}{
		"equal":   {map[protocol.ItemKey]protocol.Item{a: it(1, "eu:1")}, 0},
		"missing": {nil, 1},
		"old":     {map[protocol.ItemKey]protocol.Item{a: it(2, "eu:0")}, 1},
		"more":    {map[protocol.ItemKey]protocol.Item{a: it(1, "eu:1"), b: it(1, "eu:1")}, 1},
	} {
		if diffs := compareWatcher("w", node, c.seen); len(diffs) != c.want {
			t.Errorf("%s: %q", name, diffs)
		}
	}
}

func TestLatency(t *testing.T) {
	v := func(n uint64) protocol.Vector { return protocol.Vector{{Region: "eu", N: n}} }
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	m := newLatency()
	m.acknowledged("A", v(2), at(0)) // acknowledged first
	m.saw("A", v(1), at(5))
	m.saw("A", v(3), at(10))         // stands for 2 as well: 10 ms
	m.acknowledged("A", v(3), at(7)) // seen first: 3 ms
	m.acknowledged("B", v(1), at(0)) // never seen
	sum := summarize([]*latency{m})
	if sum.Samples != 2 || sum.P50 < 2.9 || sum.P50 > 3.1 || sum.P99 < 9.9 || sum.P99 > 10.1 {
		t.Errorf("%+v", sum)
	}
	for i := range uint64(20) {
		m.saw("C", v(i+10), at(int(i)))
	}
	m.acknowledged("C", v(10), at(0)) // when it was first seen is forgotten
	if got := summarize([]*latency{m}); got.Samples != 2 {
		t.Errorf("%+v", got)
	}
}

// sample writes a small recording that has every kind of invoice.
func sample(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("invoiced_at,invoice,sku,quantity\n")
	for i := range 210 {
		at := time.Date(2011, 11, 21, 8, i, 0, 0, time.UTC).Format(time.DateTime)
		fmt.Fprintf(&b, "%s,%d,SKU %d,%d\n%s,%d,hot,1\n", at, i, i%7, i%3+1, at, i)
		if i%10 == 9 {
			fmt.Fprintf(&b, "%s,C%d,hot,-2\n", at, i)
		}
	}
	for i := range 230 { // one invoice of three parts
		fmt.Fprintf(&b, "2011-11-21 10:00:00,big,wide %d,5\n", i)
	}
	path := filepath.Join(t.TempDir(), "sales.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func replaySample(t *testing.T, n *fakeNode, args ...string) (replaySummary, error) {
	t.Helper()
	out, err := ctl(t, n, append([]string{"replay", sample(t), "--json", "--clients", "8", "--watchers", "2", "--short-ttl", "1s"}, args...)...)
	var sum replaySummary
	if out != "" {
		if bad := protocol.UnmarshalJSON([]byte(out), &sum); bad != nil {
			t.Fatalf("%s: %v", out, bad)
		}
	}
	return sum, err
}

func TestReplayAddsUp(t *testing.T) {
	n := newFakeNode(t)
	mustCtl(t, n, "count", "hot", "7") // data of another time
	sum, err := replaySample(t, n)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Invoices != 232 || sum.Sold == 0 || sum.Refused == 0 || sum.Released == 0 || sum.Expired == 0 || sum.Returns != 21 || sum.Samples == 0 {
		t.Errorf("%+v", sum)
	}
	if sum.Sold+sum.Refused+sum.Released+sum.Expired != 211 {
		t.Errorf("invoices are lost: %+v", sum)
	}
}

func TestReplayCarriesOnOverLostConnections(t *testing.T) {
	n := newFakeNode(t)
	n.afterWrite = func(i int) bool { return i%100 == 99 }
	sum, err := replaySample(t, n)
	if err != nil || sum.Reconnects == 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestReplayUnderTheSameNameDoesNothingTwice(t *testing.T) {
	n := newFakeNode(t)
	first, err := replaySample(t, n, "--run", "again", "--opening", "1.5")
	if err != nil {
		t.Fatal(err)
	}
	before := mustCtl(t, n, "export")
	second, err := replaySample(t, n, "--run", "again", "--opening", "1.5")
	if err != nil || mustCtl(t, n, "export") != before {
		t.Errorf("second run: %+v, %v", second, err)
	}
	if d := cmp.Diff(first.replayCounts, second.replayCounts); d != "" {
		t.Error(d)
	}
}

func TestReplayFindsALostMovement(t *testing.T) {
	n := newFakeNode(t)
	n.forget = func(m protocol.Movement) bool { return m.Type == "confirm" && m.Reference == "5" && m.SKU == "hot" }
	sum, err := replaySample(t, n, "--settle", "2s")
	if err == nil || sum.Total != 1 || !strings.Contains(sum.Differences[0], ":5:confirm:0") {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestReplayOptions(t *testing.T) {
	for _, flag := range []string{"--clients=0", "--watchers=-1", "--opening=-1", "--run=" + strings.Repeat("x", 65)} {
		if err := run(t.Context(), []string{"replay", sampleFile, flag}, io.Discard, io.Discard); err == nil {
			t.Errorf("%s was taken", flag)
		}
	}
}
