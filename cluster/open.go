package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
)

// Open starts the node on its data directory. It returns when the node holds the
// region's state and knows who decides, which may take as long as the others need to
// come up; ctx ends the waiting. On an error nothing is left running.
func Open(ctx context.Context, config Config) (*Cluster, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	dir, err := openDir(config.Dir, config.identity())
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, logger: config.Logger, dir: dir}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.endpoint.Store(new(""))
	c.connections.Store(new(func() int { return 0 }))
	c.revoked = newRevoked(c)
	if config.Mesh != nil {
		c.mesh = newMesh(c)
		c.mesh.rights = newRightsMetrics(config.Registerer)
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, c.bury())
	}
	return c, nil
}

// bury stops what Open had started.
func (c *Cluster) bury() error {
	var errs []error
	c.stop()
	for _, s := range c.shards {
		s.desk.close()
	}
	c.running.Wait()
	if c.mesh != nil {
		errs = append(errs, c.mesh.close())
	}
	c.unlisten()
	for _, s := range c.shards {
		s.close()
	}
	if c.bus != nil {
		errs = append(errs, c.bus.Close())
	}
	if c.region != nil {
		errs = append(errs, c.region.gossip.Close())
	}
	return errors.Join(append(errs, c.dir.close())...)
}

func (c *Cluster) open(ctx context.Context) error {
	if err := c.findBackup(); err != nil {
		return err
	}
	if err := c.startEngine(ctx); err != nil {
		return err
	}
	incarnation, err := c.openStreams(ctx)
	if err != nil {
		return err
	}
	if err := c.dir.complete(incarnation); err != nil {
		return err
	}
	if err := c.restored(); err != nil {
		return err
	}
	if err := errors.Join(c.openMesh(ctx), c.listen()); err != nil {
		return err
	}
	c.start(incarnation)
	if err := c.awaitOwners(ctx); err != nil {
		return err
	}
	c.awaitCopies(ctx)
	c.gauges(c.config.Registerer)
	if c.mesh != nil {
		c.config.Registerer.MustRegister(newMeshCollector(c.mesh))
	}
	c.phase("serving")
	return nil
}

// openStreams opens, or in a new region creates, what the node keeps in its engine, and
// recovers the shards' states.
func (c *Cluster) openStreams(ctx context.Context) (incarnation string, err error) {
	create := c.mayCreate()
	if c.restore != nil && !create {
		return "", fmt.Errorf("region %s exists already: a backup is restored into a new one", c.config.Region)
	}
	err = c.found(ctx, create, func() (err error) {
		c.table, err = c.bus.Table(ctx, stockBucket, create)
		return err
	})
	if err != nil {
		return "", c.damaged("bucket "+stockBucket, err)
	}
	err = c.patiently(ctx, func() (err error) {
		incarnation, err = agreeOnIncarnation(ctx, c.table, c.dir)
		return errors.Join(err, c.forbidSelling(ctx, c.table))
	})
	if err != nil {
		return "", err
	}
	c.phase("catching_up")
	c.metrics = newMetrics(c.config.Registerer)
	// Before the logs: whoever finds those goes on, and must find what is revoked.
	if err := c.seedRevoked(ctx); err != nil {
		return "", err
	}
	for n := range c.config.Shards {
		if err := c.openShard(ctx, n, create); err != nil {
			return "", err
		}
	}
	if err := c.revoked.open(ctx); err != nil {
		return "", err
	}
	return incarnation, c.patiently(ctx, func() error { return c.lookReadOnly(ctx) })
}

