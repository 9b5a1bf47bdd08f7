package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Names of what a node keeps in its engine; other programs read the bucket.
const (
	logName       = "0"
	stockBucket   = "stock"
	archiveBucket = "snapshots"
)

// Cluster is a running node of a region. All methods may be called from several
// goroutines.
type Cluster struct {
	config  Config
	logger  *slog.Logger
	dir     *dataDir
	bus     *bus.Bus
	log     *bus.Log
	replica *replica
	owner   *owner
	flusher *flusher
	snaps   *snapshotter
	history *historian
	metrics *metrics

	draining atomic.Bool
	stop     context.CancelFunc // ends the goroutines below
	ctx      context.Context
	behind   sync.WaitGroup // flusher, snapshotter, history walks
	ownerWG  sync.WaitGroup
	lost     atomic.Pointer[error] // why the owner ended
	walksMu  sync.Mutex
	closing  bool // no more walks
	once     sync.Once
	closeErr error
}

// Open starts the node on its data directory and returns when it decides. On an
// error nothing is left running.
func Open(ctx context.Context, config Config) (*Cluster, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	dir, err := openDir(config.Dir, identity{Mode: modeStandalone, Region: config.Region, Node: config.Node, Shards: config.Shards})
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, logger: config.Logger, dir: dir}
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := c.open(ctx); err != nil {
		c.stop()
		if c.bus != nil {
			err = errors.Join(err, c.bus.Close())
		}
		return nil, errors.Join(err, dir.close())
	}
	c.start()
	return c, nil
}

func (c *Cluster) open(ctx context.Context) (err error) {
	limit, err := storeLimit(c.dir.path)
	if err != nil {
		return err
	}
	c.bus, err = bus.Open(ctx, bus.Config{
		Dir: filepath.Join(c.dir.path, "nats"), Name: c.config.Node,
		StoreBytesMax: limit, Logger: c.logger.With("part", "bus"),
	})
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	// Only a directory that never was complete may lack a stream.
	create := !c.dir.Complete
	if c.log, err = c.bus.Log(ctx, logName, create); err != nil {
		return c.damaged("log", err)
	}
	table, err := c.bus.Table(ctx, stockBucket, create)
	if err != nil {
		return c.damaged("bucket "+stockBucket, err)
	}
	archive, err := c.bus.Archive(ctx, archiveBucket, create)
	if err != nil {
		return c.damaged("bucket "+archiveBucket, err)
	}
	if err := archive.Sweep(ctx); err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	state, err := recoverState(ctx, &c.config, c.log, archive)
	if err != nil {
		return err
	}
	c.metrics = newMetrics(c.config.Registerer)
	c.replica = newReplica(state)
	c.flusher = newFlusher(table, c.replica, &c.config, c.metrics)
	if err := c.flusher.recover(ctx, c.dir.Incarnation); err != nil {
		return err
	}
	c.snaps = newSnapshotter(&c.config, archive, c.log, c.replica, c.metrics)
	if c.history, err = newHistorian(c.log, c.replica); err != nil {
		return err
	}
	c.owner = newOwner(&c.config, c.log, c.replica, c.metrics)
	c.owner.onRound, c.owner.read = c.committed, c.read
	if err := c.owner.takeOver(ctx); err != nil {
		return err
	}
	c.gauges(c.config.Registerer)
	return c.dir.complete()
}

func (c *Cluster) damaged(what string, err error) error {
	if errors.Is(err, bus.ErrMissing) {
		return fmt.Errorf("the %s is missing from data directory %s, which once held it: restore it from a backup; nothing was changed", what, c.dir.path)
	}
	return fmt.Errorf("open the %s: %w", what, err)
}

// committed passes a round's changes on to what runs behind the log.
func (c *Cluster) committed(changes *protocol.Changes, bytes int) {
	c.flusher.add(changes.Items, changes.Cursor[0].N)
	c.snaps.add(bytes)
}

func (c *Cluster) start() {
	c.behind.Go(func() { c.flusher.run(c.ctx) })
	c.behind.Go(func() { c.snaps.run(c.ctx) })
	c.ownerWG.Go(func() {
		if err := c.owner.run(c.ctx); err != nil {
			c.lost.Store(&err)
			c.logger.Error("this node decides no more", "error", err)
		}
	})
}

// Submit hands calls over and never blocks: each call's Done is called exactly
// once, from any goroutine, perhaps before Submit returns. Calls must have passed
// Check. It takes every op except auth, subscribe, unsubscribe and ping.
func (c *Cluster) Submit(calls []*protocol.Call) {
	queued := calls
	for i, call := range calls {
		if toOwner(call) && c.home(call) == nil {
			continue
		}
		// The first that does not go to the owner: sort out the rest.
		queued = append([]*protocol.Call(nil), calls[:i]...)
		for _, call := range calls[i:] {
			if err := c.home(call); err != nil {
				call.Fail(err)
			} else if toOwner(call) {
				queued = append(queued, call)
			} else {
				c.read(call)
			}
		}
		break
	}
	if len(queued) > 0 {
		c.owner.queue.put(queued...)
	}
}

