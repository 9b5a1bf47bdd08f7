package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/bench/powerfs"
)

// Models of a disk's names, as --disk has them.
const (
	diskOrdered = "ordered"
	diskPOSIX   = "posix"
)

// openPower starts the nodes of a round on disks whose power can be cut. What it
// returns has to be closed, also with an error.
func (r *round) openPower(ctx context.Context) (*powerTrial, error) {
	p := &powerTrial{trial: &trial{round: r}, random: rand.New(rand.NewPCG(r.seed, 1))}
	if err := powerfs.Available(); err != nil {
		return p, missing("power needs disks of its own: %v", err)
	}
	dir, err := os.MkdirTemp(r.dir, "stockmesh-bench-")
	if err != nil {
		return p, err
	}
	t := r.target
	t.dir = dir
	nodes, err := r.plan(dir, nil)
	if err != nil {
		return p, err
	}
	t.nodes = nodes
	if err := errors.Join(t.equip(r.options), t.settleDown()); err != nil {
		return p, err
	}
	for i := range nodes {
		d, err := openDisk(ctx, dir, filepath.Join(dir, nodes[i].name), r.diskFlags(i)...)
		if err != nil {
			return p, err
		}
		p.disks = append(p.disks, d)
	}
	if err := p.found(ctx); err != nil {
		return p, err
	}
	if err := t.start(ctx, r.progress); err != nil {
		return p, err
	}
	if err := t.reach(ctx); err != nil {
		return p, err
	}
	if r.meshed() {
		return p, t.awaitMesh(ctx)
	}
	return p, nil
}

// foundTypical is what nodes take for the part of their first start in which they make
// all files.
const foundTypical = 200 * time.Millisecond

// found cuts the power while the nodes start for the first time.
func (p *powerTrial) found(ctx context.Context) error {
	for i := range p.founding {
		p.happened("power cut %d/%d while the nodes start for the first time", i+1, p.founding)
		if _, _, err := p.cutStart(ctx, foundTypical*time.Duration(p.each)); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) diskFlags(node int) []string {
	flags := []string{"--seed", strconv.FormatUint(r.seed+uint64(node), 10)}
	if r.noSync {
		flags = append(flags, "--lies")
	}
	if r.disk == diskPOSIX {
		flags = append(flags, "--posix")
	}
	return flags
}

// settleDown gives a node that is alone in its region an address to come back to.
func (t *target) settleDown() error {
	if t.each > 1 {
		return nil
	}
	const own = 2
	addrs, err := ports{}.pick(own * len(t.nodes))
	if err != nil {
		return err
	}
	for i, n := range t.nodes {
		n.args = append(n.args, "--listen", addrs[own*i], "--admin", addrs[own*i+1]) // the last ones count
	}
	return nil
}

// close ends the nodes, then their disks.
func (p *powerTrial) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, len(p.target.nodes))
	for i, d := range p.disks {
		// A node that waits for a disk without power could not even be killed.
		wg.Go(func() { errs[i] = d.turn(ctx, diskOn, nil) })
	}
	wg.Wait()
	for i, n := range p.target.nodes {
		wg.Go(func() { errs[i] = errors.Join(errs[i], n.kill()) })
	}
	wg.Wait()
	for _, d := range p.disks {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// cut cuts the power of all nodes at the same moment, and brings back that of the
// disks once the processes are gone.
func (p *powerTrial) cut(ctx context.Context) (loss powerfs.Loss, err error) {
	if err := p.turnAll(ctx, p.moment(), nil); err != nil {
		return loss, err
	}
	errs := make([]error, len(p.target.nodes))
	for i, n := range p.target.nodes {
		if err := n.cmd.Process.Kill(); err != nil {
			errs[i] = n.explain(fmt.Errorf("it had ended by itself: %w", errors.Join(err, n.err)))
		}
	}
	// Not before: a node must not see its disk fail in the moment it is killed.
	losses := make([]powerfs.Loss, len(p.disks))
	if err := errors.Join(append(errs, p.turnAll(ctx, diskLose, losses))...); err != nil {
		return loss, err
	}
	for _, n := range p.target.nodes {
		if err := n.end((*process).bury); err != nil {
			return loss, err
		}
	}
	return sum(losses), p.turnAll(ctx, diskOn, nil)
}

// bury waits until a child that was killed is gone.
func (p *process) bury() error {
	<-p.ended
	_ = p.stdin.Close() // nobody reads it
	return nil
}

// moment draws when the power goes: more often than not when most is at stake.
func (p *powerTrial) moment() string {
	if p.random.IntN(4) == 0 {
		return diskFreeze
	}
	return diskArm
}

func sum(losses []powerfs.Loss) (all powerfs.Loss) {
	for _, l := range losses {
		all.Bytes, all.Files, all.Names = all.Bytes+l.Bytes, all.Files+l.Files, all.Names+l.Names
	}
	return all
}

// cutStart starts all nodes and cuts the power again before they are ready, or soon
// after: nobody has said that it fails only while all is well. A start takes typical. It
// returns when the power went.
func (p *powerTrial) cutStart(ctx context.Context, typical time.Duration) (loss powerfs.Loss, at time.Time, err error) {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- p.startAll(starting) }()
	err = pause(ctx, time.Duration(p.random.Float64()*1.1*float64(typical)))
	at = time.Now()
	losses := make([]powerfs.Loss, len(p.disks))
	err = errors.Join(err, p.turnAll(ctx, diskFreeze, nil))
	cancel() // which kills those that are not ready
	err = errors.Join(err, p.turnAll(ctx, diskLose, losses))
	<-started // that it failed is what was wanted
	for _, n := range p.target.nodes {
		_ = n.kill() // one that was ready may have ended by itself: its disk has gone before it
	}
	return sum(losses), at, errors.Join(err, p.turnAll(ctx, diskOn, nil))
}

// startTypical is what a start takes by the one before.
func (p *powerTrial) startTypical() time.Duration {
	if len(p.ready) == 0 {
		return 2 * time.Second
	}
	return time.Duration(p.ready[len(p.ready)-1] * float64(time.Millisecond))
}

// turnAll turns a switch of all disks at once.
func (p *powerTrial) turnAll(ctx context.Context, which string, answers []powerfs.Loss) error {
	errs := make([]error, len(p.disks))
	var wg sync.WaitGroup
	for i, d := range p.disks {
		wg.Go(func() {
			if answers == nil {
				errs[i] = d.turn(ctx, which, nil)
			} else {
				errs[i] = d.turn(ctx, which, &answers[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// startTries is how often a node that refuses to start is started.
const startTries = 3

// restartAll starts all nodes again and waits until each is ready. One that refuses is
// a violation, and is tried again: whether that passes says what it was.
func (p *powerTrial) restartAll(ctx context.Context, what string) (err error) {
	for range startTries {
		if err = p.startAll(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		p.violate("%s: %v", what, err)
		p.happened("%s: a node did not start", what)
	}
	return err
}

// startAll starts all nodes that are down, and waits until each is ready.
func (p *powerTrial) startAll(ctx context.Context) error {
	errs := make([]error, len(p.target.nodes))
	var wg sync.WaitGroup
	for i, n := range p.target.nodes {
		if n.process == nil {
			wg.Go(func() { errs[i] = n.start(ctx) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}
