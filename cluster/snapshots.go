package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// snapshotsKept is how many snapshots stay: the newest, and one in case it can't
// be read.
const snapshotsKept = 2

// snapshotter writes the state to the archive now and then, and trims the log to
// what recovery, keys and history need.
type snapshotter struct {
	config  *Config
	archive *bus.Archive
	log     *bus.Log
	replica *replica
	metrics *metrics
	logger  *slog.Logger
	wake    chan struct{}

	rounds atomic.Uint64 // since the newest snapshot
	bytes  atomic.Uint64
	size   atomic.Uint64 // of the newest snapshot
}

func newSnapshotter(c *Config, a *bus.Archive, l *bus.Log, r *replica, m *metrics) *snapshotter {
	return &snapshotter{config: c, archive: a, log: l, replica: r, metrics: m, logger: c.Logger, wake: make(chan struct{}, 1)}
}

// add counts a round; the owner calls it after each.
func (s *snapshotter) add(bytes int) {
	s.bytes.Add(uint64(bytes))
	s.rounds.Add(1)
	if s.due() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// due bounds the work of recovery, and keeps the writing of snapshots in
// proportion to the writing of the log.
func (s *snapshotter) due() bool {
	return s.bytes.Load() >= max(s.config.SnapshotBytes, s.size.Load()/2) ||
		s.rounds.Load() >= s.config.SnapshotRounds
}

// run writes snapshots for as long as this node is the owner.
func (s *snapshotter) run(ctx context.Context) {
	if err := inTime(ctx, func() error { return s.resume(ctx) }); err != nil && ctx.Err() == nil {
		s.logger.Error("what the snapshots hold could not be read; the next one comes later", "error", err)
	}
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		if !s.due() {
			continue
		}
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.logger.Error("snapshot not written; the log stays complete", "error", err)
		}
	}
}

// resume counts the rounds since the newest snapshot, which another owner may have
// written, and removes what one that was cut short left behind.
func (s *snapshotter) resume(ctx context.Context) error {
	s.bytes.Store(0)
	s.rounds.Store(0)
	if err := s.archive.Sweep(ctx); err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	if _, err := s.dropOld(ctx); err != nil {
		return err
	}
	seqs, err := snapshotSeqs(ctx, s.archive, s.replica.state.Shard())
	if err != nil {
		return err
	}
	newest := uint64(0)
	if len(seqs) > 0 {
		newest = seqs[len(seqs)-1]
	}
	if now := s.replica.seq(); now > newest {
		s.rounds.Add(now - newest)
	}
	return nil
}

// write writes one snapshot, then drops what it makes needless.
func (s *snapshotter) write(ctx context.Context) error {
	start := time.Now()
	s.bytes.Store(0)
	s.rounds.Store(0)
	name, size, err := s.put(ctx)
	if errors.Is(err, ledger.ErrRotated) {
		name, size, err = s.put(ctx)
	}
	if err != nil {
		return err
	}
	s.size.Store(size)
	s.metrics.snapshots.Inc()
	s.logger.Info("snapshot written", "name", name, "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	// Once it is written, what it makes needless goes, even while the node stops.
	ctx = context.WithoutCancel(ctx)
	oldest, err := s.dropOld(ctx)
	if err != nil {
		return err
	}
	return s.trim(ctx, oldest)
}

// put streams the state into the archive. The name's sequence may be a little below the
// snapshot's own, which errs on the safe side when the log is trimmed.
func (s *snapshotter) put(ctx context.Context) (name string, size uint64, err error) {
	r := s.replica
	name = snapshotName(r.state.Shard(), r.cursor()[0].N)
	err = s.archive.Put(ctx, name, func(w io.Writer) error {
		_, err := r.snapshot(func(slice []byte) error {
			n, err := w.Write(slice)
			size += uint64(n)
			return err
		})
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("write snapshot %s: %w", name, err)
	}
	return name, size, nil
}

func snapshotName(shard int, seq uint64) string { return fmt.Sprintf("shard%d-%020d", shard, seq) }

// snapshotSeqs returns the sequences of the shard's snapshots, oldest first.
func snapshotSeqs(ctx context.Context, a *bus.Archive, shard int) ([]uint64, error) {
	names, err := a.Names(ctx)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	prefix := fmt.Sprintf("shard%d-", shard)
	var seqs []uint64
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if seq, err := strconv.ParseUint(digits, 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
	}
	return seqs, nil
}

// dropOld deletes all but the newest snapshots and returns the oldest one's seq.
func (s *snapshotter) dropOld(ctx context.Context) (uint64, error) {
	shard := s.replica.state.Shard()
	seqs, err := snapshotSeqs(ctx, s.archive, shard)
	if err != nil {
		return 0, err
	}
	for len(seqs) > snapshotsKept {
		if err := s.archive.Delete(ctx, snapshotName(shard, seqs[0])); err != nil {
			return 0, fmt.Errorf("delete old snapshot: %w", err)
		}
		seqs = seqs[1:]
	}
	if len(seqs) == 0 {
		return 0, nil
	}
	return seqs[0], nil
}

// trim drops rounds that are older than the history to keep and that no snapshot
// needs.
func (s *snapshotter) trim(ctx context.Context, oldest uint64) error {
	if s.config.History == 0 {
		return nil
	}
	before, err := s.firstAfter(ctx, protocol.TimeOf(s.config.Clock().Add(-s.config.History)))
	if err != nil {
		return err
	}
	before = min(before, oldest+1)
	if err := s.log.Trim(ctx, before); err != nil {
		return fmt.Errorf("trim the log to %d: %w", before, err)
	}
	return nil
}

// firstAfter finds the first round at or after a time. Rounds never go back in
// time, so it bisects.
func (s *snapshotter) firstAfter(ctx context.Context, t protocol.Time) (uint64, error) {
	lo, last, err := s.log.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("log bounds: %w", err)
	}
	for hi := last + 1; lo < hi; {
		mid := lo + (hi-lo)/2
		data, err := s.log.Get(ctx, mid)
		if err != nil {
			return 0, fmt.Errorf("round %d: %w", mid, err)
		}
		round, err := ledger.Decode(data)
		if err != nil {
			return 0, fmt.Errorf("round %d: %w", mid, err)
		}
		if round.At < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}
