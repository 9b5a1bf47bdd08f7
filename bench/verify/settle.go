package verify

import (
	"context"
	"slices"
	"time"
)

// debt is an item that some node has yet to show as new as another one has shown it.
type debt struct {
	item   uint32
	target []uint64 // the newest of each region that any node has shown
}

const settlePoll = 10 * time.Millisecond

// settle waits until every node shows what any of them shows now, or newer: so traffic may
// go on. What is at rest is then equal everywhere, as equal versions have one body.
func (b *book) settle(ctx context.Context, patience time.Duration, progress func(left int)) error {
	debts := b.debts()
	began := time.Now()
	for len(debts) > 0 && time.Since(began) < patience {
		progress(len(debts))
		if err := pause(ctx, settlePoll); err != nil {
			return err
		}
		debts = b.unpaid(debts)
	}
	b.protest(debts, patience)
	return nil
}

// debts looks at every item on every node.
func (b *book) debts() (list []debt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	target := make([]uint64, len(b.regions))
	for item := range uint32(b.names.len()) {
		same := true
		for region := range target {
			newest := b.pictures[0].version(item, region)
			for _, p := range b.pictures[1:] {
				n := p.version(item, region)
				same = same && n == newest
				newest = max(newest, n)
			}
			target[region] = newest
		}
		if !same {
			list = append(list, debt{item, slices.Clone(target)})
		}
	}
	b.found.count(checkEqual, int64(b.names.len()))
	return list
}

func (b *book) unpaid(debts []debt) []debt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(debts, func(d debt) bool { return b.behind(d) < 0 })
}

// behind returns a node that has not reached what a debt says, negative if there is none.
// The caller holds mu.
func (b *book) behind(d debt) int {
	return slices.IndexFunc(b.pictures, func(p *picture) bool { return !p.reaches(d.item, d.target) })
}

func (b *book) protest(debts []debt, patience time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range debts {
		node := b.behind(d)
		if node < 0 {
			continue
		}
		p := b.pictures[node]
		b.found.fault(checkEqual, "%s: %s still shows %s after %v, others have shown %s", b.name(d.item), b.labels[node], b.text(p.vector(d.item, nil)), patience, b.text(d.target))
	}
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
