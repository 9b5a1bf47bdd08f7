// Package fault draws up what goes wrong in a cluster, and when: a plan that a seed
// tells completely. Whoever carries it out starts and ends processes, cuts links and
// fills disks; this package only knows numbers and times.
//
// A plan takes a cluster to its limit and not beyond: at no moment does it hit more
// than a minority of a region's nodes, except where a whole region goes down, and never
// two of those at once. Faults of links and faults of nodes meet as they come.
package fault

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Times of a plan.
const (
	grain     = time.Millisecond
	lengthMin = 100 * time.Millisecond
	pauseMean = time.Second     // from one fault to the next
	settleFor = 2 * time.Second // a node or link that was hit is left alone for a while
	partsMin  = 8               // of a short plan, one fault takes at most one
	placesMax = 8               // that are tried before a fault is left out
	byMax     = 60              // minutes that a clock may be wrong
)

// Plan draws up faults of the given kinds over so long a time. Those that have no place
// in the cluster are left out. In a plan of some minutes each kind comes again and
// again; one that is too short for anything is empty. The events are in order of time.
func Plan(seed uint64, duration time.Duration, c Cluster, kinds []Kind) []Event {
	if c.Regions < 1 || c.Each < 1 {
		return nil
	}
	p := planner{rand: rand.New(rand.NewPCG(seed, 0)), cluster: c, duration: duration}
	ofNodes, ofLinks := p.apart(kinds)
	p.fill(ofNodes)
	p.fill(ofLinks) // so that neither waits for the other to be over
	slices.SortStableFunc(p.events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return p.events
}

// apart divides the kinds that have a place.
func (p *planner) apart(kinds []Kind) (ofNodes, ofLinks []Kind) {
	for _, k := range kinds {
		switch {
		case !k.Fits(p.cluster):
		case Event{Kind: k}.AtLinks():
			ofLinks = append(ofLinks, k)
		default:
			ofNodes = append(ofNodes, k)
		}
	}
	return ofNodes, ofLinks
}

// fill draws faults of these kinds through all of the time.
func (p *planner) fill(kinds []Kind) {
	if len(kinds) == 0 {
		return
	}
	p.near = nil
	var bag []Kind
	for at := p.pause(); at < p.duration; at += p.pause() {
		if len(bag) == 0 {
			bag = p.shuffled(kinds)
		}
		// What finds no place now is the first to be tried next.
		if e, ok := p.place(bag[0], at); ok {
			p.events, p.near = append(p.events, e), append(p.near, e)
			bag = bag[1:]
		}
	}
}

type planner struct {
	rand     *rand.Rand
	cluster  Cluster
	duration time.Duration
	events   []Event
	near     []Event // those of events that may meet what comes next
}

// shuffled is a bag of all kinds: drawing from it, none is left out for long.
func (p *planner) shuffled(kinds []Kind) []Kind {
	bag := slices.Clone(kinds)
	p.rand.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
	return bag
}

// pause is shorter in a short plan.
func (p *planner) pause() time.Duration {
	mean := min(pauseMean, p.duration/partsMin)
	return max(time.Duration(p.rand.ExpFloat64()*float64(mean)), grain).Round(grain)
}

// place tries to find a victim for a fault that begins at this time.
func (p *planner) place(k Kind, at time.Duration) (Event, bool) {
	p.near = slices.DeleteFunc(p.near, func(e Event) bool { return e.End()+settleFor <= at })
	for range placesMax {
		e := p.draw(k, at)
		if e.For >= lengthMin && e.End() <= p.duration && !slices.ContainsFunc(p.near, func(o Event) bool { return o.bars(e) }) && p.bearable(e) {
			return e, true
		}
	}
	return Event{}, false
}

func (p *planner) draw(k Kind, at time.Duration) Event {
	low, high := k.lengths()
	high = min(high, p.duration/partsMin)
	low = min(low, high)
	e := Event{Kind: k, At: at, For: (low + time.Duration(p.rand.Float64()*float64(high-low))).Round(grain)}
	e.Region = p.rand.IntN(p.cluster.Regions)
	switch k.place() {
	case atNode:
		e.Node = p.rand.IntN(p.cluster.Each)
	case atLink:
		e.Peer = (e.Region + 1 + p.rand.IntN(p.cluster.Regions-1)) % p.cluster.Regions
	}
	if k == Clock {
		e.By = time.Duration(1+p.rand.IntN(byMax)) * time.Minute
		if p.rand.IntN(2) == 0 {
			e.By = -e.By
		}
	}
	return e
}

// bars reports whether a fault leaves no room for another.
func (e Event) bars(o Event) bool {
	if !e.meets(o, settleFor) {
		return false
	}
	switch {
	case e.AtLinks() != o.AtLinks():
		return false
	case e.AtLinks():
		return e.shares(o)
	case e.Region != o.Region:
		return false
	case e.Kind == Region || o.Kind == Region:
		return true
	}
	return e.Node == o.Node
}

// shares reports whether two faults of links hit a common one.
func (e Event) shares(o Event) bool {
	switch {
	case e.Kind == Cut && o.Kind == Cut:
		return true // one at a time: of a pair, only that between them is common, but both regions are alone
	case e.Kind == Cut:
		return e.Region == o.Region || e.Region == o.Peer
	case o.Kind == Cut:
		return o.shares(e)
	}
	return e.Region == o.Region && e.Peer == o.Peer || e.Region == o.Peer && e.Peer == o.Region
}

// meets reports whether two faults are there at the same time, or less than so long one
// after the other.
func (e Event) meets(o Event, apart time.Duration) bool {
	return e.At < o.End()+apart && o.At < e.End()+apart
}

// bearable reports whether a region's minority suffices for one more fault, and whether
// it leaves but one region without nodes.
func (p *planner) bearable(e Event) bool {
	if e.AtLinks() {
		return true
	}
	here, dark := 1, 0
	for _, o := range p.near {
		if o.AtLinks() || !o.meets(e, settleFor) {
			continue
		}
		if o.Region == e.Region {
			here++
		}
		if o.darkens(p.cluster) && o.Region != e.Region {
			dark++
		}
	}
	return here <= p.cluster.minority() && !(e.darkens(p.cluster) && dark > 0)
}

// darkens reports whether a region is down as a whole.
func (e Event) darkens(c Cluster) bool { return e.Kind == Region || c.Each == 1 && e.AtNode() }

// Check says what of a plan has no place in a cluster.
func (c Cluster) Check(events []Event) error {
	for _, e := range events {
		last := max(e.Region, e.Peer)
		if last >= c.Regions || e.Node >= c.Each || e.Kind.place() == atLink && e.Peer == e.Region || !e.Kind.Fits(c) {
			return fmt.Errorf("%q: there are %d regions of %d nodes, both counted from 0", e, c.Regions, c.Each)
		}
	}
	return nil
}

// Write writes a plan, an event to a line. Each line of about stands before it as a
// remark.
func Write(w io.Writer, about string, events []Event) error {
	b := bufio.NewWriter(w)
	for line := range strings.Lines(about) {
		fmt.Fprintf(b, "# %s\n", strings.TrimSuffix(line, "\n"))
	}
	for _, e := range events {
		fmt.Fprintln(b, e)
	}
	return b.Flush() // tells of what was wrong before, too
}

// Read reads a plan that Write has written, or somebody by hand: empty lines and what
// follows a '#' don't count, and events may come in any order.
func Read(r io.Reader) ([]Event, error) {
	var events []Event
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		e, err := ParseEvent(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return events, lines.Err()
}
