// Package peer runs what shops keep their stock in today, so that it can be measured
// next to a node: the same sells, by the same machine, in the same run.
//
// Each peer is a real server in a process and a directory of its own, set up the way
// its makers advise and so that it forgets nothing: an answer comes after an fsync. What
// that promise is worth differs from peer to peer, and stands beside each figure.
package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Names of peers.
const (
	Postgres       = "postgres"
	Redis          = "redis"
	RedisPipelined = "redis-pipelined"
	RedisReplica   = "redis-replica"
	NATS           = "nats-kv"
	NATSReplicated = "nats-kv-r3"
	WebSocket      = "ws"
)

// Config says where peers run and with what.
type Config struct {
	Dir     string   // in which each gets a directory of its own; "": the system's temporary directory
	Modules []string // directories that npm's ws and redis may be in
	Keeper  []string // the command that is [Keep]
	Server  []string // the command that is [ServeNATS]
	Ports   Ports
}

// Ports hands out n addresses on loopback that nobody uses.
type Ports func(n int) ([]string, error)

// connectionsMax are tried at most: some servers have to be told before.
const connectionsMax = 512

// Kind is one way to keep stock.
type Kind struct {
	Name       string
	Durability string // what its answer promises, in a sentence
	Orders     bool   // it can reserve several SKUs at once and confirm that
	Pushes     bool   // it speaks to clients itself: see Pusher

	counts []int // of connections that are worth a try
	most   int   // that are tried where the greatest of counts is the best
	batch  int   // commands in one round trip
	find   func(Config) error
	start  func(context.Context, Config) (Store, error) // nil where it pushes
}

// Kinds are all there are.
func Kinds() []Kind {
	return []Kind{
		{
			Name: Postgres, Durability: "one copy; fsync of the WAL before the answer (synchronous_commit = on)",
			Orders: true, counts: []int{1, 16, 64}, most: connectionsMax, batch: 1, find: findPostgres, start: startPostgres,
		},
		{
			Name: Redis, Durability: "one copy; fsync before the answer (appendfsync always)",
			Orders: true, counts: []int{16, 64, 256}, most: connectionsMax, batch: 1, find: findRedis, start: startRedis(false),
		},
		{
			Name: RedisPipelined, Durability: "one copy; fsync before the answer (appendfsync always), 16 commands in a round trip",
			counts: []int{16, 64, 256}, most: connectionsMax, batch: 16, find: findRedis, start: startRedis(false),
		},
		{
			Name: RedisReplica, Durability: "two copies; fsync on the first before the answer, while the second has only received it (WAIT 1 counts receipt, not fsync; no quorum, no election)",
			counts: []int{16, 64, 256}, most: connectionsMax, batch: 1, find: findRedis, start: startRedis(true),
		},
		{
			Name: NATS, Durability: "one copy; fsync before the answer (sync_interval: always)",
			counts: []int{1, 16, 64}, most: connectionsMax, batch: 1, find: always, start: startNATS(1),
		},
		{
			Name: NATSReplicated, Durability: "three copies; fsync on two of them before the answer (sync_interval: always)",
			counts: []int{1, 16, 64}, most: connectionsMax, batch: 1, find: always, start: startNATS(3),
		},
		{
			Name: WebSocket, Durability: "one copy in Redis; fsync before the answer (appendfsync always), pushes by its publish/subscribe",
			Pushes: true, find: findPusher,
		},
	}
}

// Missing says that a peer isn't installed, and how to get it.
type Missing struct{ What, Install string }

func (m Missing) Error() string { return fmt.Sprintf("no %s here: %s", m.What, m.Install) }

func always(Config) error { return nil }

// Find returns a [Missing] where the peer isn't installed.
func (k Kind) Find(c Config) error { return k.find(c) }

// Store is a running peer that is asked for stock through its own protocol.
type Store interface {
	// Forms are the ways to ask it, by name; the only one has none.
	Forms() []string
	// Fill enters the opening stock of a work, once.
	Fill(context.Context, Work) error
	// Dial opens a connection; not for several goroutines.
	Dial(ctx context.Context, form string, w Work) (Client, error)
	// Read returns what is there of each SKU of the work.
	Read(context.Context, Work) ([]Stock, error)
	Close() error
}

// Client is one connection to a Store.
type Client interface {
	// Sell sells what each of the orders asks for, in one round trip where the protocol
	// can, and says of each whether there was enough.
	Sell(context.Context, []Order) ([]bool, error)
	Close() error
}

// Reserver is a Client that can hold stock first. Both are one command for any number
// of lines, all or nothing.
type Reserver interface {
	Client
	Reserve(context.Context, Order) (bool, error)
	// Settle ends a reservation: its units are sold, or free again.
	Settle(ctx context.Context, o Order, sold bool) error
}

// Stock is what is there of a SKU.
type Stock struct{ OnHand, Reserved int64 }

// Order is what one customer wants.
type Order struct {
	Key   string // seen twice, it must not count twice
	Lines []Line // of different SKUs
}

// Line is so many units of a work's SKU.
type Line struct {
	SKU      int
	Quantity int64
}

const (
	location  = "main"
	keyExpiry = 24 * time.Hour // as long as a node remembers one

	readyTimeout = 60 * time.Second
	readyPoll    = 20 * time.Millisecond
)

// closeAll closes in the order given.
func closeAll(closers ...func() error) error {
	var errs []error
	for _, c := range closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
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

// lines joins what a configuration file says.
func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }
