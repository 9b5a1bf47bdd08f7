package replay

import (
	"context"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol/client"
)

// player is a connection that plays invoices.
type player struct {
	*client.Client
	at     int    // its place
	region string // that it was first connected to
}

// connect opens all connections. Only the first fails at once when there is no
// node: later the node may be away for a while.
func (r *replay) connect(ctx context.Context) error {
	for i := range r.Clients {
		c, err := r.dial(ctx, i, i > 0)
		if err != nil {
			return err
		}
		r.players = append(r.players, &player{c, i % len(r.Endpoints), c.Hello().Region})
	}
	for i := range r.Watchers {
		c, err := r.dial(ctx, i, true)
		if err != nil {
			return err
		}
		w, err := newWatcher(ctx, fmt.Sprintf("watcher %d", i+1), c, r.plan.selector())
		r.watchers = append(r.watchers, w)
		if err != nil {
			return err
		}
	}
	return nil
}

// dial makes the i-th connection of its kind.
func (r *replay) dial(ctx context.Context, i int, wait bool) (*client.Client, error) {
	return client.Dial(ctx, client.Config{Endpoints: r.Endpoints[i%len(r.Endpoints)], Token: r.Token, TLS: r.TLS, Wait: wait})
}

// openers are the players of the first one's region.
func (r *replay) openers() (list []*player) {
	for _, p := range r.players {
		if p.region == r.players[0].region {
			list = append(list, p)
		}
	}
	return list
}

func (r *replay) closeWatchers() {
	for _, w := range r.watchers {
		w.sub.Close()
	}
}

func (r *replay) close() {
	for _, p := range r.players {
		p.Close()
	}
	for _, w := range r.watchers {
		w.client.Close()
	}
}
