package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestRegionsOfAMesh(t *testing.T) {
	serving := func(names ...string) *protocol.Mesh {
		m := &protocol.Mesh{Region: "eu"}
		for _, name := range names {
			m.Regions = append(m.Regions, protocol.MeshRegion{Name: name, State: regionServing})
		}
		return m
	}
	cutOff := serving("eu", "us")
	cutOff.Regions[1].State = "cut_off"
	for want, m := range map[string]*protocol.Mesh{
		"<nil>":                        serving("us", "eu", "asia"),
		"it does not know region us":   serving("eu"),
		"region us is cut_off":         cutOff,
		`it is of region "", not "eu"`: {},
	} {
		if got := fmt.Sprint(checkRegions(m, "eu", []string{"eu", "us"})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	tg := &target{each: 3, nodes: make([]*node, 6)}
	if names := tg.names(); tg.region(2) != 0 || tg.region(3) != 1 || strings.Join(names, " ") != "eu us" {
		t.Errorf("%v", names)
	}
}

// TestLackOfRights feeds both kinds of load with refusals.
func TestLackOfRights(t *testing.T) {
	const lacking = `"error":{"code":"insufficient_stock","details":{"lines":[{"sku":"x","requested":1,"available":0,"elsewhere":%d}]}}`
	l := newLoad(&generator{})
	c := &client{load: l, slots: make([]slot, 2), next: numberMin, free: []int{0, 1}, template: newTemplate([4]byte{}, `{"id":#}`)}
	l.clients = []*client{c}
	to := &conn{}
	c.send(to, 0)
	c.send(to, 0)
	c.received(to, fmt.Appendf(nil, `{"id":1000000001,`+lacking+`}`, 3))
	c.received(to, fmt.Appendf(nil, `{"id":1000000002,`+lacking+`}`, 0))
	if l.falselyRefused != 1 || l.refused != 1 || len(l.faults) != 1 || l.waiting() != 0 {
		t.Errorf("%d falsely refused, %d refused, %d wait, faults %q", l.falselyRefused, l.refused, l.waiting(), l.faults)
	}

	cr := newCrowd(&generator{}, []string{"a"})
	m := newMember(cr, 0, 2, &account{}, -1, `{"id":#}`)
	cr.members = append(cr.members, m)
	var heard []bool
	cr.onRefusal = func(_ *member, lacks bool) { heard = append(heard, lacks) }
	on := &conn{receiver: m}
	m.land(0, on)
	m.offer(0)
	m.offer(0)
	m.received(on, fmt.Appendf(nil, `{"id":%d,`+lacking+`}`, numberMin+2+1, 3))
	m.received(on, fmt.Appendf(nil, `{"id":%d,`+lacking+`}`, numberMin+4, 0))
	if cr.refused != 2 || cr.falselyRefused != 1 || fmt.Sprint(heard) != "[true false]" || len(cr.faults) > 0 {
		t.Errorf("%d refused, %d falsely, heard %v, faults %q", cr.refused, cr.falselyRefused, heard, cr.faults)
	}
}

func TestRowsOfTwoNodesDiffer(t *testing.T) {
	item := protocol.Item{SKU: "a", OnHand: 3, Available: 2, Reserved: 1, Version: "eu:3,us:1"}
	other := item
	other.Version = "eu:3,us:2"
	for _, c := range []struct {
		a, b []protocol.Item
		want string
	}{
		{nil, nil, ""},
		{[]protocol.Item{item}, []protocol.Item{item}, ""},
		{[]protocol.Item{item}, nil, "1 items and 0"},
		{[]protocol.Item{item}, []protocol.Item{other}, "at eu:3,us:1; a has 3, 1, 2 at eu:3,us:2"},
	} {
		if got := difference(c.a, c.b); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestClientsOfACut looks at what the clients of three regions do.
func TestClientsOfACut(t *testing.T) {
	o, err := parseOptions([]string{"cut"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRound(o, 1, &target{each: 1, endpoints: []string{"a", "b", "c"}, nodes: make([]*node, 3)}, nil)
	ct := r.newCutTrial(&generator{})
	defer ct.crowd.close()
	ct.crowd.accounts = append(ct.crowd.accounts, &account{sku: "scarce", opening: scarceOpening})
	for range plainSKUs {
		ct.crowd.accounts = append(ct.crowd.accounts, &account{sku: "plain"})
	}
	kinds := make([]map[string]int, 3)
	for i := range 18 {
		m := ct.client(i, 4)
		m.at = i % 3
		if kinds[m.at] == nil {
			kinds[m.at] = make(map[string]int)
		}
		kinds[m.at][fmt.Sprintf("%s %+d", m.account.sku, m.delta)]++
		ct.acked(m, 5_000_000)
		ct.refused(m, m.account.sku == "scarce")
	}
	for region, has := range kinds {
		if got := fmt.Sprint(has); got != "map[plain -1:3 scarce +1:1 scarce -1:2]" {
			t.Errorf("region %d: %s", region, got)
		}
	}
	ct.putFronts()
	n := r.numbers
	if n["us_before_refused"] != 6 || n["us_before_false_refusals"] != 3 || n["us_before_p99_ms"] < 4.9 || ct.fronts[1].ages[before].h.TotalCount() != 3 || len(r.violations) != 1 {
		t.Errorf("%v, violations %q", n, r.violations)
	}
}
