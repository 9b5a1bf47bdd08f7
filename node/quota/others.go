package quota

import "slices"

// figures are what a node uses of a subject's limits.
type figures struct {
	used          uint32  // commands so far, modulo 2^32
	recent        uint32  // of these, since its last beat
	demand        float64 // commands a second lately, refused ones included
	connections   int64
	subscriptions int64
}

// none reports whether there is nothing that others have to count with.
func (f *figures) none() bool { return f.demand == 0 && f.connections == 0 && f.subscriptions == 0 }

// loudPart is which part of a limit is worth a message: while each node uses less than
// a sixteenth, the nodes of a region, never more than that, use less than the whole.
const loudPart = 16

// loud reports whether it matters to the others.
func (f *figures) loud(l *Limits) bool {
	return loud(f.demand, l.Commands) || loud(float64(f.connections), l.Connections) || loud(float64(f.subscriptions), l.Subscriptions)
}

func loud(used float64, limit int) bool { return limit > 0 && used*loudPart >= float64(limit) }

// peer is another node, as long as its process lives.
type peer struct {
	name        string
	incarnation uint64
	sequence    uint64 // of its last message
	at          int64  // when that was heard
	gone        bool
}

const (
	// peerNS is for how long a node that says nothing is believed to use what it used:
	// four beats, so that three lost messages don't matter.
	peerNS = int64(2.2e9)
	// demandNS is the same for how fast its clients send.
	demandNS = int64(1.8e9)
	// figuresNS is for how long figures count that are not repeated.
	figuresNS = 5 * refreshNS / 2
)

// other is what another node uses.
type other struct {
	peer *peer
	at   int64
	figures
}

func (o *other) live(now int64) bool { return !o.peer.gone && now-o.peer.at <= peerNS }

// others are what the other nodes use of one subject's limits, by the nodes' names.
type others []other

// hear takes new figures over, and returns how many commands were spent since the last
// ones. The first ones tell of one beat only: what was before is not known.
func (o *others) hear(p *peer, now int64, f figures) (spent uint32) {
	at, found := slices.BinarySearchFunc(*o, p.name, func(e other, name string) int { return compare(e.peer.name, name) })
	switch {
	case found && (*o)[at].peer == p:
		if spent = f.used - (*o)[at].used; spent >= 1<<31 {
			spent = f.recent // it began to count anew
		}
	case !found:
		*o = slices.Insert(*o, at, other{})
		fallthrough
	default:
		spent = f.recent
	}
	(*o)[at] = other{peer: p, at: now, figures: f}
	return spent
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// forget drops what is too old to count.
func (o *others) forget(now int64) {
	*o = slices.DeleteFunc(*o, func(e other) bool {
		return e.peer.gone || now-e.at > figuresNS
	})
}

// without drops what a node uses.
func (o *others) without(p *peer) {
	*o = slices.DeleteFunc(*o, func(e other) bool { return e.peer == p })
}

// sum adds up connections and subscriptions of all, and of those with a name before
// the given one.
func (o others) sum(now int64, before string) (all, first figures) {
	for i := range o {
		if !o[i].live(now) {
			continue
		}
		all.connections += o[i].connections
		all.subscriptions += o[i].subscriptions
		if o[i].peer.name < before {
			first.connections += o[i].connections
			first.subscriptions += o[i].subscriptions
		}
	}
	return all, first
}

// demands appends how fast the clients of each node send.
func (o others) demands(dst []float64, now int64) []float64 {
	for i := range o {
		if o[i].demand > 0 && o[i].live(now) && now-o[i].at <= demandNS {
			dst = append(dst, o[i].demand)
		}
	}
	return dst
}

func (o others) loud(now int64, l *Limits) bool {
	return slices.ContainsFunc(o, func(e other) bool { return e.live(now) && e.figures.loud(l) })
}
