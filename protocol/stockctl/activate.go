package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) activateCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "activate", Short: "Let a restored region take writes", Args: cobra.NoArgs,
		Long: `Let a region that was restored from a backup take writes; until then it is read-only.
Any node of the region can be asked, once for all of them.

Only do it when the node or region that the backup is of is stopped for good. Both hold
the same units: if both sold, units would be sold twice, and nothing could tell which.
There is no way back. A terminal is asked to confirm; elsewhere --yes is needed.`,
		Example: "  stockctl activate\n  stockctl activate --admin http://eu-1.internal:8081 --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				if err := a.confirmActivation(cmd.Context(), cmd.InOrStdin()); err != nil {
					return err
				}
			}
			return a.activate(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask: the old region or node is stopped for good")
	a.adminFlag(cmd.Flags())
	return cmd
}

func (a *app) confirmActivation(ctx context.Context, in io.Reader) error {
	if !isTerminal(in) || !isTerminal(a.errOut) {
		return errors.New("is the old region or node stopped for good? Units could be sold twice otherwise. Nobody can be asked without a terminal; --yes says that it is")
	}
	base, err := adminURL(a.admin)
	if err != nil {
		return err
	}
	return confirm(ctx, in, a.errOut, fmt.Sprintf(`This lets the region of %s take writes.
Is the old region or node stopped for good? Units could be sold twice otherwise.
Type yes to go on: `, base))
}

// confirm returns an error unless a whole "yes" is typed.
func confirm(ctx context.Context, in io.Reader, out io.Writer, question string) error {
	fmt.Fprint(out, question)
	from := interruptible(ctx, in)
	defer from.Close()
	answer, err := bufio.NewReader(from).ReadString('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return errors.New("not confirmed: nothing was changed")
	}
	return nil
}

func (a *app) activate(ctx context.Context) error {
	var answer struct {
		Status string `json:"status"`
	}
	if err := a.operate(ctx, http.MethodPost, "/activate", nil, &answer); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, answer)
	}
	_, err := fmt.Fprintf(a.out, "The region is %s: it takes writes now.\n", answer.Status)
	return err
}
