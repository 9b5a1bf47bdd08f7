package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

func (a *app) regionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "region", Short: "Look after the links to other regions", Args: cobra.NoArgs,
		Long: `Look after the links to other regions. Any node of the region can be asked, at its admin
port. Regions find and link each other by themselves: start a node of the new one with
--join-region. "stockctl mesh" shows their nodes too.`,
		Example: `  stockctl region list
  stockctl region remove us
  stockctl region restore us`,
		// Without it a mistyped subcommand would print the help and succeed.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.adminFlag(cmd.PersistentFlags())
	cmd.AddCommand(a.regionListCommand(), a.regionRemoveCommand(), a.regionRestoreCommand())
	return cmd
}

func (a *app) regionListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the regions that this one knows", Args: cobra.NoArgs,
		Long: `Show the regions that this one knows; a star marks its own. LAG is how far behind the
region's news are, HEARD when the node last heard of it.`,
		Example: "  stockctl region list\n  stockctl region list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var mesh protocol.Mesh
			if err := a.operate(cmd.Context(), http.MethodGet, "/regions", nil, &mesh); err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, mesh)
			}
			return regionTable(a.out, &mesh)
		},
	}
}

func regionTable(w io.Writer, mesh *protocol.Mesh) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REGION\tSTATE\tLAG\tHEARD\tNODES")
	for _, r := range mesh.Regions {
		name := r.Name
		if name == mesh.Region {
			name += " *"
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%d\n", name, r.State, lag(&r), heard(mesh, &r), len(r.Nodes))
	}
	return t.Flush()
}

func lag(r *protocol.MeshRegion) time.Duration { return time.Duration(r.LagMS) * time.Millisecond }

// heard is when the node last heard of a region; of its own it always does.
func heard(mesh *protocol.Mesh, r *protocol.MeshRegion) string {
	if r.Name == mesh.Region {
		return "-"
	}
	return timeText(r.HeardAt)
}

func (a *app) regionRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "End the links to a region", Args: cobra.ExactArgs(1),
		Long: `End the links to a region that is given up, as this region sees it: none of its nodes calls
that region's or lets them in, and its stock is no longer counted. What it held of this
region's units to sell is lost with it. Ask one node of each region that stays. A region
that is only cut off for a while needs nothing.

"stockctl region restore" takes it back.`,
		Example: "  stockctl region remove us",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeRegion(cmd.Context(), http.MethodDelete, args[0], "Removed %s. Its nodes are not let in any more.\n")
		},
	}
}

func (a *app) regionRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restore NAME", Short: "Link to a region again that was removed", Args: cobra.ExactArgs(1),
		Example: "  stockctl region restore us",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeRegion(cmd.Context(), http.MethodPut, args[0], "Restored %s. It is linked as soon as its nodes are found.\n")
		},
	}
}

func (a *app) changeRegion(ctx context.Context, method, name, done string) error {
	if err := checkRegion("NAME", name); err != nil {
		return err
	}
	var answer struct {
		Region string `json:"region"`
		State  string `json:"state"` // linked or removed
	}
	if err := a.operate(ctx, method, "/regions/"+name, nil, &answer); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, answer)
	}
	_, err := fmt.Fprintf(a.out, done, answer.Region)
	return err
}
