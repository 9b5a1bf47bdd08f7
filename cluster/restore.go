package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// readOnlyKey is the row of the stock bucket that keeps a restored region from selling
// what the one it was copied from may still sell.
var readOnlyKey = bus.EscapeKey("meta", "readonly", "id")

// readOnlyLook is how often a node looks whether its region was told to sell.
const readOnlyLook = time.Second

// findBackup reads the backup that a new data directory holds. It must be of this
// region.
func (c *Cluster) findBackup() error {
	if c.dir.Complete {
		return nil
	}
	b, err := readBackup(filepath.Join(c.dir.path, restoreFile))
	if err != nil || b == nil {
		return err
	}
	if b.Region != c.config.Region || b.Shards != c.config.Shards {
		return fmt.Errorf("the backup in %s is of region %s with %d shards, not of %s with %d", c.dir.path, b.Region, b.Shards, c.config.Region, c.config.Shards)
	}
	c.logger.Info("starting from a backup", "taken_at", b.TakenAt.Std(), "node", b.Node, "rounds", b.Seqs, "revocations", len(b.revoked))
	if b.early {
		c.logger.Warn("the backup holds no revocations, as the version that wrote it kept none in it: revoke again what must stay revoked, or roll the key that tokens are signed with")
	}
	c.restore = b
	return nil
}

// openLog opens a shard's log; a restored one goes on where the backup's ended.
func (c *Cluster) openLog(ctx context.Context, n int, create bool) (*bus.Log, error) {
	name := strconv.Itoa(n)
	if c.restore == nil {
		return c.bus.Log(ctx, name, create)
	}
	return c.bus.LogFrom(ctx, name, c.restore.states[n].Seq()+1)
}

// seed writes a restored shard's state where every node of the region looks for it. It may
// be written again, by a start after one that was cut short.
func (c *Cluster) seed(ctx context.Context, n int, archive *bus.Archive) error {
	if c.restore == nil {
		return nil
	}
	state := c.restore.states[n]
	name := snapshotName(n, state.Seq())
	err := archive.Put(ctx, name, func(w io.Writer) error {
		_, err := state.Snapshot(func(slice []byte) error {
			_, err := w.Write(slice)
			return err
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("write snapshot %s: %w", name, err)
	}
	return nil
}

// seedRevoked writes what the backup's region had revoked where every node looks for it
// before it lets anybody in. It may be written again, too.
func (c *Cluster) seedRevoked(ctx context.Context) error {
	if c.restore == nil || len(c.restore.revoked) == 0 {
		return nil
	}
	err := c.patiently(ctx, func() error { return c.revoked.seed(ctx, c.restore.revoked) })
	if err != nil {
		return fmt.Errorf("write the backup's revocations: %w", err)
	}
	return nil
}

// forbidSelling marks a restored region as read-only, before anybody can use it.
func (c *Cluster) forbidSelling(ctx context.Context, t *bus.Table) error {
	if c.restore == nil {
		return nil
	}
	_, rev, err := t.Get(ctx, readOnlyKey)
	if !errors.Is(err, bus.ErrMissing) {
		return err
	}
	why := fmt.Sprintf("restored from a backup that node %s took at %s", c.restore.Node, c.restore.TakenAt.Std().Format(time.RFC3339))
	_, err = t.Put(ctx, []bus.Row{{Key: readOnlyKey, Value: []byte(why), Revision: rev}})
	return err
}

// restored forgets the backup once the region stands.
func (c *Cluster) restored() error {
	if c.restore == nil {
		return nil
	}
	c.restore = nil
	if err := os.Remove(filepath.Join(c.dir.path, restoreFile)); err != nil {
		return fmt.Errorf("remove the backup that was restored: %w", err)
	}
	return nil
}

// lookReadOnly reads whether the region may sell.
func (c *Cluster) lookReadOnly(ctx context.Context) error {
	value, _, err := c.table.Get(ctx, readOnlyKey)
	switch {
	case errors.Is(err, bus.ErrMissing) || err == nil && len(value) == 0:
		if c.readOnly.Swap(nil) != nil {
			c.logger.Info("this region takes writes now")
		}
	case err != nil:
		return fmt.Errorf("read-only mark: %w", err)
	default:
		why := string(value)
		c.readOnly.Store(&why)
	}
	return nil
}

// awaitActivation looks until the region may sell.
func (c *Cluster) awaitActivation(ctx context.Context) {
	for c.readOnly.Load() != nil && pause(ctx, readOnlyLook) == nil {
		if err := c.lookReadOnly(ctx); err != nil {
			c.logger.Warn("whether this region may take writes is not known; it does not", "error", err)
		}
	}
}

// ErrNotReadOnly says that there is nothing to activate.
var ErrNotReadOnly = errors.New("the region takes writes already")

// Activate lets a restored region take writes. Whoever asks for it has made sure that
// what the backup was taken of is gone for ever: else both would sell the same units.
func (c *Cluster) Activate(ctx context.Context) error {
	value, rev, err := c.table.Get(ctx, readOnlyKey)
	if errors.Is(err, bus.ErrMissing) || err == nil && len(value) == 0 {
		return ErrNotReadOnly
	}
	if err == nil {
		_, err = c.table.Put(ctx, []bus.Row{{Key: readOnlyKey, Revision: rev}})
	}
	if err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	return c.lookReadOnly(ctx)
}

// errReadOnly is the answer to a write in a restored region.
func errReadOnly(why string) *protocol.Error {
	return protocol.RetryLater(protocol.CodeUnavailable, 5000, "this region is read-only: %s; it takes writes after `stockctl activate`", why)
}

// refuseWrites answers the writes among calls and returns the others.
func refuseWrites(calls []*protocol.Call, why string) (reads []*protocol.Call) {
	for _, call := range calls {
		if call.Command.Op.IsWrite() {
			call.Fail(errReadOnly(why))
		} else {
			reads = append(reads, call)
		}
	}
	return reads
}
