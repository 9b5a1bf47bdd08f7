package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) drainCommand() *cobra.Command {
	var delay, timeout time.Duration
	cmd := &cobra.Command{
		Use: "drain", Short: "Have the node on this machine send its clients elsewhere, before it is stopped",
		Long: `Asks the admin port of the node on this machine (--admin, as the node itself was given
it) to hand over what it decides and to send its clients elsewhere, and waits until they
are gone. The node runs on without clients: stop it then, it ends at once.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.drain(cmd.Context(), delay, timeout) },
	}
	cmd.Flags().DurationVar(&delay, "delay", 5*time.Second, "`TIME` from when /readyz says draining until clients are sent away, so that load balancers have seen it, at most 60s (0: none)")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "`TIME` to wait in all, --delay and the node's --drain included")
	return cmd
}

func (a *app) drain(ctx context.Context, delay, timeout time.Duration) error {
	if _, err := a.read(); err != nil {
		return err
	}
	if delay < 0 || timeout <= delay {
		return fmt.Errorf("--timeout %v must be longer than --delay %v, which can't be negative", timeout, delay)
	}
	n, err := newNeighbour("--admin", a.config.Admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer struct {
		Status      any    `json:"status"` // drained; of a problem, its number
		Connections int    `json:"connections"`
		Message     string `json:"message"`
	}
	status, err := n.ask(ctx, http.MethodPost, "/drain?delay="+url.QueryEscape(delay.String()), &answer)
	switch {
	case errors.Is(err, errLate):
		return fmt.Errorf("not drained within %v; the node goes on with it", timeout)
	case err != nil:
		return fmt.Errorf("drain: %w", err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("drain: %s: an admin port that is open to others asks for a token; keep it on loopback, or send POST /drain with one", answer.Message)
	case status != http.StatusOK:
		return fmt.Errorf("drain: the node answers %d: %s", status, answer.Message)
	}
	_, err = fmt.Fprintf(a.out, "%v, %d connections left\n", answer.Status, answer.Connections)
	return err
}
