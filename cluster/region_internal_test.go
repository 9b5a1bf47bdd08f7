package cluster

import (
	"slices"
	"testing"

	"github.com/stockmesh/stockmesh/cluster/gossip"
)

func TestClientsAreSentToThoseWhoServe(t *testing.T) {
	member := func(endpoint, state string) gossip.Member {
		return gossip.Member{Meta: gossip.Meta{Endpoint: endpoint, State: state}}
	}
	for _, c := range []struct {
		others []gossip.Member
		want   []string
	}{
		{nil, []string{}},
		{[]gossip.Member{member("a", "serving"), member("b", "catching up"), member("c", "serving")}, []string{"a", "c"}},
		{[]gossip.Member{member("a", "draining"), member("b", "catching up"), member("", "serving")}, []string{"b"}},
		{[]gossip.Member{member("a", "draining"), member("b", "starting")}, []string{}},
	} {
		if got := endpointsOf(c.others); !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%v: %v, want %v", c.others, got, c.want)
		}
	}
}
