package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

const (
	verifyInFlight = 32
	// verifyLooks is how often an item is looked at again that changes while it
	// is checked, or whose history is still on its way.
	verifyLooks = 10
	// settleEvery is the pause between two of them.
	settleEvery = 200 * time.Millisecond
)

func (a *app) verifyCommand() *cobra.Command {
	var sel protocol.Selector
	var depth int
	cmd := &cobra.Command{
		Use: "verify", Short: "Check the invariants of a live node from the outside", Args: cobra.NoArgs,
		Long: `Read all items page by page, over a subscription, and page by page again, and each item's history.
The readings must agree, no item may go back, on_hand and reserved must equal the newest movements,
each movement must follow from the one before it, nothing reserved or available may be negative.

It may run beside other traffic: an item that changes is looked at again, and one that never stands
still is counted as busy. The exit status is 1 on any difference.`,
		Example: "  stockctl verify\n  stockctl verify --prefix tee- --depth 0 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.long(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.verify(ctx, c, sel, depth) })
		},
	}
	cmd.Flags().StringSliceVar(&sel.Prefixes, "prefix", nil, "only SKUs that start so")
	cmd.Flags().StringSliceVarP(&sel.Locations, "location", "l", nil, "only these locations")
	cmd.Flags().IntVar(&depth, "depth", 1000, "movements to read per item and region, newest first; 0 = all")
	return cmd
}

type verifySummary struct {
	Items       int      `json:"items"`
	Movements   int      `json:"movements"`
	Busy        int      `json:"busy"`       // changed at every look
	Unreadable  int      `json:"unreadable"` // histories of other regions that this node can't read
	Total       int      `json:"differences_total"`
	Differences []string `json:"differences"` // the first of them
}

// verifier checks items side by side; the mutex guards what it finds.
type verifier struct {
	client *client.Client
	depth  int

	mu    sync.Mutex
	sum   verifySummary
	diffs []string
}

func (a *app) verify(ctx context.Context, c *client.Client, sel protocol.Selector, depth int) error {
	if len(sel.Prefixes)+len(sel.Locations) == 0 {
		sel.All = true
	}
	v := &verifier{client: c, depth: depth}
	first, err := v.pages(ctx, sel)
	if err != nil {
		return err
	}
	snapshot, err := v.snapshot(ctx, sel)
	if err != nil {
		return err
	}
	p := newProgress(a.errOut, "verify", len(first))
	err = v.items(ctx, first, p)
	p.end()
	if err != nil {
		return err
	}
	second, err := v.pages(ctx, sel)
	if err != nil {
		return err
	}
	v.diffs = append(v.diffs, comparePictures("first pages", "subscription", first, snapshot)...)
	v.diffs = append(v.diffs, comparePictures("subscription", "second pages", snapshot, second)...)
	slices.Sort(v.diffs)
	v.sum.Items, v.sum.Total, v.sum.Differences = len(first), len(v.diffs), firstOf(v.diffs)
	return a.reportVerify(v.sum)
}

func (a *app) reportVerify(s verifySummary) error {
	if a.json {
		if err := printJSON(a.out, s); err != nil {
			return err
		}
		return foundDifferences(s.Total)
	}
	fmt.Fprintf(a.out, "verified    %d items, %d movements, %d busy, %d histories not readable here\n", s.Items, s.Movements, s.Busy, s.Unreadable)
	if err := a.printDifferences(s.Total, s.Differences); err != nil {
		return err
	}
	return foundDifferences(s.Total)
}

func (v *verifier) pages(ctx context.Context, sel protocol.Selector) (picture, error) {
	items := picture{}
	for it, err := range v.client.Items(ctx, sel, 0) {
		if err != nil {
			return nil, fmt.Errorf("read pages: %w", err)
		}
		items[it.Key()] = it
	}
	return items, nil
}

