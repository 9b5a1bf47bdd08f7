package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// A batch costs the disk about four syncs whatever its size, and while it is
	// written an Append waits. DESIGN.md has the figures.
	batchRows  = 256
	batchBytes = 1 << 20

	// How often a row is sent again which the engine was too busy for.
	busyTries = 3
)

// Table is a set of rows, stored as a NATS key-value bucket with one revision
// kept: any NATS tool can read it.
type Table struct {
	bus     *Bus
	bucket  string
	prefix  string // of a row's subject
	batchID string
	batches atomic.Uint64
}

// Row is one row. For Put, Revision is the revision this row replaces, 0 when
// the key must not exist. As read, it is the row's own.
type Row struct {
	Key      string // as EscapeKey makes them
	Value    []byte
	Revision uint64
}

// Result is what became of one row: its new Revision, or Err (ErrConflict,
// ErrUnknown, ErrFull, ErrBusy, ErrNoLeader, ErrTooBig, ErrName, ErrClosed, ctx's
// error).
// With every Err but ErrUnknown the row was not written.
type Result struct {
	Revision uint64
	Err      error
}

// Table opens the bucket, named with A-Z a-z 0-9 - and _. When it does not exist
// it is created if create is true; otherwise the error is ErrMissing. An existing
// bucket keeps its configuration.
func (b *Bus) Table(ctx context.Context, bucket string, create bool) (*Table, error) {
	if err := nameValid(bucket); err != nil {
		return nil, err
	}
	s, err := b.stream(ctx, tableConfig(bucket), create)
	if err != nil {
		return nil, err
	}
	if n := s.CachedInfo().Config.MaxMsgsPerSubject; n != 1 {
		return nil, fmt.Errorf("bus: table %s: bucket keeps %d revisions of a row, not 1", bucket, n)
	}
	return &Table{
		bus: b, bucket: bucket,
		prefix: "$KV." + bucket + ".",
		// Stored with each row, so short; unique among writers open at one time.
		batchID: rand.Text()[:8],
	}, nil
}

// tableConfig is what the NATS libraries make of a bucket, and atomic batches.
// Their "create or update" would switch those off again.
func tableConfig(bucket string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               "KV_" + bucket,
		Subjects:           []string{"$KV." + bucket + ".>"},
		Storage:            jetstream.FileStorage,
		Replicas:           1,
		MaxMsgsPerSubject:  1,
		Discard:            jetstream.DiscardNew,
		Duplicates:         2 * time.Minute,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}

// Put writes rows, each one only if its key still has the revision it names.
// Rows travel in batches, one at a time; a batch with a conflict in it is split
// until the conflicts stand alone, so one bad row never holds back another. No
// order or atomicity of the rows is promised.
//
// There is one Result for each row. The error is nil when all rows were written,
// else that of the first row which was not.
func (t *Table) Put(ctx context.Context, rows []Row) ([]Result, error) {
	results := make([]Result, len(rows))
	for start := 0; start < len(rows); {
		end := batchEnd(rows, start)
		t.put(ctx, rows[start:end], results[start:end])
		start = end
	}
	for i := range results {
		if err := results[i].Err; err != nil {
			return results, fmt.Errorf("bus: table %s: put %s: %w", t.bucket, rows[i].Key, err)
		}
	}
	return results, nil
}

// batchEnd returns where the batch which begins at start ends.
func batchEnd(rows []Row, start int) int {
	bytes := 0
	for i := start; i < len(rows); i++ {
		bytes += len(rows[i].Key) + len(rows[i].Value)
		if i > start && (i-start == batchRows || bytes > batchBytes) {
			return i
		}
	}
	return len(rows)
}

func (t *Table) put(ctx context.Context, rows []Row, results []Result) {
	if len(rows) == 1 {
		results[0] = t.putOne(ctx, rows[0])
		return
	}
	last, err := t.putBatch(ctx, rows)
	switch {
	case err == nil:
		for i := range rows {
			results[i].Revision = last - uint64(len(rows)-1-i)
		}
	case isRefusal(err): // of the whole batch, without saying which row
		half := len(rows) / 2
		t.put(ctx, rows[:half], results[:half])
		t.put(ctx, rows[half:], results[half:])
	default:
		for i := range rows {
			results[i].Err = err
		}
	}
}

// refusal is the server's no to a batch: nothing of it was stored.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func isRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrNoLeader)
}

// putBatch writes all rows or none and returns the last one's revision.
func (t *Table) putBatch(ctx context.Context, rows []Row) (last uint64, err error) {
	ctx, cancel := t.bus.within(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for _, r := range rows {
		if err := rowValid(r); err != nil {
			return 0, refusal{err}
		}
	}
	id := t.batchID + strconv.FormatUint(t.batches.Add(1), 36)
	for i, r := range rows[:len(rows)-1] {
		if err := t.bus.bulk.nc.PublishMsg(t.batchMsg(r, id, i+1)); err != nil {
			// Without its commit message the server forgets the batch.
			return 0, cause(err)
		}
	}
	commit := t.batchMsg(rows[len(rows)-1], id, len(rows))
	commit.Header["Nats-Batch-Commit"] = []string{"1"}
	a, err := t.request(ctx, commit)
	switch {
	case err != nil:
		return 0, err
	case a.Error != nil:
		return 0, refusal{refused(a.Error)}
	case a.Count != uint64(len(rows)):
		return 0, fmt.Errorf("%w: batch of %d rows acknowledged as %d", ErrUnknown, len(rows), a.Count)
	}
	return a.Seq, nil
}

func (t *Table) batchMsg(r Row, id string, n int) *nats.Msg {
	m := t.rowMsg(r)
	m.Header["Nats-Batch-Id"] = []string{id}
	m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(n)}
	return m
}

