package ledger

import "github.com/stockmesh/stockmesh/protocol"

// Outcome answers an outcome command: what is known of a key, pending records
// included, which the caller must not tell before the round is committed.
func (d *Draft) Outcome(key string) protocol.Result {
	_, outcome, ok := d.state.remembered(keyID(key))
	if i, pending := d.keys[keyID(key)]; pending {
		outcome, ok = d.round.Records[i].Outcome, true
	}
	if !ok {
		return protocol.Result{Kind: protocol.KindOutcome}
	}
	res := outcomeOf(outcome)
	return protocol.Result{Kind: protocol.KindOutcome, Known: true, Outcome: &res}
}

// Size returns about how many bytes the round takes in the log. It is meant to be
// asked after each command.
func (d *Draft) Size() int {
	const eventBytes, lineBytes = 64, 12
	for ; d.measured < len(d.round.Records); d.measured++ {
		rec := &d.round.Records[d.measured]
		d.bytes += 32 + len(rec.Key) + len(rec.Reason) + len(rec.Reference) + len(rec.Subject) + len(rec.Address) +
			len(rec.Reservation) + len(rec.User) + len(rec.Outcome) +
			len(rec.Events)*eventBytes + len(rec.Lines)*lineBytes + orderBytes(rec.Order)
	}
	for ; d.named < len(d.round.Items); d.named++ {
		d.bytes += 4 + len(d.round.Items[d.named].SKU) + len(d.round.Items[d.named].Location)
	}
	return d.bytes
}

func orderBytes(o *protocol.Order) int {
	if o == nil {
		return 0
	}
	n := 16 + len(o.ID)
	for i := range o.Lines {
		n += 12 + len(o.Lines[i].SKU) + len(o.Lines[i].Location)
	}
	for _, id := range o.Parts {
		n += 2 + len(id)
	}
	return n
}
