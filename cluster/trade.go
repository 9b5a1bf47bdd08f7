package cluster

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/cluster/rights"
	"github.com/stockmesh/stockmesh/protocol"
)

// exchange is how a shard's owner reaches other regions' owners. Messages may get lost,
// come late or twice: rights are told as running totals.
type exchange interface {
	// regions lists the other regions, in order.
	regions() []string
	// reachable tells whether a region was heard of lately.
	reachable(region string) bool
	// deal sends a message about rights to the owners of another region's shards.
	deal(region string, d *deal)
}

// deal is what regions tell each other about rights.
type deal struct {
	Asks    []rightsAsk    `json:"asks,omitzero"`
	Answers []rightsAnswer `json:"answers,omitzero"`

	// Rows are those whose rights were given, so that nobody who takes them shows what they
	// are sold from as not there.
	Rows []ledger.StoredRow `json:"rows,omitzero"`
}

// rightsAsk is rights.Ask as it is sent.
type rightsAsk struct {
	SKU      string  `json:"sku"`
	Location string  `json:"location"`
	Need     int64   `json:"need,omitzero"`
	Lacks    int64   `json:"lacks,omitzero"`
	Extra    int64   `json:"extra,omitzero"`
	Demand   float64 `json:"demand,omitzero"`
	Free     int64   `json:"free,omitzero"`
}

// rightsAnswer follows a committed grant, or says that there is none.
type rightsAnswer struct {
	SKU      string `json:"sku"`
	Location string `json:"location"`
	Granted  int64  `json:"granted,omitzero"` // units
	Total    int64  `json:"total,omitzero"`   // ever given to the region asked for, 0 where nothing was
	Left     int64  `json:"left,omitzero"`    // units the donor still has free
	Unasked  bool   `json:"unasked,omitzero"`
}

// Bounds of what one round does about rights.
const (
	acceptsMax = 1024 // items whose rights are taken
	asksMax    = 1024 // asks of other regions
	asksKept   = 1 << 16
	offersMax  = 64 // items whose units are offered: the others are asked for
	inboxMax   = 1 << 16
	sweepEvery = time.Second
)

// trader gets rights of other regions for commands that lack units here, and gives
// rights to other regions. Everything but the inbox belongs to the owner's goroutine.
type trader struct {
	config *Config
	state  *ledger.State
	out    exchange
	frozen func() bool // rights are neither taken nor given; nil: never

	book    *rights.Book
	lots    map[protocol.ItemKey]*lot
	order   []*lot                     // as they came up
	waiting map[uint64]int             // commands that wait, by sender
	keys    map[string]int             // commands that wait, by key
	kept    map[protocol.ItemKey]int64 // units that commands count on which wait for another item
	swept   int64
	closing bool // nothing waits any more

	// Of the round being decided.
	sold    []protocol.ItemKey
	asks    []request // of other regions
	outbox  map[string]*deal
	peers   []rights.Peer
	holding []ledger.Holding

	mu    sync.Mutex
	inbox []letter
}

// letter is a deal of another region.
type letter struct {
	from string
	deal deal
}

// lot is the commands that wait for units of one item, in order.
type lot struct {
	key     protocol.ItemKey
	calls   []waitingCall
	tried   uint64 // version of the row when they were tried last
	lookAt  int64  // when to see whether an ask got lost
	stirred bool   // another region has answered since
}

// waitingCall is a command that waits for rights.
type waitingCall struct {
	call  *protocol.Call
	need  int64 // units of the lot's item that it asks for
	until int64 // of the node's clock; then it is refused
}

func newTrader(c *Config, s *ledger.State, out exchange) *trader {
	t := &trader{config: c, state: s, out: out}
	t.reset()
	return t
}

// reset begins a term: what was told to an owner before is not this one's.
func (t *trader) reset() {
	t.book = rights.NewBook(t.config.Region, rights.Options{})
	t.empty()
	t.outbox = make(map[string]*deal)
	t.asks, t.sold = nil, nil
	t.take()
}

func (t *trader) empty() {
	t.lots, t.order = make(map[protocol.ItemKey]*lot), nil
	t.waiting, t.keys, t.kept = make(map[uint64]int), make(map[string]int), make(map[protocol.ItemKey]int64)
}

// tell takes a message of another region, from any goroutine. It reports whether there
// was room; asks are repeated by whoever sent them, and rights given stand in rows.
func (t *trader) tell(from string, d deal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.inbox) >= inboxMax {
		return false
	}
	t.inbox = append(t.inbox, letter{from, d})
	return true
}

func (t *trader) take() []letter {
	t.mu.Lock()
	defer t.mu.Unlock()
	letters := t.inbox
	t.inbox = nil
	return letters
}

func (t *trader) hasMail() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.inbox) > 0
}

// peersOf is what other regions have of an item: nothing, where no row of theirs is known
// yet, which may be wrong. It is valid until the next call.
func (t *trader) peersOf(key protocol.ItemKey) []rights.Peer {
	t.holding = t.state.Holdings(t.holding[:0], key)
	t.peers = t.peers[:0]
	for _, region := range t.out.regions() {
		p := rights.Peer{Region: region, Reachable: t.out.reachable(region)}
		for _, h := range t.holding {
			if h.Region == region {
				p.Free = h.Free
			}
		}
		t.peers = append(t.peers, p)
	}
	return t.peers
}

