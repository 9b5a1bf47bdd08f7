package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func (a *app) backupCommand() *cobra.Command {
	var out string
	var force bool
	cmd := &cobra.Command{
		Use: "backup", Short: "Write a region's whole state to a file", Args: cobra.NoArgs,
		Long: `Write a region's whole state, as one node has it, to one file: items, reservations, the
idempotency keys that are remembered, and what is revoked. Any node of the region will
do; it goes on selling meanwhile. What is sold after the backup has begun may or may not
be in it.

The node's admin port is asked, which listens on the node's own machine unless told
otherwise. The file grows as FILE.partial, is checked against its digest, and only then
gets its name: a FILE that is there is whole. It shows all of the stock, so that only
its owner may read it.

"-" writes to the output instead, still checked: on exit status 1 throw away what came.
In a pipeline that status is lost without the shell's pipefail; "stockctl restore" checks
again in any case.`,
		Example: `  stockctl backup --out eu-$(date +%F).stockmesh
  stockctl backup --out - | zstd > eu.stockmesh.zst
  ssh eu-1 stockctl backup --out - > eu.stockmesh`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := limited(cmd.Context(), a.timeoutOr(0))
			defer cancel()
			return a.backup(ctx, out, force)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the `FILE` to write, - for the output")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE and what an interrupted backup left")
	cmd.MarkFlagRequired("out")
	a.adminFlag(cmd.Flags())
	return cmd
}

func (a *app) backup(ctx context.Context, out string, force bool) error {
	switch out {
	case "":
		return errors.New("--out is empty")
	case "-":
		return a.backupToOutput(ctx)
	}
	// Before the node is asked: it must not work for a file that can't be written.
	p, err := createPartial(out, force)
	if err != nil {
		return err
	}
	defer p.drop()
	sum, err := a.fetchBackup(ctx, p)
	if err != nil {
		return err
	}
	if err := p.commit(); err != nil {
		return err
	}
	sum.File = out
	return a.printBackup(a.out, &sum)
}

func (a *app) backupToOutput(ctx context.Context) error {
	if isTerminal(a.out) {
		return errors.New("a backup is no text for a terminal: send it to a file or a pipe")
	}
	sum, err := a.fetchBackup(ctx, a.out)
	if err != nil {
		return fmt.Errorf("what was written is no backup: %w", err)
	}
	return a.printBackup(a.errOut, &sum)
}

// fetchBackup writes the node's backup to w. After an error it isn't one.
func (a *app) fetchBackup(ctx context.Context, w io.Writer) (backupSummary, error) {
	response, err := a.askAdmin(ctx, http.MethodGet, "/backup", nil)
	if err != nil {
		return backupSummary{}, err
	}
	defer response.Body.Close()
	bar := newByteBar(a.errOut, "backup", response.ContentLength)
	defer bar.end()
	sum, err := copyBackup(response.Body, w, bar)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return sum, errors.New("the node broke the backup off; its log says why")
	}
	return sum, err
}

func (a *app) printBackup(w io.Writer, sum *backupSummary) error {
	if a.json {
		return printJSON(w, *sum)
	}
	if sum.File != "" {
		fmt.Fprintf(w, "%s: ", sum.File)
	}
	_, err := fmt.Fprintln(w, sum.text())
	return err
}
