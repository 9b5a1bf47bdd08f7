package gossip

import (
	"net/netip"
	"testing"
)

func TestLikeliest(t *testing.T) {
	for want, all := range map[string][]string{
		"10.1.2.3":  {"127.0.0.1", "::1", "198.51.100.1", "fd00::1", "10.1.2.3", "192.168.0.1"},
		"fd00::1":   {"127.0.0.1", "198.51.100.1", "fd00::1"},
		"127.0.0.1": {"::1", "127.0.0.1"},
	} {
		var ips []netip.Addr
		for _, a := range all {
			ips = append(ips, netip.MustParseAddr(a))
		}
		if got, err := likeliest(ips); err != nil || got.String() != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
	if _, err := likeliest(nil); err == nil {
		t.Error("found an address in nothing")
	}
}
