package ledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// A snapshot is written in slices, and rounds may be applied between two slices:
// it is a picture of no single moment. That is repaired on loading: the log from
// the snapshot's beginning (its seq) to its end (settled) is applied again, and
// since events carry totals and versions rather than differences, every entry
// comes out right whenever within that stretch it was written.

const (
	snapshotFormat = 1
	sliceBytes     = 64 << 10
	entryBytesMax  = 8 << 20
)

// Entry tags of a snapshot.
const (
	tagItem  = 'i'
	tagLive  = 'l'
	tagEnded = 'e'
	tagKey   = 'k'
	tagOrder = 'o'
	tagEnd   = 'z'
)

// ErrRotated says that a generation ended while a snapshot was being written;
// the snapshot is unusable, the next one will do.
var ErrRotated = errors.New("keys were rotated during the snapshot")

// Snapshot writes the state through emit, slice by slice. While emit runs the
// state may be read and rounds may be applied; otherwise the caller keeps both
// away. It returns the log sequence the snapshot stands for, after which the log
// must be kept.
func (s *State) Snapshot(emit func(slice []byte) error) (seq uint64, err error) {
	return s.snapshot(sliceBytes, emit)
}

func (s *State) snapshot(slice int, emit func(slice []byte) error) (seq uint64, err error) {
	sw := &snapshotWriter{state: s, slice: slice, emit: emit, generation: s.generation}
	seq = s.seq
	sw.entry(s.writeHeader)
	s.entries(sw.entry)
	sw.entry(func(w *writer) {
		w.byte(tagEnd)
		w.uint(max(s.seq, s.settled))
	})
	sw.flush()
	return seq, sw.err
}

type snapshotWriter struct {
	state      *State
	slice      int // bytes
	emit       func([]byte) error
	generation uint64
	buf        []byte
	scratch    writer
	err        error
}

func (s *State) writeHeader(w *writer) {
	w.byte(snapshotFormat)
	w.string(s.region)
	w.uint(uint64(s.shard))
	w.uint(s.seq)
	w.int(int64(s.at))
	w.uint(s.epoch)
	w.uint(s.generation)
	w.int(int64(s.rotatedAt))
}

// entries gives every entry to put until that returns false. Rounds may be applied
// while put runs.
func (s *State) entries(put func(write func(*writer)) bool) {
	for i := 0; i < len(s.items); i++ {
		if s.items[i].row.Version == 0 {
			continue // only other regions have it
		}
		if !put(func(w *writer) { w.byte(tagItem); w.storedItem(&s.items[i]) }) {
			return
		}
	}
	// Live reservations come before ended ones: one that ends in between is
	// written twice rather than not at all.
	for _, r := range s.live {
		if !put(func(w *writer) { w.byte(tagLive); w.tied(r) }) {
			return
		}
	}
	_ = s.past.entries(0, put) && s.now.entries(1, put)
}

func (g *generation) entries(n byte, put func(write func(*writer)) bool) bool {
	for _, r := range g.ended {
		if !put(func(w *writer) { w.byte(tagEnded); w.byte(n); w.tied(r) }) {
			return false
		}
	}
	for id := range g.keys.index {
		print, outcome, _ := g.keys.get(id)
		if !put(func(w *writer) { w.key(n, &id, print, outcome) }) {
			return false
		}
	}
	for id, state := range g.orders {
		if !put(func(w *writer) { w.endedOrder(n, &id, state) }) {
			return false
		}
	}
	return true
}

func (w *writer) endedOrder(generation byte, id *keyHash, state OrderState) {
	w.byte(tagOrder)
	w.byte(generation)
	w.b = append(w.b, id[:]...)
	w.byte(byte(state))
}

// tied is a reservation with what ties it to an order, if it is one's.
func (w *writer) tied(r *reservation) {
	w.reservation(&r.Reservation)
	if t := r.tie; t != nil {
		w.string(t.order)
		w.uint(uint64(t.home))
		w.bool(t.part)
		w.int(int64(t.since))
		w.lines(t.own)
		w.strings(t.parts)
	}
}

func (r *reader) tied() *reservation {
	v := &reservation{Reservation: r.reservation()}
	if len(r.b) > 0 {
		v.tie = &tie{
			order: r.string(), home: int(r.index(shardsMax)), part: r.bool(), since: protocol.Time(r.int()),
			own: r.lines(), parts: r.strings(),
		}
	}
	return v
}

func (w *writer) key(generation byte, id *keyHash, print uint64, outcome []byte) {
	w.byte(tagKey)
	w.byte(generation)
	w.b = append(w.b, id[:]...)
	w.fixed(print)
	w.bytes(outcome)
}

func (sw *snapshotWriter) entry(write func(*writer)) bool {
	if sw.err != nil {
		return false
	}
	sw.scratch.b = sw.scratch.b[:0]
	write(&sw.scratch)
	sw.buf = binary.AppendUvarint(sw.buf, uint64(len(sw.scratch.b)))
	sw.buf = append(sw.buf, sw.scratch.b...)
	if len(sw.buf) >= sw.slice {
		sw.flush()
	}
	return sw.err == nil
}

