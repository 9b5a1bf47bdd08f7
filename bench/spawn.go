package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// target is what a round measures: nodes of its own or running ones. Those of a mesh
// come region by region.
type target struct {
	endpoints []string
	nodes     []*node // spawned ones, in the order of endpoints
	each      int     // nodes of a region
	dir       string  // theirs
	wires     *wires  // that the regions' links lead through; nil: none

	token     string      // that clients send; "": none
	inspector string      // the token that may look at everything, where clients send one
	secure    *tls.Config // for dialling the nodes themselves; nil: they are plain
	tunnels   []*tunnel   // that endpoints lead to where the nodes are not plain
	collector *collector  // of their traces; nil: they send none
}

// openTarget starts the nodes of a round and waits until each is ready and hears all
// others.
func openTarget(ctx context.Context, o *options, p *progress) (*target, error) {
	if o.spawn == "" {
		return &target{endpoints: o.endpoints, each: len(o.endpoints)}, nil
	}
	var w *wires
	if o.scenario == scenarioCut {
		w = newWires()
	}
	t, err := spawn(ctx, o, w, p)
	if err == nil && o.regions > 1 {
		err = t.awaitMesh(ctx)
	}
	if err != nil && t != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, err
}

// spawn returns the target with an error too, if there is something to be closed.
func spawn(ctx context.Context, o *options, w *wires, p *progress) (*target, error) {
	dir, err := os.MkdirTemp(o.dir, "stockmesh-bench-")
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir, each: o.each, wires: w}
	nodes, err := o.plan(dir, w)
	if err != nil {
		return t, err
	}
	t.nodes = nodes
	if err := t.equip(o); err != nil {
		return t, err
	}
	if err := t.start(ctx, p); err != nil {
		return t, err
	}
	return t, t.reach(ctx)
}

// start starts all nodes at once, as those of a region wait for each other.
func (t *target) start(ctx context.Context, p *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(t.nodes) > 1 {
		p.counted("starting "+describeSpawn(len(t.nodes)/t.each, t.each), len(t.nodes))
	}
	results := make(chan error)
	for _, n := range t.nodes {
		go func() { results <- n.start(ctx) }()
	}
	var failed error
	for i := range t.nodes {
		err := <-results
		p.at(int64(i + 1))
		if failed == nil && err != nil {
			failed = err
			cancel() // the others fail soon; each is waited for
		}
	}
	return failed
}

// describeSpawn says what --spawn asks for.
func describeSpawn(regions, each int) string {
	switch {
	case regions > 1 && each == 1:
		return fmt.Sprintf("a mesh of %d regions of one node", regions)
	case regions > 1:
		return fmt.Sprintf("a mesh of %d regions of %d nodes", regions, each)
	case each == 1:
		return "a node"
	}
	return fmt.Sprintf("a region of %d nodes", each)
}

// endpoint spreads connections over the endpoints.
func (t *target) endpoint(i int) string { return t.endpoints[i%len(t.endpoints)] }

// pids is empty where the nodes are not ours.
func (t *target) pids() []int {
	var pids []int
	for _, n := range t.nodes {
		pids = append(pids, n.pid())
	}
	return pids
}

// close ends all nodes at once and removes what they kept.
func (t *target) close() error {
	for _, w := range t.tunnels {
		w.close()
	}
	errs := make([]error, len(t.nodes))
	var stops sync.WaitGroup
	for i, n := range t.nodes {
		stops.Go(func() { errs[i] = n.stop() })
	}
	stops.Wait()
	if t.wires != nil {
		t.wires.close()
	}
	if t.collector != nil {
		t.collector.close()
	}
	if t.dir != "" {
		errs = append(errs, os.RemoveAll(t.dir))
	}
	return errors.Join(errs...)
}

// node is a spawned node through all its lives: it comes back on its data and, in a
// region, on its ports.
type node struct {
	*process // nil while it is down
	name     string
	args     []string
	grace    time.Duration // how much longer than others it may take to stop
	log      string        // file of what it says on stderr; "": our own

	running atomic.Int64 // the process, for those who only look; 0: it is down
}

// start starts the node, again if it was ended, and waits until it is ready.
func (n *node) start(ctx context.Context) error {
	stderr := os.Stderr
	if n.log != "" {
		f, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close() // the child has its own
		stderr = f
	}
	p, err := startProcess(ctx, stderr, n.args...)
	if err != nil {
		return n.explain(err)
	}
	p.grace = n.grace
	n.process = p
	n.running.Store(int64(p.pid()))
	return nil
}

// stop ends the node in good order, if it runs.
func (n *node) stop() error { return n.end((*process).stop) }

// kill ends the node without any warning.
func (n *node) kill() error { return n.end((*process).kill) }

func (n *node) end(how func(*process) error) error {
	p := n.process
	if p == nil {
		return nil
	}
	n.process = nil
	n.running.Store(0)
	if err := how(p); err != nil {
		return n.explain(err)
	}
	return nil
}

const logTail = 4 << 10

// explain adds what the node has said last.
func (n *node) explain(err error) error {
	b, _ := os.ReadFile(n.log) // nothing to read is nothing to add
	if len(b) == 0 {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	return fmt.Errorf("%s: %w; its log ends with:\n%s", n.name, err, b[max(0, len(b)-logTail):])
}
