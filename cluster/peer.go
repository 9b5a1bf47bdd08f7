package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// peer is another region: its rows as they come in, and the commands that go there.
type peer struct {
	name   string
	mesh   *mesh
	logger *slog.Logger
	envoy  *envoy
	ctx    context.Context
	end    context.CancelFunc
	heard  atomic.Int64  // when it last said something
	ended  chan struct{} // closed when run has
	shown  chan struct{} // closed when all rows held here were shown once
	mirror atomic.Pointer[bus.Mirror]
	addrs  []string // of its links; the mesh's lock
	known  bool     // its rows may have been mirrored before

	showMu sync.Mutex
	gone   bool // the region was removed: nothing of it is shown any more

	mu          sync.Mutex
	marksSeen   protocol.Vector       // its rows were shown up to here
	chains      map[string]*chain     // news heard, by component
	behind      map[string][]logPlace // what it said to have, and is not shown, by component
	incarnation string                // of the rows shown
	nodes       map[string]int64      // its nodes that gave signs of life, and when
	hearsUs     bool                  // it hears of this region
}

// logPlace is a place of another region's log and when it was heard of.
type logPlace struct {
	seq uint64
	at  int64
}

// behindMax bounds what is remembered of a region that can't be followed: the oldest
// tells how far behind the picture is.
const placesMax = 1024

func newPeer(m *mesh, region string) *peer {
	p := &peer{
		name: region, mesh: m, logger: m.logger.With("region", region),
		ended: make(chan struct{}), shown: make(chan struct{}), behind: make(map[string][]logPlace), chains: make(map[string]*chain), nodes: make(map[string]int64),
	}
	p.ctx, p.end = context.WithCancel(m.c.ctx)
	p.heard.Store(m.config.elapsed() - 2*int64(neverHeard))
	p.envoy = newEnvoy(p)
	return p
}

// run shows the region's rows and forwards commands until ctx ends.
func (p *peer) run(ctx context.Context) {
	defer close(p.ended)
	var sends sync.WaitGroup
	sends.Go(func() { p.envoy.run(ctx) })
	defer sends.Wait()
	var once sync.Once
	trouble := outage{logger: p.logger, began: "another region's rows can't be followed", ended: "another region's rows are followed again"}
	if !p.known {
		p.awaitLink(ctx)
	}
	for ctx.Err() == nil {
		mirror, err := p.mesh.c.bus.Mirror(ctx, p.name, stockBucket, incarnationKey)
		if err == nil {
			p.mirror.Store(mirror)
			err = mirror.Follow(ctx, p.rows, func() error {
				trouble.note(nil)
				once.Do(func() { close(p.shown) })
				return nil
			})
		}
		if ctx.Err() != nil {
			return
		}
		trouble.note(err)
		_ = pause(ctx, readPause) // the loop's condition sees its end
	}
}

// awaitLink waits until there is a way to a region that is new, be it by another node of
// this one: a mirror that is set up before that stands still for seconds.
func (p *peer) awaitLink(ctx context.Context) {
	linked := func() bool { return p.silence() < reachableFor || p.mesh.c.bus.Links()[p.name].Connected > 0 }
	for !linked() && pause(ctx, 20*time.Millisecond) == nil {
	}
}

// rows shows rows of the region, in the order in which it wrote them.
func (p *peer) rows(rows []bus.Row) error {
	var batch []ledger.PeerRow
	flush := func() {
		p.show(batch)
		batch = batch[:0]
	}
	for i := range rows {
		tokens, err := bus.UnescapeKey(rows[i].Key)
		if err != nil {
			p.logger.Error("a row's key can't be read", "key", rows[i].Key, "error", err)
			continue
		}
		if len(tokens) == 3 { // one of the region's own rows
			flush()
			p.note(tokens, rows[i].Value)
			continue
		}
		row, err := p.row(rows[i].Value)
		if err != nil {
			p.logger.Error("a row can't be used", "key", rows[i].Key, "error", err)
			continue
		}
		batch = append(batch, row)
	}
	flush()
	return nil
}

func (p *peer) row(value []byte) (ledger.PeerRow, error) {
	var stored ledger.StoredRow
	if err := protocol.UnmarshalJSON(value, &stored); err != nil {
		return ledger.PeerRow{}, err
	}
	return p.own(&stored)
}

// showStored shows rows that came with a message.
func (p *peer) showStored(stored []ledger.StoredRow) {
	if len(stored) == 0 || !isClosed(p.shown) {
		return
	}
	rows := make([]ledger.PeerRow, 0, len(stored))
	for i := range stored {
		row, err := p.own(&stored[i])
		if err != nil {
			p.logger.Error("a row can't be used", "error", err)
			continue
		}
		rows = append(rows, row)
	}
	p.show(rows)
}

// own takes a row that must be of this region.
func (p *peer) own(stored *ledger.StoredRow) (ledger.PeerRow, error) {
	if stored.Region != p.name {
		return ledger.PeerRow{}, fmt.Errorf("it is of region %q", stored.Region)
	}
	return stored.Peer()
}

// show gives rows to the shards that hold their items here.
func (p *peer) show(rows []ledger.PeerRow) {
	p.showMu.Lock()
	defer p.showMu.Unlock()
	if p.gone {
		return
	}
	shards := p.mesh.c.shards
	if len(shards) == 1 {
		if len(rows) > 0 {
			shards[0].learn(p.name, false, rows)
		}
		return
	}
	parts := make([][]ledger.PeerRow, len(shards))
	for i := range rows {
		n := place(rows[i].Key.SKU, len(shards))
		parts[n] = append(parts[n], rows[i])
	}
	for n, part := range parts {
		if len(part) > 0 {
			shards[n].learn(p.name, false, part)
		}
	}
}

