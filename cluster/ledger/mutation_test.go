package ledger

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// TestChecksFail breaks the ledger on purpose, in one place at a time, and wants
// the check of that name to say so. A check that can't fail proves nothing.
func TestChecksFail(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		broken     func(*desk) error
	}{
		{"units from nowhere", "I1", unitsFromNowhere},
		{"a share that lies", "I2", lyingShare},
		{"more given back than held", "I2", heldBelowZero},
		{"accepted totals added up", "I3", acceptAdds},
		{"keys forgotten too early", "I4", skipDedupe},
		{"a refusal that names its item", "I6", traceOfRefusal},
		{"a version skipped", "I7", skippedVersion},
		{"a round's event twice", "I7", eventTwice},
		{"released after confirmed", "I8", endedTwice},
		{"expired before its time", "I9", expiredEarly},
		{"a reservation made shorter", "I9", shortened},
		{"differences instead of totals", "I13", applyAdds},
		{"a round applied twice", "I13", applyTwice},
		{"a forgotten extension", "I13", extensionLost},
		{"an event that lies", "I13", lyingEvent},
		{"a broken chain", "history", brokenChain},
		{"a movement of another item", "history", strangeMovement},
		{"a part that expires", "I9", partExpired},
		{"a part settled twice", "I8", settledTwice},
		{"given up without a tombstone", "I14", noTombstone},
		{"decided after it was given up", "I14", decidedAfterAbort},
		{"a decision forgotten", "I14", decisionForgotten},
		{"dropped without the home's word", "I14", droppedUnasked},
		{"dropped though it was sold", "I14", droppedThoughSold},
		{"a part left open", "I14", partLeftOpen},
		{"a line lost on the way", "I14", lineLost},
		{"a part that was loaded as a reservation", "I13", partLoadedLoose},
		{"a tombstone lost in the log", "I13", tombstoneLost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newDesk(t)
			k.do(`{"op":"adjust","sku":"A","delta":10}`)
			k.do(`{"op":"adjust","sku":"B","delta":10}`)
			err := tt.broken(k)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
		})
	}
}

var keyA = protocol.ItemKey{SKU: "A", Location: "main"}

// auditDraft audits the log and then the open round.
func (k *desk) auditDraft() error {
	a := newAudit()
	for i, b := range k.log {
		r, err := Decode(b)
		must(k.t, err)
		must(k.t, a.round(r, uint64(i+1)))
	}
	return a.round(k.draft.Round(), uint64(len(k.log)+1))
}

func (k *desk) reserve() *reservation {
	k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":3}],"ttl_ms":5000}`)
	for _, r := range k.state.live {
		return r
	}
	return nil
}

func unitsFromNowhere(k *desk) error {
	k.state.items[0].row.Received++
	return checkConservation(keyA, 10, k.state)
}

func lyingShare(k *desk) error {
	d := k.open()
	d.entries[d.entry(keyA)].row.Backorder = 5
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":11}]}`)
	return k.auditDraft()
}

func heldBelowZero(k *desk) error {
	r := k.reserve()
	r.Lines[0].Quantity++
	k.open().end(r, TypeRelease, Record{})
	return k.auditDraft()
}

func acceptAdds(k *desk) error {
	us := newDesk(k.t)
	us.state.region = "us"
	k.open().Grant(keyA, "us", 4)
	k.commit()
	for range 2 {
		d := us.open()
		i := d.entry(keyA)
		row := d.entries[i].row
		total := row.Accepted["eu"] + 4
		d.rights(TypeAccept, i, &row, "eu", total)
		us.commit()
	}
	return checkRights(k.state, us.state, false)
}

func skipDedupe(k *desk) error {
	const sell = `{"op":"sell","key":"s","lines":[{"sku":"A","quantity":1}]}`
	k.do(sell)
	k.state.now = newGeneration()
	k.open()
	k.decide(sell)
	return k.auditDraft()
}

func traceOfRefusal(k *desk) error {
	d := k.open()
	before := traceOf(d)
	d.place(d.entry(keyA))
	return checkNoTrace(before, traceOf(d))
}

func skippedVersion(k *desk) error {
	d := k.open()
	d.entries[d.entry(keyA)].row.Version++
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	return k.auditDraft()
}

func eventTwice(k *desk) error {
	d := k.open()
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	rec := &d.round.Records[0]
	rec.Events = append(rec.Events, rec.Events[0])
	return k.auditDraft()
}

func endedTwice(k *desk) error {
	r := k.reserve()
	d := k.open()
	d.end(r, TypeConfirm, Record{})
	d.end(r, TypeRelease, Record{})
	return k.auditDraft()
}

func expiredEarly(k *desk) error {
	r := k.reserve()
	k.now += 4999
	k.open().end(r, TypeExpire, Record{})
	return k.auditDraft()
}

func shortened(k *desk) error {
	r := k.reserve()
	d := k.open()
	k.decide(`{"op":"extend","reservation":"` + r.ID + `","ttl_ms":9000}`)
	d.round.Records[0].ExpiresAt = r.ExpiresAt - 1
	return k.auditDraft()
}

// adding applies a round as if events said what to add.
func adding(s *State, r *Round, seq uint64) error {
	for i := range r.Records {
		for _, ev := range r.Records[i].Events {
			row := &s.items[s.add(r.Items[ev.Item])].row
			row.Version, row.Held = ev.Version, row.Held+ev.ReservedDelta
			row.Received += max(0, ev.OnHandDelta)
			row.Sold -= min(0, ev.OnHandDelta)
			row.UpdatedAt, row.Last = r.At, Position{seq, 0}
		}
		s.now.keys.put(r.Records[i].id, r.Records[i].Print, r.Records[i].Outcome)
	}
	s.seq, s.at = seq, r.At
	return nil
}

