package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
)

// usage prints how a command is used: all options, in their groups, with the program
// itself, and a command's own flags with that.
func usage(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Usage:\n  %s\n", cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(out, "  %s [command]\n\nCommands:\n", cmd.CommandPath())
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(out, "  %-10s %s\n", c.Name(), c.Short)
			}
		}
	}
	own := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	own.SortFlags = false
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if server.Group(flag) == "" {
			own.AddFlag(flag)
		}
	})
	if !cmd.HasParent() {
		printGroups(out, cmd.PersistentFlags())
	}
	if own.HasFlags() {
		fmt.Fprintf(out, "\nFlags:\n%s", own.FlagUsages())
	}
	if cmd.HasParent() {
		fmt.Fprintf(out, "\nIt takes the options of the node as well: %s --help lists them.\n", cmd.Root().Name())
	}
	return nil
}

// printGroups prints the options, those that belong together under their title.
func printGroups(out io.Writer, options *pflag.FlagSet) {
	var titles []string
	groups := make(map[string]*pflag.FlagSet)
	options.VisitAll(func(flag *pflag.Flag) {
		title := server.Group(flag)
		if groups[title] == nil {
			titles = append(titles, title)
			groups[title] = pflag.NewFlagSet(title, pflag.ContinueOnError)
			groups[title].SortFlags = false
		}
		groups[title].AddFlag(flag)
	})
	for _, title := range titles {
		fmt.Fprintf(out, "\n%s:\n%s", title, groups[title].FlagUsages())
	}
}
