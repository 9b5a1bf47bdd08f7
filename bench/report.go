package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is the result of a run: medians over its rounds.
type report struct {
	Scenario   string               `json:"scenario"`
	Spawn      string               `json:"spawn"`
	Endpoints  []string             `json:"endpoints,omitempty"`
	Machine    machine              `json:"machine"`
	Metrics    numbers              `json:"metrics"`
	Peers      map[string]numbers   `json:"peers"`
	Violations []string             `json:"violations"`
	Marks      map[string]mark      `json:"marks,omitempty"`
	Rounds     map[string][]float64 `json:"rounds"` // each metric, round by round

	strict     bool   // a mark missed is a violation
	spawned    string // in words
	peerRounds map[string]map[string][]float64
}

func newReport(o *options) *report {
	var shown []string
	for _, e := range o.endpoints {
		shown = append(shown, redacted(e))
	}
	return &report{
		Scenario: o.scenario, Spawn: o.spawn, Endpoints: shown, Machine: describeMachine(o.dir),
		Metrics: numbers{}, Peers: map[string]numbers{}, Violations: []string{}, Marks: map[string]mark{}, strict: o.strict,
		Rounds: map[string][]float64{}, spawned: describeSpawn(o.regions, o.each), peerRounds: map[string]map[string][]float64{},
	}
}

func (r *report) add(from *round) {
	addRound(r.Rounds, r.Metrics, from.numbers)
	for name, n := range from.peers {
		if r.Peers[name] == nil {
			r.Peers[name], r.peerRounds[name] = numbers{}, map[string][]float64{}
		}
		addRound(r.peerRounds[name], r.Peers[name], n)
	}
	r.Violations = append(r.Violations, from.violations...)
	maps.Copy(r.Marks, from.marks)
}

func addRound(rounds map[string][]float64, medians, n numbers) {
	for metric, v := range n {
		rounds[metric] = append(rounds[metric], v)
		medians[metric] = spreadOf(rounds[metric]).median
	}
}

func (r *report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s on %s\n%s\n\n", r.Scenario, r.where(), r.Machine)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "metric\tmedian\tlowest\thighest\t\n")
	printMetrics(w, "", r.Rounds)
	for _, name := range slices.Sorted(maps.Keys(r.peerRounds)) {
		printMetrics(w, name+" ", r.peerRounds[name])
	}
	w.Flush()
	r.printMarks(out)
	for _, v := range r.Violations {
		fmt.Fprintf(out, "VIOLATION %s\n", v)
	}
}

func (r *report) where() string {
	if r.Spawn == "" {
		return strings.Join(r.Endpoints, ", ")
	}
	return r.spawned + ", spawned"
}

func printMetrics(w io.Writer, prefix string, rounds map[string][]float64) {
	for _, metric := range slices.Sorted(maps.Keys(rounds)) {
		s := spreadOf(rounds[metric])
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t\n", prefix, metric, readable(s.median), readable(s.low), readable(s.high))
	}
}

// readable shows three digits or more, thousands apart.
func readable(v float64) string {
	switch {
	case v < 10:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case v < 1000:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (r *report) verdict() error {
	if n := len(r.Violations); n > 0 {
		return fmt.Errorf("%d violations, the first: %s", n, r.Violations[0])
	}
	return nil
}
