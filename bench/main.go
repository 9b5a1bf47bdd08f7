// Command bench measures a stockmesh node from the outside and checks, from the
// outside, that it stayed correct while it was measured.
//
// The node, the generator and what they are compared with are processes of their
// own: bench starts its own binary again for each. A scenario is a function that
// runs one round against a node and returns numbers and violations; everything
// around it (rounds, medians, the table, the JSON file) is shared.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	if child, ok := children[firstArgument()]; ok {
		exit(child(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once; the children notice.
	context.AfterFunc(ctx, stop)
	exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func firstArgument() string {
	if len(os.Args) < 2 {
		return ""
	}
	return os.Args[1]
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is the program. Its table goes to out, its progress to log.
func run(ctx context.Context, args []string, out, log *os.File) error {
	if len(args) > 0 && args[0] == commandVerify {
		return runVerify(ctx, args[1:], out, log)
	}
	o, err := parseOptions(args, out)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.run(ctx, args, out, log)
}

// run does what the options say. args are those that they were read from.
func (o *options) run(ctx context.Context, args []string, out, log *os.File) error {
	p := newProgress(log)
	defer p.close()
	if o.scenario == scenarioAll {
		return runAll(ctx, o, args, out, p)
	}
	r, err := measure(ctx, o, p)
	p.close()
	if r.count > 0 {
		r.print(out)
	}
	return errors.Join(o.keep([]*report{r}, false), ended(ctx, err, r.verdict()))
}

// runAll runs every scenario. What was found is kept after each.
func runAll(ctx context.Context, o *options, args []string, out *os.File, p *progress) error {
	list, err := everything(args, o)
	if err != nil {
		return err
	}
	reports, err := measureAll(ctx, list, p, func(reports []*report) error { return o.keep(reports, true) })
	p.close()
	printAll(out, reports)
	return ended(ctx, err, verdictOf(reports))
}

// keep writes the files that were asked for.
func (o *options) keep(reports []*report, many bool) error {
	var errs []error
	if o.json != "" {
		errs = append(errs, writeRuns(o.json, runsOf(reports), many))
	}
	if o.html != "" {
		errs = append(errs, writePage(o.html, runsOf(reports)))
	}
	return errors.Join(errs...)
}

var errInterrupted = errors.New("interrupted")

// ended says why the program does not end well, if it doesn't.
func ended(ctx context.Context, err, verdict error) error {
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case err != nil:
		return err
	}
	return verdict
}
