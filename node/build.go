package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Stamped by the linker: -ldflags "-X main.version=1.4.0 -X main.commit=... -X main.date=...".
// It sets package variables only.
var version, commit, date string

// build says what the program was made of; what isn't known is "unknown".
type build struct {
	version string // as 1.4.0
	commit  string // as git names it
	date    string // RFC 3339
}

// newBuild takes what wasn't stamped from what the Go toolchain knows.
func newBuild() build {
	b := build{version, commit, date}
	if info, ok := debug.ReadBuildInfo(); ok {
		b = b.or(info)
	}
	const unknown = "unknown"
	return build{cmp.Or(b.version, unknown), cmp.Or(b.commit, unknown), cmp.Or(b.date, unknown)}
}

func (b build) or(info *debug.BuildInfo) build {
	known := make(map[string]string)
	for _, s := range info.Settings {
		known[s.Key] = s.Value
	}
	b.version = cmp.Or(b.version, info.Main.Version)
	b.commit = cmp.Or(b.commit, known["vcs.revision"])
	b.date = cmp.Or(b.date, known["vcs.time"])
	return b
}

func (b build) String() string {
	return fmt.Sprintf("node %s commit %s of %s %s", b.version, b.commit, b.date, runtime.Version())
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, commit, date and Go",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), newBuild())
			return err
		},
	}
}
