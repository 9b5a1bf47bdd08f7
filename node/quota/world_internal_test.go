package quota

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// world is a region of nodes under a clock of its own, with messages that take their
// time, and are lost. One seed gives one course of events.
type world struct {
	testing.TB
	rand   *rand.Rand
	limits Limits
	now    int64
	nodes  []*worldNode
	mail   []letter
	loss   float64 // of messages

	evict func(n *worldNode, subject string, connections int) // nil: they are closed at once
}

type worldNode struct {
	world *world
	name  string
	table *table
	next  int64 // beat
	dead  bool
}

type letter struct {
	at   int64
	to   *worldNode
	data []byte
}

const (
	stepNS   = int64(5e6)
	secondNS = int64(1e9)
)

func newWorld(t testing.TB, seed uint64, nodes int, limits Limits) *world {
	w := &world{TB: t, rand: rand.New(rand.NewPCG(seed, 1)), limits: limits}
	w.limits.Burst = max(w.limits.Burst, 0)
	if w.limits.Burst == 0 {
		w.limits.Burst = limits.Commands
	}
	for i := range nodes {
		w.nodes = append(w.nodes, w.start(fmt.Sprintf("eu-%d", i+1)))
	}
	return w
}

func (w *world) start(name string) *worldNode {
	n := &worldNode{world: w, name: name, next: w.now + w.rand.Int64N(beatNS)}
	begun := w.now
	n.table = newTable(name, uint64(begun), w.limits, func() int64 { return w.now - begun }, newRefusals(prometheus.NewRegistry()))
	return n
}

// step lets a moment pass.
func (w *world) step() {
	w.now += stepNS
	w.mail = slices.DeleteFunc(w.mail, func(l letter) bool {
		if l.at > w.now {
			return false
		}
		if !l.to.dead {
			l.to.table.heard(l.data)
		}
		return true
	})
	for _, n := range w.nodes {
		if !n.dead && w.now >= n.next {
			n.next += beatNS + w.rand.Int64N(beatNS/10) - beatNS/20
			n.beat()
		}
	}
}

func (n *worldNode) beat() {
	w := n.world
	messages, evictions := n.table.beat()
	for _, m := range messages {
		for _, to := range w.nodes {
			if to != n && w.rand.Float64() >= w.loss {
				w.mail = append(w.mail, letter{w.now + w.rand.Int64N(5e7), to, m})
			}
		}
	}
	for _, e := range evictions {
		if w.evict != nil {
			w.evict(n, e.subject, e.connections)
			continue
		}
		for range e.connections {
			n.table.accounts[e.subject].Disconnect()
		}
	}
}

// load is how many commands a second clients send to each node; negative: as fast as
// they can.
type load func(now int64) []float64

// usage is what was let through and what was refused, by node and step.
type usage struct {
	passed  []int // of all nodes, by step
	refused []int
	each    []int // by node
}

// run sends commands of one subject for some seconds. Poisson: at random moments.
func (w *world) run(seconds float64, poisson bool, l load) *usage {
	u := &usage{each: make([]int, len(w.nodes))}
	accounts := make([]*Account, len(w.nodes))
	for i, n := range w.nodes {
		accounts[i] = n.table.account("ada")
		defer accounts[i].Release()
	}
	owed := make([]float64, len(w.nodes))
	for end := w.now + int64(seconds*1e9); w.now < end; {
		w.step()
		passed, refused := 0, 0
		for i, r := range l(w.now) {
			if w.nodes[i].dead {
				continue
			}
			if r < 0 {
				r = 20 * float64(w.limits.Commands)
			}
			mean := r * float64(stepNS) / 1e9
			if poisson {
				mean *= w.rand.ExpFloat64()
			}
			owed[i] += mean
			n := int(owed[i])
			owed[i] -= float64(n)
			for range n {
				ok, _ := accounts[i].Spend(1)
				passed, refused, u.each[i] = passed+ok, refused+1-ok, u.each[i]+ok
			}
		}
		u.passed, u.refused = append(u.passed, passed), append(u.refused, refused)
	}
	return u
}

// peak is the most that was let through in any window of so many seconds.
func peak(steps []int, seconds float64) int {
	window, most, sum := int(seconds*1e9)/int(stepNS), 0, 0
	for i, n := range steps {
		if sum += n; i >= window {
			sum -= steps[i-window]
		}
		most = max(most, sum)
	}
	return most
}

func total(steps []int) (n int) {
	for _, v := range steps {
		n += v
	}
	return n
}
