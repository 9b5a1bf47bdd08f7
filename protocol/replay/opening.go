package replay

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// opening is what counting each SKU led to.
type opening struct {
	mu       sync.Mutex
	versions map[string]protocol.Vector // by SKU
}

// open counts every SKU to its opening stock.
func (r *replay) open(ctx context.Context) error {
	return r.spread(ctx, r.openers(), len(r.plan.skus), nil, func(ctx context.Context, p *player, i int) error {
		sku := r.plan.skus[i]
		if err := r.openOne(ctx, p, sku, r.key("open", i)); err != nil {
			return fmt.Errorf("opening stock of %s: %w", sku, err)
		}
		r.Progress.Add(1)
		return nil
	})
}

// openOne counts one SKU. A refusal means that reservations of an earlier run
// still hold more than the opening; they expire.
func (r *replay) openOne(ctx context.Context, p *player, sku, key string) error {
	n := r.plan.opening[sku]
	refusedUntil := time.Now().Add(r.Settle)
	for {
		sent := time.Now()
		it, err := p.Count(ctx, sku, "", n, client.Key(key), client.Reason("replay"))
		r.answered(p, protocol.OpCount, sent, err)
		if err == nil {
			r.book.opened(sku, n)
			r.opened(it, sent)
			return nil
		}
		if !isCode(err, protocol.CodeInsufficientStock) || time.Now().After(refusedUntil) {
			return err
		}
		if err := pause(ctx, settleEvery); err != nil {
			return err
		}
	}
}

func (r *replay) opened(it protocol.Item, sent time.Time) {
	version, ok := r.measure(it, sent)
	if !ok {
		return
	}
	r.opening.mu.Lock()
	defer r.opening.mu.Unlock()
	r.opening.versions[it.SKU] = version
}

// awaitOpening waits until all regions know the opening stock: what none has heard of
// can't be asked for.
func (r *replay) awaitOpening(ctx context.Context) error {
	late := time.Now().Add(r.Settle)
	heard := map[string]bool{r.players[0].region: true}
	for _, p := range r.players {
		if heard[p.region] {
			continue
		}
		heard[p.region] = true
		for {
			missing, err := r.openingMissing(ctx, p)
			if err != nil {
				return err
			}
			if missing == "" {
				break
			}
			if time.Now().After(late) {
				return fmt.Errorf("region %s has not heard of the opening stock of %s", p.region, missing)
			}
			if err := pause(ctx, settleEvery); err != nil {
				return err
			}
		}
	}
	return nil
}

// openingMissing names a SKU whose opening stock a player's node doesn't show, "" where
// it shows all.
func (r *replay) openingMissing(ctx context.Context, p *player) (string, error) {
	shown, err := r.picture(ctx, p.Client)
	if err != nil {
		return "", err
	}
	for sku, version := range r.opening.versions {
		it := shown[protocol.ItemKey{SKU: sku, Location: protocol.DefaultLocation}]
		if has, err := protocol.ParseVector(it.Version); err != nil || !has.AtLeast(version) {
			return sku, nil
		}
	}
	return "", nil
}
