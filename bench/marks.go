package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/stockmesh/stockmesh/bench/page"
)

// mark is a figure that a scenario is meant to reach. On a busy machine it may be missed
// without anything being wrong, so it fails a run only where --strict says so.
type mark = page.Mark

const (
	atLeast = false
	atMost  = true
)

// mark sets what a metric should reach.
func (r *round) mark(metric string, most bool, limit float64) {
	r.marks[metric] = mark{Limit: limit, AtMost: most}
}

// judge compares the medians with the marks.
func (r *report) judge() {
	for metric, m := range r.Marks {
		v, known := r.Metrics[metric]
		m.Value = v
		m.Met = known && (m.AtMost && v <= m.Limit || !m.AtMost && v >= m.Limit)
		r.Marks[metric] = m
		if !m.Met && r.strict {
			r.Violations = append(r.Violations, "mark missed: "+describeMark(m, metric))
		}
	}
}

func describeMark(m mark, metric string) string {
	want := "at least"
	if m.AtMost {
		want = "at most"
	}
	return fmt.Sprintf("%s %s %s: %s", metric, want, readable(m.Limit), readable(m.Value))
}

func (r *report) printMarks(out io.Writer) {
	for _, metric := range slices.Sorted(maps.Keys(r.Marks)) {
		verdict := "missed"
		if r.Marks[metric].Met {
			verdict = "met"
		}
		fmt.Fprintf(out, "MARK %s, %s\n", describeMark(r.Marks[metric], metric), verdict)
	}
}

func (r *report) printMissed(out io.Writer) {
	for _, metric := range slices.Sorted(maps.Keys(r.Marks)) {
		if !r.Marks[metric].Met {
			fmt.Fprintf(out, "MARK %s, missed\n", describeMark(r.Marks[metric], metric))
		}
	}
}
