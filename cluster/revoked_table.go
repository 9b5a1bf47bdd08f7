package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
)

// The bucket is made when there is first something to write, or in a region of several
// nodes as soon as one of them decides: later a node may be down, and then the engine
// finds no room for the copies of a new bucket. So a node must be able to go on without.

// open reads what the region has revoked, if it ever did. A node lets nobody in before.
func (r *revoked) open(ctx context.Context) error {
	return r.c.patiently(ctx, func() error {
		t, err := r.bucket(ctx, false)
		switch {
		case errors.Is(err, bus.ErrMissing) && !r.c.dir.Revoked:
			return nil
		case err != nil: // without it, what was revoked would be let in again
			return r.c.damaged("bucket "+revokedBucket, err)
		}
		return r.read(ctx, t)
	})
}

// read takes in the whole bucket.
func (r *revoked) read(ctx context.Context, t *bus.Table) error {
	var rows []bus.Row
	err := t.Each(ctx, func(row bus.Row) error {
		row.Value = append([]byte(nil), row.Value...)
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read revocations: %w", err)
	}
	r.learn(rows)
	if n := len(rows); n > 0 {
		r.reached(rows[n-1].Revision)
	}
	return nil
}

// bucket returns the bucket, and makes it where there is none and make is true.
func (r *revoked) bucket(ctx context.Context, make bool) (*bus.Table, error) {
	if t := r.table.Load(); t != nil {
		return t, nil
	}
	t, err := r.c.bus.Table(ctx, revokedBucket, make)
	if err != nil {
		return nil, err
	}
	if err := r.c.dir.revokes(); err != nil {
		return nil, err
	}
	r.table.Store(t)
	return t, nil
}

// store writes a revocation, joined with what its row says already.
func (r *revoked) store(ctx context.Context, rev Revocation) error {
	if _, known := r.lookUp(&rev); !known && r.full() {
		return fmt.Errorf("%d revocations are kept already, no more fit", revokedMax)
	}
	for {
		t, err := r.bucket(ctx, true)
		if err == nil {
			err = r.put(ctx, t, rev)
		}
		if !passes(err) || pause(ctx, readPause) != nil {
			return err
		}
	}
}

// seed writes a list into a bucket that may hold some of it already.
func (r *revoked) seed(ctx context.Context, list []Revocation) error {
	t, err := r.bucket(ctx, true)
	if err == nil {
		err = r.read(ctx, t)
	}
	if err == nil {
		_, err = r.write(ctx, t, r.lacking(list))
	}
	return err
}

// lacking returns rows for what of a list is not known yet.
func (r *revoked) lacking(list []Revocation) (rows []bus.Row) {
	now := r.c.config.Clock()
	for _, rev := range list {
		row, known := r.lookUp(&rev)
		if rev.over(now) || known && row.covers(rev) || !known && r.full() {
			continue
		}
		if known {
			rev = rev.with(row.Revocation)
		}
		rows = append(rows, bus.Row{Key: rev.key(), Value: rev.value(), Revision: row.revision})
	}
	return rows
}

// passes tells whether the same write may succeed a moment later.
func passes(err error) bool {
	for _, e := range []error{bus.ErrConflict, bus.ErrUnknown, bus.ErrBusy, bus.ErrNoLeader} {
		if errors.Is(err, e) && !errors.Is(err, bus.ErrFull) {
			return true
		}
	}
	return false
}

// put writes one row. It asks the bucket's leader what is there: this node may be behind.
func (r *revoked) put(ctx context.Context, t *bus.Table, rev Revocation) error {
	value, revision, err := t.Get(ctx, rev.key())
	if err != nil && !errors.Is(err, bus.ErrMissing) {
		return err
	}
	if err == nil {
		r.learn([]bus.Row{{Key: rev.key(), Value: value, Revision: revision}})
	}
	if row, known := r.lookUp(&rev); known {
		if err == nil && row.covers(rev) {
			return nil
		}
		rev = rev.with(row.Revocation)
	}
	_, err = r.write(ctx, t, []bus.Row{{Key: rev.key(), Value: rev.value(), Revision: revision}})
	return err
}

// write writes rows and takes in those that were written.
func (r *revoked) write(ctx context.Context, t *bus.Table, rows []bus.Row) (results []bus.Result, err error) {
	results, err = t.Put(ctx, rows)
	var written []bus.Row
	for i := range results {
		if results[i].Err == nil {
			written = append(written, bus.Row{Key: rows[i].Key, Value: rows[i].Value, Revision: results[i].Revision})
		}
	}
	r.learn(written)
	return results, err
}

// keeps tells whether this node is the one that looks after the region's bucket.
func (r *revoked) keeps() bool {
	owner, _ := r.c.shards[0].desk.ownerKnown()
	return owner == r.c.config.Node
}

func (r *revoked) signal() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run keeps this node's list, and where it keeps the bucket that of the region, up to
// date until ctx ends.
func (r *revoked) run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	look, sweep := time.NewTicker(revokedLook), time.NewTicker(revokedSweep)
	defer look.Stop()
	defer sweep.Stop()
	followed := false
	for {
		if r.c.region != nil {
			r.look(ctx)
			if t := r.table.Load(); t != nil && !followed {
				followed = true
				following.Go(func() { r.follow(ctx, t) })
			}
		}
		select {
		case <-look.C:
			r.tellSums()
		case <-sweep.C:
			r.sweep(ctx)
		case rows := <-r.inbox:
			r.adopt(ctx, rows)
		case <-r.kick:
		case <-ctx.Done():
			return
		}
	}
}

// follow takes in what other nodes write.
func (r *revoked) follow(ctx context.Context, t *bus.Table) {
	err := t.Follow(ctx, func(rows []bus.Row) error {
		r.learn(rows)
		r.reached(rows[len(rows)-1].Revision)
		return nil
	})
	if ctx.Err() == nil {
		r.logger.Error("revocations are not followed any more, only looked at", "error", err)
	}
}

// look finds the bucket, and reads it again where this node stays behind it: what it
// follows is one of the copies, and that may be one that stands still.
func (r *revoked) look(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, revokedLook)
	defer cancel()
	t, err := r.bucket(within, r.keeps())
	if err != nil {
		if !errors.Is(err, bus.ErrMissing) && within.Err() == nil {
			r.logger.Debug("the bucket of revocations can't be opened", "error", err)
		}
		return
	}
	last, err := t.Last(within)
	if err != nil {
		return // the next look is soon
	}
	r.mu.Lock()
	behind := r.seen < r.end // since the last look
	r.mu.Unlock()
	r.end = last
	if behind {
		r.readAgain(ctx, t, last)
	}
}

func (r *revoked) readAgain(ctx context.Context, t *bus.Table, last uint64) {
	ctx, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	if err := r.read(ctx, t); err != nil {
		r.logger.Debug("revocations can't be read", "error", err)
		return
	}
	r.reached(last) // its newest rows may have been dropped
}