// startEngine brings the engine up, and in a region its quorum.
func (c *Cluster) startEngine(ctx context.Context) error {
	c.phase("starting")
	limit, err := storeLimit(c.dir.path)
	if err != nil {
		return err
	}
	var routes []string
	if c.config.clustered() {
		if c.region, err = joinRegion(&c.config, c.dir, c.restore != nil); err != nil {
			return err
		}
		c.config.successor, c.config.reads = c.region.successor, c.region.reads
		if routes, err = c.region.seek(ctx, c.dir); err != nil {
			return err
		}
		if err := c.region.checkName(c.dir); err != nil {
			return err // and the directory stays one that nobody joined with: the next start is refused too
		}
		if err := c.dir.join(); err != nil {
			return err
		}
	}
	if c.bus, err = bus.Open(ctx, c.busConfig(limit, routes)); err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	if !c.config.clustered() {
		return nil
	}
	c.phase("no_quorum")
	if err := c.bus.AwaitQuorum(ctx); err != nil {
		return fmt.Errorf("wait for the region's quorum: %w", err)
	}
	return nil
}

// mayCreate tells whether streams may be created: only a directory, and a region, that
// never was complete may lack one.
func (c *Cluster) mayCreate() bool {
	if c.region != nil {
		return c.region.mayFound(c.dir)
	}
	return !c.dir.Complete
}

func (c *Cluster) openShard(ctx context.Context, n int, create bool) error {
	var archive *bus.Archive
	err := c.found(ctx, create, func() (err error) {
		archive, err = c.bus.Archive(ctx, archiveBucket(n), create)
		return err
	})
	if err != nil {
		return c.damaged("bucket "+archiveBucket(n), err)
	}
	// The log last: whoever finds it must find the state that it goes on from.
	if err := c.patiently(ctx, func() error { return c.seed(ctx, n, archive) }); err != nil {
		return err
	}
	var log *bus.Log
	err = c.found(ctx, create, func() (err error) {
		log, err = c.openLog(ctx, n, create)
		return err
	})
	if err != nil {
		return c.damaged("log", err)
	}
	var wire messenger
	if c.config.clustered() {
		wire = c.bus
	}
	var s *shard
	err = c.patiently(ctx, func() (err error) {
		s, err = newShard(ctx, n, &c.config, log, c.table, archive, wire, c.metrics)
		return err
	})
	if err != nil {
		return err
	}
	s.owner.read, s.desk.read = c.read, c.read
	if c.mesh != nil {
		s.owner.trade = newTrader(&c.config, s.replica.state, c.mesh)
		s.owner.trade.frozen = func() bool { return c.readOnly.Load() != nil }
		s.tellAll, s.reached = c.mesh.tellAll, c.mesh.reached
		s.owner.onRefusal, s.owner.onTaken = c.mesh.rights.refusal, c.mesh.rights.take
		s.desk.showFirst = c.showFirst
	}
	if err := s.listen(); err != nil {
		return err
	}
	c.shards = append(c.shards, s)
	return nil
}

// found opens a stream. A node that is new to a region may come before the one that
// creates it is done.
func (c *Cluster) found(ctx context.Context, create bool, open func() error) error {
	for {
		err := open()
		if create || c.dir.Complete || !c.config.clustered() || !errors.Is(err, bus.ErrMissing) {
			return err
		}
		c.logger.Info("waiting for another node to create the region", "missing", err)
		if pause(ctx, time.Second) != nil {
			return err
		}
	}
}

// patiently tries again what fails only because no leader is there yet, or has just
// changed.
func (c *Cluster) patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		passes := errors.Is(err, bus.ErrNoLeader) || errors.Is(err, bus.ErrUnknown) || errors.Is(err, bus.ErrBusy) || errors.Is(err, context.DeadlineExceeded)
		if !passes || !c.config.clustered() || ctx.Err() != nil {
			return err
		}
		c.logger.Info("not yet possible; trying again", "reason", err)
		if pause(ctx, readPause) != nil {
			return err
		}
	}
}

// archiveBucket names the bucket of a shard's snapshots.
func archiveBucket(shard int) string {
	if shard == 0 {
		return "snapshots"
	}
	return "snapshots_" + strconv.Itoa(shard)
}

func (c *Cluster) phase(name string) {
	if c.region != nil {
		c.region.enter(name)
	} else {
		c.config.OnPhase(name)
	}
}

