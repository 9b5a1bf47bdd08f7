package edge

import (
	"net/netip"
	"testing"
)

func TestRareThingsAreTidiedAway(t *testing.T) {
	c := &conn{}
	c.keep(nil)
	if c.rare != nil {
		t.Error("keeping nothing takes memory")
	}
	for what, change := range map[string]func(on bool){
		"part of a frame": func(on bool) {
			if c.keep(nil); on {
				c.keep([]byte("x"))
			}
		},
		"a fragment": func(on bool) {
			if c.own().frag = nil; on {
				c.own().frag = &fragments{}
			}
		},
		"a reservation": func(on bool) {
			if c.own().made = nil; on {
				c.own().made = map[string]struct{}{"eu.1": {}}
			}
		},
		"TLS": func(on bool) {
			if c.own().tls = nil; on {
				c.own().tls = &secure{}
			}
		},
		"a budget": func(on bool) {
			if c.own().budget = nil; on {
				c.own().budget = &budget{}
			}
		},
	} {
		change(true)
		if c.tidy(); c.rare == nil {
			t.Errorf("%s was tidied away", what)
		}
		change(false)
		if c.tidy(); c.rare != nil {
			t.Errorf("memory is kept after %s", what)
		}
	}
}

// The loop's clock outgrows a moment after 49 days.
func TestMomentsWrapAround(t *testing.T) {
	l := &loop{now: 1<<32 - 5}
	m := l.moment()
	for _, passed := range []int64{0, 4, 5, 6, 60_000} {
		l.now = 1<<32 - 5 + passed
		if got := l.ago(m); got != passed {
			t.Errorf("%d ms ago, want %d", got, passed)
		}
	}
}

func TestAddressOfAConnection(t *testing.T) {
	for _, text := range []string{"127.0.0.1", "::1", "2001:db8::7", "0.0.0.0"} {
		want := netip.MustParseAddr(text)
		c := &conn{address: want.As16(), admitted: true}
		if got := c.ip(); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if c.admitted = false; c.ip().IsValid() {
			t.Errorf("%v counts though it was not admitted", want)
		}
	}
}
