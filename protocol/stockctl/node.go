package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Look after the nodes of a region", Args: cobra.NoArgs,
		Long: `Look after the nodes that hold a region's data. Any node of the region can be asked, at
its admin port. "stockctl mesh" shows all regions, as clients see them.`,
		Example: `  stockctl node list
  stockctl node remove eu-3
  stockctl node replicas 3`,
		// Without it a mistyped subcommand would print the help and succeed.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.adminFlag(cmd.PersistentFlags())
	cmd.AddCommand(a.nodeListCommand(), a.nodeRemoveCommand(), a.nodeReplicasCommand())
	return cmd
}

// memberList is the answer of GET /nodes.
type memberList struct {
	Nodes    []member `json:"nodes"`
	Replicas int      `json:"replicas"`
}

// member is a node that holds data of the region.
type member struct {
	Name    string `json:"name"`
	Online  bool   `json:"online"`
	Current bool   `json:"current"`
	Leader  bool   `json:"leader"`
	Lag     uint64 `json:"lag"`
}

func (a *app) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the nodes that hold the region's data", Args: cobra.NoArgs,
		Long: `Show the nodes that hold the region's data, and how many copies of it there are. CURRENT
nodes know the region's streams as they are, LAG is how many entries a node has yet to
see of them, and the leader is the node that places copies.`,
		Example: "  stockctl node list\n  stockctl node list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list memberList
			if err := a.operate(cmd.Context(), http.MethodGet, "/nodes", nil, &list); err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, list)
			}
			return memberTable(a.out, &list)
		},
	}
}

func memberTable(w io.Writer, list *memberList) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tONLINE\tCURRENT\tLEADER\tLAG")
	for _, n := range list.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", n.Name, yesNo(n.Online), yesNo(n.Current), yesNo(n.Leader), n.Lag)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "Copies of the data: %d\n", list.Replicas)
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take a node that is gone for ever out of the region", Args: cobra.ExactArgs(1),
		Long: `Take a node that is gone for ever out of the region: the copies that it held are made
anew on others, as far as there are any, and it no longer counts for a majority. It must
not come back with its old data; with an empty data directory it may. A node that is only
away for a while needs nothing.

A node that is still alive is refused: stop it first. --force removes it all the same.`,
		Example: "  stockctl node remove eu-3",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removeNode(cmd.Context(), args[0], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it even if it is alive")
	return cmd
}

func (a *app) removeNode(ctx context.Context, name string, force bool) error {
	if err := checkRegion("NAME", name); err != nil {
		return err
	}
	path := "/nodes/" + name
	if force {
		path += "?force=true"
	}
	var answer struct {
		Removed string `json:"removed"`
	}
	err := a.operate(ctx, http.MethodDelete, path, nil, &answer)
	if isConflict(err) && !force {
		return fmt.Errorf("%w\n  a node that is alive is removed with --force only", err)
	}
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, answer)
	}
	_, err = fmt.Fprintf(a.out, "Removed %s. It must not come back with its old data.\n", answer.Removed)
	return err
}

// replicas is both what PUT /replicas is sent and what it answers.
type replicas struct {
	Replicas int `json:"replicas"`
}

func (a *app) nodeReplicasCommand() *cobra.Command {
	return &cobra.Command{
		Use: "replicas N", Short: "Set how many copies of the region's data there are", Args: cobra.ExactArgs(1),
		Long: `Set how many copies of the region's data there are: 1, 3 or 5, each on a node of its own.
With 3 the region survives the loss of one node, with 5 of two.

Start the nodes with the same number as --expect from then on.`,
		Example: "  stockctl node replicas 5",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("the copies must be a whole number, not %q", args[0])
			}
			return a.setReplicas(cmd.Context(), n)
		},
	}
}

func (a *app) setReplicas(ctx context.Context, n int) error {
	var answer replicas
	if err := a.operate(ctx, http.MethodPut, "/replicas", replicas{n}, &answer); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, answer)
	}
	_, err := fmt.Fprintf(a.out, "Copies of the data: %d\n", answer.Replicas)
	return err
}
