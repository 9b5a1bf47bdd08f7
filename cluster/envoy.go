package cluster

import (
	"context"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/relay"
	"github.com/stockmesh/stockmesh/protocol"
)

// envoy takes commands that another region must answer, because it is their home, and
// sees to it that each is answered: by some node of that region, asked again while there
// is time. Their keys make that safe.
type envoy struct {
	peer *peer
	kick chan struct{}

	mu     sync.Mutex
	closed bool
	sender *relay.Sender
	node   string // that is asked; "" none
	last   string // that was asked last
	tries  int    // restarts since the last answer
	doubt  int64  // a call that is due by then may have been done though its answer says no
}

// envoyResend is how long an envoy waits for an answer before it asks again, on top of
// the time that the other region may wait for rights; twice as long each time.
const envoyResend = time.Second

func newEnvoy(p *peer) *envoy {
	from := p.mesh.config.Region + "." + p.mesh.config.Node
	return &envoy{
		peer: p, kick: make(chan struct{}, 1),
		sender: relay.NewSender(from, uint64(time.Now().UnixNano()), relay.Options{}),
	}
}

func (e *envoy) put(c *protocol.Call) {
	if !e.peer.mesh.reachable(e.peer.name) {
		c.Fail(e.unreachable())
		return
	}
	e.mu.Lock()
	closed, room := e.closed, e.sender.Len() < e.peer.mesh.config.QueueMax
	if room && !closed {
		e.sender.Add(c)
	}
	e.mu.Unlock()
	if closed {
		c.Fail(e.unreachable())
		return
	}
	if !room {
		c.Fail(protocol.RetryLater(protocol.CodeOverloaded, 100, "too many commands wait for region %s already", e.peer.name))
		return
	}
	e.signal()
}

func (e *envoy) unreachable() *protocol.Error {
	return protocol.RetryLater(protocol.CodeRegionUnreachable, 1000, "region %s can't be reached, and only it can answer this", e.peer.name)
}

func (e *envoy) signal() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// run sends what waits until ctx ends, then refuses what is left.
func (e *envoy) run(ctx context.Context) {
	tick := time.NewTicker(deskTick)
	defer tick.Stop()
	for {
		select {
		case <-e.kick:
		case <-tick.C:
		case <-ctx.Done():
			e.mu.Lock()
			e.closed = true
			calls := e.sender.TakeAll()
			e.mu.Unlock()
			e.fail(nil, calls)
			return
		}
		e.send(e.peer.mesh.config.elapsed())
	}
}

// send publishes batches to a node of the region, and answers what is due.
func (e *envoy) send(now int64) {
	e.mu.Lock()
	never, maybe := e.sender.Expire(now)
	wait := (envoyResend + e.peer.mesh.config.Mesh.RightsTimeout) << min(e.tries, 4)
	stalled := e.sender.Stalled(now, int64(wait))
	if stalled || !e.peer.hears(e.node) {
		if node := e.peer.anyNode(e.node); stalled || node != e.node {
			e.restart(node, now)
		}
	}
	for e.node != "" {
		data, ok := e.sender.Next(now)
		if !ok {
			break
		}
		e.peer.send("calls."+e.node, data)
	}
	e.mu.Unlock()
	e.fail(never, maybe)
}

// restart asks another node, or the same one again; mu is held. The same one does what it
// is sent in order, but another that was asked before may still do it after a refusal.
func (e *envoy) restart(node string, now int64) {
	e.ask(node, now)
	e.tries++
	e.sender.Restart()
}

// ask turns to a node; mu is held.
func (e *envoy) ask(node string, now int64) {
	if node != "" && node != e.last {
		if e.last != "" && e.sender.Len() > 0 {
			e.doubt = now + int64(e.peer.mesh.config.Patience)
		}
		e.last = node
	}
	e.node = node
}

// busy tells whether calls are unanswered.
func (e *envoy) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sender.Len() > 0
}

// fail answers calls that were never sent, and such as may have been done.
func (e *envoy) fail(never, maybe []*protocol.Call) {
	for _, c := range never {
		c.Fail(e.unreachable())
	}
	for _, c := range maybe {
		e.failDoubtful(c)
	}
}

func (e *envoy) failDoubtful(c *protocol.Call) {
	forget(c)
	err := e.unreachable()
	err.Details = &protocol.Details{Outcome: "unknown"}
	c.Fail(err)
}

// answered takes the region's answers.
func (m *mesh) answered(from, _ string, data []byte) {
	p := m.peer(from)
	if p == nil {
		return
	}
	p.heard.Store(m.config.elapsed())
	e := p.envoy
	e.mu.Lock()
	delivery, err := e.sender.Answer(data, m.config.elapsed())
	if delivery.NotOwner {
		p.leaves(e.node)
		e.ask(p.anyNode(e.node), m.config.elapsed())
	}
	if len(delivery.Calls) > 0 {
		e.tries = 0
	}
	doubt := e.doubt
	e.mu.Unlock()
	if err != nil {
		m.logger.Error("answers of another region can't be read", "region", from, "error", err)
		return
	}
	e.signal()
	returnedBy(&delivery, from)
	for _, c := range delivery.Calls {
		if c.Due <= doubt && (c.Err != nil || c.Command.Op == protocol.OpOutcome && !c.Result.Known) {
			e.failDoubtful(c) // it was sent twice: the other copy may have been done, or will be
			continue
		}
		m.c.showFirst(c, func() { c.Done(c) })
	}
}

// showFirst calls done once this node shows the items that an answer speaks of at least
// as new: nobody is told of a state that is then taken back. It gives up after a while.
func (c *Cluster) showFirst(call *protocol.Call, done func()) {
	if call.Err != nil {
		done()
		return
	}
	c.showItems(call.Result.Items, c.config.elapsed()+int64(protocol.AtLeastWaitMS*time.Millisecond), done)
}

