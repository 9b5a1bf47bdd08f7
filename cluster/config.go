package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Config says what a region's node keeps and how.
type Config struct {
	Dir    string // everything the node keeps; created when missing
	Region string // [a-z0-9-]{1,32}
	Node   string // [a-z0-9-]{1,32}
	Shards int    // logs of the region; only 1 so far

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

	Clock      func() time.Time // nil means time.Now
	Logger     *slog.Logger     // nil drops the lines
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.FlushInterval, 50*time.Millisecond)
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
	if c.Shards < 0 || c.Shards > 1 {
		return fmt.Errorf("%d shards: this version keeps one log a region", c.Shards)
	}
	if c.KeyWindow < time.Second {
		return fmt.Errorf("key window %v is below 1s", c.KeyWindow)
	}
	if c.History != 0 && c.History < 2*c.KeyWindow {
		return fmt.Errorf("history %v is below twice the key window (%v): the log holds both", c.History, 2*c.KeyWindow)
	}
	return nil
}
