package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// app is what all commands share: the global flags and where output goes.
type app struct {
	credentials
	out, errOut io.Writer
	endpoints   []string
	admin       string // a node's admin port
	json        bool
	timeout     time.Duration
	timeoutSet  bool
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "stockctl",
		Short: "Read and change stock on a stockmesh",
		Long: `Stockctl talks to any node of a stockmesh. Writes carry an idempotency key: give one
with --key to be able to repeat a command without doing it twice.

A token goes into a file (--token-file) or into STOCKMESH_TOKEN. No flag takes the token
itself: other users of the machine could read it in the list of processes.`,
		Example: `  stockctl count tee-red-m 40
  stockctl sell tee-red-m=2 mug=1 --reference order-17
  stockctl watch --prefix tee-
  stockctl --endpoint https://eu-1.example.com,https://us-1.example.com get tee-red-m`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.timeoutSet = cmd.Flags().Changed("timeout")
		},
	}
	flags := root.PersistentFlags()
	flags.StringSliceVar(&a.endpoints, "endpoint", endpointsFromEnv(), "nodes to talk to, repeated or joined by commas [STOCKMESH_ENDPOINTS]")
	a.credentials.addFlags(flags)
	flags.BoolVar(&a.json, "json", false, "print JSON, one value a line")
	flags.DurationVar(&a.timeout, "timeout", 30*time.Second, "give up after (activate, node, region: 40s); watch, import, export, backup, verify and replay have no limit unless it is set")
	root.AddCommand(
		a.getCommand(), a.watchCommand(), a.adjustCommand(), a.countCommand(), a.sellCommand(), a.moveCommand(),
		a.configureCommand(), a.historyCommand(), a.outcomeCommand(),
		a.reserveCommand(), a.confirmCommand(), a.releaseCommand(), a.extendCommand(),
		a.importCommand(), a.exportCommand(), a.verifyCommand(), a.replayCommand(), a.probeCommand(),
		a.meshCommand(), a.certsCommand(), a.tokenCommand(), a.revokeCommand(), a.revocationsCommand(),
		a.backupCommand(), a.restoreCommand(), a.activateCommand(), a.nodeCommand(), a.regionCommand(), a.versionCommand(),
	)
	return root
}

func endpointsFromEnv() []string {
	if s := os.Getenv("STOCKMESH_ENDPOINTS"); s != "" {
		return strings.Split(s, ",")
	}
	return []string{client.DefaultEndpoint}
}

// dial connects; wait keeps trying where a node may be away for a while.
func (a *app) dial(ctx context.Context, wait bool) (*client.Client, error) {
	config, err := a.tls()
	if err != nil {
		return nil, err
	}
	a.warnOfPlainText(a.endpoints...)
	c, err := client.Dial(ctx, client.Config{Endpoints: a.endpoints, Token: a.source(), TLS: config, Wait: wait})
	if errors.Is(err, client.ErrUnreachable) {
		return nil, &unreachable{a.endpoints, err}
	}
	return c, err
}

// short runs one exchange under the timeout.
func (a *app) short(ctx context.Context, do func(context.Context, *client.Client) error) error {
	ctx, cancel := limited(ctx, a.timeout)
	defer cancel()
	return a.connected(ctx, do)
}

// limited bounds ctx; zero is no limit.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// long runs what may take its time, under the timeout only where one was given.
func (a *app) long(ctx context.Context, do func(context.Context, *client.Client) error) error {
	if a.timeoutSet {
		return a.short(ctx, do)
	}
	return a.connected(ctx, do)
}

// timeoutOr returns the timeout that was given, or the command's own.
func (a *app) timeoutOr(own time.Duration) time.Duration {
	if a.timeoutSet {
		return a.timeout
	}
	return own
}

func (a *app) connected(ctx context.Context, do func(context.Context, *client.Client) error) error {
	c, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// isTerminal reports whether a person is at the other end of what is written or read.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// unreachable says in a person's words that nobody answered.
type unreachable struct {
	endpoints []string
	err       error
}

func (e *unreachable) Error() string {
	hosts := slices.Clone(e.endpoints)
	for i, h := range hosts {
		if _, rest, ok := strings.Cut(h, "://"); ok {
			hosts[i] = rest
		}
	}
	return fmt.Sprintf("cannot reach %s: is a node running there?", strings.Join(hosts, " or "))
}

func (e *unreachable) Unwrap() error { return e.err }

// explain words an error for the terminal.
func explain(err error) string {
	var refused *protocol.Error
	switch {
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer in time (%v)", err)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	var away *unreachable
	if errors.As(err, &away) {
		return fmt.Sprintf("%v\n  %v", away, away.err)
	}
	return err.Error()
}

func refusal(e *protocol.Error) string {
	s := e.Error()
	switch e.Code {
	case protocol.CodeUnauthorized:
		return s + "; give a valid token with --token-file or STOCKMESH_TOKEN (`stockctl token show` tells what one says)"
	case protocol.CodeForbidden:
		return s + "; the credentials given don't allow it (`stockctl token show` tells what a token allows)"
	}
	if e.Details == nil {
		return s
	}
	for _, l := range e.Details.Lines {
		s += fmt.Sprintf("\n  %s at %s: %d requested, %d available", l.SKU, l.Location, l.Requested, l.Available)
		if l.Elsewhere > 0 {
			s += fmt.Sprintf(", up to %d in other regions", l.Elsewhere)
		}
	}
	if e.Details.State != "" {
		s += fmt.Sprintf(" (%s)", e.Details.State)
	}
	return s
}

var negative = regexp.MustCompile(`^-[0-9]+$`)

// shieldNegative lets `stockctl adjust A1 -3` be written without the -- that
// keeps -3 from being read as a flag.
func shieldNegative(args []string) []string {
	if !slices.Contains(args, "adjust") || slices.Contains(args, "--") {
		return args
	}
	i := slices.IndexFunc(args, negative.MatchString)
	if i < 0 {
		return args
	}
	return append(slices.Delete(slices.Clone(args), i, i+1), "--", args[i])
}
