package quota

import (
	"slices"
	"testing"
)

// shop is clients of one subject that come and go at all nodes.
type shop struct {
	*world
	accounts []*Account
}

func newShop(t testing.TB, seed uint64, nodes int, limits Limits) *shop {
	s := &shop{world: newWorld(t, seed, nodes, limits)}
	for _, n := range s.nodes {
		s.accounts = append(s.accounts, n.table.account("ada"))
	}
	s.pass(3)
	return s
}

func (s *shop) pass(seconds float64) {
	for end := s.now + int64(seconds*1e9); s.now < end; {
		s.step()
	}
}

// until lets time pass until done, and returns how long it took.
func (s *shop) until(what string, done func() bool) (seconds float64) {
	s.Helper()
	begun := s.now
	for !done() {
		if s.step(); s.now-begun > 60*secondNS {
			s.Fatalf("not within a minute: %s", what)
		}
	}
	return float64(s.now-begun) / 1e9
}

// open is how many connections there are at nodes that live.
func (s *shop) open() (n int) {
	for i, a := range s.accounts {
		if !s.nodes[i].dead {
			n += int(a.connections.own.Load())
		}
	}
	return n
}

// connects takes n connections, and returns how many it got.
func connects(a *Account, n int) (got int) {
	for range n {
		if a.Connect() {
			got++
		}
	}
	return got
}

func TestConnectionsOfOneNode(t *testing.T) {
	s := newShop(t, 1, 1, Limits{Connections: 2, Subscriptions: 10})
	a := s.accounts[0]
	if connects(a, 3) != 2 {
		t.Error("not two connections")
	}
	if a.Disconnect(); !a.Connect() || a.Connect() {
		t.Error("the one given back can't be had")
	}
	if !a.Subscribe(7) || a.Subscribe(4) || !a.Subscribe(3) || !a.Subscribe(0) || a.Subscribe(1) || a.Subscribe(1<<62) {
		t.Error("not ten selectors")
	}
	if a.Unsubscribe(100); !a.Subscribe(10) || a.Subscribe(1) {
		t.Error("more were given back than there were")
	}
	if a.Unsubscribe(-5); a.Subscribe(1) {
		t.Error("fewer than none were given back")
	}
}

// A client that connects elsewhere while its old connection's end was not heard of yet
// gets in within a second.
func TestLimitOfOneFollowsItsClient(t *testing.T) {
	for seed := range uint64(20) {
		s := newShop(t, seed, 3, Limits{Connections: 1})
		if !s.accounts[0].Connect() {
			t.Fatal("refused")
		}
		for i := range 30 {
			s.pass(0.7 + s.rand.Float64())
			from, to := s.accounts[i%3], s.accounts[(i+1)%3]
			if to.Connect() {
				t.Fatal("two connections")
			}
			from.Disconnect()
			if took := s.until("connect", to.Connect); took > 1 {
				t.Errorf("seed %d: refused for %.2f s", seed, took)
			}
			if s.open() != 1 {
				t.Fatalf("%d connections", s.open())
			}
		}
	}
}

// Nodes that let clients in at the same time close what is too much: first those with
// the greater names, and no more than that.
func TestSurplusIsClosed(t *testing.T) {
	for _, limit := range []int{1, 2, 10, 100} {
		for seed := range uint64(10) {
			s := newShop(t, seed, 5, Limits{Connections: limit})
			for range limit {
				for _, a := range s.accounts {
					a.Connect()
				}
			}
			if s.open() != 5*limit {
				t.Fatalf("%d connections", s.open())
			}
			if took := s.until("closed", func() bool { return s.open() <= limit }); took > 2 {
				t.Errorf("limit %d, seed %d: took %.2f s", limit, seed, took)
			}
			s.pass(5)
			if first := s.accounts[0].connections.own.Load(); s.open() != limit || first != int64(limit) {
				t.Errorf("limit %d: %d are left, %d of the first node", limit, s.open(), first)
			}
			if n := s.nodes[4].table.over(); len(n) != 0 {
				t.Errorf("still over: %v", n)
			}
		}
	}
}

// Whatever comes and goes, wherever: above the limit for 2 s at most.
func TestConnectionsConverge(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		for _, limit := range []int{1, 3, 10} {
			s := newShop(t, uint64(limit), nodes, Limits{Connections: limit})
			above := 0.0
			for range 20_000 {
				s.step()
				a := s.accounts[s.rand.IntN(nodes)]
				switch s.rand.IntN(40) {
				case 0, 1, 2:
					a.Connect()
				case 3, 4:
					a.Disconnect()
				}
				if s.open() <= limit {
					above = 0
				} else if above += float64(stepNS) / 1e9; above > 2 {
					t.Fatalf("%d nodes, limit %d: %d open for 2 s", nodes, limit, s.open())
				}
			}
		}
	}
}

