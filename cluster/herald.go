package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// herald tells other regions of changed rows as soon as it can. The mirrored bucket tells
// them too, for certain but later: each row of it costs the disk, and is written a tenth
// of the time at most.
type herald struct {
	replica *replica
	tell    func(data []byte) // to all other regions

	mu    sync.Mutex
	dirty map[protocol.ItemID]struct{}
	queue []protocol.ItemID
	noted uint64 // last round whose changes were added

	news ledger.News // the message before; run's
	buf  []byte
	body []byte
}

const (
	// heraldEvery is the shortest time between two messages: what changes more often is
	// told once.
	heraldEvery = 30 * time.Millisecond

	// heraldBytes is about how large a message becomes.
	heraldBytes = 256 << 10
)

// newHerald returns the herald of a term that begins with what the replica shows.
func newHerald(r *replica, tell func(data []byte)) *herald {
	h := &herald{replica: r, tell: tell, dirty: make(map[protocol.ItemID]struct{}), noted: r.seq()}
	h.news = ledger.News{Shard: r.state.Shard(), Epoch: r.epoch(), To: h.noted}
	return h
}

// add notes changed rows; the owner calls it after each round.
func (h *herald) add(ids []protocol.ItemID, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noted = max(h.noted, seq)
	for _, id := range ids {
		if _, ok := h.dirty[id]; !ok {
			h.dirty[id] = struct{}{}
			h.queue = append(h.queue, id)
		}
	}
}

func (h *herald) take() (ids []protocol.ItemID, noted uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids, h.queue = h.queue, nil
	clear(h.dirty)
	return ids, h.noted
}

// run tells what changed until the term ends.
func (h *herald) run(term context.Context) {
	tick := time.NewTicker(heraldEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.send()
		case <-term.Done():
			return
		}
	}
}

// send tells everything that was noted, in as many messages as that takes.
func (h *herald) send() {
	ids, noted := h.take()
	if noted == h.news.To {
		return
	}
	for part := uint64(0); ; part++ {
		n := h.encode(ids)
		h.news.N++
		h.news.Part = part
		h.news.Prev = h.news.To
		if n == len(ids) {
			h.news.To = noted
		}
		h.buf = append(h.news.AppendHead(h.buf[:0], n), h.body...)
		h.tell(h.buf)
		if ids = ids[n:]; len(ids) == 0 {
			return
		}
	}
}

// encode puts as many rows as one message holds into body, and returns how many.
func (h *herald) encode(ids []protocol.ItemID) (n int) {
	r := h.replica
	r.mu.RLock()
	defer r.mu.RUnlock()
	h.body = h.body[:0]
	for n < len(ids) && len(h.body) < heraldBytes {
		h.body = r.state.AppendRow(h.body, ids[n])
		n++
	}
	return n
}

// chain is what was heard of a shard's news without a gap.
type chain struct {
	epoch, n uint64
	from, to uint64 // everything after from, up to to, was told
}

// follow takes a message into account.
func (c *chain) follow(n *ledger.News) {
	switch {
	case n.Epoch < c.epoch || n.Epoch == c.epoch && n.N <= c.n:
		return // of an owner that was followed by another, or been here
	case (n.Epoch != c.epoch || n.N != c.n+1) && n.Part > 0:
		c.epoch, c.n = n.Epoch, 0 // what came before it, up to the same place, is missing
		return
	case n.Epoch != c.epoch || n.N != c.n+1:
		c.from = n.Prev
	}
	c.epoch, c.n, c.to = n.Epoch, n.N, n.To
}

const subjectNews = "news"

// heardNews shows rows that another region tells of.
func (m *mesh) heardNews(from, _ string, data []byte) {
	p := m.peer(from)
	if p == nil {
		return
	}
	n, err := ledger.DecodeNews(from, data)
	if err != nil {
		m.logger.Error("news of another region can't be read", "region", from, "error", err)
		return
	}
	p.heard.Store(m.config.elapsed())
	if !isClosed(p.shown) {
		return // its older rows come first
	}
	p.show(n.Rows)
	p.followed(&n)
}

// followed moves the mark where the news leave no gap.
func (p *peer) followed(n *ledger.News) {
	component := ledger.Component(p.name, n.Shard)
	p.mu.Lock()
	c := p.chains[component]
	if c == nil {
		c = &chain{}
		p.chains[component] = c
	}
	c.follow(n)
	p.mu.Unlock()
	p.join(component)
}

// join moves a component's mark to the end of the news, where it has reached their
// beginning.
func (p *peer) join(component string) {
	p.mu.Lock()
	c := p.chains[component]
	var to uint64
	if c != nil && c.n > 0 && p.marksSeen.Get(component) >= c.from {
		to = c.to
	}
	p.mu.Unlock()
	if to > 0 && p.mark(component, to) {
		p.mesh.marked(component, to)
	}
}
