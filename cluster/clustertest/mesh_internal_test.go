package clustertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// parts are the movements of good, told by two regions: us received the stock and made
// the reservation, eu sold the rest.
func parts() map[string][]protocol.Movement {
	all := moves()
	return map[string][]protocol.Movement{
		"us": summed(slices.Concat(all[:2], []protocol.Movement{{Type: "grant"}}, all[3:])),
		"eu": summed(slices.Concat([]protocol.Movement{{Type: "accept"}}, all[2:3])),
	}
}

func TestTheBookOfAMesh(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(p map[string][]protocol.Movement)
		want  string // "" for nothing wrong
	}{
		"as it should be": {func(map[string][]protocol.Movement) {}, ""},
		"lost":            {func(p map[string][]protocol.Movement) { p["eu"] = nil }, "k2 was acknowledged and is lost"},
		"in both regions": {func(p map[string][]protocol.Movement) {
			p["us"] = summed(append(p["us"], p["eu"][1]))
		}, "twice, or nobody sent it"},
		"in the wrong one": {func(p map[string][]protocol.Movement) {
			p["us"], p["eu"] = summed(append(p["us"], p["eu"][1])), nil
		}, "its home is eu"},
		"units of a grant": {func(p map[string][]protocol.Movement) {
			p["us"][2].OnHandDelta = -1
			p["us"] = summed(p["us"])
		}, "grant at 2 did -1 on hand"},
		"held below zero": {func(p map[string][]protocol.Movement) {
			p["eu"] = summed(append(p["eu"], protocol.Movement{Type: "expire", Reservation: "eu.1", ReservedDelta: -2}))
		}, "-2 are held"},
	} {
		t.Run(name, func(t *testing.T) {
			told := &silent{}
			b := newBook(&Report{t: told, Entries: good().entries})
			b.homes = map[string]string{"k0": "us", "k1": "us", "k2": "eu", "k4": "us"}
			p := parts()
			c.spoil(p)
			var total effect
			for _, region := range []string{"eu", "us"} {
				total = total.plus(b.walkRegion(region, "A", p[region]))
			}
			b.sums["A"] = total
			b.missing()
			said := strings.Join(told.said, "\n")
			if c.want == "" && (said != "" || total != effect{1, 0}) || !strings.Contains(said, c.want) {
				t.Errorf("it says %q of %v, want %q", said, total, c.want)
			}
		})
	}
}

func TestFirstDifference(t *testing.T) {
	it := protocol.Item{SKU: "A", OnHand: 3, Version: "eu:1"}
	later, more := it, it
	later.UpdatedAt++
	more.Available++
	for name, c := range map[string]struct {
		a, b []protocol.Item
		same bool
	}{
		"same":       {[]protocol.Item{it}, []protocol.Item{it}, true},
		"other time": {[]protocol.Item{it}, []protocol.Item{later}, true},
		"other":      {[]protocol.Item{it}, []protocol.Item{more}, false},
		"fewer":      {[]protocol.Item{it}, nil, false},
		"none":       {nil, nil, true},
	} {
		if diff := firstDifference(c.a, c.b); (diff == "") != c.same {
			t.Errorf("%s: %q", name, diff)
		}
	}
}

func TestStockElsewhere(t *testing.T) {
	with := func(requested, here, elsewhere int64) error {
		return &protocol.Error{Code: protocol.CodeInsufficientStock, Details: &protocol.Details{
			Lines: []protocol.Shortage{{SKU: "A", Requested: requested, Available: here, Elsewhere: elsewhere}},
		}}
	}
	for _, c := range []struct {
		err  error
		want bool
	}{{with(3, 1, 2), true}, {with(3, 1, 1), false}, {ended, false}, {nil, false}} {
		if got := stockElsewhere(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestLocalTimes(t *testing.T) {
	r := &Report{shop: &Shop{ample: []string{"B"}}}
	for i := range 200 {
		cmd := protocol.Command{Op: protocol.OpSell, Lines: []protocol.Line{{SKU: "B", Quantity: 1}}}
		call := time.Duration(i) * time.Second
		r.Entries = append(r.Entries, &Entry{Command: cmd, Call: call, Return: call + time.Duration(i%100+1)})
		cmd.Lines = lineOf(1) // an item that may need other regions
		r.Entries = append(r.Entries, &Entry{Command: cmd, Call: call, Return: call + time.Hour, Reply: client.Reply{}})
	}
	took, n := r.Local(0.99, 0, 100*time.Second)
	if took != 99 || n != 100 {
		t.Errorf("p99 of %d is %v", n, took)
	}
	if _, n := r.Local(0.5, time.Hour, 2*time.Hour); n != 0 {
		t.Errorf("%d sales after the end", n)
	}
}
