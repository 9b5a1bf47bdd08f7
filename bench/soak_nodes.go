package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// clockFlag makes a node's clock wrong, by so much.
const clockFlag = "clock-off"

// freeze has a node stand still until undo. Another child does it, which lets the node
// go on also when we are killed: it could not even notice that.
func (n *node) freeze(ctx context.Context) (undo func(context.Context) error, err error) {
	p, err := startProcess(ctx, os.Stderr, childHalt, strconv.Itoa(n.pid()))
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return p.stop() }, nil
}

// runHalt has the process of a number stand still until it is ended or has lost its
// parent.
func runHalt(args []string) error {
	ctx, _, cancel := childContext()
	defer cancel()
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := halt(p); err != nil {
		return err
	}
	err = announce(addresses{})
	if err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, resume(p))
}

// altered starts a node again with other arguments; undo does so with its own.
func (n *node) altered(ctx context.Context, args []string) (undo func(context.Context) error, err error) {
	own := n.args
	return func(ctx context.Context) error {
		n.args = own
		return n.again(ctx)
	}, n.againAs(ctx, args)
}

func (n *node) againAs(ctx context.Context, args []string) error {
	n.args = args
	return n.again(ctx)
}

// again ends a node in good order and starts it.
func (n *node) again(ctx context.Context) error {
	if err := n.stop(); err != nil {
		return err
	}
	return n.start(ctx)
}

// withClock is the node's arguments with a clock that is wrong.
func (n *node) withClock(by time.Duration) []string {
	return append(slices.Clone(n.args), "--"+clockFlag, by.String())
}

// withBinary is the node's arguments for another build of bench.
func (n *node) withBinary(file string) []string {
	return append([]string{childOther, file}, n.args...)
}

// awaitServing waits until a running node says that it is ready.
func (n *node) awaitServing(ctx context.Context) error {
	if n.process == nil {
		return errors.New(n.name + " is down")
	}
	for late := time.Now().Add(readyTimeout); ; {
		ready, says, err := readiness(ctx, n.Admin)
		if ready {
			return nil
		}
		if time.Now().After(late) {
			return n.explain(fmt.Errorf("not ready again within %v: %s %w", readyTimeout, says, err))
		}
		if err := pause(ctx, readyPoll); err != nil {
			return err
		}
	}
}
