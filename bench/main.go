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
	o, err := parseOptions(args, out)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	p := newProgress(log)
	defer p.close()
	report, err := measure(ctx, o, p)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	p.close()
	report.print(out)
	if o.json != "" {
		if err := report.write(o.json); err != nil {
			return err
		}
	}
	return report.verdict()
}
