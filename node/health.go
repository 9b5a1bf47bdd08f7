package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/stockmesh/stockmesh/node/server"
)

// healthTimeout is more than a node needs that is well.
const healthTimeout = 5 * time.Second

func (a *app) healthCommand() *cobra.Command {
	ready := false
	cmd := &cobra.Command{
		Use: "health", Short: "Ask the node on this machine whether it is alive, or ready to serve",
		Long: `Asks the node on this machine, at --metrics if it has that listener, else at --admin, as
the node itself was given them, and waits 5 s at most. It prints the status and what is
wrong, and ends with 1 if there is no answer or, with --ready, if the node isn't ready.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.health(cmd.Context(), ready) },
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it serves clients, not only whether it is alive")
	return cmd
}

func (a *app) health(ctx context.Context, ready bool) error {
	if _, err := a.read(); err != nil {
		return err
	}
	option, addr := "--admin", a.config.Admin
	if a.config.Metrics != "" {
		option, addr = "--metrics", a.config.Metrics
	}
	n, err := newNeighbour(option, addr)
	if err != nil {
		return err
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var answer server.Readiness
	status, err := n.ask(ctx, http.MethodGet, path, &answer)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	fmt.Fprintln(a.out, answer.Status)
	for _, said := range []struct {
		kind string
		list []string
	}{{"problem", answer.Problems}, {"warning", answer.Warnings}, {"mesh", answer.Mesh}} {
		for _, text := range said.list {
			fmt.Fprintf(a.out, "%s: %s\n", said.kind, text)
		}
	}
	if status != http.StatusOK {
		return fmt.Errorf("health: the node is %s", answer.Status)
	}
	return nil
}
