// Command node runs one stockmesh node, and asks one that runs on this machine.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: the log has every commit anyway.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

// run does what the arguments say. environ is in the form of os.Environ. Log lines and
// warnings go to errOut, what was asked for to out.
func run(ctx context.Context, args, environ []string, out, errOut io.Writer) error {
	root := newRoot(newApp(environ, out, errOut))
	root.SetArgs(append([]string{}, args...)) // for nil it takes those of the process, a test's own
	root.SetOut(out)
	root.SetErr(errOut)
	return root.ExecuteContext(ctx)
}
