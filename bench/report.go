package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

// report is the result of a scenario: medians over its rounds.
type report struct {
	page.Run
	strict  bool   // a mark missed is a violation
	count   int    // rounds, also those that an error ended
	promise string // what an answer of ours does, beside the peers'
}

func newReport(o *options) *report {
	r := &report{Run: page.Run{
		Scenario: o.scenario, About: aboutOf(o.scenario), Spawn: o.spawn, Machine: describeMachine(o.dir), Version: describeVersion(),
		Command: o.command, Flags: o.effective, Seed: o.seed, Began: time.Now().UTC(),
		Metrics: map[string]float64{}, Peers: map[string]map[string]float64{}, Violations: []string{}, Marks: map[string]mark{},
		Rounds: map[string][]float64{}, PeerRounds: map[string]map[string][]float64{}, Durability: map[string]string{},
	}, strict: o.strict, promise: promises[o.each]}
	r.Endpoints = redactedAll(o.endpoints)
	r.Where = describeSpawn(o.regions, o.each) + ", spawned"
	if o.spawn == "" {
		r.Where = strings.Join(r.Endpoints, ", ")
	}
	return r
}

// add takes a round that was measured to its end.
func (r *report) add(from *round) {
	addRound(r.Rounds, r.Metrics, from.numbers)
	for name, n := range from.peers {
		if r.Peers[name] == nil {
			r.Peers[name], r.PeerRounds[name] = map[string]float64{}, map[string][]float64{}
		}
		addRound(r.PeerRounds[name], r.Peers[name], n)
	}
	maps.Copy(r.Marks, from.marks)
	r.addPart(from)
}

// addPart takes what is known of a round that an error may have ended. Its figures are
// of no use then.
func (r *report) addPart(from *round) {
	r.count++
	r.Violations = append(r.Violations, from.violations...)
	maps.Copy(r.Durability, from.durability)
	if len(r.Durability) > 0 && r.promise != "" && r.Durability[page.Ours] == "" {
		r.Durability[page.Ours] = r.promise
	}
	for _, name := range slices.Sorted(maps.Keys(from.skipped)) {
		if text := name + ": " + from.skipped[name]; !slices.Contains(r.Skipped, text) {
			r.Skipped = append(r.Skipped, text)
		}
	}
	from.chronicle.draw(r.count, &r.Run)
}

// promises says what an answer means, by the nodes of a region.
var promises = map[int]string{
	1: "one copy; fsync before the answer",
	3: "three copies; fsync of two of them before the answer",
	5: "five copies; fsync of three of them before the answer",
}

func addRound(rounds map[string][]float64, medians map[string]float64, n numbers) {
	for metric, v := range n {
		rounds[metric] = append(rounds[metric], v)
		medians[metric] = spreadOf(rounds[metric]).median
	}
}

// finish judges what was found; failed is what has ended the run early, if anything.
func (r *report) finish(failed error) {
	r.TookS = time.Since(r.Began).Round(time.Millisecond).Seconds()
	if failed != nil {
		r.Error = failed.Error()
		return
	}
	r.judge()
}

// writeRuns writes one result as an object, several as an array.
func writeRuns(file string, runs []page.Run, many bool) error {
	var what any = runs
	if !many {
		what = runs[0]
	}
	b, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func writePage(name string, runs []page.Run) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = page.Write(f, runs)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s on %s\n%s\n%s\n\n", r.Scenario, r.Where, r.Machine, r.Version)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "metric\tmedian\tlowest\thighest\t\n")
	printMetrics(w, "", r.Rounds)
	for _, name := range slices.Sorted(maps.Keys(r.PeerRounds)) {
		printMetrics(w, name+" ", r.PeerRounds[name])
	}
	w.Flush()
	for _, name := range slices.Sorted(maps.Keys(r.Durability)) {
		fmt.Fprintf(out, "DURABILITY %s: %s\n", name, r.Durability[name])
	}
	for _, text := range r.Skipped {
		fmt.Fprintf(out, "SKIPPED %s\n", text)
	}
	r.printMarks(out)
	for _, v := range r.Violations {
		fmt.Fprintf(out, "VIOLATION %s\n", v)
	}
}

func printMetrics(w io.Writer, prefix string, rounds map[string][]float64) {
	for _, metric := range slices.Sorted(maps.Keys(rounds)) {
		s := spreadOf(rounds[metric])
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t\n", prefix, metric, readable(s.median), readable(s.low), readable(s.high))
	}
}

// readable shows a figure with three digits or more, thousands apart.
func readable(v float64) string { return page.Readable(v) }

func (r *report) verdict() error {
	if n := len(r.Violations); n > 0 {
		return fmt.Errorf("%d violations, the first: %s", n, r.Violations[0])
	}
	return nil
}
