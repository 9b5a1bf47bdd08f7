package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// flushRowsMax is how many rows one flush writes: few enough that the commits
// beside it stay quick, many enough to keep up with a shop.
const flushRowsMax = 256

// Row keys have two parts (SKU and location), these have three: they can't meet.
var incarnationKey = bus.EscapeKey("meta", "incarnation", "id")

func watermarkKey(shard int) string {
	return bus.EscapeKey("meta", "watermark", fmt.Sprint(shard))
}

// watermark is the row that says: every change up to Seq is in the bucket.
type watermark struct {
	Region string        `json:"region"`
	Shard  int           `json:"shard"`
	Seq    uint64        `json:"seq"`
	At     protocol.Time `json:"at"`
}

// flusher writes changed rows to the stock bucket behind the log, each guarded by
// its own revision, in the order in which they first changed.
type flusher struct {
	table    *bus.Table
	replica  *replica
	interval time.Duration
	metrics  *metrics
	outage   outage // of flushes
	wake     chan struct{}

	mu    sync.Mutex
	queue []dirtyRow                   // by seq
	dirty map[protocol.ItemID]struct{} // the queue's ids
	noted uint64                       // last round whose changes were added

	// The rest belongs to run's goroutine.
	revisions map[string]uint64 // by row key; a wrong one is looked up
	recovered int               // items below this id existed before this process
	marked    uint64            // the watermark that stands in the bucket
}

// dirtyRow is a row that changed at seq, and perhaps again since.
type dirtyRow struct {
	id  protocol.ItemID
	seq uint64
}

func newFlusher(t *bus.Table, r *replica, c *Config, m *metrics) *flusher {
	return &flusher{
		table: t, replica: r, interval: c.FlushInterval, metrics: m,
		outage: outage{logger: c.Logger, began: "rows can't be written to the stock bucket; the log has them", ended: "rows are written to the stock bucket again"},
		wake:   make(chan struct{}, 1),
		dirty:  make(map[protocol.ItemID]struct{}), revisions: make(map[string]uint64),
	}
}

// add notes changed rows; the owner calls it after each round.
func (f *flusher) add(ids []protocol.ItemID, seq uint64) {
	f.mu.Lock()
	f.noted = max(f.noted, seq)
	for _, id := range ids {
		if _, ok := f.dirty[id]; !ok {
			f.dirty[id] = struct{}{}
			f.queue = append(f.queue, dirtyRow{id, seq})
		}
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *flusher) pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// readWatermark returns the shard's watermark, zero where there is none yet, and its
// row's revision.
func readWatermark(ctx context.Context, t *bus.Table, shard int) (w watermark, rev uint64, err error) {
	value, rev, err := t.Get(ctx, watermarkKey(shard))
	if errors.Is(err, bus.ErrMissing) {
		return watermark{}, rev, nil
	}
	if err != nil {
		return w, 0, fmt.Errorf("read watermark: %w", err)
	}
	if err := protocol.UnmarshalJSON(value, &w); err != nil {
		return w, 0, fmt.Errorf("watermark row: %w", err)
	}
	return w, rev, nil
}

// recover notes every row that changed after the watermark, before those that changed
// since the term began.
func (f *flusher) recover(ctx context.Context) error {
	shard := f.replica.state.Shard()
	w, rev, err := readWatermark(ctx, f.table, shard)
	if err != nil {
		return err
	}
	f.marked = w.Seq
	f.revisions[watermarkKey(shard)] = rev
	ids, known, seq := f.replica.changedSince(w.Seq)
	rows := make([]dirtyRow, len(ids))
	for i, id := range ids {
		rows[i] = dirtyRow{id, w.Seq + 1}
	}
	f.recovered = known
	f.putBack(rows)
	f.add(nil, seq)
	return nil
}

// A flush is followed by a pause of so many times its length: a commit beside a flush
// waits for the disk, so rows are written a tenth of the time at most. One that was slow
// because a leader changed is no reason to let the rows grow old.
const (
	flushPause    = 9
	flushPauseMax = time.Second
)

// run flushes until ctx ends.
func (f *flusher) run(ctx context.Context) {
	err := inTime(ctx, func() error { return f.recover(ctx) })
	for err != nil {
		if ctx.Err() == nil {
			f.outage.note(err)
		}
		if pause(ctx, time.Second) != nil {
			return
		}
		err = f.recover(ctx)
	}
	f.outage.note(nil)
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
		for f.pending() > 0 || f.behind() {
			start := time.Now()
			// A flush under way is finished: what became of one that was cut
			// short would have to be looked up.
			f.outage.note(f.flush(context.WithoutCancel(ctx)))
			if pause(ctx, max(f.interval, min(flushPauseMax, flushPause*time.Since(start)))) != nil {
				return
			}
		}
	}
}

// drain writes everything that is dirty.
func (f *flusher) drain(ctx context.Context) error {
	for f.pending() > 0 || f.behind() {
		if err := f.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// behind reports whether the watermark could be moved on.
func (f *flusher) behind() bool { return f.target() > f.marked }

// target is the highest sequence whose changes, and all before it, are in the
// bucket.
func (f *flusher) target() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) > 0 {
		return f.queue[0].seq - 1
	}
	return f.noted
}