// note takes a row that says something of the region's bucket itself.
func (p *peer) note(tokens []string, value []byte) {
	switch tokens[1] {
	case "incarnation":
		p.mu.Lock()
		other := p.incarnation != "" && p.incarnation != string(value)
		p.incarnation = string(value)
		if other {
			p.marksSeen = nil
			clear(p.behind)
			clear(p.chains)
		}
		p.mu.Unlock()
		if other {
			p.logger.Warn("the region was created anew: what was known of it is forgotten")
			p.forget(false)
		}
	case "watermark":
		var w watermark
		if err := protocol.UnmarshalJSON(value, &w); err != nil || w.Region != p.name || strconv.Itoa(w.Shard) != tokens[2] || !shardPossible(w.Shard) {
			p.logger.Error("a watermark can't be read", "error", err)
			return
		}
		component := ledger.Component(p.name, w.Shard)
		if p.mark(component, w.Seq) {
			p.mesh.marked(component, w.Seq)
			p.join(component)
		}
	}
}

// forget takes back everything that was shown, and shows nothing more where the region is
// gone.
func (p *peer) forget(gone bool) {
	p.showMu.Lock()
	defer p.showMu.Unlock()
	p.gone = gone
	for _, s := range p.mesh.c.shards {
		s.learn(p.name, true, nil)
	}
}

// mark notes that rows were shown up to a place of the region's log.
func (p *peer) mark(component string, seq uint64) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marksSeen.Get(component) >= seq {
		return false
	}
	p.marksSeen = p.marksSeen.With(component, seq)
	places := p.behind[component]
	n := 0
	for n < len(places) && places[n].seq <= seq {
		n++
	}
	p.behind[component] = places[n:]
	return true
}

func (p *peer) marks() protocol.Vector {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marksSeen
}

func (p *peer) heardBeat(b *beatMessage) {
	now := p.mesh.config.elapsed()
	p.heard.Store(now)
	if !shardPossible(b.Shard) || protocol.CheckRegion("node", b.Node) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.nodes[b.Node]; known || len(p.nodes) < peerNodesMax {
		p.nodes[b.Node] = now
	}
	p.hearsUs = slices.Contains(b.Hears, p.mesh.config.Region)
	component := ledger.Component(p.name, b.Shard)
	places := p.behind[component]
	if b.Seq > p.marksSeen.Get(component) && (len(places) == 0 || places[len(places)-1].seq < b.Seq) && len(places) < placesMax {
		p.behind[component] = append(places, logPlace{b.Seq, now})
	}
}

// shardPossible tells whether a region can have a shard of that number.
func shardPossible(n int) bool { return n >= 0 && n < ShardsMax }

// peerNodesMax bounds what a region can make others remember.
const peerNodesMax = 64

// leaves notes that a node does no more for others, until it gives a sign of life.
func (p *peer) leaves(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.nodes[node]; known {
		p.nodes[node] = p.mesh.config.elapsed() - int64(reachableFor) - 1
	}
}

// reached is how far a log of the region goes, as far as is known.
func (p *peer) reached(component string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.marksSeen.Get(component)
	if places := p.behind[component]; len(places) > 0 {
		n = max(n, places[len(places)-1].seq)
	}
	return n
}

// silence is how long the region has said nothing.
func (p *peer) silence() time.Duration {
	return time.Duration(p.mesh.config.elapsed() - p.heard.Load())
}

// lag is how old the picture of the region is: no less than its silence where it is
// longer than between two signs of life.
func (p *peer) lag() time.Duration {
	now := p.mesh.config.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	var lag time.Duration
	for _, places := range p.behind {
		if len(places) > 0 {
			lag = max(lag, time.Duration(now-places[0].at))
		}
	}
	if silence := time.Duration(now - p.heard.Load()); silence > reachableFor {
		lag = max(lag, silence)
	}
	return lag
}

// state is protocol.MeshRegion's.
func (p *peer) state() string {
	p.mu.Lock()
	hears := p.hearsUs
	p.mu.Unlock()
	switch {
	case p.silence() > cutOffAfter || !hears:
		return "cut_off"
	case p.lag() > cutOffAfter || !isClosed(p.shown):
		return "catching_up"
	}
	return "serving"
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// hearsThis tells whether the region said lately that it hears of this one.
func (p *peer) hearsThis() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hearsUs
}

// hears tells whether a node of the region was heard of lately.
func (p *peer) hears(node string) bool {
	now := p.mesh.config.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.nodes[node]
	return ok && now-at <= int64(reachableFor)
}

// anyNode is a node of the region that was heard of lately, other than the one to avoid
// where there is a choice; "" if there is none.
func (p *peer) anyNode(avoid string) (best string) {
	now := p.mesh.config.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, at := range p.nodes {
		if now-at > int64(reachableFor) {
			continue
		}
		if best == "" || best == avoid || node != avoid && node < best {
			best = node
		}
	}
	return best
}

// send gives the region's nodes a message; one that can't be sent is as one that was lost.
func (p *peer) send(subject string, data []byte) {
	if err := p.mesh.c.bus.Send(p.name, subject, data); err != nil && !errors.Is(err, bus.ErrClosed) {
		p.logger.Debug("a message to another region was not sent", "subject", subject, "error", err)
	}
}