func (sw *snapshotWriter) flush() {
	if sw.err != nil || len(sw.buf) == 0 {
		return
	}
	if sw.err = sw.emit(sw.buf); sw.err == nil && sw.state.generation != sw.generation {
		sw.err = ErrRotated
	}
	sw.buf = sw.buf[:0]
}

func (w *writer) storedItem(it *item) {
	r := &it.row
	w.string(it.key.SKU)
	w.string(it.key.Location)
	w.uint(r.Version)
	for _, v := range [...]int64{r.Received, r.Removed, r.Sold, r.Held, r.Safety, r.Backorder, r.Low, int64(r.UpdatedAt)} {
		w.int(v)
	}
	w.uint(r.Last.Seq)
	w.uint(uint64(r.Last.Index))
	for _, totals := range [...]map[string]int64{r.Granted, r.Accepted} {
		w.uint(uint64(len(totals)))
		for _, region := range slices.Sorted(maps.Keys(totals)) {
			w.string(region)
			w.int(totals[region])
		}
	}
}

func (r *reader) storedItem() item {
	it := item{key: protocol.ItemKey{SKU: r.string(), Location: r.string()}}
	row := &it.row
	row.Version = r.uint()
	for _, p := range [...]*int64{&row.Received, &row.Removed, &row.Sold, &row.Held, &row.Safety, &row.Backorder, &row.Low, (*int64)(&row.UpdatedAt)} {
		*p = r.int()
	}
	row.Last = Position{Seq: r.uint(), Index: r.index(1 << 31)}
	row.Granted, row.Accepted = r.totals(), r.totals()
	return it
}

func (r *reader) totals() map[string]int64 {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	m := make(map[string]int64, n)
	for range n {
		region := r.string()
		m[region] = r.int()
	}
	return m
}

// Load reads a snapshot. The rounds after State.Seq have yet to be applied, and
// those up to Settled must be before the state may be shown to anybody.
func Load(r io.Reader) (*State, error) {
	in := bufio.NewReaderSize(r, sliceBytes)
	head, err := nextEntry(in, nil)
	if err != nil {
		return nil, fmt.Errorf("snapshot header: %w", err)
	}
	s, err := loadHeader(head)
	if err != nil {
		return nil, err
	}
	var buf []byte
	for {
		if buf, err = nextEntry(in, buf); err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		done, err := s.loadEntry(buf)
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		if done {
			s.dropOutdated()
			return s, nil
		}
	}
}

// Settled returns the log sequence up to which rounds must be applied after Load
// before the state is whole.
func (s *State) Settled() uint64 { return s.settled }

func nextEntry(in *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, noEOF(err)
	}
	if n == 0 || n > entryBytesMax {
		return nil, fmt.Errorf("%w: entry of %d bytes", errMalformed, n)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err = io.ReadFull(in, buf)
	return buf, noEOF(err)
}

// noEOF turns a clean end into an error: a snapshot says itself where it ends.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func loadHeader(b []byte) (*State, error) {
	r := reader{b: b}
	if f := r.byte(); f != snapshotFormat {
		return nil, fmt.Errorf("snapshot of format %d, this version reads %d", f, snapshotFormat)
	}
	region, shard := r.string(), r.uint()
	s := NewState(region, int(shard))
	s.seq, s.at = r.uint(), protocol.Time(r.int())
	s.epoch, s.generation, s.rotatedAt = r.uint(), r.uint(), protocol.Time(r.int())
	return s, r.end()
}

func (s *State) loadEntry(b []byte) (done bool, err error) {
	r := reader{b: b}
	switch tag := r.byte(); tag {
	case tagItem:
		it := r.storedItem()
		if r.end() == nil {
			s.items[s.add(it.key)].row = it.row
		}
	case tagLive:
		s.hold(r.tied())
	case tagEnded:
		g := s.loadGeneration(&r)
		v := r.tied()
		g.ended[v.ID] = v
	case tagKey:
		s.loadKey(&r)
	case tagOrder:
		s.loadOrder(&r)
	case tagEnd:
		s.settled = r.uint()
		return true, r.end()
	default:
		r.fail("unknown entry")
	}
	return false, r.end()
}

func (s *State) loadGeneration(r *reader) *generation {
	switch r.byte() {
	case 0:
		return &s.past
	case 1:
		return &s.now
	}
	r.fail("unknown generation")
	return &s.now
}

func (s *State) loadKey(r *reader) {
	g, id := s.loadGeneration(r), r.hash()
	print, outcome := r.fixed(), r.outcome()
	if r.err == nil {
		g.keys.put(id, print, outcome)
	}
}

func (s *State) loadOrder(r *reader) {
	g, id, state := s.loadGeneration(r), r.hash(), OrderState(r.byte())
	if state != OrderSold && state != OrderDropped {
		r.fail("an ended order that did not end")
		return
	}
	g.orders[id] = state
}

func (r *reader) hash() (id keyHash) {
	if len(r.b) < len(id) {
		r.fail("ends early")
		return id
	}
	r.b = r.b[copy(id[:], r.b):]
	return id
}
