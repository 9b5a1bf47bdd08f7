package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestComponent(t *testing.T) {
	for version, want := range map[string]uint64{
		"":               0,
		"eu:12":          12,
		"asia:3,eu:12":   12,
		"eu:7,us:4":      7,
		"us:4":           0,
		"neu:5,us:4":     0,
		"eu:x":           0,
		"eu:18446744073": 18446744073,
	} {
		if got := component([]byte(version), "eu"); got != want {
			t.Errorf("%q: %d, want %d", version, got, want)
		}
	}
}

func TestEachRow(t *testing.T) {
	for message, want := range map[string]string{
		`{"op":"cursor","cursor":"eu:1"}`:                                                         "",
		`{"id":1,"ok":{"items":[{"sku":"a","location":"main","version":"eu:2"}]}}`:                "a=eu:2;",
		`{"op":"stock","items":[{"sku":"a","version":"eu:2,us:1"},{"sku":"b","version":"us:3"}]}`: "a=eu:2,us:1;b=us:3;",
		`{"sku":"a"`: "",
		`{"sku":"a`:  "",
	} {
		got := ""
		eachRow([]byte(message), func(sku, version []byte) { got += fmt.Sprintf("%s=%s;", sku, version) })
		if got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
}

// freshnessAt is a freshness with one watcher, whose clock the test sets.
func freshnessAt() (*freshness, *watcher, *client) {
	s := &shop{assortment: assortment{"s-", 1}, sold: make([]int64, 1)}
	f := newFreshness(&generator{}, "eu", s)
	w := &watcher{freshness: f, region: "us", trails: map[string]*trail{}}
	f.watchers = []*watcher{w}
	return f, w, &client{template: newTemplate([4]byte{}, `{"id":#}`)}
}

func TestCommitsAreFollowedToAWatcher(t *testing.T) {
	f, w, c := freshnessAt()
	at := func(ms int64) { f.gen.now = ms * int64(time.Millisecond) }
	ack := func(version int) {
		f.acked(c, numberMin, fmt.Appendf(nil, `{"id":1,"ok":{"items":[{"sku":"s-0","version":"eu:%d,us:1"}]}}`, version))
	}
	push := func(version int) {
		w.received(nil, fmt.Appendf(nil, `{"op":"stock","items":[{"sku":"s-0","version":"eu:%d"}]}`, version))
	}
	at(10)
	ack(2)
	ack(3)
	at(20)
	ack(1) // answers overtake each other
	at(30)
	push(2) // 2 is 20 ms old, 1 is 10 ms old
	if f.waiting() != 1 || f.ages.h.TotalCount() != 2 || f.ages.h.Max() < 19_900 || f.ages.h.Min() > 10_100 {
		t.Errorf("%d wait, ages %d to %d us", f.waiting(), f.ages.h.Min(), f.ages.h.Max())
	}
	push(5)
	ack(4) // the push was here first
	if f.waiting() != 0 || f.ages.h.TotalCount() != 4 || f.ages.h.Min() > 1 || len(f.faults) > 0 {
		t.Errorf("%d wait, ages from %d us, faults %q", f.waiting(), f.ages.h.Min(), f.faults)
	}
	if f.shop.sold[0] != 4 {
		t.Errorf("%d sold", f.shop.sold[0])
	}
	push(4)
	w.received(nil, []byte(`{"id":1,"error":{"code":"forbidden"}}`))
	f.acked(c, numberMin, []byte(`{"id":1,"ok":{"items":[{"sku":"s-0","version":"us:1"}]}}`))
	if said := strings.Join(f.faults, "; "); len(f.faults) != 3 || !strings.Contains(said, "version 4 after 5") || !strings.Contains(said, "forbidden") || !strings.Contains(said, "does not tell of eu") {
		t.Errorf("faults %s", said)
	}
}

func TestTemplatesSpreadOverItems(t *testing.T) {
	seen := make(map[uint64]int)
	for mask := range byte(4) {
		tm := newTemplate([4]byte{mask, 1, 2, mask}, `{"id":#,"sku":"~"}`)
		tm.items = 100
		for n := range uint64(1000) {
			seen[tm.item(numberMin+256*n, 0)]++
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d items of 100", len(seen))
	}
	for item, n := range seen {
		if item >= 100 || n < 10 || n > 120 {
			t.Errorf("item %d was chosen %d times of 4000", item, n)
		}
	}
}

func TestTraffic(t *testing.T) {
	for text, want := range map[string]traffic{
		"": {},
		"# HELP x\nstockmesh_link_bytes_total{direction=\"out\",peer=\"us\"} 10\n" +
			"stockmesh_link_bytes_total{peer=\"us\",direction=\"in\"} 2\n" +
			"stockmesh_link_bytes_total{direction=\"out\",peer=\"asia\"} 1.5e+03\nother 4\n": {2, 1510, true},
		"stockmesh_link_bytes_total{direction=\"out\"} many\n": {},
	} {
		got, err := parseTraffic(strings.NewReader(text))
		if got != want || (err == nil) != want.known {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	r := newRound(&options{regions: 3}, 1, &target{}, nil)
	r.putLinkBytes("many_", traffic{10, 100, true}, traffic{30, 500, true}, 10)
	r.putLinkBytes("", traffic{}, traffic{30, 500, true}, 10)
	if out, in := r.numbers["many_link_out_bytes_per_command"], r.numbers["many_link_in_bytes_per_command"]; out != 20 || in != 1 || len(r.numbers) != 2 {
		t.Errorf("%v", r.numbers)
	}
}

func TestBatchAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		`{"results":[{"id":1,"ok":{}},{"id":2,"ok":{}}]}`:                                        "",
		`{"results":[{"id":1,"ok":{}},{"id":2,"error":{"code":"overloaded","message":"full"}}]}`: "overloaded: full",
		`{"results":`: "unexpected",
	} {
		if err := checkBatch([]byte(answer)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", answer, err, want)
		}
	}
}
