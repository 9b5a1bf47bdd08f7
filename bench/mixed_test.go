package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func newTestMixed(t *testing.T, skus string) *mixed {
	t.Helper()
	o, err := parseOptions([]string{"mixed", "--skus", skus, "--seed", "5"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRound(o, 1, &target{}, nil)
	r.id = "x"
	return r.newMixed(&generator{}, assortment{"m-", o.assorted})
}

// TestStatesTellHowManyChangesTheyShow makes random changes.
func TestStatesTellHowManyChangesTheyShow(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for sku := range 40 {
		onHand, reserved := mixedOpening(sku), int64(0)
		for n := range int64(300) {
			if got := mixedChange(sku, onHand, reserved); got != n {
				t.Fatalf("SKU %d: %d on hand, %d reserved show %d changes, not %d", sku, onHand, reserved, got, n)
			}
			switch {
			case isCounted(sku):
				onHand++
			case random.IntN(10) == 0:
				onHand += delivery
			case reserved > 0 && random.IntN(2) == 0:
				onHand--
				reserved--
			default:
				reserved++
			}
		}
	}
}

func TestViewers(t *testing.T) {
	m := newTestMixed(t, "100")
	v := newViewer(m, m.party)
	v.conn = &conn{receiver: v}
	if len(v.looks) != viewerLooks || v.current() {
		t.Fatalf("looks at %v", v.looks)
	}
	v.received(v.conn, []byte(`{"id":1,"ok":{"items":8}}`))
	a := v.looks[0]
	say := func(sku, reserved int, more string) {
		v.received(v.conn, fmt.Appendf(nil, `{"op":"stock",%s"items":[{"sku":"%s","on_hand":%d,"reserved":%d}]}`, more, m.stock.sku(sku), mixedOpening(sku), reserved))
	}
	for _, sku := range v.looks {
		say(sku, 0, `"snapshot":true,`)
	}
	if !v.ready || !v.current() || m.party.delivered != 0 {
		t.Errorf("ready %v, current %v, %d delivered", v.ready, v.current(), m.party.delivered)
	}
	for due := range int64(4) {
		m.stock.changes(a, due*1e6)
	}
	m.gen.now = 10e6
	say(a, 1, "")
	say(a, 4, "")
	if p := m.party; p.delivered != 2 || p.conflated != 2 || p.ages.h.Max()/1000 != 10 || p.ages.h.Min()/1000 != 9 || !v.current() {
		t.Errorf("%d delivered, %d conflated, ages %d to %d", p.delivered, p.conflated, p.ages.h.Min(), p.ages.h.Max())
	}
	m.stock.changes(a, 0)
	if v.current() {
		t.Error("current without the last change")
	}
	m.stock.unchanged(a, 0)
	v.turnPage(0)
	if v.looks[0] == a || v.sights[a].looking || len(v.looks) != viewerLooks || v.waiting() != 2 || v.current() {
		t.Errorf("looks at %v, %d wait", v.looks, v.waiting())
	}
	say(a, 3, "") // late, and of no more interest, but older than what was shown
	m.stock.changes(a, 0)
	say(a, 4, "")
	v.received(v.conn, []byte(`{"id":1000000000,"ok":{}}`))
	v.received(v.conn, []byte(`{"id":1000000001,"error":{"code":"too_large"}}`))
	v.received(v.conn, []byte(`{"id":1000000001,"ok":{}}`))
	unknown := 0
	for v.sights[unknown] != nil {
		unknown++
	}
	say(unknown, 0, "")
	said := strings.Join(m.stock.faults, "\n")
	for _, want := range []string{"at change 3 after 4, of 4", "too_large", "answer that must not be: {\"id\":1000000001,\"ok\"", "never asked for it"} {
		if !strings.Contains(said, want) {
			t.Errorf("faults %q, want %q", m.stock.faults, want)
		}
	}
	if m.acked != 1 || v.waiting() != 0 || m.party.delivered != 2 {
		t.Errorf("%d acked, %d wait, %d delivered", m.acked, v.waiting(), m.party.delivered)
	}
}

func TestStockTakes(t *testing.T) {
	for _, skus := range []string{"1", "30", "100"} {
		m := newTestMixed(t, skus)
		k := newKeeper(m)
		k.conn = &conn{}
		for range 2 * m.stock.count {
			k.takeStock(0)
			k.received(k.conn, fmt.Appendf(nil, `{"id":%d,"ok":{}}`, k.next-1))
		}
		want := m.stock.want(func(int) int64 { return 0 })
		for i := range m.stock.count {
			if m.stock.counted[i] > 0 != isCounted(i) || m.stock.adjusted[i] > 0 == isCounted(i) {
				t.Errorf("SKU %d of %s was counted %d times and adjusted %d times", i, skus, m.stock.counted[i], m.stock.adjusted[i])
			}
			shows := mixedChange(i, want[m.stock.sku(i)].onHand, 0)
			if shows != int64(len(m.stock.due[i])) || shows == 0 && i > 0 {
				t.Errorf("SKU %d of %s shows %d changes of %d", i, skus, shows, len(m.stock.due[i]))
			}
		}
	}
}

// TestLateAnswersHaveAges: what is answered after the phase took longest, and no rate
// counts it.
func TestLateAnswersHaveAges(t *testing.T) {
	m := newTestMixed(t, "100")
	k := newKeeper(m)
	k.conn = &conn{}
	k.takeStock(0)
	m.party.delivered = 10
	m.putRates(processTimes{at: time.Now().Add(-time.Second)}, m.ackedAll())
	m.gen.now = 5e9
	m.party.delivered += 1e9
	m.party.ages.add(6e9, 1)
	k.received(k.conn, fmt.Appendf(nil, `{"id":%d,"ok":{}}`, k.next-1))
	m.putAges()
	n := m.numbers
	if n["acked_per_second"] != 0 || n["delivered_per_second"] > 10 || n["p99_ms"] < 4990 || n["count_p99_ms"] < 4990 || n["push_p99_ms"] < 5990 {
		t.Errorf("%v", n)
	}
}

func TestDeck(t *testing.T) {
	d, n := newDeck(rand.New(rand.NewPCG(1, 1))), [3]int{}
	for range 2 * len(d.cards) {
		n[d.draw()]++
	}
	if n != [3]int{2 * pageCards, 2 * orderCards, 2 * stockCards} || commandsADeck != 200 {
		t.Errorf("%v of %d", n, commandsADeck)
	}
}

func TestShops(t *testing.T) {
	if testing.Short() {
		t.Skip("starts regions of several processes")
	}
	testRuns(t, []spawnedRun{
		{"many-skus --spawn 1 --skus 500 --connections 8 --depth 8 --duration 200ms", "acked_per_second p99_ms half_p99_ms zipf_acked_per_second zipf_half_p99_ms generator_ceiling_per_second generator_share", ""},
		{"orders --spawn 3 --skus 12 --connections 6 --depth 8 --duration 200ms", "orders_per_second acked_per_second p99_ms reserve_p99_ms refused_percent generator_share", "oversold_units"},
		{"mixed --spawn 2x1 --skus 100 --subscribers 30 --rate 1000 --connections 6 --duration 300ms", "acked_per_second p99_ms watch_p99_ms reserve_p99_ms confirm_p99_ms count_p99_ms push_p99_ms delivered_per_second generator_share", "oversold_units"},
	})
}

func TestShopOptions(t *testing.T) {
	for args, want := range map[string][3]int{ // rate, SKUs, lines
		"mixed": {5000, 1000, 3}, "mixed --skus 7 --rate 30": {30, 7, 3}, "orders --lines 5": {2000, 10000, 5}, "many-skus --skus 2": {2000, 2, 3},
	} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || [3]int{o.rate, o.assorted, o.lines} != want {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
	for args, want := range map[string]string{
		"orders --lines 0": "--lines", "orders --lines 101": "--lines", "orders --skus 2": "--skus 3 or more", "many-skus --skus 0": "--skus",
	} {
		if _, err := parseOptions(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