// agreeOnIncarnation ties the bucket to the data directory, so that a re-created one
// can be told from the one that was. A region's first node names it for all.
func agreeOnIncarnation(ctx context.Context, t *bus.Table, dir *dataDir) (string, error) {
	for {
		value, rev, err := t.Get(ctx, incarnationKey)
		switch {
		case err == nil && (string(value) == dir.Incarnation || !dir.Complete):
			return string(value), nil
		case err == nil:
			return "", fmt.Errorf("the stock bucket belongs to incarnation %s, the data directory to %s", value, dir.Incarnation)
		case !errors.Is(err, bus.ErrMissing):
			return "", fmt.Errorf("read incarnation: %w", err)
		}
		_, err = t.Put(ctx, []bus.Row{{Key: incarnationKey, Value: []byte(dir.Incarnation), Revision: rev}})
		if err != nil && !errors.Is(err, bus.ErrConflict) && !errors.Is(err, bus.ErrUnknown) {
			return "", fmt.Errorf("write incarnation: %w", err)
		}
	}
}

func (c *Cluster) damaged(what string, err error) error {
	if errors.Is(err, bus.ErrMissing) {
		return fmt.Errorf("the %s is missing from data directory %s, which once held it: restore it from a backup; nothing was changed", what, c.dir.path)
	}
	return fmt.Errorf("open the %s: %w", what, err)
}

// openMesh shows other regions' rows and listens to them, before this node decides.
func (c *Cluster) openMesh(ctx context.Context) error {
	if c.mesh == nil {
		return nil
	}
	if err := c.mesh.open(ctx); err != nil {
		return err
	}
	if c.region != nil {
		c.region.wan.Store(new(c.mesh.gossip.Addr()))
	}
	c.running.Go(func() { c.mesh.run(c.ctx) })
	c.running.Go(func() { c.mesh.runBeats(c.ctx) })
	return nil
}

func (c *Cluster) start(incarnation string) {
	for _, s := range c.shards {
		c.running.Go(func() {
			if err := s.run(c.ctx); err != nil && c.ctx.Err() == nil {
				c.lost.CompareAndSwap(nil, &err)
				c.logger.Error("this node can't go on with a shard", "shard", s.n, "error", err)
				if c.region != nil {
					s.abdicate(c.ctx)
				}
			}
		})
		if c.region != nil {
			c.running.Go(func() { s.desk.run(c.ctx) })
		}
	}
	c.running.Go(func() { c.revoked.run(c.ctx) })
	if len(c.shards) > 1 {
		c.running.Go(func() { c.lookAfterParts(c.ctx) })
	}
	if c.readOnly.Load() != nil {
		c.running.Go(func() { c.awaitActivation(c.ctx) })
	}
	if c.region != nil {
		c.region.founded.Store(&incarnation)
		c.running.Go(func() { c.learnPeers(c.ctx) })
		quorum := quorumWatch{losses: c.metrics.quorumLosses}
		c.running.Go(func() { c.region.run(c.ctx, c.State, quorum.look, c.owns, c.dir) })
		if len(c.shards) > 1 {
			c.running.Go(func() { c.balance(c.ctx) })
		}
	}
}

// awaitOwners waits until it is known who decides for each shard.
func (c *Cluster) awaitOwners(ctx context.Context) error {
	for {
		if lost := c.lost.Load(); lost != nil {
			return *lost
		}
		if c.ownersKnown() {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the shards' owners: %w", err)
		}
	}
}

// copiesWait bounds how long a node that could serve waits until its copies of the logs
// count for the quorum too. Whoever restarts nodes one by one goes by its readiness.
const copiesWait = 10 * time.Second

func (c *Cluster) awaitCopies(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, copiesWait)
	defer cancel()
	for _, s := range c.shards {
		if err := s.log.AwaitCurrent(ctx); err != nil {
			c.logger.Warn("this node serves, but does not count for the quorum yet", "error", err)
			return
		}
	}
}
