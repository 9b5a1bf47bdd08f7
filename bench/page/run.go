// Package page holds what a run of bench has found, as its JSON file has it, and draws
// it: one page of HTML that needs nothing else, for people who were not there.
package page

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run is the result of a scenario: medians over its rounds. Names of metrics end with
// their unit (_ms, _per_second, _bytes, _percent) where they have one.
type Run struct {
	Scenario  string   `json:"scenario"`
	About     string   `json:"about,omitempty"` // what the scenario does
	Spawn     string   `json:"spawn"`           // N or RxN; "": running nodes
	Endpoints []string `json:"endpoints,omitempty"`
	Where     string   `json:"-"` // both in words

	Machine Machine           `json:"machine"`
	Version Version           `json:"version"`
	Command string            `json:"command,omitempty"` // that does the same again
	Flags   map[string]string `json:"flags,omitempty"`   // all, with their values
	Seed    uint64            `json:"seed,string"`
	Began   time.Time         `json:"began"`
	TookS   float64           `json:"took_s"`

	Metrics    map[string]float64              `json:"metrics"`
	Peers      map[string]map[string]float64   `json:"peers"`
	Violations []string                        `json:"violations"`
	Marks      map[string]Mark                 `json:"marks,omitempty"`
	Rounds     map[string][]float64            `json:"rounds"` // each metric, round by round
	PeerRounds map[string]map[string][]float64 `json:"peer_rounds,omitempty"`
	Durability map[string]string               `json:"durability,omitempty"` // what an answer promises, by peer, in a sentence
	Skipped    []string                        `json:"skipped,omitempty"`    // peers and parts that were left out, and why

	NotRun string `json:"not_run,omitempty"` // why the scenario could not be run here
	Error  string `json:"error,omitempty"`   // what ended it early

	Timelines  []Timeline  `json:"timelines,omitempty"`
	Phases     []Event     `json:"phases,omitempty"`
	Events     []Event     `json:"events,omitempty"` // what was done to the nodes
	Histograms []Histogram `json:"histograms,omitempty"`
}

// Mark is a figure that a scenario is meant to reach.
type Mark struct {
	Limit  float64 `json:"limit"`
	AtMost bool    `json:"at_most"` // else: at least
	Value  float64 `json:"value"`   // the median over all rounds
	Met    bool    `json:"met"`
}

// Machine is where the numbers come from.
type Machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Kernel  string  `json:"kernel"`
	OS      string  `json:"os"`
	Go      string  `json:"go"`
	FsyncMS float64 `json:"fsync_ms"` // median of a 4 KiB append and fsync where the node's data lies
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, kernel %s, %s, %s, fsync %.2f ms", m.CPU, m.Cores, m.Kernel, m.OS, m.Go, m.FsyncMS)
}

// Version is what was measured, as far as that is known.
type Version struct {
	Module   string `json:"module,omitempty"` // v1.2.3 or (devel)
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the tree had changes of its own
}

func (v Version) String() string {
	var parts []string
	if v.Module != "" && v.Module != "(devel)" {
		parts = append(parts, v.Module)
	}
	if v.Revision != "" {
		parts = append(parts, v.Revision[:min(len(v.Revision), 12)])
	}
	if v.Modified {
		parts = append(parts, "with changes")
	}
	if len(parts) == 0 {
		return "an unknown revision"
	}
	return strings.Join(parts, " ")
}

// Timeline is latency over time: one value for each interval of a round. Where Count
// is 0, nothing was answered and the ages are 0.
type Timeline struct {
	Round  int       `json:"round"` // from 1
	Name   string    `json:"name"`  // what is counted: commands, pushes
	WidthS float64   `json:"width_s"`
	Count  []int64   `json:"count"`
	P50MS  []float64 `json:"p50_ms"`
	P99MS  []float64 `json:"p99_ms"`
	MaxMS  []float64 `json:"max_ms"`
}

// Event is a moment of a round, or a while.
type Event struct {
	Round int     `json:"round"`
	AtS   float64 `json:"at_s"`            // since the round began
	EndS  float64 `json:"end_s,omitempty"` // 0: it was over at once
	Text  string  `json:"text"`
}

// Histogram is how the ages of a phase were spread. Only buckets with something in
// them are listed; each ends where the next could begin, 3 % above.
type Histogram struct {
	Round  int       `json:"round"`
	Name   string    `json:"name"`   // of the timeline they are part of
	Prefix string    `json:"prefix"` // of the metrics with the same ages
	AgeMS  []float64 `json:"age_ms"` // the middle of a bucket
	Count  []int64   `json:"count"`
}

// Passed reports whether nothing was wrong. A scenario that was not run has not passed.
func (r Run) Passed() bool { return len(r.Violations) == 0 && r.Error == "" && r.NotRun == "" }

// Failed reports whether something was wrong.
func (r Run) Failed() bool { return len(r.Violations) > 0 || r.Error != "" }

// MarksMet counts the marks that were reached.
func (r Run) MarksMet() (met, of int) {
	for _, m := range r.Marks {
		if m.Met {
			met++
		}
	}
	return met, len(r.Marks)
}

// headlines are the metrics that say most, in that order.
var headlines = []string{
	"acked_per_second", "orders_per_second", "invoices_per_second", "delivered_per_second", "handshakes_per_second", "served",
	"p50_ms", "p99_ms", "push_p99_ms", "failover_p99_ms", "converge_ms", "freshness_p99_ms", "leave_stop_ms",
	"floor_ratio", "p99_ratio", "rss_bytes_per_connection", "attacks", "losses", "longest_gap_ms",
	"lost_commands", "oversold_units", "failed_commands",
}

// Headlines names the metrics of a run that say most, at most so many.
func (r Run) Headlines(most int) []string {
	var names []string
	for _, name := range headlines {
		if _, ok := r.Metrics[name]; ok && len(names) < most {
			names = append(names, name)
		}
	}
	return names
}

// Spread returns the median of values, and the lowest and highest.
func Spread(values []float64) (median, low, high float64) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2, s[0], s[n-1]
}

// figure shows a measured value in few digits; whole numbers of things as they are.
func figure(v float64, unit string) string {
	digits := 0
	switch {
	case unit == "" && v == math.Trunc(v):
	case math.Abs(v) < 1:
		digits = 3
	case math.Abs(v) < 10:
		digits = 2
	case math.Abs(v) < 100:
		digits = 1
	}
	if digits == 0 {
		return Readable(math.Round(v))
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// Readable shows a figure with three digits or more, thousands apart.
func Readable(v float64) string {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) < 10:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case math.Abs(v) < 1000:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v < 0 {
		s = "−" + s
	}
	return s
}
