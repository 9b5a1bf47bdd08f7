package main

import (
	"strings"
	"testing"
)

func TestNodesThatAreDownAreNoProof(t *testing.T) {
	r := newRound(&options{}, 1, &target{endpoints: []string{"ws://a/v1/ws"}, nodes: []*node{{name: "a"}}}, nil)
	if err := r.invariants(t.Context()); err != nil || !strings.Contains(strings.Join(r.violations, ""), "1 nodes of 1 are down") {
		t.Errorf("%v, %q", err, r.violations)
	}
}

func TestWhatNodesHavePromised(t *testing.T) {
	ours, theirs := &target{nodes: []*node{{}}}, &target{endpoints: []string{"ws://a/v1/ws"}}
	for name, c := range map[string]struct {
		o         options
		t         *target
		own       bool
		prefix    string
		keyWindow string
	}{
		"our own":        {options{}, ours, true, "", "0s"},
		"running nodes":  {options{}, theirs, false, ownPrefix, "0s"},
		"short memories": {options{scenario: scenarioAbuse}, ours, false, "", "20s"},
		"other flags":    {options{flags: []string{"--max-connections", "7"}}, ours, true, "", "0s"},
		"pruned":         {options{flags: []string{"--history=1m"}}, ours, false, "", "0s"},
		"forgetful":      {options{flags: []string{"--key-window", "1s"}}, ours, false, "", "0s"},
	} {
		got, err := newRound(&c.o, 1, c.t, nil).promises()
		if err != nil || got.Own != c.own || strings.Join(got.Prefixes, "") != c.prefix || got.KeyWindow.String() != c.keyWindow {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
