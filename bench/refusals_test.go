package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// TestRefusedThoughThereWasStock asks for units of which there is one at first.
func TestRefusedThoughThereWasStock(t *testing.T) {
	c := newCrowd(&generator{}, []string{"a"})
	c.alone = true
	a := &account{sku: "x", opening: 1}
	sells, adds := newMember(c, 0, 4, a, -1, `{"id":#}`), newMember(c, 1, 4, a, 1, `{"id":#}`)
	on := map[*member]*conn{sells: {receiver: sells}, adds: {receiver: adds}}
	for m, to := range on {
		c.members = append(c.members, m)
		m.land(0, to)
	}
	// offer begins a command, and returns what answers it.
	offer := func(m *member) (answer func(string)) {
		m.offer(0)
		number := uint64(0)
		for _, e := range m.errands {
			number = max(number, e.number)
		}
		return func(rest string) { m.received(on[m], fmt.Appendf(nil, `{"id":%d,%s}`, number, rest)) }
	}
	const ok, refused = `"ok":{}`, `"error":{"code":"insufficient_stock"}`
	wrong := func(step string, want int64) {
		t.Helper()
		if c.wronglyRefused != want || int64(len(c.faults)) != want || c.failed > 0 {
			t.Fatalf("%s: %d refused wrongly, want %d; %d failed, %q", step, c.wronglyRefused, want, c.failed, c.faults)
		}
	}
	first, second := offer(sells), offer(sells)
	second(refused)
	wrong("the first may have taken the unit", 0)
	first(refused)
	wrong("when the first was asked for nobody knew that the second takes none", 0)
	offer(sells)(refused)
	wrong("both were refused before", 1)
	offer(sells)(ok)
	offer(sells)(refused)
	wrong("none is left", 1)
	third, add := offer(sells), offer(adds)
	add(ok)
	third(refused)
	wrong("one came in, maybe too late", 1)
	offer(sells)(refused)
	wrong("one has come in", 2)
	c.alone = false
	offer(sells)(refused)
	wrong("it may lie in another region", 2)
	if want := (account{sku: "x", opening: 1, added: 1, sold: 1, asked: 8, taken: 1, refused: 7}); *a != want {
		t.Errorf("%+v, want %+v", *a, want)
	}
	offer(adds)(refused)
	if c.failed != 1 || c.refused != 7 {
		t.Errorf("%d failed, %d refused: what comes in needs no stock", c.failed, c.refused)
	}
}

func TestNotOneOfAKindSucceeded(t *testing.T) {
	for name, c := range map[string]struct {
		since, now account
		want       bool
	}{
		"all are refused":       {account{}, account{opening: refusalsTell, refused: refusalsTell}, true},
		"since then":            {account{opening: 5, added: 10, taken: 7, refused: 9}, account{opening: 5, added: 10 + refusalsTell, taken: 7, refused: 9 + refusalsTell}, true},
		"one was not":           {account{}, account{opening: refusalsTell, refused: refusalsTell, taken: 1}, false},
		"there was little":      {account{}, account{opening: refusalsTell - 1, refused: refusalsTell}, false},
		"that was there before": {account{opening: refusalsTell}, account{opening: refusalsTell, refused: refusalsTell}, false},
		"a few came too early":  {account{}, account{opening: refusalsTell, refused: refusalsTell - 1}, false},
		"nobody takes any":      {account{}, account{added: 10 * refusalsTell}, false},
	} {
		tr := &trial{round: newRound(&options{}, 1, &target{}, nil), crowd: &crowd{accounts: []*account{&c.now}}}
		tr.checkRefusals("after", []account{c.since})
		if said := strings.Join(tr.violations, ""); strings.Contains(said, "and not one succeeded") != c.want {
			t.Errorf("%s: %q", name, said)
		}
	}
}

// TestNoOrderOfAMesh refuses orders in a mesh, in which any one may be refused.
func TestNoOrderOfAMesh(t *testing.T) {
	for _, c := range []struct {
		opening int64
		refused int
		held    bool
		want    bool
	}{
		{opening, refusalsTell, false, true},
		{opening, refusalsTell - 1, false, false},
		{opening, refusalsTell, true, false},
		{scarceMax, 2 * refusalsTell, false, false},
	} {
		co, b, _ := newTestBuyer(t)
		co.regions["elsewhere"] = true
		for i := range co.shelf.stands {
			co.shelf.stands[i].opening = c.opening
		}
		for range c.refused {
			b.due(0)
			b.received(b.conn, fmt.Appendf(nil, `{"id":%d,"error":{"code":"%s","details":{"lines":[{"sku":"s-0000000000","requested":1,"available":0,"elsewhere":7}]}}}`, b.slots[0].number, protocol.CodeInsufficientStock))
		}
		if c.held {
			b.due(0)
			b.received(b.conn, fmt.Appendf(nil, `{"id":%d,"ok":{"reservation":{"state":"held","id":"eu.1"}}}`, b.slots[0].number))
		}
		r := newRound(&options{regions: 2}, 1, &target{}, nil)
		r.judgeOrders(co)
		if said := strings.Join(r.violations, ""); strings.Contains(said, "not one order came through") != c.want || !c.want && said != "" {
			t.Errorf("%+v: %q", c, said)
		}
	}
}