func (t *Table) rowMsg(r Row) *nats.Msg {
	return &nats.Msg{
		Subject: t.prefix + r.Key,
		Data:    r.Value,
		Header:  nats.Header{headerExpectedSubject: {strconv.FormatUint(r.Revision, 10)}},
	}
}

func (t *Table) putOne(ctx context.Context, r Row) Result {
	if err := rowValid(r); err != nil {
		return Result{Err: err}
	}
	var res Result
	for range busyTries {
		res = t.tryOne(ctx, r)
		if !errors.Is(res.Err, ErrBusy) {
			break
		}
	}
	return res
}

func (t *Table) tryOne(ctx context.Context, r Row) Result {
	ctx, cancel := t.bus.within(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return Result{Err: err}
	}
	a, err := t.request(ctx, t.rowMsg(r))
	switch {
	case err != nil:
		return Result{Err: err}
	case a.Error == nil:
		return Result{Revision: a.Seq}
	case a.Error.ErrCode == codeWrongSequence:
		return Result{Err: fmt.Errorf("%w: expected %d, is %d", ErrConflict, r.Revision, lastNumber(a.Error.Description))}
	}
	return Result{Err: refused(a.Error)}
}

// request publishes and reads the answer; an error means that no answer came.
func (t *Table) request(ctx context.Context, m *nats.Msg) (ack, error) {
	answer, err := t.bus.bulk.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return ack{}, t.bus.sentThen(err)
	}
	return parseAck(answer.Data)
}

func rowValid(r Row) error {
	switch {
	case !keyValid(r.Key):
		return fmt.Errorf("%w: key %q", ErrName, r.Key)
	case len(r.Key)+len(r.Value) > MessageBytesMax:
		return ErrTooBig
	}
	return nil
}

// Get returns the newest row of key, as the stream's leader has it. When there
// is none the error is ErrMissing, and revision is what a Put must name: 0, or
// the revision of the mark a NATS tool left when it deleted the row.
func (t *Table) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	if !keyValid(key) {
		return nil, 0, fmt.Errorf("bus: table %s: %w: key %q", t.bucket, ErrName, key)
	}
	value, revision, err = t.get(ctx, key)
	if err != nil {
		return nil, revision, fmt.Errorf("bus: table %s: get %s: %w", t.bucket, key, err)
	}
	return value, revision, nil
}

func (t *Table) get(ctx context.Context, key string) ([]byte, uint64, error) {
	// Not the library's get: on such a bucket it asks any replica.
	m, err := t.bus.leaderGet(ctx, "KV_"+t.bucket, []byte(`{"last_by_subj":"`+t.prefix+key+`"}`))
	if err != nil {
		return nil, 0, err
	}
	if h, err := nats.DecodeHeadersMsg(m.Header); err == nil && isDeleteMark(h) {
		return nil, m.Seq, ErrMissing
	}
	return m.Data, m.Seq, nil
}

// isDeleteMark tells a deleted row's mark from a row.
func isDeleteMark(h nats.Header) bool {
	return h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != ""
}

// Each calls fn for every row, oldest write first. Value is only valid during
// the call. A row written meanwhile is seen as it was, as it is, or both in that
// order; no row is left out. An error of fn ends it and is returned.
func (t *Table) Each(ctx context.Context, fn func(Row) error) error {
	err := t.bus.scan(ctx, scanSpec{stream: "KV_" + t.bucket}, func(e entry) error {
		if isDeleteMark(e.msg.Header) {
			return nil
		}
		return fn(Row{Key: strings.TrimPrefix(e.msg.Subject, t.prefix), Value: e.msg.Data, Revision: e.seq})
	})
	if err != nil {
		return fmt.Errorf("bus: table %s: each: %w", t.bucket, err)
	}
	return nil
}

// Last returns the revision of the newest write, as the table's leader has it.
func (t *Table) Last(ctx context.Context) (uint64, error) {
	info, err := t.bus.streamInfo(ctx, "KV_"+t.bucket)
	if err != nil {
		return 0, fmt.Errorf("bus: table %s: %w", t.bucket, err)
	}
	return info.State.LastSeq, nil
}

// Drop deletes a row for good, leaving no mark behind, unless it was written again
// since it had the revision named. Nobody who follows the table is told.
func (t *Table) Drop(ctx context.Context, row Row) error {
	if !keyValid(row.Key) {
		return fmt.Errorf("bus: table %s: %w: key %q", t.bucket, ErrName, row.Key)
	}
	ctx, cancel := t.bus.within(ctx)
	defer cancel()
	s, err := t.bus.bulk.js.Stream(ctx, "KV_"+t.bucket)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(t.prefix+row.Key), jetstream.WithPurgeSequence(row.Revision+1))
	}
	if err != nil {
		return fmt.Errorf("bus: table %s: drop %s: %w", t.bucket, row.Key, t.bus.silence(ctx, cause(err)))
	}
	return nil
}
