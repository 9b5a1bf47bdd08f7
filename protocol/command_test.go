package protocol

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestClientsCannotSendTheNodesOwn: neither its ops, with a key or without, nor what
// ties a command to an order.
func TestClientsCannotSendTheNodesOwn(t *testing.T) {
	for _, op := range []Op{OpSettle, OpResolve} {
		if !op.IsWrite() || slices.Contains(Ops(), op) {
			t.Errorf("%s: a write %v, listed %v", op, op.IsWrite(), slices.Contains(Ops(), op))
		}
		for key, want := range map[string]Code{"k": CodeBadRequest, "": CodeMissingKey} {
			sent := Command{Op: op, Key: key, Reservation: "eu.1", Quantity: 1}
			for _, codec := range []Codec{JSON, CBOR} {
				var c Command
				if err := codec.Decode(&c, codec.AppendMessage(nil, &sent)); codeOf(err) != want {
					t.Errorf("%s with key %q: %v, want %s", op, key, err, want)
				}
			}
		}
	}
	sent := Command{Op: OpSell, Key: "k", Lines: []Line{{"A", "main", 1}}, Order: &Order{ID: "o", Part: true}}
	plain := sent
	plain.Order = nil
	for _, codec := range []Codec{JSON, CBOR} {
		var c Command
		if err := codec.Decode(&c, codec.AppendMessage(nil, &sent)); err != nil || !cmp.Equal(c, plain) {
			t.Errorf("read as %+v: %v", c, err)
		}
	}
	var c Command
	for _, name := range []string{"order", "Order"} {
		if err := c.Decode([]byte(`{"op":"ping","` + name + `":{"ID":"o","Part":true}}`)); err != nil || c.Order != nil {
			t.Errorf("%s: %v, %v", name, c.Order, err)
		}
	}
}

// TestAppendBodyOfAnOrder: one client's command is one body, whichever way it is
// split; a part is a command of its own.
func TestAppendBodyOfAnOrder(t *testing.T) {
	all := []Line{{"A", "main", 1}, {"B", "main", 2}}
	whole := Command{Op: OpSell, Key: "k", Lines: all}
	for _, split := range [][]Line{all, all[:1], all[1:]} {
		decision := whole
		decision.Lines, decision.Order = split, &Order{ID: "o", Home: 3, Lines: all, Parts: []string{"eu.1"}}
		if !bytes.Equal(decision.AppendBody(nil), whole.AppendBody(nil)) {
			t.Errorf("%v is another body", split)
		}
	}
	part := whole
	part.Order = &Order{ID: "o", Part: true}
	if part.Lines = all[:1]; bytes.Equal(part.AppendBody(nil), whole.AppendBody(nil)) {
		t.Error("a part has the body of the whole")
	}
}
