package clustertest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// Report is what came of a shop.
type Report struct {
	shop *Shop
	t    testing.TB

	Entries []*Entry
	Marks   []Mark
	Length  time.Duration

	Writes   int // acknowledged
	Refused  int // by stock or by rules
	Failed   int // commands with an answer that a client should not have to see
	Unknown  int // commands whose fate nobody tells
	Behind   int // gets that were answered with something older than asked for
	Replayed int // writes that had been applied before they were answered

	Slowest time.Duration // of all commands, up to their last answer
	Outages []Outage      // of each mark
	Stall   time.Duration // how long the machine itself stood still at the longest
}

// Outage is how long no write was acknowledged, at the longest, between a mark and the
// next.
type Outage struct {
	Mark Mark
	Gap  time.Duration
}

func (r *Report) sum() {
	for _, e := range r.Entries {
		switch {
		case e.Unknown:
			r.Unknown++
		case e.Err != nil:
			r.Refused++
		case e.Command.Op.IsWrite():
			r.Writes++
		}
		if len(e.Failures) > 0 {
			r.Failed++
		}
		if e.Behind {
			r.Behind++
		}
		if e.Reply.Replayed {
			r.Replayed++
		}
		if !e.CutOff { // those were given up on, and asked for at the end
			r.Slowest = max(r.Slowest, e.Return-e.Call)
		}
	}
	times := r.successTimes()
	for i, m := range r.Marks {
		end := r.Length
		if i+1 < len(r.Marks) {
			end = r.Marks[i+1].At
		}
		r.Outages = append(r.Outages, Outage{m, longestGap(times, m.At, end)})
	}
}

// successTimes are when writes were acknowledged, in order.
func (r *Report) successTimes() (times []time.Duration) {
	for _, e := range r.Entries {
		if e.applied() && e.Command.Op.IsWrite() {
			times = append(times, e.Return)
		}
	}
	slices.Sort(times)
	return times
}

// longestGap is the longest time without a success between from and to.
func longestGap(times []time.Duration, from, to time.Duration) (longest time.Duration) {
	last := from
	for _, at := range times {
		if at > from && at < to {
			longest = max(longest, at-last)
			last = at
		}
	}
	return max(longest, to-last)
}

// String is the report in one line.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d writes, %d refused, %d failed, %d unknown, %d replayed, %d behind in %.1f s; slowest command %v, machine %v",
		r.Writes, r.Refused, r.Failed, r.Unknown, r.Replayed, r.Behind, r.Length.Seconds(), r.Slowest.Round(time.Millisecond), r.Stall.Round(time.Millisecond))
	outages := r.Outages
	if len(outages) > shownMax {
		outages = slices.Clone(outages)
		slices.SortFunc(outages, func(a, b Outage) int { return int(b.Gap - a.Gap) })
		outages = outages[:shownMax]
		b.WriteString("; the longest")
	}
	if len(outages) > 0 {
		b.WriteString("; outages:")
	}
	for _, o := range outages {
		fmt.Fprintf(&b, " %s %v", o.Mark.Name, o.Gap.Round(time.Millisecond))
	}
	return b.String()
}

// shownMax is how many of a kind are told of.
const shownMax = 8

// NothingFailed fails the test where a client saw an error that stock and rules don't
// ask for.
func (r *Report) NothingFailed() {
	r.t.Helper()
	r.FailedOnlyAt()
}

// stallMax is how long the machine may stand still before what takes time is no longer
// held against the nodes: they give up a leader after less.
const stallMax = 600 * time.Millisecond

// unfair tells whether the machine stood still for so long that the nodes had to
// notice. What was acknowledged must hold all the same.
func (r *Report) unfair() bool {
	r.t.Helper()
	if r.Stall > stallMax*Slow {
		r.t.Logf("the machine itself stood still for %v: not judged by time", r.Stall)
		return true
	}
	return false
}

// FailedOnlyAt is NothingFailed, apart from what the named nodes answered.
func (r *Report) FailedOnlyAt(excused ...*Node) {
	r.t.Helper()
	if r.unfair() {
		return
	}
	failed := 0
	for _, e := range r.Entries {
		for i, f := range e.Failures {
			if slices.ContainsFunc(excused, func(n *Node) bool { return n.Name == f.Node }) {
				continue
			}
			if failed++; failed <= shownMax {
				r.t.Errorf("client %d at %s, %s %s after %v: %v (answer %d)", e.Client, f.Node, e.Command.Op, e.Command.Key,
					f.At.Round(time.Millisecond), f.Err, i+1)
			}
		}
	}
	if failed > shownMax {
		r.t.Errorf("and %d other answers like that", failed-shownMax)
	}
}

// Gap is the p-th quantile of the outages.
func (r *Report) Gap(p float64) time.Duration {
	if len(r.Outages) == 0 {
		return 0
	}
	var gaps []time.Duration
	for _, o := range r.Outages {
		gaps = append(gaps, o.Gap)
	}
	slices.Sort(gaps)
	return gaps[max(0, int(math.Ceil(p*float64(len(gaps))))-1)]
}

// p99From is how many outages it takes for a 99th percentile to be more than the
// longest of them.
const p99From = 100

// Paused fails the test where no write was acknowledged for longer than limit after a
// mark, or, of many, for longer than p99 after more than one in a hundred.
func (r *Report) Paused(p99, limit time.Duration) {
	r.t.Helper()
	if r.unfair() {
		return
	}
	if gap := r.Gap(0.99); len(r.Outages) >= p99From && gap > p99*Slow {
		r.t.Errorf("p99 of the outages is %v, more than %v", gap, p99*Slow)
	}
	if gap := r.Gap(1); gap > limit*Slow {
		r.t.Errorf("the longest outage is %v, more than %v", gap, limit*Slow)
	}
}
