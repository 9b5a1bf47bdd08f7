package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func (a *app) exportCommand() *cobra.Command {
	var sel protocol.Selector
	cmd := &cobra.Command{
		Use: "export [FILE]", Short: "Write all items as CSV, to a file or to the output", Args: cobra.MaximumNArgs(1),
		Long: `Write all items as CSV. The columns sku, location and on_hand are what import reads.
With --json: one item a line.`,
		Example: "  stockctl export stock.csv\n  stockctl export --prefix tee- | head",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.long(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				if len(args) == 0 {
					_, err := a.export(ctx, c, sel, a.out)
					return err
				}
				return a.exportFile(ctx, c, sel, args[0])
			})
		},
	}
	cmd.Flags().StringSliceVar(&sel.Prefixes, "prefix", nil, "SKUs that start so")
	cmd.Flags().StringSliceVarP(&sel.Locations, "location", "l", nil, "only these locations")
	return cmd
}

// exportFile writes beside the file and renames, so that a broken export never
// stands under its name.
func (a *app) exportFile(ctx context.Context, c *client.Client, sel protocol.Selector, path string) error {
	part := path + ".part"
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	n, err := a.export(ctx, c, sel, f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(part)
		return fmt.Errorf("export: %w", err)
	}
	fmt.Fprintf(a.errOut, "%d items\n", n)
	return os.Rename(part, path)
}

func (a *app) export(ctx context.Context, c *client.Client, sel protocol.Selector, w io.Writer) (n int, err error) {
	table := csv.NewWriter(w)
	if !a.json {
		table.Write([]string{"sku", "location", "on_hand", "reserved", "available", "version"})
	}
	for it, err := range c.Items(ctx, sel, 0) {
		if err != nil {
			return n, err
		}
		n++
		if a.json {
			err = printJSON(w, it)
		} else {
			err = table.Write([]string{it.SKU, it.Location, decimal(it.OnHand), decimal(it.Reserved), decimal(it.Available), it.Version})
		}
		if err != nil {
			return n, err
		}
	}
	table.Flush()
	return n, table.Error()
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
