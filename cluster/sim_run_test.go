package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// run is one history: its events, and after them the end of all trouble.
func (s simSchedule) run(m simMutant, figures *metrics) *simWorld {
	w := newSimWorld(s.setup, m, figures)
	w.play(s.events)
	return w
}

func (w *simWorld) play(events []simEvent) {
	for _, e := range events {
		if w.apply(e); w.err != nil {
			return
		}
	}
	w.finish()
}

// finish heals everything, lets it become quiet, and checks what must hold then.
func (w *simWorld) finish() {
	w.tell("healing")
	w.heal()
	w.askAgain()
	if w.settle(); w.err != nil {
		return
	}
	w.checkQuiet()
	if w.err == nil {
		w.tell("the last units")
		w.sellOut()
	}
	w.tell("the last reservations")
	w.pass(2 * time.Hour) // the longest hold is over, whatever the clocks did
	if w.settle(); w.err != nil {
		return
	}
	w.checkQuiet()
	for _, r := range w.regions {
		r.checkReplay()
		if _, held, _ := r.current.replica.state.Sizes(); held > 0 {
			w.fail("I8", "%d reservations of %s never end", held, r.name)
		}
	}
}

func (w *simWorld) heal() {
	for from := range w.ways {
		for to := range w.ways[from] {
			w.ways[from][to].cut = false
		}
	}
	for _, r := range w.regions {
		r.crash(r.old)
		r.crash(r.next)
		r.land()
		r.restart(false)
		r.offset = max(r.offset, 0)
		r.current.faults, r.current.trap = nil, simNoTrap
		if r.current.replica.seq() < uint64(len(r.log)) {
			r.endTerm(r.current, nil) // somebody who crashed since wrote after it; now it hears of that
		}
	}
	w.pass(time.Millisecond)
}

// askAgain sends what is open between clients and regions once more; those who gave up
// are asked for by their keys.
func (w *simWorld) askAgain() {
	for _, c := range w.commands {
		if len(c.open) == 0 && (c.verdict == simUnknown || c.verdict == simUntold) {
			w.try(c, w.regions[c.region].current, c.gone)
		}
	}
}

// settle lets rounds, rows and messages go on until nothing is left to be told.
func (w *simWorld) settle() {
	const stepsMax = 1000
	for range stepsMax {
		if quiet := w.step(); quiet || w.err != nil {
			return
		}
	}
	w.fail("unsettled", "still busy %d steps after heal", stepsMax)
}

// step is 20 ms of a mesh without faults.
func (w *simWorld) step() (quiet bool) {
	w.pass(20 * time.Millisecond)
	quiet = true
	for _, r := range w.regions {
		before := len(r.log)
		r.current.turn()
		if w.err != nil {
			return true
		}
		flushed := r.flush(r.current)
		quiet = quiet && len(r.log) == before && !flushed
	}
	for from := range w.regions {
		for to := range w.regions {
			for from != to && w.mirror(from, to, 1, 0) {
				quiet = false
			}
			for w.deliver(from, to, 0, false, false) {
				quiet = false
			}
		}
	}
	return quiet && !slices.ContainsFunc(w.commands, func(c *simCommand) bool { return len(c.open) > 0 })
}

// sellOut sells all units of an item that are free anywhere, in one region that may get
// them all: with nothing in the way they gather there.
func (w *simWorld) sellOut() {
	w.pass(20 * time.Second) // what regions told each other of empty stocks is old by now
	w.settle()
	for _, key := range simKeys {
		buyer := -1
		var free int64
		for i, r := range w.regions {
			row := r.audit.row(key)
			free += max(0, freeOf(&row))
			if freeOf(&row) >= 0 && (buyer < 0 || i == len(w.commands)%len(w.regions)) {
				buyer = i
			}
		}
		if free == 0 || buyer < 0 || w.err != nil {
			continue
		}
		c := w.ask(buyer, 0, protocol.Command{Op: protocol.OpSell, Lines: []protocol.Line{{SKU: key.SKU, Location: key.Location, Quantity: free}}}, w.regions[buyer].current)
		w.settle()
		if c.verdict != simDone {
			w.fail("refused", "%d units of %v are free and nothing is in the way, but %v", free, key, c)
		}
	}
}

// tellStory runs a history again and tells what happened.
func (s simSchedule) tellStory(m simMutant, figures *metrics) string {
	w := newSimWorld(s.setup, m, figures)
	w.telling = true
	w.play(s.events)
	return strings.Join(w.story, "\n")
}

// shrink leaves out events for as long as the same invariant breaks.
func (s simSchedule) shrink(m simMutant, figures *metrics) simSchedule {
	name := simNameOf(s.run(m, figures).err)
	for part := max(1, len(s.events)/2); ; part = max(1, part/2) {
		smaller := false
		for at := 0; at < len(s.events); {
			t := s
			t.events = slices.Delete(slices.Clone(s.events), at, min(len(s.events), at+part))
			if simNameOf(t.run(m, figures).err) == name {
				s, smaller = t, true
			} else {
				at += part
			}
		}
		if part == 1 && !smaller {
			return s
		}
	}
}

func simNameOf(err error) string {
	if v, ok := err.(*simViolation); ok {
		return v.name
	}
	return ""
}

// report is what somebody needs who must understand a broken invariant.
func (s simSchedule) report(err error, m simMutant, figures *metrics) string {
	small := s.shrink(m, figures)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %v\n%d of %d events break it (-sim.seed=%d -sim.schedules=1 runs all), %+v:\n", s.seed, err, len(small.events), len(s.events), s.seed, s.setup)
	for _, e := range small.events {
		fmt.Fprintln(&b, " ", e)
	}
	fmt.Fprintf(&b, "their story:\n%s", small.tellStory(m, figures))
	return b.String()
}
