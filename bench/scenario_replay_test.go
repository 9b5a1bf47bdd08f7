package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/replay"
)

// newTestSales is a round's sales on nodes that are none.
func newTestSales(t *testing.T, endpoints []string, each int, args ...string) *sales {
	t.Helper()
	o, err := parseOptions(append([]string{scenarioReplay, "--file", "testdata/sales.csv"}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newRound(o, 1, &target{endpoints: endpoints, each: each}, nil).newSales()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPlacesOfAReplay(t *testing.T) {
	s := newTestSales(t, []string{"a1", "a2", "a3", "b1", "b2", "b3"}, 3)
	want := "[[a1 a2 a3] [a2 a3 a1] [a3 a1 a2] [b1 b2 b3] [b2 b3 b1] [b3 b1 b2]]"
	if got := fmt.Sprint(s.places()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if c := s.config(t.Context()); c.Watchers != 6 || c.Clients != 64 || c.Rate != 0 || c.Token != nil {
		t.Errorf("%+v", c)
	}
}

func TestTokenOfAReplay(t *testing.T) {
	for _, c := range []struct{ endpoints, token, fault string }{
		{"ws://a/v1/ws ws://b/v1/ws", "", ""},
		{"ws://:x@a/v1/ws ws://:x@b/v1/ws", "x", ""},
		{"ws://:x@a/v1/ws ws://b/v1/ws", "", "the same token"},
	} {
		token, err := onlyToken(strings.Fields(c.endpoints))
		if token != c.token || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %q, %v", c.endpoints, token, err)
		}
	}
}

func TestSampleOfAReplay(t *testing.T) {
	o := &options{}
	name, err := o.salesFile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); err != nil || filepath.Base(name) != filepath.Base(sampleFile) {
		t.Errorf("%s: %v", name, err)
	}
	t.Chdir(t.TempDir())
	if _, err := o.salesFile(); err == nil || !strings.Contains(err.Error(), "--file") {
		t.Errorf("outside of a checkout: %v", err)
	}
}

// TestReplayThatDoesNotAddUp gives a scenario a result with faults.
func TestReplayThatDoesNotAddUp(t *testing.T) {
	s := newTestSales(t, []string{"a"}, 1)
	result := &replay.Result{Trading: time.Second, Oversold: 2}
	for i := range differencesMax + 3 {
		result.Differences = append(result.Differences, fmt.Sprintf("difference %d", i))
	}
	s.put(result)
	said := strings.Join(s.violations, "\n")
	if len(s.violations) != differencesMax+2 || !strings.Contains(said, "3 more") || !strings.Contains(said, "2 units were sold") {
		t.Errorf("%s", said)
	}
	if s.put(&replay.Result{Trading: time.Second}); len(s.violations) != differencesMax+2 {
		t.Errorf("%q of a replay that adds up", s.violations[differencesMax+2:])
	}
}

func TestKillsAreSpreadOverTheInvoices(t *testing.T) {
	s := newTestSales(t, []string{"a", "b", "c"}, 3, "--spawn", "3", "--kills", "3")
	var at []int
	for number := range s.kills + 1 {
		at = append(at, s.killAt(number))
	}
	if got := fmt.Sprint(at); s.plan.Invoices() != 52 || got != "[13 26 39 52]" {
		t.Errorf("%s of %d", got, s.plan.Invoices())
	}
}

// TestOthersSucceed: what shows that the others go on was begun after the owner was gone,
// in its region, and succeeded.
func TestOthersSucceed(t *testing.T) {
	s := newTestSales(t, []string{"a", "b"}, 1)
	dead := time.Now()
	b := &blow{killed: dead.Add(-time.Millisecond), dead: dead, over: make(chan time.Duration, 1)}
	s.blow.Store(b)
	at := func(region int, after time.Duration, err error) replay.Answer {
		return replay.Answer{Op: protocol.OpReserve, At: region, Sent: dead.Add(after), Err: err}
	}
	for _, a := range []replay.Answer{at(0, -time.Second, nil), at(1, time.Second, nil), at(0, time.Second, errors.New("no"))} {
		if s.answered(a); len(b.over) > 0 {
			t.Fatalf("%+v ends the outage", a)
		}
	}
	s.answered(at(0, time.Microsecond, nil))
	s.answered(at(0, time.Second, nil))
	if len(b.over) != 1 || s.acked != 4 {
		t.Errorf("%d ends, %d acknowledged", len(b.over), s.acked)
	}
}
