package edge_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

func get(t *testing.T, p *peer, sku string) []protocol.Item {
	t.Helper()
	var ok struct{ Items []protocol.Item }
	if err := json.Unmarshal(p.ok(`{"op":"get","skus":["`+sku+`"]}`).OK, &ok); err != nil {
		t.Fatal(err)
	}
	return ok.Items
}

func TestLastUnit(t *testing.T) {
	const connections = 200
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	f := startReal(t)
	peers := make([]*peer, connections)
	for i := range peers {
		peers[i] = f.dial()
	}
	clerk := f.dial()
	for round := range rounds {
		clerk.ok(fmt.Sprintf(`{"op":"count","key":"c%d","sku":"last","on_hand":1}`, round))
		for i, p := range peers {
			p.sendf(`{"op":"sell","id":1,"key":"r%d-%d","lines":[{"sku":"last","quantity":1}]}`, round, i)
		}
		sold := 0
		for _, p := range peers {
			switch m := p.reply(); {
			case m.Error == nil:
				sold++
			case m.Error.Code != protocol.CodeInsufficientStock || m.Error.Details.Lines[0].Available != 0:
				t.Fatal(m.raw)
			}
		}
		if it := get(t, clerk, "last")[0]; sold != 1 || it.OnHand != 0 {
			t.Fatalf("round %d: sold %d times, %d left", round, sold, it.OnHand)
		}
	}
}

func TestSameKeyOnTwoConnectionsAtOnce(t *testing.T) {
	f := startReal(t)
	a, b := f.dial(), f.dial()
	for i := range 50 {
		command := fmt.Sprintf(`{"op":"adjust","id":1,"key":"k%d","sku":"A","delta":1}`, i)
		a.send(command)
		b.send(command)
		x, y := a.reply(), b.reply()
		if x.Error != nil || y.Error != nil || x.Replayed == y.Replayed {
			t.Fatalf("got %s and %s", x.raw, y.raw)
		}
		if d := cmp.Diff(string(x.OK), string(y.OK)); d != "" {
			t.Fatal(d)
		}
		if it := get(t, a, "A")[0]; it.OnHand != int64(i+1) {
			t.Fatalf("after %d: %+v", i+1, it)
		}
	}
}

// The commit is pushed before it is answered, so the one who changes an item and
// the one who watches it see the same.
func TestPushesOfARealLedger(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := startReal(t)
		watcher, clerk := f.dialAs(form), f.dialAs(form)
		watcher.subscribe(`"skus":["A"]`)
		clerk.subscribe(`"all":true`)
		for i := range 20 {
			m := clerk.ok(fmt.Sprintf(`{"op":"count","key":"k%d","sku":"A","on_hand":%d}`, i, i))
			want := []string{fmt.Sprintf("A@main=%d", i)}
			if d := cmp.Diff(want, items(clerk.pushes)); d != "" {
				t.Fatalf("before the reply %s: %s", m.raw, d)
			}
			clerk.pushes = nil
			if d := cmp.Diff(want, items([]message{watcher.next()})); d != "" {
				t.Fatal(d)
			}
		}
	})
}
