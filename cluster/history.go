package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// historian walks an item's movements back through the log: each names the place
// of the one before it.
type historian struct {
	log      *bus.Log
	replica  *replica
	patience time.Duration // with a log that has no leader
	slots    chan struct{} // bounds the walks under way
	rounds   *lru.Cache[uint64, *ledger.Round]
}

const (
	walksMax = 8

	// Busy items share rounds, so walks meet the same ones again. Decoded they take
	// some ten times their bytes: at most about 80 MB are kept.
	roundsKept     = 128
	roundBytesKeep = 64 << 10
)

func newHistorian(c *Config, l *bus.Log, r *replica) (*historian, error) {
	rounds, err := lru.New[uint64, *ledger.Round](roundsKept)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &historian{log: l, replica: r, patience: c.Patience, slots: make(chan struct{}, walksMax), rounds: rounds}, nil
}

// round reads and decodes a round, or finds it among those read lately.
func (h *historian) round(ctx context.Context, seq uint64) (*ledger.Round, error) {
	if round, ok := h.rounds.Get(seq); ok {
		return round, nil
	}
	data, err := h.get(ctx, seq)
	if err != nil {
		return nil, fmt.Errorf("round %d: %w", seq, err)
	}
	round, err := ledger.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("round %d: %w", seq, err)
	}
	if len(data) <= roundBytesKeep {
		h.rounds.Add(seq, round)
	}
	return round, nil
}

// get reads a round, and waits where the log's leader has just changed.
func (h *historian) get(ctx context.Context, seq uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	for {
		data, err := h.log.Get(ctx, seq)
		if !errors.Is(err, bus.ErrNoLeader) || pause(ctx, readPause) != nil {
			return data, err
		}
	}
}

// answer runs on a goroutine of its own, which the caller waits for.
func (h *historian) answer(ctx context.Context, call *protocol.Call) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		call.Fail(protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node is stopping"))
		return
	}
	result, err := h.page(ctx, &call.Command)
	if err != nil {
		var wire *protocol.Error
		if !errors.As(err, &wire) {
			wire = protocol.RetryLater(protocol.CodeUnavailable, 1000, "history: %v", err)
		}
		call.Fail(wire)
		return
	}
	call.Result = result
	call.Done(call)
}

func (h *historian) page(ctx context.Context, c *protocol.Command) (protocol.Result, error) {
	w := walk{historian: h, key: protocol.ItemKey{SKU: c.SKU, Location: c.Location}}
	at, err := w.start(ctx, c.Before)
	if err != nil {
		return protocol.Result{}, err
	}
	result := protocol.Result{Kind: protocol.KindMovements}
	for at != (ledger.Position{}) {
		m, previous, err := w.movement(ctx, at)
		if errors.Is(err, bus.ErrMissing) {
			break // trimmed: older than the history that is kept
		}
		if err != nil {
			return protocol.Result{}, err
		}
		if len(result.Movements) == c.Limit {
			result.Next = result.Movements[c.Limit-1].Sequence
			break
		}
		result.Movements = append(result.Movements, m)
		at = previous
	}
	return result, nil
}

// walk is one page under way; it keeps the round it last read, as the movements
// of a busy item stand together.
type walk struct {
	*historian
	key  protocol.ItemKey
	seq  uint64
	last *ledger.Round // stands at seq
}

// start returns the place of the newest movement, or of the one before a given
// one.
func (w *walk) start(ctx context.Context, before string) (ledger.Position, error) {
	s := w.replica.state
	if before == "" {
		w.replica.mu.RLock()
		defer w.replica.mu.RUnlock()
		if id, ok := s.ID(w.key); ok {
			return s.Row(id).Last, nil
		}
		return ledger.Position{}, nil
	}
	region, shard, at, err := ledger.ParseSequence(before)
	if err != nil || region != s.Region() || shard != s.Shard() {
		return ledger.Position{}, protocol.BadRequest("before: %.80q is not a movement's sequence in region %s", before, s.Region())
	}
	m, previous, err := w.movement(ctx, at)
	if errors.Is(err, bus.ErrMissing) {
		return ledger.Position{}, nil
	}
	if err != nil {
		return ledger.Position{}, err
	}
	if (protocol.ItemKey{SKU: m.SKU, Location: m.Location}) != w.key {
		return ledger.Position{}, protocol.BadRequest("before: %s is a movement of another item", before)
	}
	return previous, nil
}

func (w *walk) movement(ctx context.Context, at ledger.Position) (m protocol.Movement, previous ledger.Position, err error) {
	if w.last == nil || w.seq != at.Seq {
		if w.last, err = w.round(ctx, at.Seq); err != nil {
			return m, previous, err
		}
		w.seq = at.Seq
	}
	m, previous, ok := w.last.Movement(w.replica.state.Region(), w.replica.state.Shard(), at)
	if !ok {
		return m, previous, protocol.BadRequest("no movement %d in round %d", at.Index, at.Seq)
	}
	return m, previous, nil
}