// applyAdds is a snapshot that was not of one moment, brought forward by adding.
func applyAdds(k *desk) error {
	must(k.t, checkReplay(k.state, NewState("eu", 0), k.log, adding)) // from scratch it looks right
	s := k.loadedAcross(`{"op":"sell","lines":[{"sku":"B","quantity":3}]}`)
	return checkReplay(k.state, s, k.log, adding)
}

// loadedAcross returns a snapshot during which a command was committed.
func (k *desk) loadedAcross(body string) *State {
	var buf bytes.Buffer
	once := false
	_, err := k.state.snapshot(1, func(p []byte) error {
		buf.Write(p)
		if !once {
			once = true
			k.do(body)
		}
		return nil
	})
	must(k.t, err)
	s, err := Load(&buf)
	must(k.t, err)
	return s
}

func applyTwice(k *desk) error {
	return checkReplay(k.state, NewState("eu", 0), k.log, func(s *State, r *Round, seq uint64) error {
		if err := apply(s, r, seq); err != nil {
			return err
		}
		s.seq--
		return apply(s, r, seq)
	})
}

func extensionLost(k *desk) error {
	r := k.reserve()
	k.do(`{"op":"extend","reservation":"` + r.ID + `","ttl_ms":9000}`)
	return checkReplay(k.state, NewState("eu", 0), k.log, func(s *State, round *Round, seq uint64) error {
		for i := range round.Records {
			if round.Records[i].Type == TypeExtend {
				round.Records[i].ExpiresAt = r.ExpiresAt
			}
		}
		return apply(s, round, seq)
	})
}

func lyingEvent(k *desk) error {
	d := k.open()
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	d.round.Records[0].Events[0].Sold++
	return k.auditDraft()
}

func brokenChain(k *desk) error {
	k.do(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	d := k.open()
	d.entries[d.entry(keyA)].row.Last = Position{1, 0} // skips the sale
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	k.commit()
	return checkHistory(k.state, k.log)
}

func strangeMovement(k *desk) error {
	k.state.items[0].row.Last = k.state.items[1].row.Last
	return checkHistory(k.state, k.log)
}

// auditBoth audits the logs of an order's home and of the shard of its part.
func auditBoth(home, other *desk, quiet bool) error {
	var audits []*audit
	for _, k := range []*desk{home, other} {
		a := newAudit()
		for i, b := range k.log {
			r, err := Decode(b)
			must(k.t, err)
			if err := a.round(r, uint64(i+1)); err != nil {
				return err
			}
		}
		audits = append(audits, a)
	}
	if quiet {
		return checkAllOrNothing(audits...)
	}
	return checkFollows(audits...)
}

func partExpired(k *desk) error {
	_, other := homed(k.t)
	r := other.state.live[other.part("o")]
	other.now = 1 << 50
	other.open().end(r, TypeExpire, Record{})
	return other.auditDraft()
}

func settledTwice(k *desk) error {
	_, other := homed(k.t)
	r := other.state.live[other.part("o")]
	d := other.open()
	d.end(r, TypeConfirm, Record{})
	d.end(r, TypeConfirm, Record{})
	return other.auditDraft()
}

// noTombstone answers dropped and writes nothing: the decision comes later.
func noTombstone(k *desk) error {
	home, other := homed(k.t)
	part := other.part("o")
	other.open().Settle(part, false)
	other.commit()
	home.decideOrder(protocol.OpSell, "k", "o", part)
	return auditBoth(home, other, false)
}

func decidedAfterAbort(k *desk) error {
	home, _ := homed(k.t)
	home.open().Resolve("o")
	home.commit()
	delete(home.state.now.orders, keyID("o"))
	home.open()
	home.command(orderOf(protocol.OpSell, "k", "o", lineOf("A", 4), lineOf("B", 3)))
	return home.auditDraft()
}

func decisionForgotten(k *desk) error {
	home, other := homed(k.t)
	home.decideOrder(protocol.OpSell, "k", "o", other.part("o"))
	home.state.now.orders = make(map[keyHash]OrderState)
	home.open().Resolve("o")
	return home.auditDraft()
}

func droppedUnasked(k *desk) error {
	home, other := homed(k.t)
	part := other.part("o")
	home.decideOrder(protocol.OpReserve, "k", "o", part)
	other.open().Settle(part, false)
	other.commit()
	return auditBoth(home, other, false)
}

func droppedThoughSold(k *desk) error {
	home, other := homed(k.t)
	part := other.part("o")
	home.decideOrder(protocol.OpSell, "k", "o", part)
	other.open().Settle(part, false)
	other.commit()
	return auditBoth(home, other, true)
}

func partLeftOpen(k *desk) error {
	home, other := homed(k.t)
	home.decideOrder(protocol.OpSell, "k", "o", other.part("o"))
	must(k.t, auditBoth(home, other, false))
	return auditBoth(home, other, true)
}

func lineLost(k *desk) error {
	home, other := homed(k.t)
	other.part("o")
	home.decideOrder(protocol.OpSell, "k", "o") // names no part
	return auditBoth(home, other, false)
}

func partLoadedLoose(k *desk) error {
	_, other := homed(k.t)
	id := other.part("o")
	s, err := Load(bytes.NewReader(snapshotOf(k.t, other.state)))
	must(k.t, err)
	must(k.t, checkParity(other.state, s))
	s.live[id].tie = nil
	return checkReplay(other.state, s, other.log, apply)
}

func tombstoneLost(k *desk) error {
	k.open().Resolve("o")
	k.commit()
	return checkReplay(k.state, NewState("eu", 0), k.log, func(s *State, r *Round, seq uint64) error {
		for i := range r.Records {
			r.Records[i].Order = nil
		}
		return apply(s, r, seq)
	})
}
