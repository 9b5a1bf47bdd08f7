package main

import (
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

var probed = protocol.ItemKey{SKU: probeSKU, Location: "main"}

func (n *fakeNode) onHand(k protocol.ItemKey) (onHand, reserved int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.item(k).OnHand, n.item(k).Reserved
}

func TestProbe(t *testing.T) {
	n := newFakeNode(t)
	for range 2 { // the second finds the item of the first
		out := mustCtl(t, n, "probe")
		if got := strings.Count(out, "ok  "); got != 7 {
			t.Errorf("%d steps:\n%s", got, out)
		}
	}
	if out := mustCtl(t, n, "probe", "--sku", "another", "--json"); !strings.Contains(out, `"sku":"another"`) || strings.Contains(out, "ok  ") {
		t.Errorf("printed %q", out)
	}
	if onHand, reserved := n.onHand(probed); onHand != 0 || reserved != 0 {
		t.Errorf("%d on hand, %d reserved are left", onHand, reserved)
	}
	if got := len(n.history[probed]); got != 2*5 {
		t.Errorf("%d movements in two runs, want 5 each: in, reserve, release, sell, out", got)
	}
}

// TestProbeFails: a node that does wrong is found out, and nothing is left with it.
func TestProbeFails(t *testing.T) {
	for name, c := range map[string]struct {
		wrong func(n *fakeNode)
		want  string
	}{
		"a retried key is done again": {func(n *fakeNode) {
			n.afterWrite = func(int) bool { clear(n.applied); return false }
		}, "it was done twice"},
		"a hold ends at once": {func(n *fakeNode) {
			n.afterWrite = func(int) bool {
				for _, r := range n.reservations {
					if r.State == protocol.Held {
						n.finish(r, &protocol.Command{Op: "expire"})
					}
				}
				return false
			}
		}, "one is held: reservation eu.r0 is expired, not held"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t)
			c.wrong(n)
			if _, err := ctl(t, n, "probe"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
			if onHand, reserved := n.onHand(probed); onHand != 0 || reserved != 0 {
				t.Errorf("%d on hand, %d reserved are left", onHand, reserved)
			}
		})
	}
}
