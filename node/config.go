package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stockmesh/stockmesh/node/server"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check or show the options of a node",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("config check or config show? (--help tells more)")
		},
	}
	changed := false
	show := &cobra.Command{
		Use: "show", Short: "Print the options in force as a file that --config takes, each with where it comes from",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.show(changed) },
	}
	show.Flags().BoolVar(&changed, "changed", false, "leave out what has its default")
	cmd.AddCommand(show, &cobra.Command{
		Use: "check", Short: "Find everything that is wrong with the options, their files and names, without starting",
		Long: `Checks the options as a start does, and also that files can be read and used, that the
data directory is this node's, and that names of machines are known. It prints every
problem and warning, and ends with 1 if there is a problem.`,
		Args: noArguments,
		RunE: a.check,
	})
	return cmd
}

// show prints no secret: those are in files, and a URL that has or may have one is cut. It
// prints what can't be started as well: whoever asks may be looking for the reason.
func (a *app) show(changed bool) error {
	origins, err := a.read()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(a.out, server.ShowOptions(a.options, origins, changed)); err != nil {
		return err
	}
	return a.config.Validate()
}

func (a *app) check(cmd *cobra.Command, _ []string) error {
	_, unread := a.read()
	found := a.config.Check(cmd.Context())
	problems := append(server.Lines(unread), found.Problems...)
	for _, p := range problems {
		fmt.Fprintln(a.out, "problem:", p)
	}
	for _, w := range found.Warnings {
		fmt.Fprintln(a.out, "warning:", w)
	}
	if n := len(problems); n > 0 {
		return fmt.Errorf("config check: problems found: %d", n)
	}
	_, err := fmt.Fprintln(a.out, "ok:", a.config.Summary())
	return err
}
