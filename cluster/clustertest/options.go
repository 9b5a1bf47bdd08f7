package clustertest

import "time"

// setup is what the options of Start say, and those of StartMesh of each region.
type setup struct {
	region        string
	nodes, shards int
	inside        bool
	proxied       bool
	flags         []string
	tokens        time.Duration // how long they live; 0: the region is not Secured
	part          *meshPart     // nil where the region is the only one
}

// Option changes how Start builds a region.
type Option func(*setup)

// Nodes is how many nodes the region has: 1, 3 or 5. Without it 3.
func Nodes(n int) Option { return func(s *setup) { s.nodes = n } }

// Shards is how many logs the region has. Without it 1.
func Shards(n int) Option { return func(s *setup) { s.shards = n } }

// InGoroutines runs the nodes in the test's own process. They can be stopped and
// started, but neither killed nor paused.
func InGoroutines() Option { return func(s *setup) { s.inside = true } }

// WithProxies leads the routes between the nodes through the test, for Cut, Isolate
// and Heal. The nodes' gossip is not led through it.
func WithProxies() Option { return func(s *setup) { s.proxied = true } }

// Flags are given to each node as on its command line.
func Flags(flags ...string) Option {
	return func(s *setup) { s.flags = append(s.flags, flags...) }
}

// Times of the nodes under test. A short heartbeat lets clients leave a node that
// hangs soon, as the default of 25 s would not within a test.
const (
	heartbeat = time.Second
	drain     = time.Second
)

// Times that a test waits at most. They are for a machine that does many other things
// and only end what would otherwise hang.
const (
	readyWait    = 60 * time.Second
	convergeWait = 30 * time.Second
	exitWait     = 40 * time.Second
	lookWait     = 5 * time.Second
	pollEvery    = 20 * time.Millisecond
)