// flush writes the rows that have been dirty the longest, then the watermark.
func (f *flusher) flush(ctx context.Context) error {
	rows := f.take(flushRowsMax)
	failed, err := f.write(ctx, rows)
	f.putBack(failed)
	if err != nil {
		f.metrics.flushErrors.Inc()
		return err
	}
	return f.mark(ctx)
}

// take moves the first rows out of the queue; from here on a change of theirs
// queues them again.
func (f *flusher) take(limit int) []dirtyRow {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(limit, len(f.queue))
	rows := append([]dirtyRow(nil), f.queue[:n]...)
	f.queue = f.queue[n:]
	for _, r := range rows {
		delete(f.dirty, r.id)
	}
	return rows
}

// putBack queues rows again that could not be written, where they stood.
func (f *flusher) putBack(rows []dirtyRow) {
	if len(rows) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	again := make(map[protocol.ItemID]struct{}, len(rows))
	for _, r := range rows {
		again[r.id] = struct{}{}
		f.dirty[r.id] = struct{}{}
	}
	queue := append([]dirtyRow(nil), rows...)
	for _, r := range f.queue {
		if _, dup := again[r.id]; !dup {
			queue = append(queue, r)
		}
	}
	f.queue = queue
}

// write puts the rows' present values. It returns those that must be tried again.
func (f *flusher) write(ctx context.Context, rows []dirtyRow) (failed []dirtyRow, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	puts, err := f.encode(ctx, rows)
	if err != nil {
		return rows, err
	}
	results, _ := f.table.Put(ctx, puts) // its error is the first of the results'
	for i, res := range results {
		switch {
		case res.Err == nil:
			f.revisions[puts[i].Key] = res.Revision
			f.metrics.flushedRows.Inc()
			continue
		case errors.Is(res.Err, bus.ErrConflict), errors.Is(res.Err, bus.ErrUnknown):
			current, e := f.lookUp(ctx, puts[i].Key, version(puts[i].Value))
			if e != nil {
				err = e
			}
			if current {
				continue
			}
		default:
			err = fmt.Errorf("write row %s: %w", puts[i].Key, res.Err)
		}
		failed = append(failed, rows[i])
	}
	return failed, err
}

// lookUp learns a row's revision from the bucket, as after a restart. It reports whether
// the row stands there as new as we have it, or newer: an owner that was followed by
// another must not put an old row over a new one.
func (f *flusher) lookUp(ctx context.Context, key string, have uint64) (current bool, err error) {
	value, rev, err := f.table.Get(ctx, key)
	if err != nil && !errors.Is(err, bus.ErrMissing) {
		return false, fmt.Errorf("read row %s: %w", key, err)
	}
	f.revisions[key] = rev
	return err == nil && version(value) >= have, nil
}

// version reads a stored row's version, 0 where there is none.
func version(row []byte) uint64 {
	var stored ledger.StoredRow
	if protocol.UnmarshalJSON(row, &stored) != nil {
		return 0
	}
	return stored.Version
}

// encode reads the rows' present values. Of rows that an earlier process wrote the
// revision is looked up first.
func (f *flusher) encode(ctx context.Context, rows []dirtyRow) ([]bus.Row, error) {
	stored := make([]ledger.StoredRow, len(rows))
	f.replica.mu.RLock()
	s := f.replica.state
	for i, r := range rows {
		row := s.Row(r.id)
		stored[i] = row.Stored(s.Region(), s.Shard(), s.Key(r.id))
	}
	f.replica.mu.RUnlock()
	puts := make([]bus.Row, len(rows))
	for i := range stored {
		key := bus.EscapeKey(stored[i].SKU, stored[i].Location)
		if _, known := f.revisions[key]; !known && int(rows[i].id) < f.recovered {
			if _, err := f.lookUp(ctx, key, 0); err != nil {
				return nil, err
			}
		}
		puts[i] = bus.Row{Key: key, Value: protocol.AppendJSON(nil, &stored[i]), Revision: f.revisions[key]}
	}
	return puts, nil
}

// mark moves the watermark to where the bucket is complete.
func (f *flusher) mark(ctx context.Context) error {
	seq := f.target()
	if seq <= f.marked {
		return nil
	}
	s := f.replica.state
	key := watermarkKey(s.Shard())
	value := protocol.AppendJSON(nil, watermark{Region: s.Region(), Shard: s.Shard(), Seq: seq, At: protocol.TimeOf(time.Now())})
	results, err := f.table.Put(ctx, []bus.Row{{Key: key, Value: value, Revision: f.revisions[key]}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		w, rev, e := readWatermark(ctx, f.table, s.Shard())
		if e == nil {
			f.revisions[key], f.marked = rev, max(f.marked, w.Seq)
		}
		return errors.Join(fmt.Errorf("write watermark: %w", err), e)
	}
	f.revisions[key] = results[0].Revision
	f.marked = seq
	return nil
}