// snapshot reads the items over a subscription, up to where it is current.
func (v *verifier) snapshot(ctx context.Context, sel protocol.Selector) (picture, error) {
	sub, err := v.client.Subscribe(ctx, sel, client.SubscribeOptions{})
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	defer sub.Close()
	items := picture{}
	for {
		u, err := sub.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("subscription: %w", err)
		}
		for _, it := range u.Items {
			items[it.Key()] = it
		}
		if u.Current {
			return items, nil
		}
	}
}

func (v *verifier) items(ctx context.Context, items picture, p *progress) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyInFlight)
	for k := range items {
		g.Go(func() error {
			defer p.add(1)
			return v.item(ctx, k)
		})
	}
	return g.Wait()
}

// item looks until one look finds nothing wrong, or enough have. A look during
// which the item changed says nothing.
func (v *verifier) item(ctx context.Context, k protocol.ItemKey) error {
	var wrong []string
	var read int
	busy, unreadable := true, 0
	for range verifyLooks {
		before, err := v.read(ctx, k)
		if err != nil {
			return err
		}
		histories, err := v.histories(ctx, k, before.Version)
		if err != nil {
			return err
		}
		after, err := v.read(ctx, k)
		if err != nil {
			return err
		}
		if before.Version == after.Version {
			busy, wrong = false, checkItem(&after, histories)
			read, unreadable = size(histories)
			if len(wrong) == 0 {
				break
			}
		}
		if err := pause(ctx, settleEvery); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.diffs = append(v.diffs, wrong...)
	v.sum.Movements += read
	v.sum.Unreadable += unreadable
	if busy {
		v.sum.Busy++
	}
	return nil
}

func size(histories []regionHistory) (movements, missing int) {
	for _, h := range histories {
		movements += len(h.movements)
		if h.missing {
			missing++
		}
	}
	return movements, missing
}

func (v *verifier) read(ctx context.Context, k protocol.ItemKey) (protocol.Item, error) {
	items, err := v.client.Get(ctx, []string{k.SKU}, client.Locations(k.Location))
	if err != nil {
		return protocol.Item{}, fmt.Errorf("get %s: %w", k.SKU, err)
	}
	if len(items) != 1 {
		return protocol.Item{}, fmt.Errorf("get %s at %s: %d items in the answer", k.SKU, k.Location, len(items))
	}
	return items[0], nil
}

// histories reads the history in every region that the version names.
func (v *verifier) histories(ctx context.Context, k protocol.ItemKey, version string) ([]regionHistory, error) {
	vector, err := protocol.ParseVector(version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.SKU, err)
	}
	var all []regionHistory
	for _, c := range vector {
		h, err := v.history(ctx, k, c.Region)
		if err != nil {
			return nil, fmt.Errorf("history of %s in %s: %w", k.SKU, c.Region, err)
		}
		all = append(all, h)
	}
	return all, nil
}

// historyWait bounds the wait for another region's history.
const historyWait = 5 * time.Second

func (v *verifier) history(ctx context.Context, k protocol.ItemKey, region string) (regionHistory, error) {
	h := regionHistory{region: region}
	limit := protocol.HistoryMax
	if v.depth > 0 {
		limit = min(limit, v.depth)
	}
	bounded, cancel := context.WithTimeout(ctx, historyWait)
	defer cancel()
	for before := ""; ; {
		page, next, err := v.client.History(bounded, k.SKU, k.Location, client.Region(region), client.Limit(limit), client.Before(before))
		if isCode(err, protocol.CodeNotFound) || isCode(err, protocol.CodeRegionUnreachable) ||
			errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && region != v.client.Hello().Region {
			h.missing = true
			return h, nil
		}
		if err != nil {
			return h, err
		}
		h.movements = append(h.movements, page...)
		h.whole = next == ""
		if h.whole || v.depth > 0 && len(h.movements) >= v.depth {
			return h, nil
		}
		before = next
	}
}

func isCode(err error, code protocol.Code) bool {
	return errors.Is(err, &protocol.Error{Code: code})
}

// pause waits for d unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
