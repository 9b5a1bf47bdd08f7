package verify

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"golang.org/x/sync/errgroup"
)

const (
	itemsAtOnce = 32
	// deeper is how many times the depth is read where it is asked whether a setting
	// was ever made.
	deeper   = 20
	lookPoll = 100 * time.Millisecond
	// busyLooks is how often an item is looked at that never stands still, wrongLooks one
	// that is wrong at a different version each time.
	busyLooks  = 10
	wrongLooks = 1000
)

// sampler reads histories of some items.
type sampler struct {
	*verifier
	until  time.Time // when to stop looking again at what doesn't fit
	done   atomic.Int64
	busy   atomic.Int64 // items that changed at every look
	unread atomic.Int64 // histories
	cut    atomic.Int64 // items that owe units, of which it can't be said whether they may
}

// pick chooses items: first those that owe units, then some that show that they have
// settings, and then evenly over all.
func (b *book) pick(count int) []uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.names.len()
	count = min(count, all)
	if count <= 0 {
		return nil
	}
	chosen := make(map[uint32]bool, count)
	b.choose(chosen, count, func(r row) bool { return r.onHand < r.reserved })
	b.choose(chosen, (len(chosen)+count)/2, func(r row) bool { return r.available != max(0, r.onHand-r.reserved) })
	for i := range count {
		if len(chosen) < count {
			chosen[uint32(i*all/count)] = true
		}
	}
	for i := uint32(0); len(chosen) < count; i++ {
		chosen[i] = true // those before were not all different
	}
	list := make([]uint32, 0, count)
	for item := range chosen {
		list = append(list, item)
	}
	slices.Sort(list)
	return list
}

// choose adds items of which a node shows such a row. The caller holds mu.
func (b *book) choose(chosen map[uint32]bool, count int, such func(row) bool) {
	for _, p := range b.pictures {
		for item := range uint32(b.names.len()) {
			if len(chosen) >= count {
				return
			}
			if such(p.row(item)) {
				chosen[item] = true
			}
		}
	}
}

// sample reads the histories of some items.
func (v *verifier) sample(ctx context.Context) error {
	items := v.book.pick(v.config.Sample)
	s := &sampler{verifier: v, until: time.Now().Add(v.config.Settle)}
	finished := make(chan error, 1)
	go func() { finished <- s.all(ctx, items) }()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-finished:
			s.notes()
			return err
		case <-ticker.C:
			v.config.Progress("reading histories", int(s.done.Load()), len(items))
		}
	}
}

func (s *sampler) all(ctx context.Context, items []uint32) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(itemsAtOnce)
	for _, item := range items {
		g.Go(func() error {
			defer s.done.Add(1)
			return s.item(ctx, item)
		})
	}
	return g.Wait()
}

func (s *sampler) notes() {
	if n := s.busy.Load(); n > 0 {
		s.found.note(checkHistory, "%d items never stood still", n)
	}
	if n := s.unread.Load(); n > 0 {
		s.found.note(checkHistory, "%d histories could not be read", n)
	}
	if n := s.cut.Load(); n > 0 {
		s.found.note(checkBounds, "%d items owe units, and their histories don't reach back far enough to tell whether they may", n)
	}
}

// item looks at an item until a look finds nothing wrong, or time is up and two in a row
// have found it wrong at one version. A look during which it changed says nothing.
func (s *sampler) item(ctx context.Context, item uint32) error {
	wrongAt, busy := "", true
	for looks := 1; ; looks++ {
		a, still, err := s.look(ctx, item)
		if err != nil {
			return err
		}
		var found []wrong
		if still {
			busy, found = false, a.judge()
		}
		late := looks > 1 && time.Now().After(s.until)
		switch {
		case still && len(found) == 0:
			s.finish(a, nil)
			return nil
		case late && still && (wrongAt == a.item.Version || looks >= wrongLooks):
			s.finish(a, found)
			return nil
		case late && !still, busy && looks == busyLooks:
			if busy {
				s.busy.Add(1)
			}
			s.finish(a, nil)
			return nil
		}
		if wrongAt = ""; still {
			wrongAt = a.item.Version
		}
		if err := pause(ctx, lookPoll); err != nil {
			return err
		}
	}
}

// finish enters what the last look has found.
func (s *sampler) finish(a *account, found []wrong) {
	k := a.item.Key()
	for i := range a.histories {
		h := &a.histories[i]
		if h.unread != nil {
			s.unread.Add(1)
		}
		s.tally(h)
		found = append(found, h.judge(k, s.config.KeyWindow)...)
	}
	if a.item.OnHand < a.item.Reserved && !a.own && !a.whole() && !a.configured() {
		s.cut.Add(1)
	}
	for _, w := range found {
		s.found.fault(w.check, "%q at %q: %s", k.SKU, k.Location, w.text)
	}
}

func (s *sampler) tally(h *history) {
	var keys, ended int64
	for i := range h.movements {
		if h.movements[i].Key != "" {
			keys++
		}
		if ends(h.movements[i].Type) {
			ended++
		}
	}
	s.found.count(checkHistory, int64(len(h.movements)))
	s.found.count(checkKeys, keys)
	s.found.count(checkReservations, ended)
}

// look reads an item's histories, and says whether it stood still on every node while
// they were read.
func (s *sampler) look(ctx context.Context, item uint32) (a *account, still bool, err error) {
	before, vector, equal := s.book.glance(item)
	a = &account{item: before, version: vector, own: s.config.Own}
	depth := s.config.Depth
	if before.OnHand < before.Reserved {
		depth *= deeper
	}
	for _, c := range vector {
		h, err := s.history(ctx, before.Key(), c.Region, depth)
		if err != nil {
			return nil, false, err
		}
		a.histories = append(a.histories, h)
	}
	after, _, _ := s.book.glance(item)
	return a, equal && before.Version == after.Version, nil
}

// glance is an item as the first node that has it shows it, and whether all show the same
// version.
func (b *book) glance(item uint32) (it protocol.Item, v protocol.Vector, equal bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.names.key(item)
	it = protocol.Item{SKU: k.SKU, Location: k.Location}
	var at []uint64
	for _, p := range b.pictures {
		at = p.vector(item, at)
		if v = b.vector(at); len(v) > 0 {
			r := p.row(item)
			it.Available, it.OnHand, it.Reserved, it.Version = r.available, r.onHand, r.reserved, v.String()
			break
		}
	}
	equal = !slices.ContainsFunc(b.pictures, func(p *picture) bool { return p.relation(item, at) != shownSame })
	return it, v, equal
}

// history reads what a region tells of an item, back to depth movements. It asks a node of
// that region, if there is one.
func (s *sampler) history(ctx context.Context, k protocol.ItemKey, region string, depth int) (history, error) {
	n := s.nodes[0]
	if i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.hello.Region == region }); i >= 0 {
		n = s.nodes[i]
	}
	h := history{region: region}
	r := request{Op: protocol.OpHistory, SKU: k.SKU, Location: k.Location, Region: region}
	for len(h.movements) < depth {
		r.Limit = min(depth-len(h.movements), protocol.HistoryMax)
		page, err := n.ask(ctx, r)
		var refused *protocol.Error
		switch {
		case errors.As(err, &refused), errors.Is(err, errSilent):
			h.unread, h.movements = err, nil
			return h, nil
		case err != nil:
			return h, err
		}
		h.movements = append(h.movements, page.Movements...)
		if page.Next == "" || len(page.Movements) == 0 {
			break
		}
		r.Before = page.Next
	}
	return h, nil
}
