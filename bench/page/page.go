package page

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var source string

//go:embed page.css
var style string

//go:embed page.js
var script string

// Write draws runs on one page. The page asks nobody for anything, and runs no script
// but its own.
func Write(w io.Writer, runs []Run) error {
	t, err := template.New("page").Funcs(template.FuncMap{"parts": parts}).Parse(source)
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	if err := t.Execute(w, newView(runs)); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	return nil
}

// parts is a name in pieces between which a line may break.
func parts(name string) []string { return strings.SplitAfter(name, "_") }

// view is what the page shows.
type view struct {
	Title    string
	Style    template.CSS
	Script   template.JS
	Policy   string // of what the page may load and run
	Verdict  verdict
	Machine  Machine
	Version  string
	When     string
	Took     string
	Many     bool
	Sections []section
}

// verdict is what it all comes to.
type verdict struct {
	Class, Text string
	Details     []detail
}

// detail is something that was wrong: a line, and what else there is to say.
type detail struct{ Anchor, Scenario, Text, More string }

func newDetail(text string) detail {
	line, more, _ := strings.Cut(text, "\n")
	return detail{Text: line, More: strings.TrimSpace(more)}
}

// section is one run.
type section struct {
	Run
	Anchor  string
	Verdict verdict
	Tiles   []tile
	Marks   []markRow
	Rounds  []roundView
	Peers   []comparison
	Promise string // ours
	Tables  []table
	Took    string
	Figures []tile // the first few
	Met     string // marks
}

type tile struct{ Name, Value, Unit, Range string }

type markRow struct {
	Metric, Want, Value, Unit string
	Met                       bool
}

// roundView is what the charts of a round show.
type roundView struct {
	Number     int
	Of         int
	Open       bool
	Panels     []panel
	Histograms []histogram
	Events     []pin
}

type table struct {
	Name   string
	Rounds []int
	Rows   []row
}

type row struct {
	Metric, Unit      string
	Median, Low, High string
	Rounds            []string
}

func newView(runs []Run) view {
	v := view{
		Title: "stockmesh bench", Style: template.CSS(style), Script: template.JS(script), Policy: policy(), Many: len(runs) > 1,
	}
	began, ended := time.Time{}, time.Time{}
	for _, run := range runs {
		v.Sections = append(v.Sections, newSection(run))
		if began.IsZero() || run.Began.Before(began) {
			began = run.Began
		}
		if end := run.Began.Add(time.Duration(run.TookS * float64(time.Second))); end.After(ended) {
			ended = end
		}
	}
	if len(runs) == 1 {
		v.Title = runs[0].Scenario + " — " + v.Title
	}
	if len(runs) > 0 {
		v.Machine, v.Version = runs[0].Machine, runs[0].Version.String()
	}
	if !began.IsZero() {
		v.When, v.Took = began.Format("2 January 2006, 15:04 MST"), lasting(ended.Sub(began))
	}
	v.Verdict = overall(v.Sections)
	return v
}

// policy lets the page's own script run and nothing else. What bench writes into the
// page is escaped; should that fail once, this still holds.
func policy() string {
	sum := sha256.Sum256([]byte(script))
	return fmt.Sprintf("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-%s'; img-src data:; base-uri 'none'; form-action 'none'",
		base64.StdEncoding.EncodeToString(sum[:]))
}

func lasting(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// overall puts what was wrong first.
func overall(sections []section) verdict {
	v := verdict{Class: "good"}
	wrong, passed, left := 0, 0, 0
	for _, s := range sections {
		switch {
		case s.Failed():
			wrong++
			for _, d := range s.Verdict.Details {
				if len(sections) > 1 { // its section tells more
					d.Anchor, d.Scenario, d.More = s.Anchor, s.Scenario, ""
				}
				if !slices.Contains(v.Details, d) {
					v.Details = append(v.Details, d)
				}
			}
		case s.NotRun != "":
			left++
		default:
			passed++
		}
	}
	switch {
	case wrong > 0 && len(sections) == 1:
		return verdict{"bad", sections[0].Verdict.Text, v.Details}
	case wrong > 0:
		v.Class, v.Text = "bad", fmt.Sprintf("%d of %d scenarios failed", wrong, wrong+passed)
	case passed == 0:
		v.Class, v.Text = "none", "Nothing was measured"
	case passed == 1:
		v.Text = "No violations"
	default:
		v.Text = fmt.Sprintf("No violations in %d scenarios", passed)
	}
	if left > 0 {
		v.Text += fmt.Sprintf(", %d not run here", left)
	}
	return v
}

func newSection(run Run) section {
	s := section{
		Run: run, Anchor: anchor(run.Scenario), Tiles: tiles(run, 6), Figures: tiles(run, 3), Marks: markRows(run), Peers: comparisons(run),
		Took: lasting(time.Duration(run.TookS * float64(time.Second))), Promise: run.Durability[Ours],
	}
	s.Verdict = judge(run)
	if met, of := run.MarksMet(); of > 0 {
		s.Met = fmt.Sprintf("%d of %d", met, of)
	}
	s.Rounds = roundViews(run)
	s.Tables = append(s.Tables, newTable("", run.Metrics, run.Rounds))
	for _, name := range slices.Sorted(maps.Keys(run.Peers)) {
		s.Tables = append(s.Tables, newTable(name, run.Peers[name], run.PeerRounds[name]))
	}
	return s
}

// anchor is a scenario's name as an address on the page.
func anchor(scenario string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(scenario))
}

