package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stockmesh/stockmesh/node/server"
)

// childEnv holds a node's configuration as JSON. It makes the test binary that node.
const childEnv = "STOCKMESH_CLUSTERTEST_NODE"

// Main runs the tests, or a node where this process was started to be one.
func Main(m *testing.M) {
	config, isNode := os.LookupEnv(childEnv)
	if !isNode {
		os.Exit(m.Run())
	}
	if err := runChild(config); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(config string) error {
	var c server.Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	go endWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return runNode(ctx, c, os.Stderr)
}

// endWithParent ends the process when the test's is no more: nobody else would.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(3)
}

func runNode(ctx context.Context, c server.Config, log io.Writer) error {
	c.Logger = slog.New(slog.NewTextHandler(log, nil))
	s, err := server.New(c)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