func (c *Cluster) showItems(items []protocol.Item, until int64, done func()) {
	for i := range items {
		it := &items[i]
		s := c.shardOf(it.SKU)
		want, err := protocol.ParseVector(it.Version)
		if err != nil || s.replica.shows(protocol.ItemKey{SKU: it.SKU, Location: it.Location}, want) {
			continue
		}
		s.replica.answerGet(&protocol.Call{
			Command: protocol.Command{Op: protocol.OpGet, SKUs: []string{it.SKU}, Locations: []string{it.Location}, AtLeast: it.Version},
			Done: func(*protocol.Call) {
				if c.config.elapsed() >= until {
					done()
				} else {
					c.showItems(items[i+1:], until, done)
				}
			},
		})
		return
	}
	done()
}

// attendance is a batch of another region's clients' commands, being done here.
type attendance struct {
	mesh            *mesh
	region, from    string
	session, number uint64
	mu              sync.Mutex
	left            int
	calls           []*protocol.Call
}

// attend does commands of another region's clients as if they were this node's own.
func (m *mesh) attend(from, _ string, data []byte) {
	in, err := relay.DecodeBatch(data)
	p := m.peer(from)
	region, node, ok := strings.Cut(in.From, ".")
	if p == nil || !ok || region != from {
		m.logger.Error("commands of another region can't be read", "region", from, "as", in.From, "error", err)
		return
	}
	p.heard.Store(m.config.elapsed())
	a := &attendance{mesh: m, region: from, from: node, session: in.Session, number: in.Number, left: len(in.Calls), calls: in.Calls}
	if m.c.draining.Load() {
		a.refuse(relay.NotOwner)
		return
	}
	switch m.admit(in.From, in.Session, in.Number) {
	case relay.Duplicate:
		return
	case relay.Gap:
		a.refuse(relay.Gap)
		return
	}
	if err != nil {
		m.logger.Error("commands of another region can't be read", "region", from, "node", node, "error", err)
		a.refuse(relay.Unreadable)
		return
	}
	sender := fnv.New64a()
	sender.Write([]byte(in.From))
	good := make([]*protocol.Call, 0, len(in.Calls))
	for _, c := range in.Calls {
		if c.Session != 0 { // not one of this node's
			c.Session ^= sender.Sum64()
		}
		c.Relayed, c.Done = false, a.done
		c.Trace = nil // regions don't follow each other's commands
		c.Subject = strings.ToValidUTF8(c.Subject[:min(len(c.Subject), subjectBytesMax)], "")
		if err := checkForeign(&c.Command); err != nil {
			c.Fail(err)
			continue
		}
		good = append(good, c)
	}
	if len(good) > 0 {
		m.c.submit(good)
	}
}

// checkForeign refuses what no client could have sent: another region is believed to be
// itself, not to be right.
func checkForeign(c *protocol.Command) *protocol.Error {
	if c.Order != nil || c.Op != protocol.OpOutcome && c.Op != protocol.OpReservation && !c.Op.IsWrite() {
		return protocol.BadRequest("%s can't come from another region", c.Op)
	}
	return c.Check()
}

func (m *mesh) admit(from string, session, number uint64) relay.Admission {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.receiver.Accept(from, session, number)
}

func (a *attendance) done(*protocol.Call) {
	a.mu.Lock()
	a.left--
	last := a.left == 0
	a.mu.Unlock()
	if last {
		a.reply(relay.AppendAnswers(nil, a.mesh.config.Node, a.session, a.number, 0, a.calls))
	}
}

func (a *attendance) refuse(v relay.Verdict) {
	a.reply(relay.AppendRefusal(nil, a.mesh.config.Node, a.session, a.number, v, ""))
}

func (a *attendance) reply(data []byte) {
	if p := a.mesh.peer(a.region); p != nil {
		p.send("answers."+a.from, data)
	}
}

// abroad tells which other region must answer a call: nil and no error where this one
// does.
func (c *Cluster) abroad(call *protocol.Call) (*peer, *protocol.Error) {
	cmd := &call.Command
	region, otherwise := cmd.ActsIn(c.config.Region)
	p, err := c.otherRegion(region)
	if err == nil || !cmd.OnReservation() {
		return p, err
	}
	if otherwise == "" {
		return nil, nil // its reservation names no region: refused here
	}
	return c.otherRegion(otherwise)
}

// otherRegion is nil and no error for this one.
func (c *Cluster) otherRegion(name string) (*peer, *protocol.Error) {
	if name == c.config.Region {
		return nil, nil
	}
	if c.mesh != nil {
		if p := c.mesh.peer(name); p != nil {
			return p, nil
		}
	}
	return nil, protocol.NewError(protocol.CodeNotFound, "no region %q", name)
}

// leaves hands a call to the region that must answer it, or refuses it. It reports
// whether there was such a reason.
func (c *Cluster) leaves(call *protocol.Call) bool {
	cmd := &call.Command
	if cmd.Home == "" && cmd.Region == "" && (cmd.Reservation == "" || c.mesh == nil) {
		return false
	}
	p, err := c.abroad(call)
	switch {
	case err != nil:
		call.Fail(err)
	case p == nil:
		return false
	case cmd.Op == protocol.OpHistory:
		p.inquire(call)
	default:
		if cmd.Op.IsWrite() {
			c.mesh.sent.Add(cmd.Key, p.name)
		}
		p.envoy.put(call)
	}
	return true
}

// isAbroad tells whether leaves would take the call.
func (c *Cluster) isAbroad(call *protocol.Call) bool {
	p, err := c.abroad(call)
	return p != nil || err != nil
}