// toOwner tells what goes through the owner's queue: writes; an outcome, which must
// see every write sent before it; and a read behind unanswered commands of its
// sender, which must see what those did.
func toOwner(call *protocol.Call) bool {
	return call.Ordered || call.Command.Op.IsWrite() || call.Command.Op == protocol.OpOutcome
}

// home says why a call can't be answered in this region.
func (c *Cluster) home(call *protocol.Call) *protocol.Error {
	cmd := &call.Command
	if cmd.Home != "" && cmd.Home != c.config.Region {
		return protocol.NewError(protocol.CodeNotFound, "no region %q", cmd.Home)
	}
	if cmd.Region != "" && cmd.Region != c.config.Region {
		return protocol.NewError(protocol.CodeNotFound, "no region %q", cmd.Region)
	}
	return nil
}

func (c *Cluster) read(call *protocol.Call) {
	switch call.Command.Op {
	case protocol.OpGet:
		c.replica.answerGet(call)
	case protocol.OpReservation:
		c.readReservation(call)
	case protocol.OpHistory:
		c.walk(call)
	default:
		call.Fail(protocol.BadRequest("%s can't be used here", call.Command.Op))
	}
}

func (c *Cluster) readReservation(call *protocol.Call) {
	id := call.Command.Reservation
	c.replica.mu.RLock()
	r, ok := c.replica.state.Reservation(id)
	c.replica.mu.RUnlock()
	if !ok {
		call.Fail(protocol.NewError(protocol.CodeNotFound, "no reservation %q", id))
		return
	}
	call.Result = protocol.Result{Kind: protocol.KindReservation, Reservation: &r}
	call.Done(call)
}

func (c *Cluster) walk(call *protocol.Call) {
	c.walksMu.Lock()
	closing := c.closing
	if !closing {
		c.behind.Add(1)
	}
	c.walksMu.Unlock()
	if closing {
		call.Fail(protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node is stopping"))
		return
	}
	go func() {
		defer c.behind.Done()
		c.history.answer(c.ctx, call)
	}()
}

// Scan returns existing items in order and whether others follow.
func (c *Cluster) Scan(q *protocol.Query) (items []protocol.Item, more bool) {
	return c.replica.scan(q)
}

// Items appends the present state of items to dst.
func (c *Cluster) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	return c.replica.items(dst, ids)
}

// Watch calls fn after each commit, in order, before the commands of that round
// are answered. Fn must not block; changes may be kept but not changed.
func (c *Cluster) Watch(fn func(*protocol.Changes)) (stop func()) { return c.replica.watch(fn) }

// Cursor returns what the node's state holds: everything up to here.
func (c *Cluster) Cursor() protocol.Vector { return c.replica.cursor() }

// State says how far the node is: serving, draining or no_quorum.
func (c *Cluster) State() string {
	switch {
	case c.lost.Load() != nil:
		return "no_quorum"
	case c.draining.Load():
		return "draining"
	}
	return "serving"
}

// Drain says that the node is about to stop; it goes on deciding.
func (c *Cluster) Drain() { c.draining.Store(true) }

// Health returns what is wrong with the node, nothing if it can serve.
func (c *Cluster) Health() []error {
	var problems []error
	add := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	if lost := c.lost.Load(); lost != nil {
		add(*lost)
	}
	add(c.bus.Err())
	add(c.owner.outage.health())
	add(c.flusher.outage.health())
	add(diskProblem(c.dir.path))
	return problems
}

// Mesh describes the regions and nodes that this node knows of. Endpoint and
// connections are the server's to fill in.
func (c *Cluster) Mesh() protocol.Mesh {
	return protocol.Mesh{
		Region: c.config.Region, Node: c.config.Node,
		Regions: []protocol.MeshRegion{{
			Name: c.config.Region, State: "serving", HeardAt: protocol.TimeOf(c.config.Clock()),
			Nodes: []protocol.MeshNode{{Name: c.config.Node, State: c.State(), OwnerOf: []int{0}}},
		}},
	}
}

// Close answers what is waiting, writes what is dirty and stops. Calls submitted
// afterwards are refused. When the context ends first, dirty rows stay unwritten (the
// log has them), and a round whose fate is still unknown is answered as such.
func (c *Cluster) Close(ctx context.Context) error {
	c.once.Do(func() { c.closeErr = c.close(ctx) })
	return c.closeErr
}

// close goes against the direction of data: first no more commands, then no more
// changes, then no more writers, then the engine.
func (c *Cluster) close(ctx context.Context) error {
	c.draining.Store(true)
	// An owner that can't find out what became of its last round must not hold the
	// node for ever.
	defer context.AfterFunc(ctx, c.stop)()
	c.owner.queue.close()
	c.ownerWG.Wait()
	c.walksMu.Lock()
	c.closing = true
	c.walksMu.Unlock()
	c.stop()
	c.behind.Wait()
	c.replica.dismissWaiters()
	if err := c.flusher.drain(ctx); err != nil {
		c.logger.Warn("rows are left unwritten until the next start; the log has them", "error", err)
	}
	return errors.Join(c.bus.Close(), c.dir.close())
}
