package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// stockBucket holds the rows; other programs read it.
const stockBucket = "stock"

// Cluster is a running node of a region. All methods may be called from several
// goroutines.
type Cluster struct {
	config  Config
	logger  *slog.Logger
	dir     *dataDir
	bus     *bus.Bus
	region  *region // nil where the node is alone
	mesh    *mesh   // nil where the region is
	shards  []*shard
	table   *bus.Table // the stock bucket
	orders  ordersUnderWay
	restore *backup // that a new region begins with
	metrics *metrics
	revoked *revoked
	told    told

	endpoint    atomic.Pointer[string] // of this node, for clients
	connections atomic.Pointer[func() int]

	readOnly atomic.Pointer[string] // why; nil: it takes writes
	draining atomic.Bool
	stop     context.CancelFunc // ends the goroutines below
	ctx      context.Context
	running  sync.WaitGroup        // shards, desks, reports
	walks    sync.WaitGroup        // history walks
	lost     atomic.Pointer[error] // why a shard ended
	walksMu  sync.Mutex
	closing  bool // no more walks
	once     sync.Once
	closeErr error
}

func (c *Cluster) ownersKnown() bool {
	for _, s := range c.shards {
		if _, alive := s.desk.ownerKnown(); !alive {
			return false
		}
	}
	return true
}

// owns lists the shards that this node decides for.
func (c *Cluster) owns() []int {
	list := []int{}
	for _, s := range c.shards {
		if owner, _ := s.desk.ownerKnown(); owner == c.config.Node {
			list = append(list, s.n)
		}
	}
	return list
}

// Submit hands calls over and never blocks: each call's Done is called exactly
// once, from any goroutine, perhaps before Submit returns. Calls must have passed
// Check. It takes every op except auth, subscribe, unsubscribe and ping.
func (c *Cluster) Submit(calls []*protocol.Call) {
	if c.mesh != nil {
		c.askAround(calls)
	}
	c.submit(calls)
}

// submit is Submit without asking other regions what this one does not know.
func (c *Cluster) submit(calls []*protocol.Call) {
	due, fit := c.due(), true
	for _, call := range calls {
		call.Due = due
		if call.Session != 0 {
			call.Sender = call.Session
		}
		submitted(call)
		fit = fit && relay.ScopeFits(call.Command.Within)
	}
	if !fit {
		calls = refuseUnfit(calls)
	}
	if why := c.readOnly.Load(); why != nil {
		calls = refuseWrites(calls, *why)
	}
	if len(c.shards) > 1 {
		c.route(calls)
		return
	}
	queued := calls
	for i, call := range calls {
		if toOwner(call) && !c.isAbroad(call) {
			continue
		}
		// The first that does not go to the owner: sort out the rest.
		queued = append([]*protocol.Call(nil), calls[:i]...)
		for _, call := range calls[i:] {
			if c.leaves(call) {
				continue
			}
			if toOwner(call) {
				queued = append(queued, call)
			} else {
				c.read(call)
			}
		}
		break
	}
	if len(queued) > 0 {
		c.shards[0].desk.put(queued...)
	}
}

// refuseUnfit answers calls whose scope no other node would take, and returns the others:
// whoever decides a command must know its whole scope.
func refuseUnfit(calls []*protocol.Call) (rest []*protocol.Call) {
	for _, call := range calls {
		if relay.ScopeFits(call.Command.Within) {
			rest = append(rest, call)
		} else {
			call.Fail(protocol.NewError(protocol.CodeForbidden, "the grants for %s are too many to be checked", call.Command.Op))
		}
	}
	return rest
}

// toOwner tells what goes through the owner's queue: writes; an outcome, which must
// see every write sent before it; and a read behind unanswered commands of its
// sender, which must see what those did.
func toOwner(call *protocol.Call) bool {
	return call.Ordered || call.Command.Op.IsWrite() || call.Command.Op == protocol.OpOutcome
}

