package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// desk takes commands one round at a time, for tests that spell out both sides.
type desk struct {
	t     testing.TB
	state *State
	draft *Draft
	now   protocol.Time
	log   [][]byte
	keys  int
	call  protocol.Call // what calls have beside their commands; its command's scope too
}

func newDesk(t testing.TB) *desk {
	s := NewState("eu", 0)
	return &desk{t: t, state: s, draft: NewDraft(s), now: 1000, call: protocol.Call{Subject: "till"}}
}

// open starts a round.
func (k *desk) open() *Draft {
	k.draft.Reset(k.now, uint64(len(k.log)))
	return k.draft
}

// commit ends it.
func (k *desk) commit() protocol.Changes {
	k.t.Helper()
	if k.draft.Empty() {
		return protocol.Changes{}
	}
	k.log = append(k.log, k.draft.Round().AppendTo(nil))
	changes, err := k.state.Apply(k.draft.Round(), k.state.Seq()+1)
	must(k.t, err)
	return changes
}

// decide adds a command, written as JSON, to the open round. Where it has no key
// it is given one of its own.
func (k *desk) decide(body string) *protocol.Call {
	k.t.Helper()
	if !strings.Contains(body, `"key"`) {
		k.keys++
		body = strings.Replace(body, `"op"`, fmt.Sprintf(`"key":"auto %d","op"`, k.keys), 1)
	}
	c := &protocol.Call{Subject: k.call.Subject, Address: k.call.Address}
	if err := c.Command.Decode([]byte(body)); err != nil {
		k.t.Fatalf("%s: %v", body, err)
	}
	c.Command.Within = k.call.Command.Within
	k.draft.Decide(c)
	return c
}

// do is a round of one command, answered as on the wire.
func (k *desk) do(body string) string {
	k.t.Helper()
	k.open()
	c := k.decide(body)
	k.commit()
	return answerOf(c)
}

func answerOf(c *protocol.Call) string {
	if c.Err != nil {
		return string(protocol.AppendError(nil, c.Err))
	}
	b := protocol.AppendOK(nil, &c.Result)
	if c.Replayed {
		b = append(b, " replayed"...)
	}
	return string(b)
}

func (k *desk) row(sku string) Row {
	return rowOf(k.state, protocol.ItemKey{SKU: sku, Location: protocol.DefaultLocation})
}
