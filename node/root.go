package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
)

// app is what all commands share: the options of the node and where output goes.
type app struct {
	config      server.Config
	options     *pflag.FlagSet // that config is bound to
	environ     []string
	out, errOut io.Writer
}

func newApp(environ []string, out, errOut io.Writer) *app {
	a := &app{config: server.Default(), options: pflag.NewFlagSet("node", pflag.ContinueOnError), environ: environ, out: out, errOut: errOut}
	a.config.Bind(a.options)
	build := newBuild()
	a.config.Version, a.config.Commit, a.config.Date = build.version, build.commit, build.date
	return a
}

// read completes the options that were given as flags.
func (a *app) read() (server.Origins, error) { return server.ReadOptions(a.options, a.environ) }

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "node",
		Short: "Run a stockmesh node",
		Long: `Without a command: runs one stockmesh node, until SIGINT or SIGTERM.

Every option is a flag, a variable of the environment (--max-connections is
STOCKMESH_MAX_CONNECTIONS), and a line in the file that --config names
(max-connections: 1000). A flag goes before the environment, that before the file.`,
		Version:       newBuild().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,

		SuggestionsMinimumDistance: 2, // letters
		RunE:                       func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context()) },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w (--help lists the flags)", err)
	})
	root.PersistentFlags().SortFlags = false
	root.PersistentFlags().AddFlagSet(a.options)
	root.SetUsageFunc(usage)
	root.AddCommand(a.configCommand(), a.drainCommand(), a.healthCommand(), versionCommand())
	return root
}

// noArguments names what was given too much, and the command it may have been meant for.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		meant = fmt.Sprintf(", did you mean %q?", near[0])
	}
	return fmt.Errorf("unexpected argument %q%s (--help lists the flags)", args[0], meant)
}

// serve runs the node.
func (a *app) serve(ctx context.Context) error {
	if _, err := a.read(); err != nil {
		return err
	}
	if err := a.config.Validate(); err != nil {
		return err // before the logger, which relies on it
	}
	handler, err := newLogHandler(a.errOut, a.config.LogFormat, a.config.LogLevel)
	if err != nil {
		return err
	}
	t := newThrottle(handler, a.config.LogBurst)
	a.config.Logger, a.config.LogDropped = t.logger(), t.dropped
	s, err := server.New(a.config)
	if err != nil {
		return err
	}
	defer t.flush() // what it has not told of yet
	return s.Run(ctx)
}
