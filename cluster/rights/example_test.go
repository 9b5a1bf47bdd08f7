package rights

import (
	"testing"
	"time"
)

// The example of DESIGN.md.
func TestExampleOfTheDesign(t *testing.T) {
	const now = int64(time.Hour)
	eu, us := NewBook("eu", Options{}), NewBook("us", Options{})
	rush(eu, 1, now)
	eu.ratesAre(t, 1, now)
	gives := func(step string, us Ask, free, want int64) {
		t.Helper()
		us.Key = tea
		if got := eu.Give("us", us, Own{Free: free}, now); got != want {
			t.Errorf("step %s: eu gives %d, want %d", step, got, want)
		}
	}

	us.Demand(tea, 1, now)
	first := us.Want(tea, Own{Missing: 1}, []Peer{up("eu", 100)}, now)
	check(t, "step 1", first, "eu 1+4")
	gives("1", first[0].Ask, 100, 1)
	us.Answered(tea, "eu", 1, 99, now)
	us.Demand(tea, 1, now)
	second := us.Want(tea, Own{Missing: 1}, []Peer{up("eu", 99)}, now)
	check(t, "step 2", second, "eu 1+8")
	gives("2", second[0].Ask, 99, 7)
	us.Answered(tea, "eu", 7, 92, now)

	us.items[tea].demand.slow, us.items[tea].demand.fast = 3*30, 3
	ahead := us.Want(tea, Own{Free: 5}, []Peer{up("eu", 30)}, now+int64(time.Second))
	if len(ahead) != 1 || ahead[0].Ask.Need != 0 || ahead[0].Ask.Extra < 80 || ahead[0].Ask.Extra > 90 {
		t.Errorf("step 3: us asks %+v", ahead)
	}
	gives("3", Ask{Extra: 85, Free: 5, Demand: 3}, 30, 21)
	gives("4", Ask{Extra: 90, Demand: 3}, 3, 3)
	gives("5", Ask{Need: 1, Lacks: 1, Extra: 90, Demand: 3}, 0, 0)
	if g := eu.Offer(tea, Own{Free: 1}, now+int64(time.Second)); len(g) != 1 || g[0] != (Gift{Peer: "us", Units: 1}) {
		t.Errorf("step 6: eu offers %+v", g)
	}
}
