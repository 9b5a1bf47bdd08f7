package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

// scenarioAll is every scenario.
const scenarioAll = "all"

// missingError is what a scenario would need and this machine hasn't.
type missingError struct{ what string }

func (e *missingError) Error() string { return e.what }

// missing says what a scenario lacks here, and how to get it. Among all scenarios, one
// that fails with it counts as not run.
func missing(format string, args ...any) error {
	return &missingError{fmt.Sprintf(format, args...)}
}

// entry is a scenario of all of them; err: why it can't be run.
type entry struct {
	scenario string
	options  *options
	err      error
}

// everything looks at the flags for each scenario. One that does not fit the nodes that
// are asked for gets those that it takes.
func everything(args []string, asked *options) ([]entry, error) {
	var list []entry
	var errs []error
	for _, s := range scenarios {
		o, err := optionsOf(s.name, args, asked.seed, false)
		if err != nil && asked.spawn != "" && len(asked.endpoints) == 0 {
			if own, failed := optionsOf(s.name, args, asked.seed, true); failed == nil {
				o, err = own, nil
			}
		}
		list = append(list, entry{s.name, o, err})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	if len(errs) == len(list) {
		return nil, errs[0]
	}
	return list, nil
}

func optionsOf(scenario string, args []string, seed uint64, own bool) (*options, error) {
	o, f, err := parseFlags(args, io.Discard)
	if err != nil {
		return nil, err
	}
	o.scenario, o.seed = scenario, seed
	if own {
		o.spawn = ""
	}
	return o, o.complete(f)
}

// measureAll runs one scenario after the other. What fails does not keep the others
// from being run; kept is called after each with all results so far.
func measureAll(ctx context.Context, list []entry, p *progress, kept func([]*report) error) (reports []*report, err error) {
	for i, e := range list {
		if ctx.Err() != nil {
			break
		}
		p.part(fmt.Sprintf("%d/%d %s", i+1, len(list), e.scenario))
		r := e.run(ctx, p)
		if ctx.Err() != nil && r.count == 0 {
			break
		}
		if r.NotRun != "" {
			p.note("%d/%d %s: not run: %s", i+1, len(list), e.scenario, r.NotRun)
		}
		reports = append(reports, r)
		if err := kept(reports); err != nil {
			return reports, err
		}
	}
	return reports, nil
}

func (e entry) run(ctx context.Context, p *progress) *report {
	if e.err != nil {
		r := newReport(&options{scenario: e.scenario})
		r.NotRun = inALine(e.err)
		return r
	}
	r, err := measure(ctx, e.options, p)
	r.settle(err)
	return r
}

// settle takes a scenario that ended for lack of something, and for nothing else, as one
// that was not run.
func (r *report) settle(failed error) {
	lacks := (*missingError)(nil)
	if errors.As(failed, &lacks) && onlyMissing(failed) && len(r.Violations) == 0 {
		r.NotRun, r.Error = inALine(lacks), ""
	}
}

// onlyMissing reports whether nothing has joined what is missing, such as a node that
// has crashed.
func onlyMissing(err error) bool {
	switch e := err.(type) {
	case *missingError:
		return true
	case interface{ Unwrap() error }:
		return onlyMissing(e.Unwrap())
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(one error) bool { return !onlyMissing(one) })
	}
	return false
}

// inALine is an error that may be several.
func inALine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func runsOf(reports []*report) []page.Run {
	var runs []page.Run
	for _, r := range reports {
		runs = append(runs, r.Run)
	}
	return runs
}

const headlinesOfAll = 4

// printAll is the one table of all scenarios.
func printAll(out io.Writer, reports []*report) {
	if len(reports) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n%s\n\n", reports[0].Machine, reports[0].Version)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "scenario\tverdict\tmarks met\ttook\tfigures")
	for _, r := range reports {
		met, of := r.MarksMet()
		var figures []string
		for _, metric := range r.Headlines(headlinesOfAll) {
			figures = append(figures, metric+" "+readable(r.Metrics[metric]))
		}
		took := (time.Duration(r.TookS * float64(time.Second))).Round(100 * time.Millisecond)
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%v\t%s\n", r.Scenario, r.inAWord(), met, of, took, strings.Join(figures, ", "))
	}
	w.Flush()
	for _, r := range reports {
		prefix := indented{out, r.Scenario + ": "}
		if r.NotRun != "" {
			fmt.Fprintf(prefix, "NOT RUN %s\n", r.NotRun)
		}
		for _, text := range r.Skipped {
			fmt.Fprintf(prefix, "SKIPPED %s\n", text)
		}
		r.printMissed(prefix)
		for _, v := range r.Violations {
			fmt.Fprintf(prefix, "VIOLATION %s\n", firstLine(v))
		}
		if r.Error != "" {
			fmt.Fprintf(prefix, "FAILED %s\n", firstLine(r.Error))
		}
	}
}

// firstLine leaves out what a node's log has to say: that was told, and is in the files.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// indented begins each line, which is one write, with whose it is.
type indented struct {
	out    io.Writer
	prefix string
}

func (i indented) Write(b []byte) (int, error) {
	n, err := io.WriteString(i.out, i.prefix+string(b))
	return max(n-len(i.prefix), 0), err
}

func (r *report) inAWord() string {
	switch {
	case r.NotRun != "":
		return "not run"
	case len(r.Violations) > 0:
		return fmt.Sprintf("%d violations", len(r.Violations))
	case r.Error != "":
		return "failed"
	}
	return "ok"
}

// verdictOf is nil where nothing was wrong with any of them.
func verdictOf(reports []*report) error {
	var wrong []string
	for _, r := range reports {
		if r.Failed() {
			wrong = append(wrong, r.Scenario+" ("+r.inAWord()+")")
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d scenarios: %s", len(wrong), len(reports), strings.Join(wrong, ", "))
	}
	return nil
}
