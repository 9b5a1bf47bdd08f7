package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// revokedBucket holds the revocations that this region knows of, its own and those of
// other regions.
const revokedBucket = "revoked"

// Times and bounds of revocations.
const (
	revokeWait   = 10 * time.Second // for a revocation to be stored
	revokedLook  = time.Second      // between two looks at the bucket and at other regions
	revokedSweep = 10 * time.Minute // between two looks for those that are over
	revokedMax   = 100_000          // rows; more are refused
	revokedInbox = 16               // messages of other regions
)

// revoked is what a node knows of revocations: the bucket's rows, in memory.
type revoked struct {
	c      *Cluster
	logger *slog.Logger
	table  atomic.Pointer[bus.Table] // nil while there is none
	kick   chan struct{}             // holds a token when somebody has revoked
	inbox  chan []Revocation         // of other regions

	mu   sync.Mutex
	rows map[string]revokedRow // by key
	seen uint64                // newest revision up to which the bucket was read

	tellMu sync.Mutex // held while listeners are told; before mu
	fns    []func([]Revocation)

	end uint64 // of the bucket at the last look; run's
}

type revokedRow struct {
	Revocation
	revision uint64
	print    uint64
}

func newRevoked(c *Cluster) *revoked {
	return &revoked{
		c: c, logger: c.logger.With("part", "revoked"), kick: make(chan struct{}, 1),
		inbox: make(chan []Revocation, revokedInbox), rows: make(map[string]revokedRow),
	}
}

// Revoke makes the nodes of all regions refuse what the revocation names. When it returns
// without an error it is stored for good in this region, on a quorum of its nodes; they
// know of it some milliseconds later, and those of other regions as soon as they can be
// reached. Revoking again is harmless: what is refused already stays refused. An error is
// ErrRevocation, or ErrUnavailable.
func (c *Cluster) Revoke(ctx context.Context, rev Revocation) error {
	if err := rev.check(); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	rev = rev.whole()
	ctx, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	if err := c.revoked.store(ctx, rev); err != nil {
		return fmt.Errorf("revoke: %w: %w", ErrUnavailable, err)
	}
	if c.region != nil {
		if err := c.bus.Publish(subjectRevoked, nil); err != nil {
			c.logger.Debug("the other nodes were not told of a revocation; they look for themselves", "error", err)
		}
	}
	if c.mesh != nil {
		c.mesh.tellRevoked(c.mesh.all(), []Revocation{rev})
	}
	return nil
}

// Revocations lists what is revoked, of this region and others, in order.
func (c *Cluster) Revocations() []Revocation { return c.revoked.list() }

// OnRevoked calls fn with what is revoked: now, and whenever it changes, always the whole
// list, in the order of the changes. Fn must not block nor call Revoke or OnRevoked.
func (c *Cluster) OnRevoked(fn func([]Revocation)) {
	r := c.revoked
	r.tellMu.Lock()
	defer r.tellMu.Unlock()
	r.fns = append(r.fns, fn)
	fn(r.list())
}

func (r *revoked) list() []Revocation {
	now := r.c.config.Clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Revocation, 0, len(r.rows))
	for _, row := range r.rows {
		if !row.over(now) {
			list = append(list, row.Revocation)
		}
	}
	slices.SortFunc(list, func(a, b Revocation) int {
		return cmp.Or(strings.Compare(a.TokenID, b.TokenID), strings.Compare(a.Subject, b.Subject))
	})
	return list
}

// tell gives the list to whoever wants to know.
func (r *revoked) tell() {
	r.tellMu.Lock()
	defer r.tellMu.Unlock()
	if len(r.fns) == 0 {
		return
	}
	list := r.list()
	for _, fn := range r.fns {
		fn(list)
	}
}

// learn takes rows of the bucket. What a row once said is never taken back: the rows may
// come again, and older ones after newer.
func (r *revoked) learn(rows []bus.Row) {
	now, news := r.c.config.Clock(), false
	r.mu.Lock()
	for i := range rows {
		var stored storedRevocation
		err := protocol.UnmarshalJSON(rows[i].Value, &stored)
		rev, wrong := stored.revocation()
		if err = errors.Join(err, wrong); err != nil || rev.key() != rows[i].Key {
			r.logger.Error("a revocation can't be read", "key", rows[i].Key, "error", err)
			continue
		}
		have, known := r.rows[rows[i].Key]
		if !known && rev.over(now) {
			continue
		}
		news = news || !known || !have.covers(rev)
		if known {
			rev = rev.with(have.Revocation)
		}
		r.rows[rows[i].Key] = revokedRow{rev, max(have.revision, rows[i].Revision), rev.print()}
	}
	r.mu.Unlock()
	if news {
		r.tell()
	}
}

// lookUp returns what is known of a revocation's key.
func (r *revoked) lookUp(rev *Revocation) (row revokedRow, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row, known = r.rows[rev.key()]
	return row, known
}

func (r *revoked) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rows) >= revokedMax
}

// reached notes that the bucket was read up to a revision.
func (r *revoked) reached(revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = max(r.seen, revision)
}

// sweep forgets what is over, and where this node keeps the bucket deletes it there.
func (r *revoked) sweep(ctx context.Context) {
	now := r.c.config.Clock()
	r.mu.Lock()
	before := len(r.rows)
	for key, row := range r.rows {
		if row.over(now) {
			delete(r.rows, key)
		}
	}
	gone := before - len(r.rows)
	r.mu.Unlock()
	if gone > 0 {
		r.tell()
	}
	if t := r.table.Load(); t != nil && r.keeps() {
		if err := r.drop(ctx, t, now); err != nil && ctx.Err() == nil {
			r.logger.Debug("revocations that are over were not all deleted", "error", err)
		}
	}
}

func (r *revoked) drop(ctx context.Context, t *bus.Table, now time.Time) error {
	var over []bus.Row
	err := t.Each(ctx, func(row bus.Row) error {
		var stored storedRevocation
		if protocol.UnmarshalJSON(row.Value, &stored) != nil {
			return nil
		}
		if rev, err := stored.revocation(); err == nil && rev.over(now) {
			over = append(over, bus.Row{Key: row.Key, Revision: row.Revision})
		}
		return nil
	})
	for i := 0; i < len(over) && err == nil; i++ {
		err = t.Drop(ctx, over[i])
	}
	return err
}