func judge(run Run) verdict {
	v := verdict{Class: "good", Text: "No violations"}
	for _, text := range run.Violations {
		v.Details = append(v.Details, newDetail(text))
	}
	if run.Error != "" {
		v.Details = append(v.Details, newDetail(run.Error))
	}
	switch n := len(run.Violations); {
	case run.NotRun != "":
		v.Class, v.Text = "none", "Not run: "+run.NotRun
	case n == 1:
		v.Class, v.Text = "bad", "1 violation"
	case n > 1:
		v.Class, v.Text = "bad", fmt.Sprintf("%d violations", n)
	case run.Error != "":
		v.Class, v.Text = "bad", "Ended by an error"
	}
	return v
}

func tiles(run Run, most int) []tile {
	var all []tile
	for _, name := range run.Headlines(most) {
		u := unit(name)
		t := tile{Name: words(name), Value: figure(run.Metrics[name], u), Unit: u}
		if _, low, high := Spread(run.Rounds[name]); high > low {
			t.Range = figure(low, u) + " – " + figure(high, u)
		}
		all = append(all, t)
	}
	return all
}

// words is a metric's name without its unit, for people.
func words(metric string) string {
	for _, unit := range []string{"_ms", "_per_second", "_percent"} {
		metric = strings.TrimSuffix(metric, unit)
	}
	metric = strings.ReplaceAll(metric, "_bytes", "")
	return strings.ReplaceAll(metric, "_", " ")
}

func markRows(run Run) []markRow {
	var rows []markRow
	for _, metric := range slices.Sorted(maps.Keys(run.Marks)) {
		m := run.Marks[metric]
		want := "at least "
		if m.AtMost {
			want = "at most "
		}
		rows = append(rows, markRow{metric, want + Readable(m.Limit), Readable(m.Value), unit(metric), m.Met})
	}
	slices.SortStableFunc(rows, func(a, b markRow) int { // what was missed comes first
		switch {
		case a.Met == b.Met:
			return 0
		case b.Met:
			return -1
		}
		return 1
	})
	return rows
}

// roundViews draws every round; the first is open.
func roundViews(run Run) []roundView {
	of := 0
	for _, values := range run.Rounds {
		of = max(of, len(values))
	}
	for _, t := range run.Timelines {
		of = max(of, t.Round)
	}
	var views []roundView
	for n := 1; n <= of; n++ {
		v := roundView{Number: n, Of: of, Open: len(views) == 0, Panels: panels(run, n), Histograms: histograms(run, n)}
		v.Events = listed(run, n)
		if len(v.Panels)+len(v.Histograms)+len(v.Events) > 0 {
			views = append(views, v)
		}
	}
	return views
}

// listed lists the events of a round by number.
func listed(run Run, round int) []pin {
	var all []pin
	for _, e := range run.Events {
		if e.Round == round {
			all = append(all, pin{Number: len(all) + 1, Text: e.Text, When: when(e)})
		}
	}
	return all
}

func newTable(name string, medians map[string]float64, rounds map[string][]float64) table {
	t := table{Name: name}
	most := 0
	for _, metric := range slices.Sorted(maps.Keys(medians)) {
		values := rounds[metric]
		r := row{Metric: metric, Unit: unit(metric), Median: Readable(medians[metric])}
		if len(values) > 1 {
			_, low, high := Spread(values)
			r.Low, r.High = Readable(low), Readable(high)
			for _, v := range values {
				r.Rounds = append(r.Rounds, Readable(v))
			}
			most = max(most, len(values))
		}
		t.Rows = append(t.Rows, r)
	}
	for n := 1; n <= most; n++ {
		t.Rounds = append(t.Rounds, n)
	}
	for i := range t.Rows { // a metric that some rounds don't have
		for len(t.Rows[i].Rounds) < most {
			t.Rows[i].Rounds = append(t.Rows[i].Rounds, "")
		}
	}
	return t
}