// The same with every fifth message lost: it takes longer, but not for ever.
func TestConnectionsConvergeWithLoss(t *testing.T) {
	s := newShop(t, 1, 5, Limits{Connections: 10})
	s.loss = 0.2
	for range 50 {
		for range 5 {
			for _, a := range s.accounts {
				a.Connect()
			}
		}
		s.until("closed", func() bool { return s.open() <= 10 })
		for _, a := range s.accounts {
			for a.connections.own.Load() > 0 && s.rand.IntN(3) > 0 {
				a.Disconnect()
			}
		}
		s.pass(s.rand.Float64() * 10)
	}
}

// Closing takes its time. What was asked for is not asked for again meanwhile, but it is
// if nothing came of it.
func TestSurplusIsAskedForAgain(t *testing.T) {
	s := newShop(t, 1, 2, Limits{Connections: 5})
	var asked []int
	s.evict = func(n *worldNode, subject string, connections int) {
		if n.name != "eu-2" || subject != "ada" {
			t.Errorf("%s is to close some of %s", n.name, subject)
		}
		asked = append(asked, connections)
	}
	for range 5 {
		s.accounts[0].Connect()
		s.accounts[1].Connect()
	}
	s.until("asked", func() bool { return len(asked) == 1 })
	s.accounts[1].Disconnect()
	s.until("asked again", func() bool { return len(asked) == 2 })
	for range 4 {
		s.accounts[1].Disconnect()
	}
	s.pass(10)
	if !slices.Equal(asked, []int{5, 4}) {
		t.Errorf("asked for %v", asked)
	}
}

// A subject that subscribes to its limit at all nodes at once loses connections too.
func TestSurplusOfSelectorsIsClosed(t *testing.T) {
	s := newShop(t, 1, 3, Limits{Subscriptions: 100})
	s.evict = func(n *worldNode, subject string, connections int) {
		for range connections {
			n.table.accounts[subject].Disconnect()
			n.table.accounts[subject].Unsubscribe(25)
		}
	}
	for _, a := range s.accounts {
		for range 4 {
			if !a.Connect() || !a.Subscribe(25) {
				t.Fatal("refused")
			}
		}
	}
	selectors := func() (n int64) {
		for _, a := range s.accounts {
			n += a.subscriptions.own.Load()
		}
		return n
	}
	if took := s.until("closed", func() bool { return selectors() <= 100 }); took > 2 {
		t.Errorf("took %.2f s", took)
	}
	s.pass(5)
	if selectors() != 100 || s.open() != 4 {
		t.Errorf("%d selectors, %d connections left", selectors(), s.open())
	}
}

func TestConnectionsOfADeadNode(t *testing.T) {
	s := newShop(t, 1, 3, Limits{Connections: 1})
	s.accounts[0].Connect()
	s.pass(1)
	s.nodes[0].dead = true
	if took := s.until("connect", s.accounts[1].Connect); took < 1.5 || took > 3 {
		t.Errorf("let in after %.2f s", took)
	}
}

// A node that ends says so; a newcomer is told at once what is used.
func TestNodesComeAndGo(t *testing.T) {
	s := newShop(t, 1, 3, Limits{Connections: 3})
	for range 3 {
		s.accounts[0].Connect()
	}
	s.pass(20)
	s.nodes[2] = s.start("eu-3")
	late := s.nodes[2].table.account("ada")
	if took := s.until("told", func() bool { return late.connections.others.Load() == 3 }); took > 1.5 {
		t.Errorf("told after %.2f s", took)
	}
	end := s.nodes[0].table.end()
	s.nodes[0].dead = true
	for _, n := range s.nodes[1:] {
		n.table.heard(end)
	}
	if took := s.until("connect", late.Connect); took > 0.6 {
		t.Errorf("let in after %.2f s", took)
	}
}

// Subjects that use little of their limits cost no message, until one node has many.
func TestSmallFiguresAreNotTold(t *testing.T) {
	s := newShop(t, 1, 3, Limits{Connections: 100})
	for range 5 {
		s.accounts[0].Connect()
		s.accounts[1].Connect()
	}
	s.pass(10)
	if n := s.accounts[1].connections.others.Load(); n != 0 {
		t.Fatalf("told of %d", n)
	}
	for range 20 {
		s.accounts[2].Connect()
	}
	s.pass(2)
	for i, want := range []int64{25, 25, 10} {
		if n := s.accounts[i].connections.others.Load(); n != want {
			t.Errorf("%s knows of %d, want %d", s.nodes[i].name, n, want)
		}
	}
	for range 20 {
		s.accounts[2].Disconnect()
	}
	s.pass(20)
	if n := s.accounts[0].connections.others.Load(); n != 0 {
		t.Errorf("still believes in %d", n)
	}
}
