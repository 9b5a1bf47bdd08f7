package cluster

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// Mutants break one rule each, on purpose: a simulator that can't fail proves nothing.

// simCaught wants a mutant to break one of the named invariants in some history, in which
// the rule itself breaks none.
func simCaught(t *testing.T, m simMutant, names ...string) {
	t.Helper()
	const seeds = 300
	figures := newMetrics(prometheus.NewRegistry())
	inSimTime(t, func(t *testing.T) {
		for seed := range uint64(seeds) {
			s := newSimSchedule(seed)
			err := s.run(m, figures).err
			if err == nil {
				continue
			}
			if !slices.Contains(names, simNameOf(err)) {
				t.Fatalf("seed %d: %v, want one of %v", seed, err, names)
			}
			small := s.shrink(m, figures)
			if w := small.run(simMutant{}, figures); w.err != nil {
				t.Fatalf("seed %d without the mutant: %v", seed, w.err)
			}
			t.Logf("caught by seed %d, with %d of its %d events: %v", seed, len(small.events), len(s.events), small.run(m, figures).err)
			return
		}
		t.Fatalf("not caught in %d histories", seeds)
	})
}

// A retry that looks like another command takes effect again.
func TestSimCatchesSkippedDedupe(t *testing.T) {
	simCaught(t, simMutant{key: func(c *simCommand) string { return fmt.Sprint(c.command.Key, " ", c.tries) }}, "I4")
}

// A round is acknowledged while it is in memory only, and written with the next.
func TestSimCatchesAcknowledgeBeforeCommit(t *testing.T) {
	simCaught(t, simMutant{instead: func(n *simNode, data []byte, last uint64) (uint64, bool) {
		r := n.region
		if r.lazy != nil {
			_, _ = r.store(r.lazy, last-1)
			r.lazy = nil
			return 0, false
		}
		if len(n.owner.current) == 0 {
			return 0, false
		}
		r.lazy = slices.Clone(data)
		return last + 1, true
	}}, "I5")
}

// What a message says was given is added to what was taken before.
func TestSimCatchesAddInsteadOfTotal(t *testing.T) {
	simCaught(t, simMutant{tell: func(n *simNode, from string, d *deal) {
		for i := range d.Answers {
			a := &d.Answers[i]
			if a.Granted > 0 {
				row := n.rowOf(protocol.ItemKey{SKU: a.SKU, Location: a.Location})
				a.Total = row.Accepted[from] + a.Granted
			}
		}
	}}, "I3")
}

// A reservation ends before its time.
func TestSimCatchesExpireWithoutCheck(t *testing.T) {
	simCaught(t, simMutant{round: func(n *simNode, r *ledger.Round) { n.expireOne(r, false) }}, "I9")
}

// A reservation ends again: it was confirmed, released or expired before.
func TestSimCatchesExpireOfTheEnded(t *testing.T) {
	simCaught(t, simMutant{round: func(n *simNode, r *ledger.Round) { n.expireOne(r, true) }}, "I8")
}

// A grant is taken twice.
func TestSimCatchesTransferAppliedTwice(t *testing.T) {
	simCaught(t, simMutant{round: func(n *simNode, r *ledger.Round) {
		for i := range r.Records {
			if rec := &r.Records[i]; rec.Type == ledger.TypeAccept && isLastOf(r, i) {
				ev := rec.Events[0]
				before := n.rowOf(r.Items[ev.Item]).Accepted[ev.Peer]
				ev.Version, ev.Total = ev.Version+1, 2*ev.Total-before
				ev.Previous = ledger.Position{Seq: n.replica.seq() + 1, Index: uint32(eventsBefore(r, i))}
				r.Records = append(r.Records, ledger.Record{Type: ledger.TypeAccept, Events: []ledger.Event{ev}})
				return
			}
		}
	}}, "I3")
}

// isLastOf tells whether no later record of the round touches the record's item.
func isLastOf(r *ledger.Round, n int) bool {
	item := r.Records[n].Events[0].Item
	for i := n + 1; i < len(r.Records); i++ {
		if slices.ContainsFunc(r.Records[i].Events, func(ev ledger.Event) bool { return ev.Item == item }) {
			return false
		}
	}
	return true
}

func eventsBefore(r *ledger.Round, n int) (events int) {
	for i := range n {
		events += len(r.Records[i].Events)
	}
	return events
}

// rowOf is an item's row as the node has it committed.
func (n *simNode) rowOf(key protocol.ItemKey) ledger.Row {
	if id, ok := n.replica.state.ID(key); ok {
		return n.replica.state.Row(id)
	}
	return ledger.Row{}
}

// expireOne adds an expiry to a round: of a reservation that is held and not due, or of one
// that ended.
func (n *simNode) expireOne(r *ledger.Round, ended bool) {
	for _, hold := range n.region.world.reservations {
		kept := n.region.audit.reservations[hold.id]
		if hold.region != n.region.index || kept == nil || kept.ended != ended || !ended && kept.expiresAt <= r.At {
			continue
		}
		if len(kept.lines) != 1 || slices.ContainsFunc(r.Records, func(rec ledger.Record) bool { return rec.Reservation == hold.id }) {
			continue
		}
		key := protocol.ItemKey{SKU: kept.lines[0].SKU, Location: kept.lines[0].Location}
		row, quantity := n.owner.draft.Row(key), kept.lines[0].Quantity
		place := slices.Index(r.Items, key)
		if place < 0 {
			place = len(r.Items)
			r.Items = append(r.Items, key)
		}
		r.Records = append(r.Records, ledger.Record{Type: ledger.TypeExpire, Reservation: hold.id, Events: []ledger.Event{{
			Item: uint32(place), Version: row.Version + 1, Received: row.Received, Removed: row.Removed, Sold: row.Sold,
			Held: row.Held - quantity, ReservedDelta: -quantity, Previous: row.Last,
		}}})
		return
	}
}
