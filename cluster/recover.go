package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
)

// progressEvery is how often a long recovery says how far it is.
const progressEvery = 2 * time.Second

// recoverState builds the state from the newest readable snapshot and the log
// after it. It refuses a log that does not reach from the one to the end, or not to
// what is known to have been committed. Others may be writing meanwhile: the log's end
// is read last.
func recoverState(ctx context.Context, c *Config, log *bus.Log, table *bus.Table, archive *bus.Archive, shard int) (*ledger.State, error) {
	mark, _, err := readWatermark(ctx, table, shard)
	if err != nil {
		return nil, err
	}
	state, err := newestSnapshot(ctx, c, archive, shard)
	if err != nil {
		return nil, err
	}
	if state == nil {
		state = ledger.NewState(c.Region, shard)
	}
	snapshot := max(state.Settled(), state.Seq())
	first, last, err := reachingBounds(ctx, c, log, max(snapshot, mark.Seq))
	if err != nil {
		return nil, fmt.Errorf("log bounds: %w", err)
	}
	switch {
	case state.Seq()+1 < first:
		return nil, fmt.Errorf("the log begins at round %d and no readable snapshot reaches that far (the newest ends at %d): restore the data directory from a backup", first, state.Seq())
	case last < snapshot:
		return nil, fmt.Errorf("the log ends at round %d, but a snapshot was written up to %d: rounds are missing, restore the data directory from a backup", last, snapshot)
	case last < mark.Seq:
		return nil, fmt.Errorf("the log ends at round %d, but rows up to round %d were committed: rounds are missing, restore the data directory from a backup", last, mark.Seq)
	}
	if err := replay(ctx, c.Logger, log, state, last); err != nil {
		return nil, err
	}
	return state, nil
}

// reachWithin is how long a region may take until one that has all of the log answers for
// it.
const reachWithin = 30 * time.Second

// reachingBounds are the log's bounds. In a region they may come from a replica that has
// not applied all it has since it was started, so that a log which ends too soon is
// looked at again before it counts as one.
func reachingBounds(ctx context.Context, c *Config, log *bus.Log, least uint64) (first, last uint64, err error) {
	for late := time.Now().Add(reachWithin); ; {
		first, last, err = log.Bounds(ctx)
		if err != nil || last >= least || !c.clustered() || time.Now().After(late) {
			return first, last, err
		}
		c.Logger.Info("the log does not reach to what was committed yet; looking again", "last", last, "committed", least)
		if err := pause(ctx, readPause); err != nil {
			return 0, 0, err
		}
	}
}

func newestSnapshot(ctx context.Context, c *Config, archive *bus.Archive, shard int) (*ledger.State, error) {
	seqs, err := snapshotSeqs(ctx, archive, shard)
	if err != nil {
		return nil, err
	}
	for i := len(seqs) - 1; i >= 0; i-- {
		name := snapshotName(shard, seqs[i])
		state, err := loadSnapshot(ctx, archive, name)
		if err == nil {
			if state.Region() != c.Region || state.Shard() != shard {
				return nil, fmt.Errorf("snapshot %s is of region %s, shard %d", name, state.Region(), state.Shard())
			}
			return state, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		c.Logger.Error("a snapshot can't be read; using an older one and the log", "error", err)
	}
	return nil, nil
}

func loadSnapshot(ctx context.Context, archive *bus.Archive, name string) (*ledger.State, error) {
	r, err := archive.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", name, err)
	}
	state, err := ledger.Load(r)
	if err == nil {
		err = drained(r)
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	return state, nil
}

// drained reads to the end, where the archive tells whether the bytes were right.
func drained(r interface{ Read([]byte) (int, error) }) error {
	var rest [512]byte
	n, err := r.Read(rest[:])
	for n == 0 && err == nil {
		n, err = r.Read(rest[:])
	}
	if n > 0 {
		return errors.New("bytes after the end")
	}
	if errors.Is(err, bus.ErrCorrupt) {
		return err
	}
	return nil
}

func replay(ctx context.Context, logger *slog.Logger, log *bus.Log, state *ledger.State, last uint64) error {
	from, start, told := state.Seq()+1, time.Now(), time.Now()
	err := log.Read(ctx, from, last, func(seq uint64, data []byte) error {
		round, err := ledger.Decode(data)
		if err != nil {
			return fmt.Errorf("round %d: %w", seq, err)
		}
		if _, err := state.Apply(round, seq); err != nil {
			return err
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			logger.Info("reading the log", "round", seq, "of", last)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the log from round %d: %w", from, err)
	}
	if n := last + 1 - from; n > 0 {
		logger.Info("log read", "rounds", n, "took", time.Since(start).Round(time.Millisecond))
	}
	return nil
}
