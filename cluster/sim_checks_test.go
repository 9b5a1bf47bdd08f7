package cluster

import (
	"bytes"
	"errors"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// checkItem is what the logs of all regions must say of an item together.
func (w *simWorld) checkItem(key protocol.ItemKey) {
	var sum, taken, units, backorder int64
	for _, r := range w.regions {
		row := r.audit.row(key)
		sum += row.Share() + row.Held
		taken += row.Sold + row.Held
		units += row.Received - row.Removed
		if it := r.audit.items[key]; it != nil {
			backorder += it.backorderMax
		}
		for _, peer := range w.regions {
			theirs := peer.audit.row(key)
			given, accepted := row.Granted[peer.name], theirs.Accepted[r.name]
			if accepted > given {
				w.fail("I3", "%s gave %d of %v, %s took %d", r.name, given, key, peer.name, accepted)
			}
			sum += given - accepted
		}
	}
	if sum != w.units[key] {
		w.fail("I1", "%d units of %v, should be %d", sum, key, w.units[key])
	}
	if taken > units+backorder {
		w.fail("oversold", "%d of %v sold or held, %d came in and %d may be owed", taken, key, units, backorder)
	}
}

// checkSeen is I12 and I10 for what a watcher at a node is shown: an item's version never
// goes back, and it is what the regions' logs say in these versions.
func (n *simNode) checkSeen(id protocol.ItemID) {
	w, s := n.region.world, n.replica.state
	key, shown := s.Key(id), s.Item(id)
	v, err := protocol.ParseVector(shown.Version)
	if err != nil || !v.AtLeast(n.seen[key]) {
		w.fail("I12", "%v in %s shows %q after %v: %v", key, n.region.name, shown.Version, n.seen[key], err)
		return
	}
	n.seen[key] = v
	var onHand, held, open int64
	for _, c := range v {
		it := w.regions[w.indexOf(c.Region)].audit.items[key]
		if it == nil || c.N > uint64(len(it.rows)) {
			w.fail("I10", "%v in %s shows %q, which %s has not stored", key, n.region.name, shown.Version, c.Region)
			return
		}
		row := &it.rows[c.N-1]
		onHand += row.OnHand()
		held += row.Held
		open += row.OnHand() - row.Held - row.Safety + row.Backorder
	}
	if shown.OnHand != onHand || shown.Reserved != held || shown.Available != max(0, open) {
		w.fail("I10", "%v in %s shows %+v, should be %d on hand, %d held, %d open", key, n.region.name, shown, onHand, held, open)
	}
}

// checkState is I13: a node that begins to decide has what the log says.
func (n *simNode) checkState() {
	s := n.replica.state
	for _, id := range s.Changed(0) {
		row := s.Row(id)
		n.region.audit.checkRow("I13", s.Key(id), &row)
	}
}

// checkError says that no term ends because log and code disagree.
func (n *simNode) checkError(err error) {
	var broken *brokenError
	if errors.As(err, &broken) {
		n.region.world.fail("I13", "%s: %v", n.region.name, err)
	}
}

// checkQuiet is what holds when everything was told to everybody and nothing is under way.
func (w *simWorld) checkQuiet() {
	for _, c := range w.commands {
		if len(c.open) > 0 {
			w.fail("unanswered", "command %v", c)
		}
	}
	for _, key := range simKeys {
		w.checkEqual(key)
	}
	for _, r := range w.regions {
		r.checkAnswers()
	}
}

// checkEqual is I3 and I11 after heal.
func (w *simWorld) checkEqual(key protocol.ItemKey) {
	w.checkItem(key)
	first := w.regions[0].view(key)
	for _, r := range w.regions {
		if view := r.view(key); !bytes.Equal(view, first) {
			w.fail("I11", "%s shows %s, %s %s", r.name, view, w.regions[0].name, first)
		}
		row := r.audit.row(key)
		for _, peer := range w.regions {
			theirs := peer.audit.row(key)
			if given, taken := row.Granted[peer.name], theirs.Accepted[r.name]; given != taken {
				w.fail("I3", "after heal: %s gave %d of %v, %s took %d", r.name, given, key, peer.name, taken)
			}
		}
	}
}

func (r *simRegion) view(key protocol.ItemKey) []byte {
	it := r.current.replica.item(key)
	return protocol.AppendItem(nil, &it)
}

// checkReplay is I13: the log alone, and the newest snapshot with the log after it, give
// what the node has.
func (r *simRegion) checkReplay() {
	if r.world.err != nil {
		return
	}
	want := r.current.replica.state
	for _, fromSnapshot := range [...]bool{false, true} {
		if fromSnapshot && r.saved == nil {
			break
		}
		got := r.build(fromSnapshot).replica.state
		if got.Seq() != want.Seq() || got.Digest() != want.Digest() {
			r.world.fail("I13", "the log of %s up to %d gives another state (from a snapshot: %v)", r.name, got.Seq(), fromSnapshot)
		}
	}
	r.current.checkState()
}

// checkAnswers is I4, I5 and I6 after the event: every key in its window is known with the
// answer that its client was given, and no other key is.
func (r *simRegion) checkAnswers() {
	state := r.current.replica.state
	for _, c := range r.world.commands {
		if c.region != r.index || r.world.mutant.key != nil {
			continue
		}
		res, known := state.Outcome(c.command.Key)
		if must := r.audit.remembers(c); known != must {
			r.world.fail("I5", "command %v is known: %v, should be: %v", c, known, must)
		}
		if known && c.answer != "" && len(r.audit.effects[c.id]) == 1 && c.answer != string(protocol.AppendOK(nil, &res)) {
			r.world.fail("I4", "command %v was answered %s, is known as %s", c, c.answer, protocol.AppendOK(nil, &res))
		}
		if c.verdict == simRefused && len(r.audit.effects[c.id]) > 0 && known {
			r.world.fail("I6", "command %v was refused and is known", c)
		}
	}
}

// freeOf is what a region may sell now, negative where it would have to get some first.
func freeOf(row *ledger.Row) int64 { return row.Share() - row.Safety + row.Backorder }
