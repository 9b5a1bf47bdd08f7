package fault

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawPlan draws a plan and what it was drawn from.
func drawPlan(t *rapid.T) (events []Event, duration time.Duration, c Cluster, kinds []Kind) {
	duration = time.Duration(rapid.IntRange(1, 200_000).Draw(t, "ms")) * time.Millisecond
	c = Cluster{Regions: rapid.IntRange(1, 5).Draw(t, "regions"), Each: rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "each")}
	kinds = rapid.SliceOfDistinct(rapid.SampledFrom(Kinds()), func(k Kind) Kind { return k }).Draw(t, "kinds")
	seed := rapid.Uint64().Draw(t, "seed")
	events = Plan(seed, duration, c, kinds)
	if again := Plan(seed, duration, c, kinds); !slices.Equal(events, again) {
		t.Fatalf("the same seed tells two plans:\n%v\n%v", events, again)
	}
	return events, duration, c, kinds
}

// TestPlansAreBearable looks at each plan at each moment at which something begins.
func TestPlansAreBearable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events, duration, c, kinds := drawPlan(t)
		if err := c.Check(events); err != nil {
			t.Fatal(err)
		}
		for i, e := range events {
			if e.At < 0 || e.For < lengthMin || e.End() > duration || i > 0 && e.At < events[i-1].At {
				t.Fatalf("%v, within %v", e, duration)
			}
			if !slices.Contains(kinds, e.Kind) {
				t.Fatalf("%v was not asked for: %v", e, kinds)
			}
			checkMoment(t, events, c, e.At)
		}
	})
}

// checkMoment counts what is down at a moment, in its own way.
func checkMoment(t *rapid.T, events []Event, c Cluster, at time.Duration) {
	down := make(map[[2]int]int)
	dark := make(map[int]bool)
	links := make(map[[2]int]int)
	for _, e := range events {
		if at < e.At || at >= e.End() {
			continue
		}
		switch e.Kind {
		case Region:
			dark[e.Region] = true
			for n := range c.Each {
				down[[2]int{e.Region, n}]++
			}
		case Cut:
			for r := range c.Regions {
				if r != e.Region {
					links[[2]int{min(r, e.Region), max(r, e.Region)}]++
				}
			}
		case Slow, Oneway, Lossy:
			links[[2]int{min(e.Region, e.Peer), max(e.Region, e.Peer)}]++
		default:
			down[[2]int{e.Region, e.Node}]++
		}
	}
	count := make([]int, c.Regions)
	for node, faults := range down {
		if faults > 1 {
			t.Fatalf("%v: node %v has %d faults: %v", at, node, faults, events)
		}
		count[node[0]]++
	}
	for r, n := range count {
		if c.Each == 1 && n == 1 {
			dark[r] = true
		}
		if !dark[r] && n > (c.Each-1)/2 {
			t.Fatalf("%v: %d of %d nodes of region %d are down: %v", at, n, c.Each, r, events)
		}
	}
	if len(dark) > 1 {
		t.Fatalf("%v: regions %v are down: %v", at, dark, events)
	}
	for link, faults := range links {
		if faults > 1 {
			t.Fatalf("%v: link %v has %d faults: %v", at, link, faults, events)
		}
	}
}

func TestLongPlansHaveEachKind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Cluster{Regions: rapid.IntRange(1, 5).Draw(t, "regions"), Each: rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "each")}
		events := Plan(rapid.Uint64().Draw(t, "seed"), 5*time.Minute, c, Kinds())
		for _, k := range Kinds() {
			has := slices.ContainsFunc(events, func(e Event) bool { return e.Kind == k })
			if has != k.Fits(c) {
				t.Fatalf("%d of %d: %s is there: %v, in %d events", c.Regions, c.Each, k, has, len(events))
			}
		}
	})
}

func TestAShortPlanIsNotEmpty(t *testing.T) {
	for seed := range uint64(50) {
		if events := Plan(seed, 4*time.Second, Cluster{1, 3}, Kinds()); len(events) == 0 {
			t.Errorf("seed %d: nothing happens", seed)
		}
	}
}

func TestPlansComeBackFromTheirText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events, _, _, _ := drawPlan(t)
		var text bytes.Buffer
		if err := Write(&text, "a plan\nof two lines", events); err != nil {
			t.Fatal(err)
		}
		got, err := Read(&text)
		if diff := cmp.Diff(events, got); err != nil || diff != "" {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

func TestReadAPlanByHand(t *testing.T) {
	const text = "# remark\n\n15s for 4s region 1 # the second\n  1.5s for 200ms kill 0.2\n20s for 3s oneway 0>2\n30s for 9s clock 1.0 by -7m"
	events, err := Read(strings.NewReader(text))
	want := []Event{
		{Kind: Kill, At: 1500 * time.Millisecond, For: 200 * time.Millisecond, Node: 2},
		{Kind: Region, At: 15 * time.Second, For: 4 * time.Second, Region: 1},
		{Kind: Oneway, At: 20 * time.Second, For: 3 * time.Second, Peer: 2},
		{Kind: Clock, At: 30 * time.Second, For: 9 * time.Second, Region: 1, By: -7 * time.Minute},
	}
	if diff := cmp.Diff(want, events); err != nil || diff != "" {
		t.Fatalf("%v %s", err, diff)
	}
	if err := (Cluster{3, 3}).Check(events); err != nil {
		t.Error(err)
	}
	for _, c := range []Cluster{{2, 3}, {3, 1}} {
		if c.Check(events) == nil {
			t.Errorf("%v takes the plan", c)
		}
	}
}

func TestLinesThatAreNoEvents(t *testing.T) {
	for _, line := range []string{
		"nonsense", "1s for 1s kill", "1s for 1s eat 0.1", "x for 1s kill 0.1", "1s for x kill 0.1", "-1s for 1s kill 0.1",
		"1s for 1s kill 0", "1s for 1s kill 0.x", "1s for 1s kill 0.-1", "1s for 1s cut a", "1s for 1s slow 1", "1s for 1s clock 0.1",
		"1s for 1s clock 0.1 by x", "1s for 1s kill 0.1 now", "1s to 1s kill 0.1",
	} {
		if e, err := ParseEvent(line); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: %v, %v", line, e, err)
		}
	}
}

func TestKinds(t *testing.T) {
	if all, err := ParseKinds(nil); err != nil || !slices.Equal(all, Kinds()) {
		t.Error(all, err)
	}
	if some, err := ParseKinds([]string{"cut", "kill", "cut"}); err != nil || !slices.Equal(some, []Kind{Cut, Kill}) {
		t.Error(some, err)
	}
	if _, err := ParseKinds([]string{"flood"}); err == nil {
		t.Error("flood is one")
	}
}
