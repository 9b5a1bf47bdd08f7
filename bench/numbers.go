package main

import (
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// numbers are what a round found, by metric.
type numbers map[string]float64

// spread is a metric over all rounds.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{median: (s[(n-1)/2] + s[n/2]) / 2, low: s[0], high: s[n-1]}
}

// latencies is a histogram from 1 us to a minute, three digits exact.
type latencies struct {
	h    *hdrhistogram.Histogram
	feed *feed // what is counted is drawn as a timeline too; nil: it isn't
}

func newLatencies() latencies {
	return latencies{h: hdrhistogram.New(1, time.Minute.Microseconds(), 3)}
}

// newLatencies makes one that feeds the timeline of this name, where charts are drawn.
func (g *generator) newLatencies(name string) latencies {
	l := newLatencies()
	l.feed = g.newFeed(name)
	return l
}

// another is an empty one; both are drawn together.
func (l latencies) another() latencies { return latencies{newLatencies().h, l.feed} }

// add counts n events of the same age, given in nanoseconds.
func (l latencies) add(ns, n int64) {
	// Out of range is beyond a minute: no phase waits that long.
	_ = l.h.RecordValues(min(max(ns/1000, 1), time.Minute.Microseconds()), n)
	l.feed.add(ns, n)
}

// quantile is the value that the share q of all is at most: the nearest one there is,
// 0 where there is none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(int(math.Ceil(q*float64(len(s))))-1, 0)]
}

// put writes prefix_p50_ms and prefix_p99_ms, and keeps how all were spread.
func (l latencies) put(to numbers, prefix string) {
	l.feed.keep(prefix, l.h)
	to[prefix+"p50_ms"] = float64(l.h.ValueAtQuantile(50)) / 1000
	to[prefix+"p99_ms"] = float64(l.h.ValueAtQuantile(99)) / 1000
}

// processTimes is the CPU time of all nodes together and of ourselves at one moment.
type processTimes struct {
	at              time.Time
	node, generator time.Duration
	known           bool
}

func (r *round) times() processTimes {
	t := processTimes{at: time.Now()}
	pids := r.target.pids()
	var err error
	t.generator, err = cpuTime(ownPID)
	t.known = err == nil && len(pids) > 0
	for _, pid := range pids {
		used, err := cpuTime(pid)
		t.node += used
		t.known = t.known && err == nil
	}
	return t
}

// putCPU writes what each of n events has cost since begin, in microseconds.
func (r *round) putCPU(begin processTimes, n int64, each string) {
	end := r.times()
	if !begin.known || !end.known || n == 0 {
		return
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }
	r.numbers["node_cpu_us_per_"+each] = per(end.node - begin.node)
	r.numbers["generator_cpu_us_per_"+each] = per(end.generator - begin.generator)
}
