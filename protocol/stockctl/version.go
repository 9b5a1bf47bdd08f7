package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Stamped by builds for others: -ldflags "-X main.version=1.4.0 -X main.commit=... -X main.date=...".
var version, commit, date string

// stamp says which stockctl this is.
type stamp struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
}

// stamped returns what the build stamped; for what it didn't, what the go command knew,
// which names the commit where it built from a checkout.
func stamped() stamp {
	s := stamp{Version: version, Commit: commit, Date: date, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return s
	}
	s.Version = cmp.Or(s.Version, info.Main.Version)
	for _, set := range info.Settings {
		switch set.Key {
		case "vcs.revision":
			s.Commit = cmp.Or(s.Commit, set.Value)
		case "vcs.time":
			s.Date = cmp.Or(s.Date, set.Value)
		}
	}
	return s
}

func (s stamp) String() string {
	return fmt.Sprintf("stockctl %s commit %s of %s %s", cmp.Or(s.Version, "unknown"), cmp.Or(s.Commit, "unknown"), cmp.Or(s.Date, "unknown"), s.Go)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, commit, date and Go of this program", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return printJSON(a.out, stamped())
			}
			_, err := fmt.Fprintln(a.out, stamped())
			return err
		},
	}
}
