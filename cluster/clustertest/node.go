package clustertest

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// Node is one node of a region, through all its lives.
type Node struct {
	Name     string
	Endpoint string // where its clients connect: ws://host:port
	HTTP     string // the same as http://host:port
	Admin    string // its admin port: http://host:port

	region *Region
	config server.Config
	log    nodeLog
	hits   string // file of the engine's own assertions, "" without

	mu     sync.Mutex
	body   body // nil while it is down
	paused bool
}

// Start starts the node again on its data and its ports. It does not wait; see
// Region.AwaitReady.
func (n *Node) Start() {
	n.region.t.Helper()
	if err := n.start(); err != nil {
		n.region.t.Fatalf("%s: %v", n.Name, err)
	}
}

func (n *Node) start() (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.body != nil {
		return fmt.Errorf("runs already")
	}
	if n.region.setup.inside {
		n.body = startRoutine(n.config, &n.log)
		return nil
	}
	var env []string
	if n.hits != "" {
		env = append(env, hitsEnv+"="+n.hits)
	}
	p, err := startProcess(n.region.setup.part.prefix(), n.config, &n.log, env...)
	if err == nil {
		n.body = p
	}
	return err
}

// Change alters the node's configuration for its next starts.
func (n *Node) Change(change func(c *server.Config)) { change(&n.config) }

// Refused starts the node where it should not come up, and returns what it says as it
// ends by itself.
func (n *Node) Refused() (said string) {
	n.region.t.Helper()
	before := len(n.Log())
	n.Start()
	b := n.take()
	if err := awaitEnd(b, exitWait); err == nil || n.region.setup.inside {
		n.region.t.Errorf("%s should have been refused, it ended with: %v", n.Name, err)
		_ = b.kill() // it may still run
	}
	return n.Log()[before:]
}

// take returns what the node runs in, as somebody is about to end it.
func (n *Node) take() body {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.body
	n.body, n.paused = nil, false
	return b
}

func (n *Node) running() body {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.body
}

// Kill ends the node without any warning (SIGKILL) and waits until it is gone.
func (n *Node) Kill() {
	n.region.t.Helper()
	b := n.take()
	if b == nil {
		n.region.t.Fatalf("%s is down already", n.Name)
	}
	if err := b.kill(); err != nil {
		n.region.t.Fatalf("kill %s: %v", n.Name, err)
	}
}

// Stop ends the node in good order (SIGTERM) and waits. That it ends with an error
// fails the test.
func (n *Node) Stop() {
	n.region.t.Helper()
	b := n.take()
	if b == nil {
		n.region.t.Fatalf("%s is down already", n.Name)
	}
	if err := b.stop(); err != nil {
		n.region.t.Errorf("%s did not stop in order: %v", n.Name, err)
		_ = b.kill() // it may still run
	}
}

// Drain has the node send its clients elsewhere, not before the delay, and waits until
// they are gone. The node runs on. It may be called from any goroutine.
func (n *Node) Drain(delay time.Duration) {
	n.region.t.Helper()
	if err := n.drain(delay); err != nil {
		n.region.t.Errorf("drain %s: %v", n.Name, err)
	}
}

func (n *Node) drain(delay time.Duration) error {
	res, err := n.region.http.Post(n.Admin+"/drain?delay="+delay.String(), "", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var said server.Drained
	body, err := io.ReadAll(res.Body)
	if err == nil {
		err = protocol.UnmarshalJSON(body, &said)
	}
	// How many are left is of one moment: one that came late may be on its way out.
	if err != nil || said.Status != "drained" {
		return fmt.Errorf("%s %s: %w", res.Status, body, err)
	}
	return nil
}

// Pause holds the node where it is (SIGSTOP), as a machine does that stalls.
func (n *Node) Pause() {
	n.region.t.Helper()
	n.toggle(body.pause, true)
}

// Resume lets a paused node go on.
func (n *Node) Resume() {
	n.region.t.Helper()
	n.toggle(body.resume, false)
}

func (n *Node) toggle(do func(body) error, paused bool) {
	n.region.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.body == nil {
		n.region.t.Fatalf("%s is down", n.Name)
	}
	if err := do(n.body); err != nil {
		n.region.t.Fatalf("pause or resume %s: %v", n.Name, err)
	}
	n.paused = paused
}

// bury ends the node at the end of the test, however it stands.
func (n *Node) bury() {
	b := n.take()
	switch b := b.(type) {
	case nil:
	case *routine:
		_ = b.stop() // the test has its result
	default:
		_ = b.kill()
	}
}

// Up tells whether the node runs and is not paused.
func (n *Node) Up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.body == nil || n.paused {
		return false
	}
	select {
	case <-n.body.ended():
		return false
	default:
		return true
	}
}

// gone says how a node ended that nobody told to.
func (n *Node) gone() error {
	b := n.running()
	if b == nil {
		return nil
	}
	select {
	case <-b.ended():
		return fmt.Errorf("%s ended by itself: %v", n.Name, b.result())
	default:
		return nil
	}
}

// Log is the end of what the node has logged, over all its starts.
func (n *Node) Log() string { return n.log.String() }

// Terms is how often the node became the owner of a shard.
func (n *Node) Terms() int { return n.log.terms() }

func (n *Node) String() string {
	if n.region.setup.part != nil {
		return n.region.Name + "." + n.Name
	}
	return n.Name
}
