package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func (a *app) meshCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mesh", Short: "Show the regions and nodes, as a node knows them", Args: cobra.NoArgs,
		Long: `Show the regions and nodes of the mesh, as the first endpoint that answers knows them; a
star marks that node. A region that isn't serving has its state beside its name. LAG is
how far behind the region's news are, HEARD when the node last heard of it.`,
		Example: "  stockctl mesh\n  stockctl mesh --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := limited(cmd.Context(), a.timeout)
			defer cancel()
			mesh, err := a.mesh(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, mesh)
			}
			return meshTable(a.out, &mesh)
		},
	}
}

// mesh asks over plain HTTP, not over a client's connection, which a node that
// drains refuses: the mesh is asked for when something is wrong.
func (a *app) mesh(ctx context.Context) (protocol.Mesh, error) {
	c, err := a.httpClient()
	if err != nil {
		return protocol.Mesh{}, err
	}
	var errs []error
	for _, endpoint := range a.endpoints {
		var mesh protocol.Mesh
		err := a.askMesh(ctx, c, endpoint, &mesh)
		var refused *protocol.Error
		if err == nil || errors.As(err, &refused) && !refused.Retryable || errors.Is(err, client.ErrNoToken) {
			return mesh, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return protocol.Mesh{}, &unreachable{a.endpoints, errors.Join(errs...)}
}

func (a *app) askMesh(ctx context.Context, c *http.Client, endpoint string, mesh *protocol.Mesh) error {
	base, err := httpURL(endpoint, "8080")
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/mesh", nil)
	if err != nil {
		return err
	}
	if err := a.authorize(request); err != nil {
		return fmt.Errorf("%w: %w", client.ErrNoToken, err)
	}
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	return readAnswer(endpoint, response, mesh)
}

func meshTable(w io.Writer, mesh *protocol.Mesh) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REGION\tLAG\tHEARD\tNODE\tSTATE\tOWNER OF\tCONNECTIONS\tENDPOINT")
	for _, r := range mesh.Regions {
		region := r.Name
		if r.State != "serving" {
			region += " " + r.State
		}
		lag, heard := lag(&r), heard(mesh, &r)
		if len(r.Nodes) == 0 { // known of, but none heard
			fmt.Fprintf(t, "%s\t%v\t%s\t-\t-\t-\t-\t-\n", region, lag, heard)
		}
		for _, n := range r.Nodes {
			name := n.Name
			if r.Name == mesh.Region && n.Name == mesh.Node {
				name += " *"
			}
			fmt.Fprintf(t, "%s\t%v\t%s\t%s\t%s\t%s\t%d\t%s\n", region, lag, heard, name, n.State, shardList(n.OwnerOf), n.Connections, n.Endpoint)
		}
	}
	return t.Flush()
}

func shardList(shards []int) string {
	if len(shards) == 0 {
		return "-"
	}
	texts := make([]string, len(shards))
	for i, n := range shards {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}
