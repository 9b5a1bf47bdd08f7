package main

import "github.com/stockmesh/stockmesh/protocol"

// refusalsTell is how many commands of a kind are refused, and none succeeds, before it can
// be no matter any more of rights on their way or of which came first.
const refusalsTell = 50

// takes reports whether the member sells or reserves. Only then there may be no stock.
func (m *member) takes() bool { return m.delta <= 0 }

// ask notes a command that is about to be sent for the first time.
func (m *member) ask(e *errand) {
	if a := m.account; m.takes() {
		a.asked++
		e.had = a.opening + a.added + a.refused
	}
}

// refused takes a refusal for lack of stock, which is as it should be where there is none.
func (m *member) refused(e *errand, refusal *protocol.Error, message []byte) {
	c, a := m.crowd, m.account
	c.refuse(m, refusal)
	if c.alone && a.wasThere(e) {
		c.wronglyRefused++
		c.fault("%s: node %d refused although there was stock: %.300s", c.phase, e.node+1, message)
	}
	a.refused++
}

// wasThere reports whether a unit must have been free when a node refused it: by then fewer
// were asked for than there had been already when this one was. Those known to be refused
// at that time have taken none. What has come in since doesn't count: maybe too late.
func (a *account) wasThere(e *errand) bool {
	others := a.asked - 1
	return e.had > others
}

// standings is how all accounts stand.
func (c *crowd) standings() (list []account) {
	for _, a := range c.accounts {
		list = append(list, *a)
	}
	return list
}

// checkRefusals looks for stock that came in since the accounts stood so and of which
// everybody was refused, whatever region has the rights to it.
func (t *trial) checkRefusals(phase string, since []account) {
	for i, a := range t.crowd.accounts {
		in := a.opening + a.added - since[i].opening - since[i].added
		refused := a.refused - since[i].refused
		if a.taken == since[i].taken && min(in, refused) >= refusalsTell {
			t.violate("%s: %d commands for %s were refused and not one succeeded, though %d units came in", phase, refused, a.sku, in)
		}
	}
}
