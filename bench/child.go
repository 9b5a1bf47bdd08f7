package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/bench/peer"
	"github.com/stockmesh/stockmesh/node/server"
)

// children are the programs hidden in this binary, by first argument.
var children = map[string]func(args []string) error{
	childNode:  runNode,
	childFloor: runFloor,
	childNull:  runNull,
	childThugs: runAttackers,

	childKeeper: peer.Keep,
	childNATS:   peer.ServeNATS,
	childOther:  runOther,
	childHalt:   runHalt,
	childDisk:   runDisk,
}

const (
	childNode  = "child-node"
	childFloor = "child-floor"
	childThugs = "child-attackers"
	childOther = "child-other"
	childHalt  = "child-halt"
	childDisk  = "child-powerfs"
)

// childContext ends with SIGTERM or with the parent; orphaned is closed with the
// latter. Ctrl-C reaches the whole group, but it is the parent's to say when its
// children end.
func childContext() (ctx context.Context, orphaned <-chan struct{}, cancel context.CancelFunc) {
	signal.Ignore(os.Interrupt)
	ctx, cancel = signal.NotifyContext(context.Background(), syscall.SIGTERM)
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
		cancel()
	}()
	return ctx, gone, cancel
}

func announce(a addresses) error { return json.NewEncoder(os.Stdout).Encode(a) }

// runNode is a node as `go run ./node` starts one: after the directory of all nodes
// of the round come a node's flags. A node that is told to stop leaves its data, as it
// may be started again. One that has lost its parent removes the directory of all:
// others may have been down when the parent was killed, and the last one to go takes
// what is left.
func runNode(args []string) error {
	ctx, orphaned, cancel := childContext()
	defer cancel()
	config, err := nodeConfig(args[1:])
	if err != nil {
		return err
	}
	err = serveNode(ctx, config)
	select {
	case <-orphaned:
		return errors.Join(err, os.RemoveAll(args[0]))
	default:
		return err
	}
}

// runOther becomes another build of this binary: after its file come its arguments.
func runOther(args []string) error {
	return syscall.Exec(args[0], args, os.Environ())
}

func nodeConfig(args []string) (server.Config, error) {
	config := server.Default()
	config.Version = "bench"
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	f := pflag.NewFlagSet(childNode, pflag.ContinueOnError)
	config.Bind(f)
	off := f.Duration(clockFlag, 0, "how wrong the clock is, of `DURATION`")
	if err := f.Parse(args); err != nil {
		return config, err
	}
	if *off != 0 {
		config.Clock = func() time.Time { return time.Now().Add(*off) }
	}
	return config, nil
}

// serveNode runs a node and announces it once it is ready.
func serveNode(ctx context.Context, config server.Config) error {
	s, err := server.New(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-s.Ready():
	}
	err = awaitReady(ctx, s.AdminAddr())
	if err == nil {
		err = announce(addresses{Public: s.Addr().String(), Admin: s.AdminAddr(), Metrics: s.MetricsAddr()})
	}
	if err != nil {
		cancel()
	}
	return errors.Join(err, <-ended)
}

const (
	readyTimeout = 45 * time.Second // before the parent loses patience, as the reason is known here
	readyPoll    = 20 * time.Millisecond
)

// awaitReady looks again and again until the node says that it is ready. A node that
// is told to stop before is no failure.
func awaitReady(ctx context.Context, admin string) error {
	late := time.Now().Add(readyTimeout)
	for {
		ready, says, err := readiness(ctx, admin)
		if ready || ctx.Err() != nil {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("not ready within %v: %s %w", readyTimeout, says, err)
		}
		_ = pause(ctx, readyPoll) // ctx is looked at above
	}
}

func readiness(ctx context.Context, admin string) (ready bool, says []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
	if err != nil {
		return false, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, nil, err
	}
	defer resp.Body.Close()
	says, err = io.ReadAll(resp.Body)
	return resp.StatusCode == http.StatusOK && err == nil, says, err
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
