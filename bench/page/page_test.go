package page

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var shots = flag.String("shots", "", "keep pictures of the pages in this directory")

func render(t *testing.T, runs ...Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, runs); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// text is what is left of a page without its tags, style and script.
func text(page string) string {
	page = regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`).ReplaceAllString(page, "")
	return regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")
}

func TestEveryFigureIsShown(t *testing.T) {
	runs := sampleRuns()
	shown := text(render(t, runs...))
	want := func(what string, v float64) {
		if !strings.Contains(shown, Readable(v)) {
			t.Errorf("%s: no %s", what, Readable(v))
		}
	}
	for _, run := range runs {
		for metric, v := range run.Metrics {
			want(metric, v)
			for _, each := range run.Rounds[metric] {
				want(metric, each)
			}
		}
		for name, peer := range run.PeerRounds {
			for metric, rounds := range peer {
				for _, v := range rounds {
					want(name+" "+metric, v)
				}
			}
			if p := run.Durability[name]; name != hostile && !strings.Contains(shown, p) {
				t.Errorf("%s: no %q", name, p)
			}
		}
		for metric, m := range run.Marks {
			want(metric, m.Limit)
			want(metric, m.Value)
		}
		if !strings.Contains(shown, run.Scenario) || !strings.Contains(shown, run.NotRun) {
			t.Errorf("no %s %s", run.Scenario, run.NotRun)
		}
		if run.NotRun == "" && !strings.Contains(shown, strings.ReplaceAll(run.Command, "+", "&#43;")) {
			t.Errorf("no %s", run.Command)
		}
	}
}

func TestOneRun(t *testing.T) {
	page := render(t, sampleFailover())
	for _, want := range []string{"<h1>failover</h1>", "No violations", "bench-2 killed", "20.0 s, for 2.4 s", "a region of 3 nodes", "4f6a1b2c3d4e", "AMD EPYC"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(page, "Summary") {
		t.Error("one run has a summary")
	}
	if missed, met := strings.Index(page, "<code>longest_"), strings.Index(page, "<code>failover_<wbr>p99_"); missed > met {
		t.Error("a mark that was met comes before one that was missed")
	}
}

func TestViolationsComeFirst(t *testing.T) {
	page := text(render(t, sampleRuns()...))
	wrong, summary := strings.Index(page, "eu-1 has 99 of"), strings.Index(page, "Summary")
	if wrong < 0 || wrong > summary {
		t.Errorf("the violation is at %d, the summary at %d", wrong, summary)
	}
	if !strings.Contains(page, "1 of 3 scenarios failed, 1 not run here") {
		t.Error("no verdict")
	}
}

func TestVerdicts(t *testing.T) {
	good, bad, left := sampleFailover(), sampleBroken(), sampleNotRun()
	ended := sampleFailover()
	ended.Error = "bench-1 did not start"
	for _, c := range []struct {
		runs []Run
		want string
	}{
		{[]Run{good}, "No violations"},
		{[]Run{good, good}, "No violations in 2 scenarios"},
		{[]Run{good, left}, "No violations, 1 not run here"},
		{[]Run{left}, "Nothing was measured, 1 not run here"},
		{[]Run{bad}, "2 violations"},
		{[]Run{ended}, "Ended by an error"},
		{[]Run{bad, ended, good}, "2 of 3 scenarios failed"},
		{nil, "Nothing was measured"},
	} {
		if v := newView(c.runs).Verdict; v.Text != c.want {
			t.Errorf("%q, want %q", v.Text, c.want)
		}
	}
}

// Names come from the outside: peers' answers, nodes' errors. None may become part of
// the page's own text.
func TestNothingIsInjected(t *testing.T) {
	page := render(t, sampleRuns()...)
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if n := strings.Count(page, "</script"); n != 1 {
		t.Errorf("%d ends of scripts", n)
	}
	if strings.Contains(page, "<img") {
		t.Error("an image from a text")
	}
	if strings.Contains(page, "ZgotmplZ") {
		t.Error("a value was refused by the template")
	}
	for _, outside := range []string{"src=\"http", "href=\"http", "url(", "@import", "//cdn"} {
		if strings.Contains(page, outside) {
			t.Errorf("the page asks others: %s", outside)
		}
	}
}

func TestNoChartWithoutFigures(t *testing.T) {
	r := sampleBase("connections", "")
	r.Timelines = []Timeline{{Round: 1, Name: "nothing", WidthS: 0.1, Count: []int64{0, 0}, P50MS: []float64{0, 0}, P99MS: []float64{0, 0}, MaxMS: []float64{0, 0}}}
	r.Histograms = []Histogram{{Round: 1}}
	r.put("nan", math.NaN())
	r.put("inf", math.Inf(1))
	page := render(t, r, Run{})
	if strings.Contains(page, "<figure") || strings.Contains(page, "<svg") {
		t.Error("a chart of nothing")
	}
}

// What the file holds is enough to draw the page again.
func TestRunSurvivesItsFile(t *testing.T) {
	for _, run := range sampleRuns() {
		b, err := json.Marshal(run)
		if err != nil {
			t.Fatal(err)
		}
		var again Run
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		again.Where = run.Where
		if diff := cmp.Diff(render(t, run), render(t, again)); diff != "" {
			t.Errorf("%s: %s", run.Scenario, diff)
		}
	}
}

func TestReadable(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7: "7", 0.7914: "0.791", 48.04: "48.0", 1000: "1,000", 1234567.8: "1,234,568", -1234.5: "−1,234"} {
		if got := Readable(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func labels(s scale) string {
	var all []string
	for _, t := range s.ticks {
		all = append(all, t.label)
	}
	return strings.Join(all, ", ")
}

func TestScales(t *testing.T) {
	for _, c := range []struct {
		name string
		got  scale
		want string
	}{
		{"zero", fromZero(0, compact), ""},
		{"rate", fromZero(289_000, compact), "0, 100 k, 200 k, 300 k"},
		{"just above", fromZero(1000, compact), "0, 500, 1,000, 1,500"},
		{"wide", decades(0.09, 412, milliseconds), "100 µs, 1 ms, 10 ms, 100 ms"},
		{"narrow", decades(3, 9, milliseconds), "2 ms, 5 ms, 10 ms"},
		{"a point", decades(10, 10, milliseconds), "10 ms, 20 ms, 50 ms, 100 ms"},
		{"short time", seconds(0, 1), "0.0 s, 0.2 s, 0.4 s, 0.6 s, 0.8 s, 1.0 s"},
		{"time", seconds(0.5, 26.2), "5 s, 10 s, 15 s, 20 s, 25 s"},
		{"two minutes", seconds(0, 130), "0 s, 20 s, 40 s, 1:00, 1:20, 1:40, 2:00"},
		{"an hour", seconds(0, 3600), "0 min, 10 min, 20 min, 30 min, 40 min, 50 min, 60 min"},
	} {
		got := labels(c.got)
		if c.want != "" && got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		for _, tick := range c.got.ticks {
			if part := c.got.part(tick.at); part < 0 || part > 1 || math.IsNaN(part) {
				t.Errorf("%s: %s lies at %v", c.name, tick.label, part)
			}
		}
	}
}

func TestLinesHaveGaps(t *testing.T) {
	var l line
	l.to(1, 1)
	l.to(2, 2)
	l.lift()
	l.lift()
	l.to(5, 5)
	if lines, dots := l.paths(); lines != "M1.0 1.00L2.0 2.00" || dots != "M5.0 5.00h0" {
		t.Errorf("%s, dots %s", lines, dots)
	}
}

func TestFlagsMakeRoom(t *testing.T) {
	var events []Event
	for i := range 100 {
		events = append(events, Event{Round: 1, AtS: float64(i) / 10, Text: fmt.Sprint(i)})
	}
	var p panel
	p.flags(events, 1, seconds(0, 10))
	last := make(map[int]float64)
	shown := 0
	for _, f := range p.Flags {
		if !f.Shown {
			continue
		}
		shown++
		var at float64
		fmt.Sscan(f.At, &at)
		if before, ok := last[f.Row]; ok && at-before < 100*flagApart-0.01 {
			t.Errorf("%d hides its neighbour", f.Number)
		}
		last[f.Row] = at
	}
	if len(p.Flags) != 100 || shown < 20 || shown > flagsMax {
		t.Errorf("%d flags, %d shown", len(p.Flags), shown)
	}
}

func TestComparison(t *testing.T) {
	c := compare(sampleSpeed(), "acked_per_second")
	var names []string
	for _, b := range c.Bars {
		names = append(names, b.Name+" "+b.Ratio)
	}
	want := []string{"stockmesh ", "redis-pipelined 3.19×", "redis 12.9×", "postgres 96.0×", "nats-kv 229×", "nats-kv-r3 461×"}
	if diff := cmp.Diff(want, names); diff != "" || !c.Log {
		t.Errorf("logarithmic: %v, %s", c.Log, diff)
	}
	if c := compare(sampleSpeed(), "p50_ms"); c.Log || c.Bars[1].Name != "nats-kv" {
		t.Errorf("%+v", c)
	}
}
