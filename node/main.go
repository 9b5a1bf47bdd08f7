// Command node runs one stockmesh node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
	"golang.org/x/term"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(args []string, out *os.File) error {
	config := server.Default()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	flags.SortFlags = false
	config.Bind(flags)
	format := flags.String("log-format", "text", "`FORMAT` of log lines: text or json")
	level := flags.String("log-level", "info", "least `LEVEL` of log lines: debug, info, warn or error")
	version := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintf(out, "Usage: node [flags]\n\nRuns one stockmesh node. Every flag is also an environment variable:\n--max-connections is STOCKMESH_MAX_CONNECTIONS.\n\n%s", flags.FlagUsages())
	}
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w (--help lists the flags)", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (--help lists the flags)", flags.Arg(0))
	}
	if err := server.FromEnvironment(flags, os.LookupEnv); err != nil {
		return err
	}
	config.Version = buildVersion()
	if *version {
		fmt.Println(config.Version)
		return nil
	}
	if config.Logger, err = newLogger(out, *format, *level); err != nil {
		return err
	}
	s, err := server.New(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: the log has every commit anyway.
	context.AfterFunc(ctx, stop)
	return s.Run(ctx)
}

func newLogger(out *os.File, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(io.Writer(out), &slog.HandlerOptions{Level: l})), nil
	case "text":
		return slog.New(tint.NewTextHandler(out, &tint.Options{Level: l, TimeFormat: time.DateTime, NoColor: !term.IsTerminal(int(out.Fd()))})), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

// buildVersion is what the Go toolchain stamped into the binary.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			version = s.Value
		}
	}
	return version + " " + info.GoVersion
}