func (c *Cluster) read(call *protocol.Call) {
	switch call.Command.Op {
	case protocol.OpGet:
		if targets := c.shardsOf(&call.Command); len(targets) > 1 {
			c.getMany(call, targets)
		} else {
			targets[0].replica.answerGet(call)
		}
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
	replica := c.shardsOf(&call.Command)[0].replica
	replica.mu.RLock()
	r, ok := replica.state.Reservation(id)
	replica.mu.RUnlock()
	if !ok || !call.Command.Within.Covers(r.User, r.Lines) {
		call.Fail(ledger.NoReservation(id))
		return
	}
	call.Result = protocol.Result{Kind: protocol.KindReservation, Reservation: &r}
	call.Done(call)
}

func (c *Cluster) walk(call *protocol.Call) {
	c.walksMu.Lock()
	closing := c.closing
	if !closing {
		c.walks.Add(1)
	}
	c.walksMu.Unlock()
	if closing {
		call.Fail(protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node is stopping"))
		return
	}
	go func() {
		defer c.walks.Done()
		c.shardOf(call.Command.SKU).history.answer(c.ctx, call)
	}()
}

// Scan returns existing items in order and whether others may follow: then next is the
// After to go on with. It looks at so many items only, and may return fewer than the
// limit, even none.
func (c *Cluster) Scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool) {
	if len(c.shards) > 1 {
		return c.scanAll(q)
	}
	s := c.shards[0]
	return s.replica.scan(s.query(q))
}

// Items appends the present state of items to dst.
func (c *Cluster) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	if len(c.shards) == 1 {
		return c.shards[0].replica.items(dst, ids)
	}
	for _, id := range ids {
		s, local := c.local(id)
		dst = s.replica.items(dst, []protocol.ItemID{local})
	}
	return dst
}

// Watch calls fn after each commit, in order, before the commands of that round
// are answered. Fn must not block; changes may be kept but not changed.
func (c *Cluster) Watch(fn func(*protocol.Changes)) (stop func()) {
	if len(c.shards) > 1 || c.mesh != nil {
		return c.watchAll(fn)
	}
	return c.shards[0].replica.watch(fn)
}

// Cursor returns what the node's state holds: everything up to here. A region of
// several shards has a component for each.
func (c *Cluster) Cursor() (v protocol.Vector) {
	for _, s := range c.shards {
		if n := s.replica.seq(); n > 0 {
			v = v.With(ledger.Component(c.config.Region, s.n), n)
		}
	}
	if c.mesh != nil {
		v = c.mesh.cursor(v)
	}
	return v
}

// behindMax is how many rounds a node may be behind and still count as serving: some
// tenths of a second at full speed.
const behindMax = 256

// State says how far the node is: serving, catching_up, draining or no_quorum.
func (c *Cluster) State() string {
	switch {
	case c.draining.Load():
		return "draining"
	case c.lost.Load() != nil || !c.ownersKnown():
		return "no_quorum"
	}
	for _, s := range c.shards {
		if s.lag() > behindMax {
			return "catching_up"
		}
	}
	return "serving"
}

// Announce tells the other nodes where clients reach this one, and from now on how
// many there are.
func (c *Cluster) Announce(endpoint string, connections func() int) {
	c.endpoint.Store(&endpoint)
	c.connections.Store(&connections)
	if c.region != nil {
		c.region.endpoint.Store(&endpoint)
		c.region.connections.Store(&connections)
		c.region.hurry()
	}
}

// Elsewhere lists the public endpoints of the region's other nodes that serve, or of
// those that may soon where none does.
func (c *Cluster) Elsewhere() []string {
	if c.region == nil {
		return []string{}
	}
	return c.region.endpoints()
}

// Problem is what keeps a node from serving.
type Problem struct {
	Kind string // commit, disk, engine, log, name, owner, rows or shard
	Err  error
}

// Health returns what is wrong with the node, nothing if it can serve.
func (c *Cluster) Health() []Problem {
	var problems []Problem
	add := func(kind string, err error) {
		if err != nil {
			problems = append(problems, Problem{kind, err})
		}
	}
	if lost := c.lost.Load(); lost != nil {
		add("shard", *lost)
	}
	add("engine", c.bus.Err())
	if c.region != nil {
		add("name", c.region.gossip.Conflict())
	}
	for _, s := range c.shards {
		problems = append(problems, s.problems()...)
	}
	add("disk", diskProblem(c.dir.path))
	return problems
}

// Broken returns why this node stores nothing until it is started again, nil while it
// does. It asks the engine: not for each request.
func (c *Cluster) Broken() error {
	if err := c.bus.Err(); errors.Is(err, bus.ErrBroken) {
		return err
	}
	return nil
}

// Mesh describes the regions and nodes that this node knows of. Of a node alone,
// endpoint and connections are the server's to fill in.
func (c *Cluster) Mesh() protocol.Mesh {
	nodes := []protocol.MeshNode{{Name: c.config.Node, State: c.State(), OwnerOf: c.owns()}}
	if c.region != nil {
		nodes = c.region.nodes()
	}
	regions := []protocol.MeshRegion{{
		Name: c.config.Region, State: "serving", HeardAt: protocol.TimeOf(c.config.Clock()), Nodes: nodes,
	}}
	if c.mesh != nil {
		regions = append(regions, c.mesh.described()...)
	}
	return protocol.Mesh{Region: c.config.Region, Node: c.config.Node, Regions: regions}
}
