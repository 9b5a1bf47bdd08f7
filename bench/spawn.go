package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
)

// target is what a round measures: a node of its own or running ones.
type target struct {
	endpoints []string
	admin     string // of a spawned node
	node      *process
	dir       string
}

func openTarget(ctx context.Context, o *options) (*target, error) {
	if o.spawn == "" {
		return &target{endpoints: o.endpoints}, nil
	}
	dir, err := os.MkdirTemp(o.dir, "stockmesh-bench-")
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir}
	if t.node, err = startProcess(ctx, childNode, dir); err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.endpoints = []string{"ws://" + t.node.Public + "/v1/ws"}
	t.admin = t.node.Admin
	return t, nil
}

// endpoint spreads connections over the endpoints.
func (t *target) endpoint(i int) string { return t.endpoints[i%len(t.endpoints)] }

// pid is 0 where the node is not ours.
func (t *target) pid() int {
	if t.node == nil {
		return 0
	}
	return t.node.cmd.Process.Pid
}

func (t *target) close() error {
	var err error
	if t.node != nil {
		err = t.node.stop()
	}
	if t.dir != "" {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	return err
}

// children are the programs hidden in this binary, by first argument.
var children = map[string]func(args []string) error{
	childNode:  runNode,
	childFloor: runFloor,
}

const (
	childNode  = "child-node"
	childFloor = "child-floor"
)

// addresses is the one line that a child prints, once it serves.
type addresses struct {
	Public string `json:"public"`
	Admin  string `json:"admin,omitempty"`
}

// process is a child. Its standard input stays open as long as we live: a child
// whose input ends has lost its parent and ends too.
type process struct {
	addresses
	cmd   *exec.Cmd
	stdin io.Closer
}

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

func startProcess(ctx context.Context, args ...string) (*process, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin}
	if err := p.awaitAddresses(ctx, stdout); err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], errors.Join(err, p.stop()))
	}
	return p, nil
}

func (p *process) awaitAddresses(ctx context.Context, stdout io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &p.addresses)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		err := errors.Join(ctx.Err(), p.cmd.Process.Kill())
		<-answer // its pipe has ended with it
		return fmt.Errorf("did not start: %w", err)
	}
}

// stop asks the child to end and, if it doesn't, ends it.
func (p *process) stop() error {
	defer p.stdin.Close()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(err, p.cmd.Process.Kill(), p.cmd.Wait())
	}
	late := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() }) // Wait tells
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("process %d: %w", p.cmd.Process.Pid, err)
	}
	return nil
}

// childContext ends with SIGTERM or with the parent. Ctrl-C reaches the whole
// group, but it is the parent's to say when its children end.
func childContext() (context.Context, context.CancelFunc) {
	signal.Ignore(os.Interrupt)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}

func announce(a addresses) error { return json.NewEncoder(os.Stdout).Encode(a) }

// runNode is a node as `go run ./node` starts one, on free ports. It removes its
// directory, so that nothing stays even if the parent is killed.
func runNode(args []string) error {
	dir := args[0]
	defer os.RemoveAll(dir)
	ctx, cancel := childContext()
	defer cancel()
	config := server.Default()
	config.Data, config.Name, config.Version = filepath.Join(dir, "data"), "bench", "bench"
	config.Listen, config.Admin = "127.0.0.1:0", "127.0.0.1:0"
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(config)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-s.Ready():
	}
	err = announce(addresses{Public: s.Addr().String(), Admin: s.AdminAddr()})
	if err != nil {
		cancel()
	}
	return errors.Join(err, <-ended)
}