// want asks other regions for rights, if the book says so.
func (t *trader) want(key protocol.ItemKey, own rights.Own, now int64) {
	peers := t.peersOf(key)
	if len(peers) == 0 {
		return
	}
	for _, o := range t.book.Want(key, own, peers, now) {
		d := t.to(o.Peer)
		d.Asks = append(d.Asks, rightsAsk{
			SKU: key.SKU, Location: key.Location, Need: o.Ask.Need, Lacks: o.Ask.Lacks, Extra: o.Ask.Extra, Demand: o.Ask.Demand, Free: o.Ask.Free,
		})
	}
}

func (t *trader) to(region string) *deal {
	d := t.outbox[region]
	if d == nil {
		d = new(deal)
		t.outbox[region] = d
	}
	return d
}

// demand notes what customers took, which is new where they did not wait for it. It is
// looked at again when the round is committed.
func (t *trader) demand(c *protocol.Command, isNew bool) {
	if c.Op != protocol.OpSell && c.Op != protocol.OpReserve {
		return
	}
	now := t.config.elapsed()
	for i := range c.Lines {
		key := protocol.ItemKey{SKU: c.Lines[i].SKU, Location: c.Lines[i].Location}
		if isNew {
			t.book.Demand(key, c.Lines[i].Quantity, now)
		}
		if n := len(t.sold); n == 0 || t.sold[n-1] != key {
			t.sold = append(t.sold, key)
		}
	}
}

// grant gives rights to the regions that asked, after this region's own commands of the
// round. What is given is told when it is committed.
func (t *trader) grant(d *ledger.Draft) {
	now := t.config.elapsed()
	n := min(len(t.asks), asksMax)
	for _, r := range t.asks[:n] {
		key := protocol.ItemKey{SKU: r.ask.SKU, Location: r.ask.Location}
		row := d.Row(key)
		own := t.own(key, row.Free())
		ask := rights.Ask{Key: key, Need: r.ask.Need, Lacks: r.ask.Lacks, Extra: r.ask.Extra, Demand: r.ask.Demand, Free: r.ask.Free}
		t.give(d, r.from, key, t.book.Give(r.from, ask, own, now), false)
	}
	t.asks = append(t.asks[:0], t.asks[n:]...)
	t.offer(d, now)
}

func (t *trader) give(d *ledger.Draft, region string, key protocol.ItemKey, n int64, unasked bool) {
	granted := d.Grant(key, region, n)
	row, to := d.Row(key), t.to(region)
	if granted > 0 {
		to.Rows = append(to.Rows, row.Stored(t.config.Region, t.state.Shard(), key))
	}
	to.Answers = append(to.Answers, rightsAnswer{
		SKU: key.SKU, Location: key.Location, Granted: granted, Total: row.Granted[region], Left: row.Free(), Unasked: unasked,
	})
}

// offer gives units that came in to regions that asked for them in vain before.
func (t *trader) offer(d *ledger.Draft, now int64) {
	round := d.Round()
	var raised []protocol.ItemKey
	for i := range round.Records {
		switch rec := &round.Records[i]; rec.Type {
		case ledger.TypeAdjust, ledger.TypeCount, ledger.TypeMove, ledger.TypeRelease, ledger.TypeExpire, ledger.TypeAccept, ledger.TypeConfigure:
			for n := range rec.Events {
				if key := round.Items[rec.Events[n].Item]; !slices.Contains(raised, key) {
					raised = append(raised, key)
				}
			}
		}
		if len(raised) == offersMax {
			break
		}
	}
	for _, key := range raised {
		row := d.Row(key)
		for _, g := range t.book.Offer(key, t.own(key, row.Free()), now) {
			t.give(d, g.Peer, key, g.Units, true)
		}
	}
}

// committed ends a round that is true now: others are told, and more is asked for where
// little is left.
func (t *trader) committed() {
	now := t.config.elapsed()
	for _, key := range t.sold {
		if id, ok := t.state.ID(key); ok && t.lots[key] == nil {
			row := t.state.Row(id)
			t.want(key, t.own(key, row.Free()), now)
		}
	}
	t.sold = t.sold[:0]
	t.send()
	if now-t.swept > int64(sweepEvery) {
		t.swept = now
		t.book.Sweep(now)
	}
}

// failed ends a round that was not committed: what it would have given is not told. Asks
// go all the same.
func (t *trader) failed() {
	t.sold = t.sold[:0]
	for _, d := range t.outbox {
		d.Answers, d.Rows = nil, nil
	}
	t.send()
}

func (t *trader) send() {
	for _, region := range slices.Sorted(maps.Keys(t.outbox)) {
		if d := t.outbox[region]; len(d.Asks)+len(d.Answers) > 0 {
			t.out.deal(region, d)
		}
		delete(t.outbox, region)
	}
}

// tradeDue tells whether there are rights to take or to give. After a round that changed
// nothing only what has come since can make a difference.
func (o *owner) tradeDue(idle bool) bool {
	if o.trade == nil {
		return false
	}
	o.replica.mu.RLock()
	defer o.replica.mu.RUnlock()
	if idle {
		return o.trade.hasNews()
	}
	return o.trade.due(o.config.elapsed())
}

// settled tells what became of a round.
func (o *owner) settled(committed bool) {
	if o.trade == nil {
		return
	}
	o.replica.mu.RLock()
	defer o.replica.mu.RUnlock()
	if committed {
		o.trade.committed()
	} else {
		o.trade.failed()
	}
}
