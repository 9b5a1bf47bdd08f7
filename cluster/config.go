package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Config says what a region's node keeps and how.
type Config struct {
	Dir    string // everything the node keeps; created when missing
	Region string // [a-z0-9-]{1,32}
	Node   string // [a-z0-9-]{1,32}
	Shards int    // logs of the region

	// Members is how the nodes of a region find each other. Nil: the node is alone.
	Members *Members

	// Mesh is how the region finds and links to others. Nil: it is the only one.
	Mesh *Mesh

	// Patience is how long a command may wait for an owner or for its commit before
	// it is answered as unavailable. Zero means 2.8 s: longer than a node takes to
	// follow one that died.
	Patience time.Duration

	// KeyWindow is how long a key's outcome is remembered at least; it is
	// forgotten within twice that.
	KeyWindow time.Duration

	// History is how long movements are kept at least. It can't be below twice
	// KeyWindow. Zero keeps them for ever.
	History time.Duration

	// FlushInterval is the shortest time between two writes of a row to the
	// stock bucket. Zero means 50 ms.
	FlushInterval time.Duration

	// QueueMax is how many commands may wait for the owner before more are
	// refused as overloaded. Zero means 65,536.
	QueueMax int

	// SnapshotRounds and SnapshotBytes are how much log may follow the newest
	// snapshot before the next is written. Zero means 200,000 and 256 MiB: at full
	// speed some three seconds of recovery.
	SnapshotRounds uint64
	SnapshotBytes  uint64

	// Traced takes a command that another node of the region follows, once it was decided
	// here: Trace and the answer are set. It must neither block nor keep the call. Nil:
	// such commands are not followed here, and other nodes are told of none.
	Traced func(*protocol.Call)

	// OnPhase is told how far Open is: starting, no_quorum, catching_up. It may be nil.
	OnPhase func(phase string)

	Clock      func() time.Time // nil means time.Now
	Logger     *slog.Logger     // nil drops the lines
	Registerer prometheus.Registerer

	begin     time.Time              // of elapsed
	ticks     func() int64           // elapsed, where time is simulated
	successor func(shard int) string // whom a leaving owner hands a shard to, "" anybody
	reads     func(node string) byte // the newest format of batches that a node reads
}

// ShardsMax bounds the logs of a region: each costs every node a stream and a
// replica, and only their owners' number of cores makes more of them faster.
const ShardsMax = 64

// Members says how a node joins its region.
type Members struct {
	Expect           int      // nodes of the region: 1, 3 or 5; also the copies of each log
	Gossip           string   // ADDR of the membership protocol
	AdvertiseGossip  string   // told to the others; "" from Gossip
	Join             []string // gossip addresses, any one is enough
	GossipKey        string   // keyring file, "" plain
	Cluster          string   // ADDR of the routes
	AdvertiseCluster string   // told to the others; "" from Cluster
	TLS              *tls.Config
	Endpoint         string // public URL told to the others' clients
	Raft             Timers
}

// Mesh says how a node takes part in a mesh of regions.
type Mesh struct {
	WANGossip       string            // ADDR of the membership protocol between regions
	AdvertiseWAN    string            // told to the others; "" from WANGossip
	JoinRegion      []string          // WAN gossip addresses of other regions, any one is enough
	GossipKey       string            // keyring file, "" plain
	Link            string            // ADDR of the links
	AdvertiseLink   string            // told to the others; "" from Link
	AdvertiseLinkTo map[string]string // told to the nodes of one region instead
	TLS             *tls.Config       // mutual TLS of the links; nil plain
	Secrets         func() []string   // keyring of the links' passwords; nil none
	RightsTimeout   time.Duration     // how long a command waits for rights of other regions
	Endpoint        string            // public URL told to the others' clients
}

// Timers are those of the logs' elections; zero values mean defaults.
type Timers = bus.Timers

// clustered reports whether other nodes may decide.
func (c *Config) clustered() bool { return c.Members != nil }

// elapsed is the node's own clock for waiting, in ns; it never goes back.
func (c *Config) elapsed() int64 {
	if c.ticks != nil {
		return c.ticks()
	}
	return int64(time.Since(c.begin))
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.FlushInterval, 50*time.Millisecond)
	def(&c.Patience, 2800*time.Millisecond)
	c.begin = time.Now()
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.QueueMax == 0 {
		c.QueueMax = 65536
	}
	if c.SnapshotRounds == 0 {
		c.SnapshotRounds = 200_000
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 256 << 20
	}
	if c.OnPhase == nil {
		c.OnPhase = func(string) {}
	}
	c.successor = func(int) string { return "" }
	c.reads = func(string) byte { return 0 }
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("the data directory is not set")
	}
	for name, v := range map[string]string{"region": c.Region, "node": c.Node} {
		if err := protocol.CheckRegion(name, v); err != nil {
			return fmt.Errorf("%s %q: %s", name, v, err.Message)
		}
	}
	if c.Shards < 0 || c.Shards > ShardsMax {
		return fmt.Errorf("%d shards: a region has 1 to %d", c.Shards, ShardsMax)
	}
	if m := c.Members; m != nil && m.Expect != 1 && m.Expect != 3 && m.Expect != 5 {
		return fmt.Errorf("%d nodes expected: a region has 1, 3 or 5", m.Expect)
	}
	if c.KeyWindow < time.Second {
		return fmt.Errorf("key window %v is below 1s", c.KeyWindow)
	}
	if c.History != 0 && c.History < 2*c.KeyWindow {
		return fmt.Errorf("history %v is below twice the key window (%v): the log holds both", c.History, 2*c.KeyWindow)
	}
	return nil
}
