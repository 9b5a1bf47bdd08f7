package relay

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// within sends a scope in a batch.
func within(s protocol.Scope) (protocol.Scope, error) {
	b, err := DecodeBatch(appendBatch(nil, "n", 1, 1, []*protocol.Call{{Command: protocol.Command{Op: protocol.OpConfirm, Within: s}}}))
	if err != nil {
		return nil, err
	}
	return b.Calls[0].Command.Within, nil
}

// Nil is no limit and empty is nothing: one must never become the other.
func TestScopesKeepWhatIsNil(t *testing.T) {
	lists := [][]string{nil, {}, {"a"}, {"a", "b*"}}
	all := []protocol.Scope{nil, {}}
	for _, skus := range lists {
		for _, locations := range lists {
			for _, users := range lists {
				all = append(all, protocol.Scope{{SKUs: skus, Locations: locations, Users: users}, {}})
			}
		}
	}
	for _, s := range all {
		got, err := within(s)
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		if diff := cmp.Diff(s, got); diff != "" { // which tells nil from empty
			t.Errorf("%#v: %s", s, diff)
		}
	}
}

func TestScopesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct {
		scope protocol.Scope
		fits  bool
	}{
		"nil":            {nil, true},
		"as a token has": {make(protocol.Scope, 100), true},
		"long names":     {protocol.Scope{{SKUs: []string{strings.Repeat(long, 17)}}}, false},
		"many names":     {protocol.Scope{{Users: make([]string, ScopeBytesMax)}}, false},
		"many grants":    {make(protocol.Scope, ScopeBytesMax), false},
	} {
		_, err := within(tt.scope)
		if fits := ScopeFits(tt.scope); fits != tt.fits || fits && err != nil || !fits && err == nil {
			t.Errorf("%s: fits %v, read with error %v", name, fits, err)
		}
	}
}

// What fits can be read.
func TestScopesThatFitAreRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scopes.Draw(t, "scope")
		for range rapid.IntRange(0, 12).Draw(t, "doubled") {
			s = append(s, s...)
		}
		if _, err := within(s); ScopeFits(s) && err != nil {
			t.Fatal(err)
		}
	})
}
